"""Keep secrets out of what is written down."""

import re
from collections.abc import Sequence

_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{8,}|(?<=://)[^/@\s]+(?=@)|(?i:bearer\s+\S+)")


def redacted(words: Sequence[str]) -> list[str]:
    """The words of a command with tokens, keys and passwords in URLs replaced by `***`."""
    return [_SECRET.sub("***", word) for word in words]
