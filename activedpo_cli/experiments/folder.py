"""The folder of an experiment: a run for each arm and seed, and what was found."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.artifacts import files, jsonl
from activedpo_cli.artifacts.lock import waiting
from activedpo_cli.artifacts.run import Run
from activedpo_cli.errors import UsageError
from activedpo_cli.experiments.spec import ExperimentSpec, arms_of, with_variables

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
    """The files of an experiment."""

    def __init__(self, path: Path, spec: ExperimentSpec) -> None:
        self.path, self.spec = path, spec

    def jobs(self, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Job]:
        """The runs in the order of work, seed by seed, so that a stopped experiment can be compared; some or all.

        Raises UsageError for an arm or seed that the experiment does not have.
        """
        known = arms_of(self.spec)
        _check_known("arm", arms, list(known))
        _check_known("seed", seeds, self.spec.seeds)
        return [
            Job(arm, seed, {**with_variables(settings), "seed": seed}, self.path / "runs" / f"{_slug(arm)}-s{seed}")
            for seed in (seeds or self.spec.seeds)
            for arm, settings in known.items()
            if not arms or arm in arms
        ]

    def is_done(self, job: Job) -> bool:
        """Whether its last iteration was evaluated."""
        run = job.run
        return run is not None and run.stage("evaluate", self.spec.iterations).manifest is not None

    def write_spec(self) -> None:
        """Keep the specification beside what was made by it."""
        content = self.spec.model_dump(mode="json")
        path = self.path / SPEC_NAME
        with waiting(self.path / ".locks" / "spec.lock"):  # processes on one experiment often begin at the same time
            if not path.is_file() or jsonl.read_json(path) != content:
                jsonl.write_json(path, content)

    def lock_path(self, job: Job) -> Path:
        """Held by who works on a run."""
        return self.path / ".locks" / f"{job.path.name}.lock"

    def rows_path(self, job: Job) -> Path:
        """What a finished run came to."""
        return self.path / "rows" / f"{job.path.name}.jsonl"

    def log_path(self, worker: int) -> Path:
        """What a worker says."""
        return self.path / "logs" / f"worker-{worker}.log"

    def note_failure(self, job: Job, message: str | None) -> None:
        """Remember why a run failed, or with None that it did not."""
        path = self._failure_path(job)
        if message is not None:
            files.write_bytes(path, message.encode())
        else:
            path.unlink(missing_ok=True)

    def failure(self, job: Job) -> str | None:
        """Why a run failed the last time, None if it did not."""
        path = self._failure_path(job)
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def _failure_path(self, job: Job) -> Path:
        return self.path / ".failed" / f"{job.path.name}.txt"


def _check_known(kind: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    for value in asked:
        if value not in known:
            raise UsageError(
                f"the experiment has no {kind} `{value}`", details=[f"known: {', '.join(map(str, known))}"]
            )


def _slug(arm: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", arm)
