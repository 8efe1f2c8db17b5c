"""The folder of an experiment: a run for each arm and seed, and what was found."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from activedpo_cli.base.display import redacted_text
from activedpo_cli.base.errors import BusyError, InvalidDataError, RefusedError, UsageError
from activedpo_cli.experiments.spec import ExperimentSpec, arms_of, with_variables
from activedpo_cli.store import files, jsonl
from activedpo_cli.store.lock import exclusive, waiting
from activedpo_cli.store.run import Run

RESULTS_NAME = "results.jsonl"
SPEC_NAME = "experiment.json"


@dataclass(frozen=True)
class Job:
    """One run of an experiment: an arm with a seed."""

    arm: str
    seed: int
    settings: Mapping[str, Any]
    path: Path

    @property
    def run(self) -> Run | None:
        """Its run, None while it was not made."""
        return Run(self.path) if (self.path / "run.json").is_file() else None


class ExperimentFolder:
    """The files of an experiment; its runs may be those of another experiment, in `shared`."""

    def __init__(self, path: Path, spec: ExperimentSpec, shared: Path | None = None) -> None:
        self.path, self.spec, self.shared = path, spec, shared or path

    def jobs(self, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Job]:
        """The runs in the order of work, seed by seed, so that a stopped experiment can be compared; some or all.

        An arm's name without that of a point of the grid means it at all points.

        Raises UsageError for an arm or seed that the experiment does not have, or for arms that would share a folder.
        """
        known = arms_of(self.spec)
        _check_known("arm", arms, [*known, *self.spec.arms])
        _check_known("seed", seeds, self.spec.seeds)
        _check_folders(list(known))
        return [
            Job(arm, seed, {**with_variables(settings), "seed": seed}, self.shared / "runs" / f"{_slug(arm)}-s{seed}")
            for seed in (seeds or self.spec.seeds)
            for arm, settings in known.items()
            if not arms or arm in arms or arm.partition("+")[0] in arms
        ]

    def runs_of(self, seed: int) -> list[Path]:
        """The runs of a seed that there are, of this experiment and of others that share the folder."""
        return sorted(path.parent for path in (self.shared / "runs").glob(f"*-s{seed}/run.json"))

    def is_done(self, job: Job) -> bool:
        """Whether its last iteration was evaluated; a damaged run is not, and says so when it is worked on."""
        run = job.run
        try:
            return run is not None and run.stage("evaluate", self.spec.iterations).manifest is not None
        except InvalidDataError:
            return False

    def write_spec(self) -> None:
        """Keep the specification beside what was made by it; raises RefusedError where another experiment stands."""
        content = self.spec.model_dump(mode="json")
        path = self.path / SPEC_NAME
        with waiting(self.path / ".locks" / "spec.lock"):  # processes on one experiment often begin at the same time
            standing = jsonl.read_json(path) if path.is_file() else content
            if not isinstance(standing, dict):
                raise InvalidDataError(f"`{path}` is damaged: it does not hold an experiment")
            if standing.get("title") != self.spec.title:
                raise RefusedError(
                    f"`{self.path}` holds another experiment, “{standing.get('title')}”, whose report would be lost",
                    hint=f"to use its runs: leave --output out, and add `--runs-from {self.path}`",
                )
            if not path.is_file() or _as_read_now(standing) != content:
                jsonl.write_json(path, content)

    def lock_path(self, job: Job) -> Path:
        """Held by who works on a run."""
        return self.shared / ".locks" / f"{job.path.name}.lock"

    def rows_path(self, job: Job) -> Path:
        """What a finished run came to."""
        return self.shared / "rows" / f"{job.path.name}.jsonl"

    def log_path(self, worker: int) -> Path:
        """What a worker says."""
        return self.shared / "logs" / f"worker-{worker}.log"

    def note_failure(self, job: Job, message: str | None) -> None:
        """Remember why a run failed, or with None that it did not."""
        path = self._failure_path(job)
        if message is not None:
            files.write_bytes(path, redacted_text(message).encode(errors="backslashreplace"))
        else:
            files.remove(path)

    def failure(self, job: Job) -> str | None:
        """Why a run failed the last time, without the traceback; None if it did not."""
        path = self._failure_path(job)
        return path.read_text(encoding="utf-8").partition("\nTraceback")[0].strip() if path.is_file() else None

    def is_worked_on(self, job: Job) -> bool:
        """Whether some process holds the run's lock now."""
        try:
            with exclusive(self.lock_path(job), str(job.path)):
                return False
        except BusyError:
            return True

    def _failure_path(self, job: Job) -> Path:
        return self.shared / ".failed" / f"{job.path.name}.txt"


def _as_read_now(standing: dict[str, Any]) -> dict[str, Any]:
    """A specification that an earlier version may have written, as this one would write it."""
    try:
        return ExperimentSpec.model_validate(standing).model_dump(mode="json")
    except ValidationError:
        return standing


def _check_known(kind: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    for value in asked:
        if value not in known:
            names = ", ".join(map(str, dict.fromkeys(known)))
            raise UsageError(f"the experiment has no {kind} `{value}`", details=[f"known: {names}"])


def _check_folders(arms: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for arm in arms:
        other = first.setdefault(_slug(arm), arm)
        if other != arm:
            raise UsageError(f"the arms `{other}` and `{arm}` would have the same folder", hint="rename one of them")


def _slug(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", arm)
