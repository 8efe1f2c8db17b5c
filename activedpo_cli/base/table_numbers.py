"""Numbers as files that people bring spell them: JSON's, or plain decimals."""

import math
import re
from decimal import Decimal
from typing import Any

TRUTHS = {"true": 1.0, "false": 0.0}
DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
"""What float() takes beyond this (1_000, other scripts' digits) no table means as a number."""
WITH_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


def as_number(value: Any) -> float | None:
    """A finite number, in whatever type or spelling the format of the file has for it; true is 1 and false 0."""
    if isinstance(value, str):
        text = value.strip().lower()
        value = TRUTHS.get(text, text if DECIMAL.fullmatch(text) else None)
    if not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def mend_of_number(value: Any) -> str:
    """What to write instead of a text with a decimal comma; empty for other values."""
    text = value.strip() if isinstance(value, str) else ""
    return f"; write {text.replace(',', '.')}, with a point" if WITH_COMMA.fullmatch(text) else ""
