"""A table for a spreadsheet: one row a pair, the column `preference` empty.

Cells that a spreadsheet would run as a formula get an apostrophe in front, and the column `guarded` names the columns that
got one, so that reading takes off that apostrophe and no other. What comes back may be any table that `base/tables.py`
reads.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activedpo_cli.base.delimited import FORMULA, GUARDED
from activedpo_cli.base.display import without_surrogates
from activedpo_cli.label.formats._filled_tables import answers_of_table
from activedpo_cli.label.formats.base import Row

SUFFIX = ".csv"
UNIT = "line"
RETURN = "fill in the column `preference` with a, b, tie, both_bad or skip"
answers = answers_of_table


def render(rows: Sequence[Row], path: Path, title: str) -> dict[Path, bytes]:
    """One file, whatever its title."""
    return {path: render_csv(rows)}


def recognises(values: dict[str, Any]) -> bool:
    """No row is told from those of other tables."""
    return False


def render_csv(rows: Sequence[Row]) -> bytes:
    """Guarded CSV in UTF-8 with the byte-order mark by which spreadsheets know it; lone surrogates become U+FFFD."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    if rows:
        writer.writerow([*rows[0], GUARDED])
    for row in rows:
        cells = {column: "" if value is None else str(value) for column, value in row.items()}
        guarded = [column for column, cell in cells.items() if FORMULA.match(cell)]
        for column in guarded:
            cells[column] = "'" + cells[column]
        writer.writerow([*cells.values(), " ".join(guarded)])
    return without_surrogates(stream.getvalue()).encode("utf-8-sig")
