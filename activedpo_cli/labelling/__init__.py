"""People as oracles: answers that may stay pending, at the terminal or through files."""
