"""Bring a stage to its finished state: run, resume, say that it is up to date, refuse, or name what is missing.

This is the state table of `docs/architecture.md`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from activedpo_cli.base.config import with_changes
from activedpo_cli.base.errors import (
    BusyError,
    InvalidDataError,
    LabelsPendingError,
    OracleNotFoundError,
    RefusedError,
    StorageError,
    UsageError,
)
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.threads import execution_facts, stage_threads, working_with
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.declared import every_setting_of
from activedpo_cli.engine.differences import (
    all_settings,
    given_differences,
    input_differences,
    refuse,
    refuse_changed_fixed_settings,
    version_difference,
)
from activedpo_cli.engine.intact import check_inputs
from activedpo_cli.engine.step import Context, Execution, Stage, StageResult, again
from activedpo_cli.store.lock import HeldLock, exclusive
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder, set_aside, swap_in

SECONDS_FOR_MOMENTS = 1.0
"""How long a lock may be held before the stage counts as busy: those who share its work hold it for moments."""


def run_stage(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    *,
    force: bool,
    execution: Execution,
    progress: Progress,
) -> StageResult:
    """Bring one stage of one iteration to its finished state.

    Args:
        given: Settings given by flags, with dotted keys; they are written to `config.yaml` once all checks have passed.
        force: Make it again although it is finished or was begun with other settings.

    """
    folder = run.stage(stage.name, iteration)
    run.forget_digests()
    rebuild = bool(execution.options.get("rebuild"))
    if rebuild and force:
        raise UsageError("--rebuild keeps the answers that there are, and --force asks again", hint="leave one out")
    if not force and not rebuild and folder.manifest:
        return _up_to_date(run, stage, iteration, given, execution, progress)
    lock_path = run.lock_path(f"{folder.path.parent.name}-{stage.name}")
    with exclusive(lock_path, str(folder.path), SECONDS_FOR_MOMENTS if stage.check_free else 0) as lock:
        if rebuild and stage.reopening is not None and stage.reopening.has_damaged_record(folder):
            stage.reopening.adopt_answers(run, stage, iteration, given, execution, progress)
        _set_unknown_aside(run, folder, force, progress)
        if rebuild:
            _reopen(run, stage, iteration, given, execution, progress)
        target = _target(run, stage, iteration, given, force, execution, progress)
        if target is None:
            return _up_to_date(run, stage, iteration, given, execution, progress)
        try:
            manifest = _do(run, stage, iteration, given, target, execution, progress, lock)
        except KeyboardInterrupt as error:
            raise _saying_what_is_kept(error, target) from error
        if manifest is None:
            return _up_to_date(run, stage, iteration, given, execution, progress, asks_for_work=False)
        if target.path != folder.path:
            swap_in(target, folder, run.stale)
    return StageResult(stage, iteration, folder.path, manifest, was_done=False)


def _saying_what_is_kept(error: KeyboardInterrupt, target: StageFolder) -> KeyboardInterrupt:
    has_part = target.path.exists() and not target.so_far().startswith("0 ")
    part = f"{target.so_far()} so far in `{target.path}`" if has_part else f"nothing yet in `{target.path}`"
    return type(error)(f"what was finished is kept, {part}")


def _up_to_date(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    execution: Execution,
    progress: Progress,
    *,
    asks_for_work: bool = True,
) -> StageResult:
    """What there is; options may ask for more of a finished stage than it has, unless it was finished on behalf of them."""
    folder = run.stage(stage.name, iteration)
    manifest = folder.manifest
    assert manifest is not None
    _refuse_differences(run, stage, iteration, given, manifest, execution, progress)
    gone = folder.missing_outputs()
    if gone:
        raise InvalidDataError(
            f"`{folder.path}` is finished, but files of it are missing or of another size",
            details=gone,
            hint=f"make it again with `{again(run, stage.name, iteration, execution, '--force')}`",
        )
    if asks_for_work:
        _refuse_work_options(run, stage, iteration, manifest, execution, progress)
    foreign = {key: value for key, value in given.items() if key not in manifest.settings}
    run.change_config(all_settings(with_changes(run.config, foreign), foreign))
    if run.is_being_redone(stage.name, iteration):
        progress.warn(
            f"`{folder.path}` is being made again, which is not finished: go on with "
            f"`{again(run, stage.name, iteration, execution, '--force')}`"
        )
    return StageResult(stage, iteration, folder.path, manifest, was_done=True)


def _reopen(
    run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], execution: Execution, progress: Progress
) -> None:
    """Let a finished stage be continued from what it keeps, where it was made with the same settings and inputs."""
    folder = run.stage(stage.name, iteration)
    manifest = folder.manifest
    if manifest is not None:
        _refuse_differences(run, stage, iteration, given, manifest, execution, progress)
        check_inputs(run, manifest.inputs, progress)  # before anything is taken back
        if stage.reopening is not None:
            stage.reopening.restore_answers(run, folder, progress)
        folder.reopen()


def _refuse_work_options(
    run: Run, stage: Stage, iteration: int, manifest: Manifest, execution: Execution, progress: Progress
) -> None:
    """Raise RefusedError where an option asks for work on a finished stage that was not done when it was finished."""
    asked = [name for name in stage.work_options if execution.options.get(name)]
    if not asked:
        return
    if stage.is_done and stage.is_done(run, iteration, stage.seen(run, manifest, {}), execution, progress):
        return
    raise RefusedError(
        f"`{stage.name}` of iteration {iteration} is closed, so --{asked[0]} has nothing to work on",
        hint=f"to ask again, keeping the old answers in `{run.stale}`: "
        f"`{again(run, stage.name, iteration, execution, '--force', f'--{asked[0]}', '…')}`",
    )


def _set_unknown_aside(run: Run, folder: StageFolder, force: bool, progress: Progress) -> None:
    """Files without an intact record of what they were made with are not continued, and not lost."""
    try:
        known = folder.manifest or folder.started
    except InvalidDataError:
        if not force:
            raise
        known = None
    if known is None and folder.names("*"):  # temporaries, which have hidden names, are swept when it begins
        kept = set_aside(folder, run.stale)
        if kept is not None:
            progress.warn(
                f"`{folder.path}` held files but no intact record of how they were made; they are now in `{kept}`"
            )


def _target(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    force: bool,
    execution: Execution,
    progress: Progress,
) -> StageFolder | None:
    """The folder to work in; None when another process finished the stage while this one waited."""
    folder = run.stage(stage.name, iteration)
    redone = run.redone_stage(stage.name, iteration)
    if _is_waiting_for_swap(run, stage, iteration, given, force):
        swap_in(redone, folder, run.stale)
        return None
    if folder.manifest and not force:
        return None
    record = folder.started
    if record and not force:
        _refuse_differences(run, stage, iteration, given, record, execution, progress)
    if not folder.manifest:
        if record and force:
            if stage.check_free:
                stage.check_free(run, iteration)
            so_far = folder.so_far()
            kept = set_aside(folder, run.stale)
            if kept is not None and not so_far.startswith("0 "):
                progress.warn(f"{so_far} of the unfinished `{stage.name}` are now in `{kept}`")
        return folder
    _keep_only_same_work(run, stage, iteration, given, redone)
    return redone


def _keep_only_same_work(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], redone: StageFolder) -> None:
    record = redone.started
    if redone.path.exists() and (record is None or _differences(run, stage, iteration, given, record)):
        if stage.check_free:
            stage.check_free(run, iteration)
        set_aside(redone, run.stale)


def _is_waiting_for_swap(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], force: bool) -> bool:
    """Whether a forced redo was finished and then interrupted before it took the old one's place."""
    record = run.redone_stage(stage.name, iteration).manifest
    if record is None:
        return False
    is_between_renames = run.stage(stage.name, iteration).manifest is None
    return is_between_renames or (force and not _differences(run, stage, iteration, given, record))


