"""A run from outside: made, driven stage by stage or as a loop, and looked at."""
