"""`activedpo ls runs`: the runs of a folder, each told from its small records; a damaged one says why it can't be told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from activedpo_cli.base.errors import ActiveDPOError, NotReadyError
from activedpo_cli.run.loop import iterations_asked_for
from activedpo_cli.store.manifest import MANIFEST_NAME, STARTED_NAME
from activedpo_cli.store.run import STAGES, Run

DEFAULT_FOLDER = Path("runs")
EXPERIMENT_NAME = "experiment.json"
"""What a folder holds that is an experiment's, whose runs are in `runs/` below it."""
DAMAGES = (ActiveDPOError, OSError, KeyError, TypeError, ValueError, AttributeError)
"""What reading a record of any content may raise."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run of a list.

    Attributes:
        name: The name of its folder.
        path: Its folder.
        experiment: The name of the experiment that it is of, None where it is of none.
        model: The model that it was made with.
        iterations_done: Iterations of which every stage is finished.
        iterations_planned: Those that `run --iterations` asked for the last time, None where it did not.
        next: The first stage that is not finished, such as `label iter-002`; None where all that was planned is done.
        is_begun: Whether that stage was begun.
        labels_spent: Labels bought in all iterations.
        changed: When a stage was begun or finished the last time (UTC, ISO 8601).
        problem: Why the rest can't be told, None where it can.

    """

    name: str
    path: str
    experiment: str | None
    model: str | None = None
    iterations_done: int | None = None
    iterations_planned: int | None = None
    next: str | None = None
    is_begun: bool = False
    labels_spent: int | None = None
    changed: str | None = None
    problem: str | None = None


def listed_runs(folder: Path) -> list[ListedRun]:
    """The runs in a folder, and behind them those of the experiments in it, by name; raises NotReadyError without one."""
    if not folder.is_dir():
        raise NotReadyError(f"there is no folder `{folder}`", hint="activedpo ls runs FOLDER")
    found = [_listed(path, None) for path in _folders(folder) if _is_run(path)]
    for experiment in _folders(folder):
        if (experiment / EXPERIMENT_NAME).is_file():
            found += [_listed(path, experiment.name) for path in _folders(experiment / "runs") if _is_run(path)]
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _is_run(path: Path) -> bool:
    """Whether a folder is a run, or what is left of one."""
    return (path / "run.json").is_file() or any(path.glob("iter-*"))


def _listed(path: Path, experiment: str | None) -> ListedRun:
    try:
        return _told(Run.open(path), experiment)
    except DAMAGES as error:
        problem = error.in_one_line if isinstance(error, ActiveDPOError) else str(error)
        return ListedRun(name=path.name, path=str(path), experiment=experiment, problem=problem)


def _told(run: Run, experiment: str | None) -> ListedRun:
    stages = STAGES[:-1] if run.facts.get("fixed", {}).get("prompts.eval_prompts") == 0 else STAGES
    numbers = range(1, max(run.iterations(), default=0) + 1)
    missing = [(number, stage) for number in numbers for stage in _missing(run, number, stages)]
    open_iterations = {number for number, _ in missing}
    planned = iterations_asked_for(run)
    following: tuple[int, str] | None = (len(numbers) + 1, STAGES[0])
    if missing:
        following = missing[0]
    elif planned is not None and len(numbers) >= planned:
        following = None
    return ListedRun(
        name=run.path.name,
        path=str(run.path),
        experiment=experiment,
        model=run.given_base["name"],
        iterations_done=len(numbers) - len(open_iterations),
        iterations_planned=planned,
        next=f"{following[1]} iter-{following[0]:03d}" if following else None,
        is_begun=following is not None and run.stage(following[1], following[0]).has(STARTED_NAME),
        labels_spent=sum(_labels_spent(run, number) for number in numbers),
        changed=_changed(run),
    )


def _missing(run: Run, iteration: int, stages: Sequence[str]) -> Iterator[str]:
    """The stages that are not finished; features from which pairs were picked may have been deleted."""
    for stage in stages:
        is_deleted = stage == "featurize" and not run.stage(stage, iteration).path.exists()
        record = run.stage("select" if is_deleted else stage, iteration)
        if not record.has(MANIFEST_NAME):
            yield stage


def _labels_spent(run: Run, iteration: int) -> int:
    record = run.stage("label", iteration).manifest
    return int(record.summary["labels_spent"]) if record else 0


def _changed(run: Run) -> str:
    names = (MANIFEST_NAME, STARTED_NAME)
    records = [path for name in names for path in run.path.glob(f"iter-*/*/{name}")]
    newest = max(path.stat().st_mtime for path in [run.path / "run.json", *records])
    return datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")
