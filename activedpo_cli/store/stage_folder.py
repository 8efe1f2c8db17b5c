"""One stage's folder: what is there, and how its files appear.

Nothing is stored that was computed after a signal has asked for the end: code that caught the exception may have made it up.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.interruption import raise_if_requested
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.store import files, jsonl, manifest, tensors
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.reply_log import REPLIES_NAME, ReplyLog

if TYPE_CHECKING:
    from torch import Tensor

GIVEN, TAKEN_BACK = b'"event": "label"', b'"event": "retract"'
"""What a line of the log of answers holds, and no text within it, whose quotation marks are escaped."""


class StageFolder:
    """The files of one stage of one iteration; unfinished until `finish` has written the manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, None while the stage is not finished."""
        return manifest.read_manifest(self.path)

    @property
    def started(self) -> Started | None:
        """What was begun here, None where nothing was or where it is finished."""
        return None if self.manifest else manifest.read_started(self.path)

    def begin(self, started: Started) -> None:
        """Note what identifies the work, unless it was begun before; what an interrupted writer left is swept away."""
        files.make_folder(self.path)
        files.sweep_temporaries(self.path)
        if self.started is None:
            manifest.write_started(self.path, started)
        manifest.note_attempt(self.path)

    def reopen(self) -> None:
        """Take back that the stage is finished; its files stay, and are what it goes on from."""
        record = self.manifest
        assert record is not None
        manifest.write_started(self.path, Started(**record.model_dump(include=set(Started.model_fields))))
        files.remove(self.path / manifest.MANIFEST_NAME)

    def discard_if_empty(self) -> bool:
        """Take `begin` back if nothing has been made since, so that other settings can be tried; says whether it did."""
        if not self.path.is_dir():
            return False
        files.sweep_temporaries(self.path)
        if any(path.name not in manifest.RECORD_NAMES for path in self.path.iterdir()) or self.manifest:
            return False
        manifest.remove_beginning(self.path)
        files.remove_empty_folder(self.path)
        if not any(self.path.parent.iterdir()):
            files.remove_empty_folder(self.path.parent)
        return True

    def has(self, name: str) -> bool:
        """Whether a file or folder of that name is there, which means that it is whole."""
        return (self.path / name).exists()

    def names(self, pattern: str) -> list[str]:
        """The files and folders of such a name, in order; hidden ones are not looked at."""
        return sorted(path.name for path in self.path.glob(pattern) if not path.name.startswith("."))

    def so_far(self) -> str:
        """How much of begun work is there, in words."""
        checkpoints = self.names("checkpoint-*")
        log = self.path / "labels.jsonl"
        if checkpoints:
            number, what = int(checkpoints[-1].removeprefix("checkpoint-")), "step"
        elif log.exists():
            # A stage begun with --ask-again first notes for each pair that no earlier answer counts, which is no answer.
            _, given, others = read_limited(log).rpartition(b"\n")[0].partition(GIVEN)
            number, what = bool(given) + others.count(GIVEN) - others.count(TAKEN_BACK), "answer"
        elif self.has(REPLIES_NAME):
            number, what = read_limited(self.path / REPLIES_NAME).count(b'"event": "reply"'), "reply of a judge"
        else:
            number, what = sum(1 for path in self.path.glob("*-[0-9]*") if path.is_file()), "file"
        first, *rest = what.split(" ", 1)
        plural = {"reply": "replies"}.get(first, f"{first}s")
        return " ".join([str(number), plural if number != 1 else first, *rest])

    def remove(self, name: str) -> None:
        """Take away a file or folder that is needed no more; a folder is gone as a whole or not at all."""
        files.remove(self.path / name)

    def take_in(self, source: Path, name: str) -> None:
        """Make a folder that a library has filled a part of this one; it appears when it is whole."""
        files.take_in(source, self.path / name)

    def write_rows(self, name: str, rows: Iterable[Any]) -> None:
        """Write records as one JSON Lines file."""
        raise_if_requested()
        jsonl.write_rows(self.path / name, rows)

    def write_json_lines(self, name: str, values: Iterable[dict[str, Any]]) -> None:
        """Write plain dictionaries as one JSON Lines file."""
        raise_if_requested()
        files.write_bytes(self.path / name, b"".join(jsonl.encode_json(value) + b"\n" for value in values))

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON value."""
        raise_if_requested()
        jsonl.write_json(self.path / name, value)

    def write_tensors(self, name: str, values: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
        """Write tensors as one safetensors file."""
        raise_if_requested()
        tensors.write_tensors(self.path / name, values, metadata)

    def write_folder(self, name: str, save: Callable[[Path], None]) -> None:
        """Let a library fill a subfolder, which appears when it is whole."""
        raise_if_requested()
        files.write_folder_with(self.path / name, save)

    def read_rows(self, name: str, row_type: type) -> list[Any]:
        """The records of one JSON Lines file."""
        return jsonl.read_rows(self.path / name, row_type)

    def read_json(self, name: str) -> Any:
        """The value of one JSON file."""
        return jsonl.read_json(self.path / name)

    def read_object(self, name: str, *keys: str) -> dict[str, Any]:
        """The object of one JSON file; raises InvalidDataError where it is none, or lacks one of these keys."""
        value = self.read_json(name)
        lacking = [key for key in keys if not isinstance(value, dict) or key not in value]
        if not isinstance(value, dict) or lacking:
            raise InvalidDataError(
                f"`{self.path / name}` is damaged",
                details=[f"it does not say {', '.join(lacking)}"],
                hint="`activedpo verify` names what repairs it",
            )
        return value

    def read_tensors(self, name: str) -> "dict[str, Tensor]":
        """The tensors of one safetensors file."""
        return tensors.read_tensors(self.path / name)

    def read_tensor_metadata(self, name: str) -> dict[str, str]:
        """What one safetensors file says of its tensors."""
        return tensors.read_metadata(self.path / name)

    def label_log(self) -> LabelLog:
        """The append-only log of answers."""
        return LabelLog(self.path / "labels.jsonl")

    def reply_log(self) -> ReplyLog:
        """The append-only log of what a judge replied."""
        return ReplyLog(self.path / REPLIES_NAME)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for a library's temporary files; swept before the next attempt."""
        path = self.path / ".scratch.tmp"
        files.make_folder(path)
        with files.library_writes(path):
            yield path

    def finish(
        self, started: Started, *, logs: tuple[str, ...], summary: dict, execution: dict, environment: dict
    ) -> Manifest:
        """Describe every file and declare the stage finished.

        `execution` joins what `started` says of it, and gets the number of attempts; those before the last one are a part of
        its `seconds`.
        """
        raise_if_requested()
        attempts = manifest.read_attempts(self.path)
        if attempts is not None and "seconds" in execution:
            seconds = round(attempts.seconds_before + execution["seconds"], 3)
            execution = {**execution, "seconds": seconds, "attempts": attempts.number}
        files.sweep_temporaries(self.path)
        names = [path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()]
        names = [name for name in names if name not in manifest.RECORD_NAMES]
        record = Manifest(
            **started.model_dump(exclude={"execution"}),
            outputs=manifest.describe_files(self.path, [name for name in names if name not in logs]),
            logs=manifest.describe_files(self.path, [name for name in names if name in logs]),
            summary=summary,
            execution={**started.execution, **execution},
            environment=environment,
        )
        manifest.write_manifest(self.path, record)
        return record

    def missing_outputs(self) -> list[str]:
        """Outputs that the manifest lists and that are gone or of another size."""
        record = self.manifest
        assert record is not None
        listed = {**record.outputs, **record.logs}
        home = os.fspath(self.path)
        return [name for name, output in listed.items() if _size(os.path.join(home, name)) != output.bytes]


def set_aside(folder: StageFolder, stale_root: Path) -> Path | None:
    """Move a stage's folder out of the way, keeping it; returns where it went, None where nothing was worth keeping."""
    if not folder.path.exists():
        return None
    files.sweep_temporaries(folder.path)
    if not any(folder.path.iterdir()):
        files.remove_empty_folder(folder.path)
        return None
    stem = f"{folder.path.parent.name}-{folder.path.name}-{time.strftime('%Y%m%dT%H%M%S')}"
    number = 0
    while (destination := stale_root / (stem + (f"-{number}" if number else ""))).exists():
        number += 1
    files.move(folder.path, destination)
    return destination


def swap_in(redone: StageFolder, folder: StageFolder, stale_root: Path | None) -> None:
    """Put a stage that was made again in the place of the old one, which is kept in `stale_root`, or removed without one."""
    manifest.remove_beginning(redone.path)  # a process that was killed when it had just finished left these notes
    if stale_root is None:
        files.remove(folder.path)
    else:
        set_aside(folder, stale_root)
    files.move(redone.path, folder.path)


def _size(path: str) -> int | None:
    """The size of a regular file, None where there is none; looked at once, as a plain path, for runs of many files."""
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None
