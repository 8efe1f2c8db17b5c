"""The run folder: the only code that opens the files of a run."""
