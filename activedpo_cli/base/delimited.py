"""CSV and TSV as spreadsheets and this program write them: one reader for all of them.

Cells are separated by comma, semicolon, tab or bar, whichever the header has most of, or by what a first line `sep=;`
names. Rows end at LF, CRLF or, as old spreadsheets have it, CR. Rows without anything in them are no rows, and cells
beyond the last named column may only be empty. Cells of our own exports lose the apostrophe that keeps a spreadsheet
from running them.
"""

import csv
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from activedpo_cli.base.column_names import UNSEEN, bare_name, plain_name, spellings
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.text_files import split_at_returns

DELIMITERS = ",;\t|"
LONGEST_CELL = 2**31 - 1
SEPARATOR_LINE = re.compile(r"""["']?sep=([^\w\s"']|\t)["']?[,;\t]*\s*""", re.IGNORECASE)
QUOTED = re.compile(r'"(?:[^"]|"")*"')
FORMULA = re.compile(r"[\t\n\r\0]|[\s\0-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]")
"""How a cell begins that a spreadsheet may run: some skip what is not seen, some read full-width signs as plain ones."""
GUARDED = "guarded"
"""The column of an export that names the columns whose cell got an apostrophe in front."""
FORMULA_OF_TEXT = re.compile(r'="[^"]*"')
"""How spreadsheets are made to keep a number as text: the cell is a formula, and not the text."""
EXPORTED = ("pair_id", "response_a_id", "response_b_id")
"""Columns by which a table is known as an export."""
COLUMNS_OF_EXPORT = (*EXPORTED, "prompt", "response_a", "response_b", "preference", "annotator", "seconds", "notes")
"""All that an export has, some of which may have been taken out of it."""


def delimited_rows(
    lines: Iterable[tuple[int, str]], name: str, path: str, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str], tuple[str, ...]]]:
    """The line on which each row begins, its cells by the names in the header, and the columns that are doubtful.

    Those may have an apostrophe in front that is no part of the text, or are a formula around it.

    Args:
        lines: Numbers from 1 and lines with their ends, as `text_lines` has them.
        name: The file's name, for messages.
        path: Its path, for commands.
        delimiter: Which separator counts where the header has as many of one as of another.

    Raises:
        InvalidDataError: A row has more or fewer cells than the header, a quotation mark opens a cell and does not close
            it, a column is named twice, or a cell stands below no name; names the line.

    """
    physical = _Physical(lines)
    delimiter, header_lines = _dialect(physical, delimiter)
    table = _Table(name, path, delimiter)
    physical.lines = chain(header_lines, physical.lines)
    for line, cells in _records(physical, table):
        if not any(cell.strip() for cell in cells):
            continue
        if not table.columns:
            table.read_header(cells, line)
        else:
            row = table.row(cells, line)
            formulas = tuple(name for name, cell in row.items() if cell[:2] == '="' and FORMULA_OF_TEXT.fullmatch(cell))
            bare, doubtful = without_guard(row) if table.may_be_guarded else (row, ())
            yield line, bare, (*doubtful, *formulas)


