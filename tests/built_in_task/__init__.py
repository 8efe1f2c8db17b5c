"""How the built-in task (`activedpo_cli/tiny/assets`) was made; none of this ships."""
