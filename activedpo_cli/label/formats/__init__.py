"""Formats in which pairs go out to people and their answers come back, one file each."""
