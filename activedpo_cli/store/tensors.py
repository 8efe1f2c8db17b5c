"""Tensors on disk: safetensors files with a header that says what they are."""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import check_regular
from activedpo_cli.base.tensor_rows import read_header
from activedpo_cli.store.files import write_with

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    """Write tensors, moved to the CPU, in one step."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        save_file(contiguous, temporary, metadata=metadata)
        _order_metadata(temporary)

    write_with(path, save)


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """All tensors of a file; raises InvalidDataError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_regular(path)
        return load_file(path)
    except FileNotFoundError as error:
        raise InvalidDataError(f"`{path}` is missing") from error
    except SafetensorError as error:
        raise InvalidDataError(f"`{path}` is not a whole safetensors file", details=[str(error)]) from error


def _order_metadata(path: Path) -> None:
    """Sort the header's own entries: the library writes them in a random order, and equal tensors need equal bytes."""
    with open(path, "r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the order of entries does not change their length"
        stream.seek(8)
        stream.write(ordered.ljust(length))


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a file says of its tensors, read without torch."""
    return dict(read_header(path)[0].get("__metadata__", {}))


def count_tensor_rows(path: Path) -> int | None:
    """The first dimension shared by the tensors of a file, read from its header without torch; None where they differ."""
    header, _ = read_header(path)
    header.pop("__metadata__", None)
    try:
        sizes = {entry["shape"][0] if entry["shape"] else 1 for entry in header.values()}
    except (KeyError, TypeError) as error:
        raise InvalidDataError(
            f"`{path}` is not a whole safetensors file", details=["a tensor has no shape"]
        ) from error
    return sizes.pop() if len(sizes) == 1 else None
