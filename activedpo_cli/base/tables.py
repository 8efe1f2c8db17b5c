"""Rows of the files that people bring: JSON lines, JSON, CSV, TSV, parquet and plain text.

Every row of a file is read or the file is refused with the line that is wrong; nothing is repaired or left out. A lone
surrogate, which JSON can spell but no UTF-8 file can hold, becomes U+FFFD, so that what is read can be stored again.
"""

import difflib
import gzip
import json
import re
import shlex
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activedpo_cli.base.column_names import plain_name, spellings, with_known_names
from activedpo_cli.base.columns import KNOWN
from activedpo_cli.base.delimited import GUARDED, delimited_rows, without_guard
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.json_text import DECODER, json_of_line, json_values
from activedpo_cli.base.regular_files import check_regular
from activedpo_cli.base.text_files import Source, source_of_bytes, source_of_file, split_at_returns, text_lines

LINES_NAMED = 5
SPREADSHEET = "save the table as `CSV UTF-8`"
PACKED = "unpack it first; of packed files, .gz is read"
OTHER_SUFFIXES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), SPREADSHEET),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz"), PACKED),
}
"""What files become that are no table of a known kind."""
FROM_ARROW = 'from datasets import Dataset; Dataset.from_file({path}).to_json("converted.jsonl")'
FROM_FOLDER = 'from datasets import load_from_disk; load_from_disk({path}){part}.to_json("converted.jsonl")'
FROM_COLUMNS = (
    "import pandas; pandas.read_json({path}, dtype=False, convert_dates=False)"
    '.to_json("converted.jsonl", orient="records", lines=True)'
)
FROM_KEYS = (
    'import json; out = open("converted.jsonl", "w"); '
    "[print(json.dumps(row), file=out) for row in json.load(open({path})){part}]"
)
LONGEST_WAY = 200
"""Characters of the names by which rows within objects are reached: more are no table."""
COLUMNS_OF_ROWS = frozenset(
    {
        "prompt",
        "chosen",
        "messages",
        "text",
        "response",
        "instruction",
        "question",
        "history",
        "conversations",
        "pair_id",
    }
)
"""Columns by which an object is known to be a row of a table."""


@dataclass(frozen=True)
class Row:
    """One record of a table.

    `line` counts from 1: the line on which the record begins, or its position where the format has no lines (JSON
    lists, parquet). `origin` says so in words, such as `prompts.jsonl line 12`. CSV and TSV values are all text.
    `path` is the file's path. `doubtful` names columns of an export in CSV whose text begins with an apostrophe that may
    be no part of it, and columns of a table whose cell is a formula.
    """

    line: int
    values: dict[str, Any]
    origin: str
    path: str = "FILE"
    doubtful: tuple[str, ...] = ()


