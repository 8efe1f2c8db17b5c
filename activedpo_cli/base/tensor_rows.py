"""Rows of a matrix in safetensors files that people bring, read as they are needed and never mapped into memory."""

import json
import math
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
NEIGHBOURS = 2
"""Rows no further apart than this are read in one go, with what lies between: at most twice what was asked for."""
LONGEST_HEADER = 100_000_000


class TensorRows:
    """The rows of one named matrix: of a file, or of the files of a folder one after the other, `2` before `10`.

    Raises InvalidDataError, naming the file, where one is missing, damaged, or holds no such matrix of floats.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.files = _files(path)
        self._parts = [_Part(file, name) for file in self.files]
        widths = {part.width for part in self._parts}
        if len(widths) > 1:
            found = [f"{part.path.name}: {part.width}" for part in self._parts]
            raise InvalidDataError(f"the files of `{path}` have rows of different lengths", details=found)
        self.shape = (sum(part.count for part in self._parts), widths.pop())
        """Rows and columns."""

    @property
    def bytes_per_number(self) -> int:
        """Bytes of one number, in the file that has the widest."""
        return max(part.item_size for part in self._parts)

    def read(self, start: int, stop: int) -> "Tensor":
        """The rows from `start` to `stop`, in the numbers of the file."""
        import torch

        found, first = [], 0
        for part in self._parts:
            low, high = max(start - first, 0), min(stop - first, part.count)
            if low < high:
                found.append(part.read(low, high))
            first += part.count
        return _joined(found) if found else torch.empty(0, self.shape[1])

    def take(self, rows: "Tensor") -> "Tensor":
        """Some rows; `rows` rises and repeats none."""
        import torch

        found, first = [], 0
        for part in self._parts:
            low, high = torch.searchsorted(rows, torch.tensor([first, first + part.count])).tolist()
            if low < high:
                found.append(part.take(rows[low:high] - first))
            first += part.count
        return _joined(found) if found else torch.empty(0, self.shape[1])


class _Part:
    """One file."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        entry, begin, size = _entry(path, name)
        shape, dtype = entry["shape"], entry["dtype"]
        if len(shape) != 2:
            raise InvalidDataError(f"`{name}` of {path} has the shape {shape}, and needs rows and columns")
        if dtype not in DTYPES:
            raise InvalidDataError(
                f"`{name}` of {path} holds numbers of kind {dtype}", details=[f"known: {', '.join(DTYPES)}"]
            )
        self.count, self.width = shape
        self.item_size = {"F64": 8, "F32": 4}.get(dtype, 2)
        self._dtype = DTYPES[dtype]
        self._begin = begin
        if size != self.count * self.width * self.item_size:
            raise InvalidDataError(f"{path} is not a whole safetensors file: `{name}` has another size than its shape")

    def read(self, start: int, stop: int) -> "Tensor":
        """Consecutive rows."""
        return self._gather([(start, stop)])

    def take(self, rows: "Tensor") -> "Tensor":
        """Some rows, neighbours at once."""
        import torch

        later = (rows.diff() > NEIGHBOURS).nonzero().flatten() + 1
        bounds = torch.cat([later.new_zeros(1), later, later.new_tensor([len(rows)])])
        starts, stops = rows[bounds[:-1]], rows[bounds[1:] - 1] + 1
        block = self._gather(list(zip(starts.tolist(), stops.tolist(), strict=True)))
        if len(block) == len(rows):
            return block
        lengths = stops - starts
        shifts = starts - (lengths.cumsum(0) - lengths)
        return block[rows - shifts.repeat_interleave(bounds.diff())]

    def _gather(self, runs: Sequence[tuple[int, int]]) -> "Tensor":
        import torch

        dtype: torch.dtype = getattr(torch, self._dtype)
        block = torch.empty(sum(stop - start for start, stop in runs), self.width, dtype=dtype)
        view = memoryview(block.view(torch.uint8).numpy().data).cast("B") if block.numel() else memoryview(b"")
        row_bytes, place = self.width * self.item_size, 0
        with open(self.path, "rb", buffering=0) as stream:
            for start, stop in runs:
                end = place + (stop - start) * row_bytes
                offset = self._begin + start * row_bytes
                while place < end:
                    read = os.preadv(stream.fileno(), [view[place:end]], offset)
                    if not read:
                        raise InvalidDataError(f"{self.path} became shorter while it was read")
                    place, offset = place + read, offset + read
        return block


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"), key=_natural)
        if not files:
            raise InvalidDataError(f"the folder {path} has no safetensors files")
        return files
    if not path.exists():
        raise InvalidDataError(f"there is no file {path}")
    return [path]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in names count as numbers: `part-2` comes before `part-10`."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _entry(path: Path, name: str) -> tuple[dict[str, Any], int, int]:
    """What the header says of a tensor, where its bytes begin in the file, and how many there are."""
    header, data_begins = read_header(path)
    entry = header.get(name)
    if entry is None:
        present = ", ".join(sorted(key for key in header if key != "__metadata__")) or "none"
        raise InvalidDataError(f"{path} has no tensor `{name}`", details=[f"tensors there are: {present}"])
    try:
        begin, end = entry["data_offsets"]
        sizes = [*entry["shape"], begin, end]
        sound = isinstance(entry["dtype"], str) and all(isinstance(size, int) and size >= 0 for size in sizes)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise InvalidDataError(f"{path} is not a whole safetensors file: its header says nothing useful of `{name}`")
    missing = data_begins + end - path.stat().st_size
    if missing > 0:
        raise InvalidDataError(f"{path} is not a whole safetensors file: {missing} bytes of `{name}` are missing")
    return entry, data_begins + begin, end - begin


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file says of its tensors, and where their bytes begin; InvalidDataError where it says nothing."""
    with open_regular(path) as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else math.inf
        is_there = length <= min(LONGEST_HEADER, path.stat().st_size)
        text = stream.read(int(length)) if is_there else b""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidDataError(f"{path} is not a whole safetensors file: its header cannot be read") from error
    if len(text) != length or not isinstance(header, dict):
        raise InvalidDataError(f"{path} is not a whole safetensors file: its header cannot be read")
    return header, 8 + len(text)


def _joined(parts: "list[Tensor]") -> "Tensor":
    import torch

    if len({part.dtype for part in parts}) > 1:
        parts = [part.double() for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
