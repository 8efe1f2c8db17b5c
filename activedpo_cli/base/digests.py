"""What identifies a file: the SHA-256 of its bytes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from activedpo_cli.base.regular_files import open_regular

BYTES_AT_ONCE = 2**20


def sha256_of(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The hexadecimal SHA-256 of a file's bytes; `on_bytes` is told how many more were read, for files that are large."""
    with open_regular(path) as stream:
        if on_bytes is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        while part := stream.read(BYTES_AT_ONCE):
            digest.update(part)
            on_bytes(len(part))
        return digest.hexdigest()


def digest_of_file(path: Path) -> str:
    """`sha256:…` of a file's bytes, as records name an input."""
    return f"sha256:{sha256_of(path)}"
