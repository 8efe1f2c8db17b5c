"""Lines of append-only logs: one event each as JSON, with a checksum by which a changed line is known."""

import json
import zlib
from typing import Any

from activedpo_cli.store.jsonl import encode_json

WRONG = "its checksum or sequence number is wrong"
"""What is said of a line that was changed, or stands where it does not belong."""


def sealed(event: dict[str, Any]) -> bytes:
    """An event as a line with its checksum, the CRC-32 of the line without it."""
    return encode_json({**event, "crc32": _checksum(event)}) + b"\n"


def opened(line: bytes) -> dict[str, Any]:
    """The event of a line, without its checksum; raises ValueError where that is wrong, or the line holds no event."""
    try:
        event: dict[str, Any] = json.loads(line)
        is_intact = event.pop("crc32") == _checksum(event)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not is_intact:
        raise ValueError(WRONG)
    return event


def _checksum(event: dict[str, Any]) -> int:
    return zlib.crc32(encode_json(event))