def _differences(run: Run, stage: Stage, iteration: int, given: Mapping[str, Any], record: Started) -> list[str]:
    """How given settings, the stage's version and its inputs of today differ from what the record says, as lines of text."""
    own = set(every_setting_of(stage.sections)).difference(stage.also)
    differences = given_differences(run, record, given, own)
    if other := version_difference(record, stage.version):
        return differences + other  # what another version recorded need not say what this one's inputs depend on
    return differences + input_differences(record, stage.inputs_beside(run, iteration, record))


def _refuse_differences(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    record: Started,
    execution: Execution,
    progress: Progress,
) -> None:
    try:
        differences = _differences(run, stage, iteration, given, record)
    except OracleNotFoundError as error:
        if not isinstance(record, Manifest):
            raise
        progress.warn(f"whether the oracle has changed can't be told from here: {error.message}")
        differences = given_differences(run, record, given)
    if differences:
        refuse(run, stage.name, iteration, differences, given, execution)


def _do(
    run: Run,
    stage: Stage,
    iteration: int,
    given: Mapping[str, Any],
    target: StageFolder,
    execution: Execution,
    progress: Progress,
    lock: HeldLock,
) -> Manifest | None:
    """Work in `target`; None where another process finished the stage while this one had lent its lock."""
    record = target.started
    seen = stage.seen(run, record, given)
    started = record or Started(
        stage=stage.name,
        stage_version=stage.version,
        iteration=iteration,
        settings=stage.settings(with_changes(run.config, given)),
        inputs=stage.inputs(run, iteration, seen),
    )
    threads = stage_threads(started.execution, run.policy_bytes(started.inputs), progress.warn)
    started = started.model_copy(update={"execution": execution_facts(threads)})
    context = Context(run, iteration, seen, target, execution, progress, lock)
    if record is None:
        refuse_changed_fixed_settings(run)
        given_differences(run, None, given)
    check_inputs(run, started.inputs, progress)
    if record is None:
        stage.check(context)
    kept = {key: value for key, value in given.items() if key not in started.settings} if record else given
    claims = run.lock_path(f"{target.path.parent.name}-{stage.name}").with_suffix("")
    task = Task(target, started, claims, stage.logs)
    written = all_settings(with_changes(run.config, given), kept)

    def may_discard() -> bool:
        """Whether this process began the work, and nobody else works in its folder, who may not have left a file yet."""
        if record is None and stage.check_free:
            stage.check_free(run, iteration)
        return record is None

    with _given_settings_kept(run, target, written, may_discard), working_with(threads):
        return carry_out(task, lambda: stage.open(context), execution, progress)


@contextmanager
def _given_settings_kept(
    run: Run, target: StageFolder, given: dict[str, Any], may_discard: Callable[[], bool]
) -> Iterator[None]:
    """Write given settings to `config.yaml`; back again when the work ends with nothing made, since they may be why."""
    before, changed = run.change_config(given)
    try:
        yield
    except LabelsPendingError:
        raise
    except BaseException:
        # What ended the work is what has to be said, also where the disk takes nothing or others are at work.
        with suppress(StorageError, BusyError):
            if may_discard() and target.discard_if_empty() and changed != before:
                run.restore_config(changed, before)
        raise
