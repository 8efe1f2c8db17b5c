"""What notebooks and training scripts use: thin fronts on what the steps do. `activedpo_cli` itself names it."""
