"""Step 4: who prefers what: answers bought from an oracle, or given by people."""
