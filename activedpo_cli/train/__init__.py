"""Step 5: DPO on the labelled pairs against the initial model; and SFT before iteration 1."""
