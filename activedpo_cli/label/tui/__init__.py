"""Ask a person about pairs on the full screen of a terminal; needs the extra `tui`, which is imported on use."""
