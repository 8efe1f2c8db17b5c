"""Where prompts come from: one file per source (see `base`)."""
