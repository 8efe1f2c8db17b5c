"""The policies of a run in memory: the reference, and the adapter on it."""
