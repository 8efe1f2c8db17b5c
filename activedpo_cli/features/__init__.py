"""Step 2: the projected gradient of every response's log-probability, and what else a method needs."""
