"""The command line: flags in, one call into `stages`, text out. No arithmetic, no files."""
