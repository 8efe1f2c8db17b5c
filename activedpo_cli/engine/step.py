"""`Stage`: what a step is, by the settings and inputs that its result depends on and the work that makes it.

A step is a function of its inputs (what earlier steps made, by digest) and of the settings that it declares. `runner`
brings one to its finished state; the modules called `step` say only what is particular to theirs.
"""

import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from activedpo_cli.base.config import flat, with_changes
from activedpo_cli.base.errors import NotReadyError
from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.looking_once import once
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config
from activedpo_cli.base.typed_words import ASSIGNING, repeated
from activedpo_cli.engine.declared import every_setting_of, of_record, of_work_to_come
from activedpo_cli.engine.units import Work
from activedpo_cli.store.lock import HeldLock
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

if TYPE_CHECKING:
    from activedpo_cli.models.kept_base import KeptBase

PACKAGES = ("activedpo-cli", "torch", "transformers", "peft", "trl", "safetensors", "numpy")
STAGE_INPUT = re.compile(r"iter-(?P<iteration>\d+)/(?P<stage>\w+)")


@dataclass(frozen=True)
class Execution:
    """How to work, without effect on the result.

    Args:
        device: Where to compute.
        options: What the command was told beside settings.
        kept: Base weights, held for the stages that follow.
        typed: The words behind the stage's name, where it was called by that; hints repeat them.
        shard: Which of several processes at the same work this one is; None where it is alone.

    """

    device: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    kept: "KeptBase | None" = None
    typed: Sequence[str] = ()
    shard: Shard | None = None

    @property
    def patience(self) -> float | None:
        """How many seconds another process at the same work is waited for: none, or as many as it takes one of several."""
        return None if self.shard else 0.0


@dataclass(frozen=True)
class Context:
    """All that a step needs to work.

    `settings` holds those that it declared and nothing else; `lock` is the step's own, which a step that shares
    its work lends to others.
    """

    run: Run
    iteration: int
    settings: Config
    folder: StageFolder
    execution: Execution
    progress: Progress
    lock: HeldLock

    def command(self, stage: str, *more: str) -> str:
        """The command that goes on with this work, with these words at its end."""
        is_redo = self.folder.path != self.run.stage(stage, self.iteration).path
        return again(self.run, stage, self.iteration, self.execution, *(("--force",) if is_redo else ()), *more)

    def anew(self, stage: str, *more: str) -> str:
        """The command that begins this work anew."""
        return again(self.run, stage, self.iteration, self.execution, "--force", *more)


def again(run: Run, stage: str, iteration: int, execution: Execution, *more: str) -> str:
    """The command that does a stage, as it can be pasted: all that was typed, and these words at its end.

    Where nothing was typed, because the stage is part of a loop, the device alone is repeated.
    """
    has_device = not execution.device.startswith("auto") and not execution.typed
    typed = ("--device", execution.device) if has_device else execution.typed
    kept = repeated(
        typed, [name for name, value in pairwise([*more, "--"]) if not value.startswith("--") and name != ASSIGNING]
    )
    return " ".join(
        [run.next_command(stage, iteration), *(word if word == "…" else shlex.quote(word) for word in [*kept, *more])]
    )


class Reopening(Protocol):
    """How a stage whose answers cost something is opened again, to make its other files from the answers that it keeps."""

    def has_damaged_record(self, folder: StageFolder) -> bool:
        """Whether there are answers, and the record of how they were asked for can't be read."""
        ...

    def restore_answers(self, run: Run, folder: StageFolder, progress: Progress) -> None:
        """Put answers back that the log lost and that the closed stage still lists."""
        ...

    def adopt_answers(
        self,
        run: Run,
        stage: "Stage",
        iteration: int,
        given: Mapping[str, Any],
        execution: Execution,
        progress: Progress,
    ) -> None:
        """Take answers over whose record is gone or damaged."""
        ...


def always(config: Config) -> bool:
    """Of any settings."""
    return True


def never(config: Config) -> bool:
    """Of none."""
    return False


