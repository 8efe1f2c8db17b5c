"""The quantities that other methods score pairs by, and what a batch of pairs is like."""
