"""Language models: loading, text to tokens, adapters, global random state."""
