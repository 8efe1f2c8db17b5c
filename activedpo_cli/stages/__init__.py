"""The six stages and the machinery that makes each of them idempotent and resumable."""
