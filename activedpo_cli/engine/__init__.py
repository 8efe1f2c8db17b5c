"""The machinery that makes every step idempotent and resumable, whatever the step does."""
