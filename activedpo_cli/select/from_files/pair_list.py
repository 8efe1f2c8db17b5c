"""Pairs in a table of the user's: rows of two responses each, a few numbers in memory for each of them."""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.tables import Row, read_table

if TYPE_CHECKING:
    from torch import Tensor


NAMES = ("pair_id", "prompt_id", "response_a", "response_b")
LINE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")
LINES_SAID_AT_ONCE = 10_000
BYTES_COUNTED_AT_ONCE = 2**20


@dataclass(frozen=True)
class PairList:
    """Pairs in the order of their file."""

    row_a: "Tensor"
    row_b: "Tensor"
    prompt_index: "Tensor | None"
    """Equal for pairs of one prompt; None where the file has no `prompt_id`."""
    _ids: bytes
    _ends: "Tensor"

    def __len__(self) -> int:
        return len(self.row_a)

    def pair_id(self, row: int) -> Any:
        """The `pair_id` as it stands in the file: text or a number."""
        start = int(self._ends[row - 1]) if row else 0
        return json.loads(self._ids[start : int(self._ends[row])])


def read_pairs(path: Path, responses: int, progress: Progress) -> PairList:
    """The pairs of a table with `pair_id`, `response_a` and `response_b`, rows of `responses` responses.

    Raises InvalidDataError, naming the line, for what is missing, out of range or there twice.
    """
    columns = {name: array("q") for name in ("row_a", "row_b", "ends")}
    id_digests, prompt_digests = array("q"), array("q")
    ids = bytearray()
    for row in _watched(path, progress):
        identifier = _identifier(row, "pair_id")
        ids += json.dumps(identifier).encode()
        columns["ends"].append(len(ids))
        row_a, row_b = (_response(row, name, responses) for name in ("response_a", "response_b"))
        if row_a == row_b:
            raise InvalidDataError(
                f"{row.origin}: `response_a` and `response_b` are both {row_a}, and a pair has two responses"
            )
        columns["row_a"].append(row_a)
        columns["row_b"].append(row_b)
        id_digests.append(_digest(identifier))
        if row.values.get("prompt_id") is not None:
            prompt_digests.append(_digest(_identifier(row, "prompt_id")))
        elif prompt_digests:
            raise InvalidDataError(f"{row.origin} has no `prompt_id`, which earlier lines have")
        if prompt_digests and len(prompt_digests) != len(id_digests):
            raise InvalidDataError(f"{row.origin} has a `prompt_id`, which earlier lines have not")
    _refuse_repetition(path, _tensor(id_digests))
    prompts = _tensor(prompt_digests).unique(return_inverse=True)[1] if prompt_digests else None
    first, second, ends = (_tensor(values) for values in columns.values())
    return PairList(first, second, prompts, bytes(ids), ends)


def _watched(path: Path, progress: Progress) -> Iterator[Row]:
    """The rows of a table, shown as they are read where its lines can be counted first, which takes next to nothing."""
    if path.suffix.lower() not in LINE_SUFFIXES or not path.is_file():
        yield from read_table(path, NAMES)
        return
    total, said = _lines(path), 0
    with shown(progress, f"reading {path.name}", total, "lines") as advance:
        for row in read_table(path, NAMES):
            if row.line - said >= LINES_SAID_AT_ONCE:
                advance(row.line - said)
                said = row.line
            yield row
        advance(total - said)


def _lines(path: Path) -> int:
    """Lines of a file, a last one without its end included."""
    count, part = 0, b"\n"
    with open(path, "rb") as stream:
        while more := stream.read(BYTES_COUNTED_AT_ONCE):
            count, part = count + more.count(b"\n"), more
    return count + (not part.endswith(b"\n"))


def _value(row: Row, name: str) -> Any:
    if name not in row.values:
        present = ", ".join(f"`{excerpt(key)[1:-1]}`" for key in row.values) or "nothing"
        raise InvalidDataError(f"{row.origin} has no `{name}`; it has {present}")
    return row.values[name]


def _identifier(row: Row, name: str) -> str | int:
    value = _value(row, name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InvalidDataError(f"{row.origin}: `{name}` must be a name or a number, not {excerpt(value)}")
    return value


def _response(row: Row, name: str, responses: int) -> int:
    value = _value(row, name)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():  # tables without types
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidDataError(f"{row.origin}: `{name}` must be a row number of the features, not {excerpt(value)}")
    if not 0 <= value < responses:
        raise InvalidDataError(
            f"{row.origin}: `{name}` is {excerpt(value)}, and the features have the rows 0 to {responses - 1}"
        )
    return value


def _digest(identifier: str | int) -> int:
    """The same for 1 and "1", which nobody could tell apart in a table without types."""
    return int.from_bytes(blake2b(str(identifier).encode(), digest_size=8).digest(), "big", signed=True)


def _tensor(values: array) -> "Tensor":
    import torch

    return torch.frombuffer(values, dtype=torch.int64).clone() if values else torch.zeros(0, dtype=torch.int64)


def _refuse_repetition(path: Path, digests: "Tensor") -> None:
    ordered = digests.sort().values
    repeated = set(ordered[1:][ordered.diff() == 0].tolist())
    if not repeated:
        return
    origin_of: dict[str, str] = {}
    for row in _with_digests(path, repeated):
        identifier = str(_identifier(row, "pair_id"))
        if identifier in origin_of:
            raise InvalidDataError(
                f"{row.origin}: `pair_id` {json.dumps(identifier)} is there already", details=[origin_of[identifier]]
            )
        origin_of[identifier] = row.origin


def _with_digests(path: Path, digests: set[int]) -> Iterable[Row]:
    return (row for row in read_table(path, NAMES) if _digest(_identifier(row, "pair_id")) in digests)
