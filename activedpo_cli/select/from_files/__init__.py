"""`select --features`: a choice among the user's own features and pairs, without a run; `command` is the entrance."""
