"""Where responses come from: one file per backend (see `base`)."""
