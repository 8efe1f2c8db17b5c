"""Step 6: the new policy on held-out prompts, compared with the initial model."""
