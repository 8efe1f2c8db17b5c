"""What a report was made from: the files that identify a run's finished stages, and their digests."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.reports.run_data import StageFact
from activedpo_cli.store.manifest import MANIFEST_NAME, Manifest
from activedpo_cli.store.run import SFT, STAGES, Run
from activedpo_cli.store.stage_folder import StageFolder


def stage_folders(run: Run) -> dict[str, StageFolder]:
    """Every place of a run where a finished stage may be, by its name in inputs: `pool`, `iter-001/select`."""
    shared = {"pool": run.pool, "initial-adapter": run.initial_adapter, "initial-evaluation": run.initial_evaluation}
    return shared | {
        f"iter-{iteration:03d}/{stage}": run.stage(stage, iteration)
        for iteration in run.iterations()
        for stage in STAGES
    }


def finished_stages(run: Run) -> dict[str, Manifest]:
    """The manifests of all finished stages, by name."""
    found = {name: folder.manifest for name, folder in stage_folders(run).items()}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def unfinished_stages(run: Run) -> list[str]:
    """Stages of begun iterations that are not finished, by name."""
    folders = [(f"iter-{t:03d}/{stage}", run.stage(stage, t)) for t in run.iterations() for stage in STAGES]
    return [name for name, folder in folders if folder.manifest is None]


def stage_facts(run: Run, manifests: dict[str, Manifest]) -> list[StageFact]:
    """The finished stages in order, each with its digest, the file that says so and the seconds it took."""
    folders = stage_folders(run)
    return [
        StageFact(
            name=name,
            stage=manifest.stage,
            iteration=manifest.iteration,
            manifest=(folders[name].path / MANIFEST_NAME).relative_to(run.path).as_posix(),
            digest=manifest.digest,
            seconds=manifest.execution.get("seconds"),
            was_resumed=bool(manifest.execution.get("resumed")),
            attempts=manifest.execution.get("attempts"),
            outdated=[key for key in manifest.inputs if is_outdated(manifest, key, manifests)],
        )
        for name, manifest in manifests.items()
    ]


def is_outdated(manifest: Manifest, name: str, manifests: dict[str, Manifest]) -> bool:
    """Whether an input that a stage read has been made anew since; one that was deleted to save space has not."""
    return name in manifests and manifest.inputs.get(name) not in (None, manifests[name].digest)


def identity_of(run: Run) -> dict[str, str]:
    """The sha256 of every file by which a change of the run shows, by path in the run; quick, whatever its size.

    Manifests hold the digests of what stages made and of their logs; what the evaluation of the initial model adds
    later stands in no manifest. Stages that are not finished are named, since a report names them too. Raises
    InvalidDataError where the record of the weights is gone or damaged.
    """
    assert run.given_base
    digests = {path.relative_to(run.path).as_posix(): sha256_of(path) for path in _identifying_files(run)}
    return digests | dict.fromkeys(unfinished_stages(run), "not finished")


def _identifying_files(run: Run) -> Iterator[Path]:
    folder = run.initial_evaluation.path
    yield from (run.path / name for name in ("run.json", "reference/base.json"))
    yield from filter(Path.is_file, [run.stage(SFT, 0).path / MANIFEST_NAME])
    yield from filter(Path.is_file, [folder / "metrics.json", *sorted(folder.glob("rewards-*.jsonl"))])
    yield from filter(Path.is_file, (place.path / MANIFEST_NAME for place in stage_folders(run).values()))


def counts_last_attempt_only(execution: Mapping[str, Any]) -> bool:
    """Whether a stage was resumed and its record, an older one, has the seconds of the last attempt alone."""
    return bool(execution.get("resumed")) and execution.get("attempts") is None
