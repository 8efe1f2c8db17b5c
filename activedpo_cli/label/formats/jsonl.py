"""JSON Lines to fill in: one object a pair, `preference` empty.

What comes back may be any table that `base/tables.py` reads.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.label.formats._filled_tables import answers_of_table
from activedpo_cli.label.formats.base import Row

SUFFIX = ".jsonl"
UNIT = "line"
RETURN = "fill in the field `preference` with a, b, tie, both_bad or skip"
answers = answers_of_table


def render(rows: Sequence[Row], path: Path, title: str) -> dict[Path, bytes]:
    """One file, whatever its title."""
    return {path: render_jsonl(rows)}


def recognises(values: dict[str, Any]) -> bool:
    """No row is told from those of other tables."""
    return False


def render_jsonl(rows: Sequence[Row]) -> bytes:
    """One JSON object per line, ASCII only, so that any text survives any tool."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
