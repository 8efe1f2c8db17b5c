"""Experiments: arms × seeds as sibling runs that share what they can, and what they say together."""
