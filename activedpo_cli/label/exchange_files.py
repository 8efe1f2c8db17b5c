"""Rows to bytes and bytes to rows, as JSONL or CSV, told apart by the file's suffix; knows nothing of pairs.

CSV cells that a spreadsheet would run as a formula get an apostrophe in front, and the column `guarded` names the
columns that got one, so that reading takes off that apostrophe and no other.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.tables import with_each_name_once

FORMULA = re.compile(r"[\t\n\r\0]|[\s\0-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]")
"""How a cell begins that a spreadsheet may run: some skip what is not seen, some read full-width signs as plain ones."""
GUARDED = "guarded"
DELIMITERS = ",;\t"
LONGEST_CELL = 2**31 - 1

Row = Mapping[str, Any]


def render_rows(rows: Sequence[Row], name: str) -> bytes:
    """The rows as the file `name` should hold them; every row has the same columns."""
    return {"jsonl": render_jsonl, "csv": render_csv}[_format(name)](rows)


def parse_rows(data: bytes, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a file with the line, counted from 1, on which each begins.

    Raises:
        InvalidDataError: The file is not UTF-8, or a line is malformed; the message names the line.
        UsageError: The suffix of `name` is neither `.jsonl` nor `.csv`.

    """
    return {"jsonl": _parse_jsonl, "csv": _parse_csv}[_format(name)](_decoded(data, name), name)


def render_jsonl(rows: Sequence[Row]) -> bytes:
    """One JSON object per line, ASCII only, so that any text survives any tool."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


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


def without_surrogates(text: str) -> str:
    """`text` as UTF-8 can carry it: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _format(name: str) -> str:
    suffix = name.rpartition(".")[2].lower()
    if suffix not in ("jsonl", "csv"):
        raise UsageError(f"`{name}` ends neither in .jsonl nor in .csv", hint="the suffix decides the format")
    return suffix


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidDataError(
            f"`{name}` line {line} is not UTF-8", hint="save the file again as UTF-8 (in a spreadsheet: `CSV UTF-8`)"
        ) from error


def _parse_jsonl(text: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content, object_pairs_hook=with_each_name_once)
        except (ValueError, RecursionError) as error:
            raise InvalidDataError(f"`{name}` line {line} is not valid JSON", details=[str(error)]) from error
        if not isinstance(row, dict):
            raise InvalidDataError(f"`{name}` line {line} is not a JSON object")
        rows.append((line, row))
    return rows


def _parse_csv(text: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    previous_limit = csv.field_size_limit(LONGEST_CELL)
    lines: list[tuple[int, list[str]]] = []
    try:
        lines += _csv_lines(text)
    except csv.Error as error:
        after = f" after line {lines[-1][0]}" if lines else ""
        raise InvalidDataError(f"`{name}` is not valid CSV{after}", details=[str(error)]) from error
    finally:
        csv.field_size_limit(previous_limit)
    if not lines:
        return []
    columns = [column.strip() for column in lines[0][1]]
    repeated = [column for place, column in enumerate(columns) if column in columns[:place]]
    if repeated:
        raise InvalidDataError(f"`{name}` line 1 names the column `{repeated[0]}` twice")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(columns):
            raise InvalidDataError(
                f"`{name}` line {line} has {len(cells)} cells, and the header names {len(columns)} columns"
            )
        rows.append((line, _unguarded(dict(zip(columns, cells, strict=True)))))
    return rows


def _csv_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Cells with the line on which they begin; spreadsheets of some countries separate by semicolons."""
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=header.count), strict=True)
    line = 1
    for cells in reader:
        if any(cells):
            yield line, cells
        line = reader.line_num + 1


def _unguarded(row: dict[str, str]) -> dict[str, str]:
    guarded = row.pop(GUARDED, "").split(" ")
    return {column: cell[1:] if column in guarded and cell.startswith("'") else cell for column, cell in row.items()}
