"""The built-in task: a tiny model and a rule that scores its text, so that the whole loop runs anywhere in minutes."""
