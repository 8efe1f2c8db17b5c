"""Make any text safe to show in a terminal, and to write down: nothing in it steers the terminal, no secret stays in it.

Every output of model text, file names and messages goes through here. Markup is not this module's business: callers hand
the result to rich as `Text`, which interprets none.
"""

import os
import re
import reprlib
from collections.abc import Sequence
from typing import Any

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 controls except tab and newline, DEL, C1 controls
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # controls of writing direction and their deprecated kin
    "\u2028\u2029"  # line and paragraph separators, which would forge the start of a line
    "\ud800-\udfff]"  # lone surrogates, which no terminal's encoding can carry
)
_TOKEN = (
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{8,}|sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,})"  # no path such as `sk-learn`
    r"|(?<=://)[^/@\s]+(?=@)"
)
_SECRET = re.compile(_TOKEN + r"|(?i:bearer\s+[A-Za-z0-9._~+/=-]{8,})")
VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACEHUB_API_TOKEN",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
EXCERPTS = reprlib.Repr()
EXCERPTS.maxstring = EXCERPTS.maxother = 60
SHORTEST_VALUE = 8
"""A shorter value of such a variable would be found inside words that are no secret."""


def display_text(text: str) -> str:
    r"""`text` with everything that could steer a terminal written out, such as `\x1b` or `\u202e`.

    Tab, newline and all printable characters stay as they are, so that ordinary text is returned unchanged. The result
    can always be encoded as UTF-8.
    """
    return _UNSAFE.sub(_written_out, text)


def without_surrogates(text: str) -> str:
    """`text` as UTF-8 can carry it: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def excerpt(value: Any) -> str:
    """A short form of a foreign value, however large or deep, that is safe to print."""
    return EXCERPTS.repr(value)


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


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
