"""Keep secrets out of what is written down: tokens, keys, passwords in URLs, and the values of variables that hold one."""

import os
import re
from collections.abc import Sequence

_TOKEN = (
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{8,}|sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,})"  # no path such as `sk-learn`
    r"|(?<=://)[^/@\s]+(?=@)"
)
_SECRET = re.compile(_TOKEN + r"|(?i:bearer\s+[A-Za-z0-9._~+/=-]{8,})")
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
SHORTEST_VALUE = 8
"""What is shorter stands in too many words that are none."""


def redacted_text(text: str) -> str:
    """The text with tokens, keys and passwords in URLs replaced by `***`."""
    for name in VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_VALUE:
            text = text.replace(value, "***")
    return _SECRET.sub("***", text)


def redacted(words: Sequence[str]) -> list[str]:
    """The words of a command, each as `redacted_text`."""
    return [redacted_text(word) for word in words]


def holds_secret(text: str) -> bool:
    """Whether `redacted_text` would take something out."""
    return redacted_text(text) != text
