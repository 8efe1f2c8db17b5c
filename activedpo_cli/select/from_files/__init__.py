"""A choice among features and pairs of the user's own files, without a run."""
