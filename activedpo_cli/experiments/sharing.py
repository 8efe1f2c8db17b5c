"""Take from a sibling run what would come out the same: equal settings and inputs make equal outputs."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.engine.differences import differences_of_work
from activedpo_cli.engine.step import Stage
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder


def borrow_stage(run: Run, stage: Stage, iteration: int, siblings: Iterable[Run]) -> bool:
    """Copy a stage that a sibling finished with the same version, settings and inputs; says whether there was one."""
    run.forget_digests()
    seen = stage.seen(run, None, {})
    wanted = Started(
        stage=stage.name,
        stage_version=stage.version,
        iteration=iteration,
        settings=stage.settings(run.config),
        inputs=stage.inputs(run, iteration, seen),
    )
    folder = run.stage(stage.name, iteration)
    if folder.started is not None:
        return False
    lock = run.lock_path(f"{folder.path.parent.name}-{stage.name}")
    return _borrow(folder, wanted, [sibling.stage(stage.name, iteration) for sibling in siblings], lock)


def borrow_initial_evaluation(run: Run, wanted: Started, siblings: Iterable[Run]) -> bool:
    """The same for π_SFT's responses to the held-out prompts, with the rewards that scorers gave them."""
    folder = run.initial_evaluation
    others = [sibling.initial_evaluation for sibling in siblings]
    return _borrow(folder, wanted, others, run.lock_path("initial-evaluation"))


def _borrow(folder: StageFolder, wanted: Started, others: Iterable[StageFolder], lock: Path) -> bool:
    for other in others:
        if not _has(other, wanted):
            continue
        with exclusive(lock, str(folder.path)):
            if folder.path.exists():
                return False
            try:
                files.write_folder_with(folder.path, partial(files.copy_folder, other.path))
            except FileNotFoundError:  # pruned by another process while it was read
                continue
        return True
    return False


def _has(other: StageFolder, wanted: Started) -> bool:
    """Whether a sibling's folder holds what is wanted, whole; a damaged one does not."""
    try:
        manifest = other.manifest
        return manifest is not None and _is_wanted(manifest, wanted) and not other.missing_outputs()
    except (InvalidDataError, OSError):
        return False


def _is_wanted(manifest: Started, wanted: Started) -> bool:
    """Whether work came out of the same; settings that an older record lacks had their default."""
    is_same_place = (manifest.stage, manifest.iteration) == (wanted.stage, wanted.iteration)
    return is_same_place and not differences_of_work(manifest, wanted)
