"""The command line: flags in, one call into the layers below, text out. No arithmetic, no files."""
