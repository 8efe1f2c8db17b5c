"""Preferences as other trainers read them, one file each."""
