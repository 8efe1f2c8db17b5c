"""Which responses may form pairs, which pairs are labelled, and what a pair's features are."""
