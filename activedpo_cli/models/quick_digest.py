"""The identity of a reward model's folder in milliseconds, for checks whether its answers are up to date.

Large files are sampled: retrained or converted weights differ nearly everywhere, so their samples differ. A single
flipped bit between the samples is not seen here.
"""

import hashlib
from pathlib import Path

from activedpo_cli.models.resolve import SMALL_FILE_BYTES, digested_files

SAMPLES = 16
SAMPLE_BYTES = 64 * 1024


def quick_digest(folder: Path) -> str:
    """A digest of the model files of a folder: names, sizes, small files whole and evenly spaced parts of large ones."""
    digest = hashlib.sha256()
    for path in sorted(digested_files(folder)):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with open(path, "rb") as stream:
            if size < SMALL_FILE_BYTES:
                digest.update(stream.read())
                continue
            for sample in range(SAMPLES):
                stream.seek((size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"