def read_table(path: Path, names: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file, in order; the format is told by the suffix (`TABLE_SUFFIXES`).

    A column whose name is one of `names` but for letter case, spaces, hyphens and underscores goes by that name.

    Raises:
        InvalidDataError: the file is missing, empty, damaged or of an unknown kind, or two of its columns mean one name and
            differ; names the file and the line.

    """
    reader = READERS.get(_format_suffix(path.name))
    check_file(path)
    if reader is None:
        raise _unknown_kind(path)
    return _with_read_errors(str(path), lambda: reader(source_of_file(path)), names)


def parse_table(data: bytes, name: str, names: Collection[str] = ()) -> Iterator[Row]:
    """The same of the bytes of the file `name`, which may hold no rows."""
    reader = READERS.get(_format_suffix(name))
    if reader is None:
        raise _unknown_kind(Path(name))
    return _with_read_errors(name, lambda: reader(source_of_bytes(data, name)), names, may_be_empty=True)


def is_table_path(name: str) -> bool:
    """Whether a name ends in one of the suffixes that `read_table` knows."""
    return _format_suffix(name) in READERS


def _unknown_kind(path: Path) -> InvalidDataError:
    mend = OTHER_SUFFIXES.get(path.suffix.lower())
    return InvalidDataError(
        f"{path} has no suffix that says how to read it",
        details=[f"known: {', '.join(TABLE_SUFFIXES)}"],
        hint=_python(FROM_ARROW, path) if path.suffix.lower() == ".arrow" else mend,
    )


def refuse_doubtful(row: Row, *columns: str) -> None:
    """Raise InvalidDataError where cells of a table may not be what they say.

    That is so where an export lacks the column that says which apostrophes are not part of its texts, and of formulas.
    """
    doubtful = set(map(plain_name, row.doubtful))
    for column in columns:
        if plain_name(column) not in doubtful:
            continue
        if str(row.values.get(column)).startswith("="):
            raise InvalidDataError(
                f"{row.origin}, {column}: {excerpt(row.values[column])} is a formula by which a spreadsheet keeps a text",
                hint="save the table with values in place of formulas; or, where the text reads so, give it as JSONL",
            )
        raise InvalidDataError(
            f"{row.origin}, {column}: the text begins with an apostrophe, as an export guards what looks like a formula",
            details=[f"the column `{GUARDED}`, which says where it did, was taken out, or names a column that was"],
            hint="export the pairs again; or, where the apostrophe is the text's own, leave out the column `pair_id`",
        )


def named_lines(lines: Sequence[int]) -> str:
    """`line 3`, or `lines 3, 4, 5, 6, 7, …`."""
    s = "" if len(lines) == 1 else "s"
    return f"line{s} {', '.join(map(str, lines[:LINES_NAMED]))}" + (", …" if len(lines) > LINES_NAMED else "")


def check_file(path: Path) -> None:
    """Raise InvalidDataError, with the name that was probably meant, when there is no file at the path.

    What is read more than once, to hash it too, must be a regular file: a pipe gives its bytes once, or waits for ever.
    """
    if path.is_dir():
        raise InvalidDataError(f"{path} is a folder, not a file", hint=_saved_dataset(path))
    check_regular(path, hint="it is read more than once: write it to a file first")
    if path.is_file():
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    suggestion = f" — did you mean `{path.parent / close[0]}`?" if close else ""
    details = [] if path.parent.is_dir() else [f"there is no folder {path.parent} either"]
    raise InvalidDataError(f"there is no file {path}{suggestion}", details=details)


def _saved_dataset(folder: Path) -> str | None:
    """How a data set that the library `datasets` saved to a folder becomes a file."""
    is_several = (folder / "dataset_dict.json").is_file()
    if not is_several and not (folder / "dataset_info.json").is_file():
        return None
    return _python(FROM_FOLDER, folder, part='["train"]' if is_several else "")


def _python(code: str, path: Path | str, **parts: str) -> str:
    """A command that runs the code on the file at the path; the code has no single quotes, so that a shell reads it."""
    return f"python -c {shlex.quote(code.format(path=json.dumps(str(path)), **parts))}"


def _format_suffix(name: str) -> str:
    stem, zipped = name.lower().removesuffix(".gz"), name.lower().endswith(".gz")
    suffix = Path(stem).suffix
    return "" if zipped and suffix == ".parquet" else suffix


def _with_read_errors(
    shown: str, rows: Callable[[], Iterator[Row]], names: Collection[str], *, may_be_empty: bool = False
) -> Iterator[Row]:
    count = 0
    try:
        for row in rows():
            count += 1
            if GUARDED in row.values:  # a table that was written again as JSON or parquet
                values, doubtful = without_guard(row.values)
                row = replace(row, values=values, doubtful=(*row.doubtful, *doubtful))
            found = {name: meant for name, meant in spellings(row.values, names).items() if meant != [name]}
            yield replace(row, values=with_known_names(row.values, found, row.origin)) if found else row
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidDataError(f"{shown} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise InvalidDataError(f"{shown} cannot be read: {error.strerror or error}") from error
    if count == 0 and not may_be_empty:
        raise InvalidDataError(f"{shown} holds no rows")


def _read_jsonl(source: Source) -> Iterator[Row]:
    """One object a line; a file that begins with a list, or with an object over several lines, is read as JSON."""
    lines = split_at_returns(text_lines(source), alone=True)
    for number, line in lines:
        if not line.strip(" \t\r\n"):
            continue
        if "{" not in line and "[" not in line:
            _refuse_header(line, f"{source.name} line {number}", "each line of JSON lines is an object")
        if line.lstrip(" \t").startswith("[") or line.rstrip().endswith(("{", "[", ",", ":")):
            yield from _rows_of_json(source, [line, *(further for _, further in lines)], number)
            return
        yield _row_of_line(source, number, line)
        break
    for number, line in lines:
        if line.strip(" \t\r\n"):
            yield _row_of_line(source, number, line)


def _row_of_line(source: Source, number: int, line: str) -> Row:
    origin = f"{source.name} line {number}"
    return Row(number, _as_object(json_of_line(line.rstrip("\r\n"), origin), origin), origin, source.path)


def _read_json(source: Source) -> Iterator[Row]:
    return _rows_of_json(source, (line for _, line in text_lines(source)), 1)


def _rows_of_json(source: Source, lines: Iterable[str], first_line: int) -> Iterator[Row]:
    """Rows of a list of objects, of `{"data": [...]}`, of a single object, or of objects one after the other."""
    text = "".join(lines)
    values = list(json_values(text, source.name, first_line))
    if len(values) > 1 or (values and _is_row(values[0][1])):
        for line, value in values:
            origin = f"{source.name} line {line}"
            yield Row(line, _as_object(value, origin), origin, source.path)
        return
    for number, item in enumerate(_items(values[0][1], source) if values else [], start=1):
        origin = f"{source.name} item {number}"
        yield Row(number, _as_object(item, origin), origin, source.path)


def _is_row(value: Any) -> bool:
    """Whether an object is a row, and not a table: a table's columns are all lists or all objects."""
    if not isinstance(value, dict) or isinstance(value.get("data"), list):
        return False
    return any(
        plain_name(name) in COLUMNS_OF_ROWS and not isinstance(part, dict) for name, part in value.items()
    ) and any(
        isinstance(part, str) or (isinstance(part, list) and all(isinstance(item, dict) for item in part))
        for part in value.values()
    )


def _items(value: Any, source: Source) -> list[Any]:
    items = value.get("data") if isinstance(value, dict) else value
    if isinstance(items, list):
        return items
    keyed = _way_to_rows(value)
    is_columns = keyed is None and isinstance(value, dict) and bool(COLUMNS_OF_ROWS & set(map(plain_name, value)))
    raise InvalidDataError(
        f'{source.name} must hold a list of objects, or {{"data": [...]}}, not {excerpt(value)}',
        hint=_python(FROM_KEYS, source.path, part=keyed)
        if keyed
        else _python(FROM_COLUMNS, source.path)
        if is_columns
        else None,
    )


def _way_to_rows(value: Any) -> str | None:
    """By which expression the rows of an object are reached that has them by key, or as a list under another name."""
    expression = ""
    while isinstance(value, dict) and not any(_is_row(part) for part in value.values()):
        if len(value) != 1 or len(expression) > LONGEST_WAY:
            return None
        [(name, value)] = value.items()
        expression += f"[{json.dumps(name)}]"
    if isinstance(value, dict) and all(isinstance(part, dict) for part in value.values()):
        return f"{expression}.values()"
    return expression if isinstance(value, list) and value and all(isinstance(part, dict) for part in value) else None


def _as_object(value: Any, origin: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidDataError(f"{origin} is no object with named fields: {excerpt(value)}")
    return value


def _read_csv(source: Source) -> Iterator[Row]:
    return _read_delimited(source, ",")


def _read_tsv(source: Source) -> Iterator[Row]:
    return _read_delimited(source, "\t")


def _read_delimited(source: Source, delimiter: str) -> Iterator[Row]:
    for line, values, doubtful in delimited_rows(text_lines(source), source.name, source.path, delimiter):
        yield Row(line, values, f"{source.name} line {line}", source.path, doubtful)


def _read_text(source: Source) -> Iterator[Row]:
    """A prompt a line, ended by CR where the file has no other ends."""
    is_first = True
    for number, line in split_at_returns(text_lines(source), alone=True):
        if line.strip():
            if is_first:
                _refuse_table(line, f"{source.name} line {number}")
            is_first = False
            prompt = line.removesuffix("\n").removesuffix("\r")
            yield Row(number, {"prompt": prompt}, f"{source.name} line {number}", source.path)


def _refuse_table(line: str, origin: str) -> None:
    """Refuse a first line that names columns or is an object: a table, as spreadsheets save their `Unicode text`."""
    _refuse_header(line, origin, "each line of a .txt is a text")
    try:
        value = DECODER.decode(line)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict) and COLUMNS_OF_ROWS & set(map(plain_name, value)):
        raise InvalidDataError(
            f"{origin} is an object, and each line of a .txt is a text", hint="name the file `.jsonl`"
        )


def _refuse_header(line: str, origin: str, expected: str) -> None:
    cells = [plain_name(cell.strip().strip('"')) for cell in re.split(r"[,;\t|]", line)]
    if len(cells) > 1 and sum(cell in COLUMNS_OF_ROWS | set(KNOWN) for cell in cells) > 1:
        suffix = ".tsv" if "\t" in line else ".csv"
        raise InvalidDataError(f"{origin} names columns, and {expected}", hint=f"name the file `{suffix}`")


def _read_parquet(source: Source) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidDataError(f"{source.path} needs pyarrow to be read", hint="pip install pyarrow") from error
    number = 0
    try:
        with source.open() as stream, parquet.ParquetFile(stream) as file:
            _refuse_repeated(file.schema_arrow.names, source.name)
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values, f"{source.name} row {number}", source.path)
    except InvalidDataError:
        raise
    except (pyarrow.ArrowException, ValueError, ArithmeticError, LookupError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InvalidDataError(f"{source.name} is no valid parquet file after row {number}: {first_line}") from error


def _refuse_repeated(names: list[str], name: str) -> None:
    repeated = {column for column in names if names.count(column) > 1}
    if repeated:
        raise InvalidDataError(f"{name}: the header names {excerpt(sorted(repeated)[0])} twice")


READERS: dict[str, Callable[[Source], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
TABLE_SUFFIXES = (*READERS, *(f"{suffix}.gz" for suffix in READERS if suffix != ".parquet"))
"""Every suffix that `read_table` understands."""
