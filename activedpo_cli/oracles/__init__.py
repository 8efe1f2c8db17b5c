"""Who says which response is better: one file per oracle (see `base`)."""