@dataclass(frozen=True)
class Stage:
    """A step of an iteration, with a command of its own.

    Args:
        settings: The settings that its result depends on, with dotted keys, those filled in that are null in `config.yaml`.
        inputs: Digests of the outputs it reads, by name; raises NotReadyError where one is missing.
        open: Takes the work up in this process. The work fills the folder, unit by unit where it has units.
        headline: The summary in a few words.
        check: Looks before any work for what would make it fail, and raises the error.
        sections: Sections of which it declares every setting, also those that an older record lacks.
        also: Settings that it reads and its result does not depend on: they are those of `config.yaml`, whenever it works.
        later: Settings outside of its sections that records of earlier versions lack; they had their default.
        logs: Files that do not identify the result, because they hold times.
        files: Settings that name a file, and the name of its content among the inputs: the same content under another
            path is the same.
        readings: Inputs that name the rules by which a file is read, and the name of that file's content: work that is
            recorded with the same file goes by the rules of its record, or by those of before they were named.
        goes_on_as_read: Whether that holds for begun work too, which then goes on by those rules; else for finished work.
        standing: Earlier versions whose results differ from this one's by rounding alone: what they finished counts as up to
            date, and what they began goes on by the version that its record names.
        work_options: Options that ask for work, and so make no sense once the stage is finished.
        is_done: Whether a finished stage holds what such options ask for, so that they ask for nothing; raises RefusedError
            where it holds something else.
        check_free: For a stage whose work is shared with others who do not hold its lock: raises BusyError while they are
            at work, so that what was begun is not set aside.
        is_shared: Whether several processes may do its units together, by the settings that it sees.
        is_done_here: Whether it is done where it was asked for, and never by a worker elsewhere, by the same settings: it
            needs no model, or people answer at this terminal, or what it asks needs a key of this environment.
        reopening: How `--rebuild` opens it again; None where the stage has nothing to keep and is simply made again.

    """

    name: str
    version: int
    settings: Callable[[Config], dict[str, Any]]
    inputs: Callable[[Run, int, Config], dict[str, str]]
    open: Callable[[Context], Work]
    headline: Callable[[Mapping[str, Any]], str]
    check: Callable[[Context], None] = lambda context: None
    sections: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[str, str] = field(default_factory=dict)
    goes_on_as_read: bool = False
    standing: tuple[int, ...] = ()
    work_options: tuple[str, ...] = ()
    is_done: Callable[[Run, int, Config, Execution, Progress], bool] | None = None
    check_free: Callable[[Run, int], None] | None = None
    is_shared: Callable[[Config], bool] = never
    is_done_here: Callable[[Config], bool] = never
    reopening: Reopening | None = None

    def seen(self, run: Run, record: Started | None, given: Mapping[str, Any]) -> Config:
        """The settings that the stage sees, and no others.

        Those of begun or finished work are its record's, whatever `config.yaml` says today; those of work to come are
        those of `config.yaml` with the given flags.
        """
        if record is not None and not given:  # many iterations have the same settings
            key = ("settings", run.path, self.name, repr(record.settings))
            return once(key, lambda: self._recorded(run.config, record))
        today = with_changes(run.config, given) if given else run.config
        if record is None:
            return of_work_to_come(today, self.settings(today), [*self.also, *every_setting_of(self.sections)])
        return self._recorded(today, record)

    def _recorded(self, today: Config, record: Started) -> Config:
        free = {key: value for key, value in flat(today, *_sections_of(self.also)).items() if key in self.also}
        return of_record({**record.settings, **free}, [*every_setting_of(self.sections), *self.later])

    def inputs_beside(self, run: Run, iteration: int, record: Started) -> dict[str, str]:
        """The inputs of today with which those of a record are compared: the same files go by its rules of reading."""
        found = self.inputs(run, iteration, self.seen(run, record, {}))
        for rules, file in self.readings.items() if self.goes_on_as_read or isinstance(record, Manifest) else ():
            if rules in found and file in record.inputs and found[file] == record.inputs[file]:
                del found[rules]
                found |= {key: value for key, value in record.inputs.items() if key == rules}
        return found