class _Physical:
    """Lines of a file as the CSV reader asks for them; remembers those that it took for the present row."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        self.lines: Iterator[tuple[int, str]] = split_at_returns(lines, alone=False)
        self.taken: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in self.lines:
            self.taken.append((number, line))
            yield line


def _dialect(physical: _Physical, delimiter: str) -> tuple[str, list[tuple[int, str]]]:
    """What separates cells, and the lines that were read to find out, which are to be read again."""
    for number, line in physical.lines:
        if not line.strip():
            continue
        named = SEPARATOR_LINE.fullmatch(line)
        if named and number == 1:
            return named[1], []
        bare = QUOTED.sub("", line)
        candidates = [delimiter, *DELIMITERS]
        return max(candidates, key=bare.count), [(number, line)]
    return delimiter, []


def _records(physical: _Physical, table: "_Table") -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(physical, delimiter=table.delimiter, strict=True)
    while True:
        physical.taken.clear()
        previous_limit = csv.field_size_limit(LONGEST_CELL)  # the library's own is shorter than a long response
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise table.broken(physical.taken, error) from error
        finally:
            csv.field_size_limit(previous_limit)
        if cells is None:
            return
        table.refuse_quotes_of_text(physical.taken)
        yield physical.taken[0][0], cells


class _Table:
    """The header of a table, and what its rows have to be like."""

    def __init__(self, name: str, path: str, delimiter: str) -> None:
        self.name, self.path, self.delimiter = name, path, delimiter
        self.columns: list[str] = []
        self.has_unnamed = self.may_be_guarded = False

    def read_header(self, cells: list[str], line: int) -> None:
        """Take the names in; those at the end that are empty name nothing."""
        names = [bare_name(cell) for cell in cells]
        while names and not names[-1]:
            names.pop()
        if cells[0].lstrip(UNSEEN).startswith(('{"', '[{"')):
            raise InvalidDataError(
                f"{self.name} line {line} is an object, and a header names columns", hint="name the file `.jsonl`"
            )
        repeated = [column for place, column in enumerate(names) if column and column in names[:place]]
        if repeated:
            raise InvalidDataError(f"{self.name} line {line}: the header names {repeated[0][:60]!r} twice")
        self.columns, self.has_unnamed = names, not all(names)
        known = spellings(names, (GUARDED, *EXPORTED))
        self.may_be_guarded = GUARDED in known or known.keys() >= set(EXPORTED)

    def row(self, cells: list[str], line: int) -> dict[str, str]:
        """The cells of a row by their columns."""
        if len(cells) == len(self.columns) and not self.has_unnamed:
            return dict(zip(self.columns, cells, strict=True))
        named, beyond = cells[: len(self.columns)], cells[len(self.columns) :]
        if len(named) < len(self.columns) or any(cell.strip() for cell in beyond):
            s = "" if len(cells) == 1 else "s"
            raise InvalidDataError(
                f"{self.name} line {line} has {len(cells)} cell{s}, and the header names {len(self.columns)} columns",
                hint=f"a text with {self._separator()}, a line break or a quotation mark needs quotation marks around it",
            )
        for place, (column, cell) in enumerate(zip(self.columns, named, strict=True)):
            is_index = place == 0 and cell.strip().isdigit()  # as pandas writes beside a table
            if not column and cell.strip() and not is_index:
                raise InvalidDataError(
                    f"{self.name} line {line} has text in column {place + 1}, which the header gives no name",
                    hint="name the column, or leave it out",
                )
        return {column: cell for column, cell in zip(self.columns, named, strict=True) if column}

    def broken(self, taken: list[tuple[int, str]], error: csv.Error) -> InvalidDataError:
        """Where a row begins that is none, and why it probably is none."""
        if self._are_whole_rows(taken[:1]):
            return self._quotes_of_text(taken)
        return InvalidDataError(
            f"{self.name} line {taken[0][0] if taken else 1} is no valid row: {error}",
            hint="a cell that begins with a quotation mark ends with one, and marks within it are written twice",
        )

    def refuse_quotes_of_text(self, taken: list[tuple[int, str]]) -> None:
        """Refuse lines of a TSV that a quotation mark joins to one row although each is a whole row."""
        if len(taken) > 1 and self._are_whole_rows(taken):
            raise self._quotes_of_text(taken)

    def _are_whole_rows(self, taken: list[tuple[int, str]]) -> bool:
        is_tsv = self.delimiter == "\t" and len(self.columns) > 1
        return is_tsv and bool(taken) and all(line.count("\t") == len(self.columns) - 1 for _, line in taken)

    def _quotes_of_text(self, taken: list[tuple[int, str]]) -> InvalidDataError:
        convert = 'csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter="\\t", quoting=csv.QUOTE_NONE))'
        return InvalidDataError(
            f"{self.name} line {taken[0][0]} has a cell that begins with a quotation mark and does not end with one there",
            details=[
                "where the cell has several lines, each of them could be a row too: save the table as CSV",
                "where quotation marks are part of the texts, the command makes a CSV that says so:",
            ],
            hint=f"python -c 'import csv, sys; {convert}' < {shlex.quote(self.path)} > converted.csv",
        )

    def _separator(self) -> str:
        return "a tab" if self.delimiter == "\t" else f"`{self.delimiter}`"


def without_guard(row: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The row without the apostrophes that an export put before cells, and the columns that may have one all the same.

    Those are of an export whose column that names them was taken out, or names one that was renamed. The column goes too.
    """
    known = spellings(row, (GUARDED, *EXPORTED))
    if GUARDED not in known:
        is_export = known.keys() >= set(EXPORTED)
        return dict(row), tuple(name for name, cell in row.items() if is_export and _looks_guarded(cell))
    naming, columns = known[GUARDED][0], set(map(plain_name, row))
    named = row[naming]
    guarded = set(map(plain_name, named.split())) if isinstance(named, str) else {GUARDED}
    if not guarded <= (columns | {*COLUMNS_OF_EXPORT}) - {GUARDED}:
        return dict(row), ()
    others = {name: cell for name, cell in row.items() if name != naming}
    renamed = [name for name in others if plain_name(name) not in COLUMNS_OF_EXPORT]
    doubtful = [name for name in renamed if plain_name(name) not in guarded and _looks_guarded(others[name])]
    bare = {
        name: cell[1:] if plain_name(name) in guarded and isinstance(cell, str) and cell.startswith("'") else cell
        for name, cell in others.items()
    }
    return bare, () if guarded <= columns else tuple(doubtful)


def _looks_guarded(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith("'") and bool(FORMULA.match(cell[1:]))
