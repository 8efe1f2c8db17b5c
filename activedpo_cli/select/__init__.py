"""Step 3: which pairs are worth a label."""
