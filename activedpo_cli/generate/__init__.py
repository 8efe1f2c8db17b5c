"""Step 1: responses of the current policy to the prompts of an iteration, or those of a pool."""
