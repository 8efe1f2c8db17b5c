"""Where a training goes on after an interruption."""

import shutil
from pathlib import Path


def newest_whole_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that the Trainer finished writing; what it was still writing is removed.

    `trainer_state.json` is the last file that it writes.
    """
    found = sorted(work.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    for folder in found:
        if not (folder / "trainer_state.json").is_file():
            shutil.rmtree(folder)
    whole = [folder for folder in found if folder.is_dir()]
    return str(whole[-1]) if whole else None