def _sections_of(keys: Sequence[str]) -> set[str]:
    return {key.partition(".")[0] for key in keys}


@dataclass(frozen=True)
class StageResult:
    """A finished stage, and whether it had been finished before."""

    stage: Stage
    iteration: int
    folder: Path
    manifest: Manifest
    was_done: bool


def require(run: Run, stage: str, iteration: int) -> str:
    """The digest of what an earlier stage made.

    Raises NotReadyError with the command to run when it is not finished, or when it, or anything it was made from, is
    stale: response ids repeat, so new responses would silently take the place of those that were labelled.
    """
    name = f"iter-{iteration:03d}/{stage}"
    if name not in run.digests:
        folder = run.stage(stage, iteration)
        manifest = folder.manifest
        if manifest is None:
            state = "not finished" if folder.started else "missing"
            raise NotReadyError(
                f"`{stage}` of iteration {iteration} is {state}", hint=run.next_command(stage, iteration)
            )
        _require_own(run, stage, iteration, manifest)
        _require_fresh(run, manifest)
        run.digests[name] = manifest.digest
    return run.digests[name]


def require_each(run: Run, stage: str, iterations: Iterable[int]) -> dict[str, str]:
    """The digests of what a stage made in several iterations, by the names of inputs; raises as `require` does."""
    known = run.digests
    names = {f"iter-{iteration:03d}/{stage}": iteration for iteration in iterations}
    return {name: known.get(name) or require(run, stage, iteration) for name, iteration in names.items()}


def _require_own(run: Run, stage: str, iteration: int, manifest: Manifest) -> None:
    """Refuse a folder that was copied here from another place or another run."""
    reasons = foreign_reasons(run, stage, iteration, manifest)
    if reasons:
        raise NotReadyError(
            f"`{run.stage(stage, iteration).path}` does not belong there",
            details=reasons,
            hint=f"{run.next_command(stage, iteration)} --force",
        )


def foreign_reasons(run: Run, stage: str, iteration: int, record: Started) -> list[str]:
    """Why a stage's record is not of this place in this run, empty where it is."""
    if (record.stage, record.iteration) != (stage, iteration):
        return [f"it holds `{record.stage}` of iteration {record.iteration}"]
    pool = run.pool.manifest if "pool" in record.inputs else None
    own = {"prompts": run.facts["prompts_digest"], "reference": run.base["digest"], "pool": pool and pool.digest}
    words = {"prompts": "other prompts", "reference": "another reference model", "pool": "another pool of responses"}
    return [
        f"it was made with {words[name]}"
        for name, digest in own.items()
        if digest is not None and record.inputs.get(name, digest) != digest
    ]


def _require_fresh(run: Run, manifest: Manifest) -> None:
    """Follow the recorded inputs back; stages that were deleted to save space are passed over."""
    known = run.digests
    for name, recorded in [item for item in manifest.inputs.items() if known.get(item[0]) != item[1]]:
        place = place_of(name)
        if place is None:
            continue
        if name not in known and run.stage(*place).manifest is None:
            continue
        if require(run, *place) != recorded:
            command = run.next_command(manifest.stage, manifest.iteration)
            raise NotReadyError(
                f"`{manifest.stage}` of iteration {manifest.iteration} is stale: `{name}` has been made again since",
                hint=f"{command} --force",
            )


@lru_cache(maxsize=4096)
def place_of(name: str) -> tuple[str, int] | None:
    """The stage and iteration that an input is of, None for one that is of no stage."""
    match = STAGE_INPUT.fullmatch(name)
    return (match["stage"], int(match["iteration"])) if match else None


def environment() -> dict[str, str]:
    """Versions of what the result was made with; recorded, never compared."""
    versions = {"python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    return versions | {package: _version(package) for package in PACKAGES}


@cache
def _version(package: str) -> str:
    """Of an installed package, which is looked for in all folders of the path, and stays while a process runs."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
