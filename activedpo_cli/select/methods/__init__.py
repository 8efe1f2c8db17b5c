"""Acquisition methods: one file each, tensor mathematics only (see `base`)."""
