"""Statistics that the evaluation, the reports and the experiments share; pure functions."""
