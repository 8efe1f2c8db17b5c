"""Bring a stage to its finished state: run, resume, say that it is up to date, refuse, or name what is missing.

This is the state table of `docs/architecture.md`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
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
from activedpo_cli.base.interruption import behind
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.threads import execution_facts, stage_threads, working_with
from activedpo_cli.engine.carrying_out import Task, carry_out
from activedpo_cli.engine.company import refuse_while_shared
from activedpo_cli.engine.declared import every_setting_of
from activedpo_cli.engine.differences import (
    all_settings,
    given_differences,
    input_differences,
    refuse,
    refuse_changed_fixed_settings,
    version_difference,
    with_known_files,
)
from activedpo_cli.engine.intact import check_inputs
from activedpo_cli.engine.step import Context, Execution, Stage, StageResult, again
from activedpo_cli.store.lock import HeldLock, exclusive
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder, set_aside, swap_in

SECONDS_FOR_MOMENTS = 1.0
"""How long a lock may be held before the stage counts as busy: those who share its work hold it for moments."""


@dataclass(frozen=True, kw_only=True)
class StageOrder:
    """A stage of an iteration that is to be brought to its finished state, and how.

    Attributes:
        given: Settings given by flags, with dotted keys; they are written to `config.yaml` once all checks have passed.
        force: Make it again although it is finished or was begun with other settings.

    """

    run: Run
    stage: Stage
    iteration: int
    given: Mapping[str, Any]
    force: bool = False
    execution: Execution
    progress: Progress

    @property
    def folder(self) -> StageFolder:
        """Where its files are."""
        return self.run.stage(self.stage.name, self.iteration)

    @property
    def redone(self) -> StageFolder:
        """Where it is made again."""
        return self.run.redone_stage(self.stage.name, self.iteration)

    @property
    def lock_path(self) -> Path:
        """The lock of the stage's folder, and of that in which it is made again."""
        return self.run.lock_path(f"{self.folder.path.parent.name}-{self.stage.name}")

    @property
    def claims(self) -> Path:
        """Where units are claimed."""
        return self.lock_path.with_suffix("")

    def again(self, *more: str) -> str:
        """The command that was typed, with these words at its end."""
        return again(self.run, self.stage.name, self.iteration, self.execution, *more)


StageRunner = Callable[[StageOrder], StageResult]
"""What brings stages to their finished state: `run_stage` in this process, or others elsewhere."""


def run_stage(asked: StageOrder) -> StageResult:
    """Bring one stage of one iteration to its finished state."""
    run, stage, execution = asked.run, asked.stage, asked.execution
    run.forget_digests()
    rebuild = bool(execution.options.get("rebuild"))
    if rebuild and asked.force:
        raise UsageError("--rebuild keeps the answers that there are, and --force asks again", hint="leave one out")
    folder = asked.folder
    if not asked.force and not rebuild and folder.manifest:
        return _up_to_date(asked)
    if asked.force and execution.shard:
        raise UsageError(
            "--force is for one process, since one that comes late would make again what the others have just made",
            hint=f"leave out --shard (and the launcher); or move `{folder.path}` away, and let all of them begin anew",
        )
    patience = SECONDS_FOR_MOMENTS if stage.check_free and not execution.shard else execution.patience
    with exclusive(asked.lock_path, str(folder.path), patience) as lock:
        if not execution.shard:
            refuse_while_shared(asked.claims, str(folder.path))
        if rebuild and stage.reopening is not None and stage.reopening.has_damaged_record(folder):
            stage.reopening.adopt_answers(run, stage, asked.iteration, asked.given, execution, asked.progress)
        _set_unknown_aside(asked)
        if rebuild:
            _reopen(asked)
        target = _target(asked)
        if target is None:
            return _up_to_date(asked)
        try:
            manifest = _do(asked, target, lock)
        except (KeyboardInterrupt, Exception) as error:
            if (interruption := behind(error)) is None:
                raise
            raise _saying_what_is_kept(interruption, target) from error
        if manifest is None:
            return _up_to_date(asked, asks_for_work=False)
        if target.path != folder.path:
            swap_in(target, folder, run.stale)
    return StageResult(stage, asked.iteration, folder.path, manifest, was_done=False)


def _saying_what_is_kept(error: KeyboardInterrupt, target: StageFolder) -> KeyboardInterrupt:
    has_part = target.path.exists() and not target.so_far().startswith("0 ")
    part = f"{target.so_far()} so far in `{target.path}`" if has_part else f"nothing yet in `{target.path}`"
    return type(error)(f"what was finished is kept, {part}")


def _up_to_date(asked: StageOrder, *, asks_for_work: bool = True) -> StageResult:
    """What there is; options may ask for more of a finished stage than it has, unless it was finished on behalf of them."""
    run, stage, folder = asked.run, asked.stage, asked.folder
    manifest = folder.manifest
    assert manifest is not None
    _refuse_differences(asked, manifest)
    gone = folder.missing_outputs()
    if gone:
        raise InvalidDataError(
            f"`{folder.path}` is finished, but files of it are missing or of another size",
            details=gone,
            hint=f"make it again with `{asked.again('--force')}`",
        )
    if asks_for_work:
        _refuse_work_options(asked, manifest)
    foreign = {key: value for key, value in asked.given.items() if key not in manifest.settings}
    run.change_config(all_settings(with_changes(run.config, foreign), foreign))
    if run.is_being_redone(stage.name, asked.iteration):
        asked.progress.warn(
            f"`{folder.path}` is being made again, which is not finished: go on with `{asked.again('--force')}`"
        )
    return StageResult(stage, asked.iteration, folder.path, manifest, was_done=True)


def _reopen(asked: StageOrder) -> None:
    """Let a finished stage be continued from what it keeps, where it was made with the same settings and inputs."""
    folder = asked.folder
    manifest = folder.manifest
    if manifest is not None:
        _refuse_differences(asked, manifest)
        check_inputs(asked.run, manifest.inputs, asked.progress)  # before anything is taken back
        if asked.stage.reopening is not None:
            asked.stage.reopening.restore_answers(asked.run, folder, asked.progress)
        folder.reopen()


def _refuse_work_options(asked: StageOrder, manifest: Manifest) -> None:
    """Raise RefusedError where an option asks for work on a finished stage that was not done when it was finished."""
    run, stage = asked.run, asked.stage
    wanted = [name for name in stage.work_options if asked.execution.options.get(name)]
    if not wanted:
        return
    if stage.is_done and stage.is_done(
        run, asked.iteration, stage.seen(run, manifest, {}), asked.execution, asked.progress
    ):
        return
    raise RefusedError(
        f"`{stage.name}` of iteration {asked.iteration} is closed, so --{wanted[0]} has nothing to work on",
        hint=f"to ask again, keeping the old answers in `{run.stale}`: "
        f"`{asked.again('--force', f'--{wanted[0]}', '…')}`",
    )


def _set_unknown_aside(asked: StageOrder) -> None:
    """Files without an intact record of what they were made with are not continued, and not lost."""
    folder = asked.folder
    try:
        known = folder.manifest or folder.started
    except InvalidDataError:
        if not asked.force:
            raise
        known = None
    if known is None and folder.names("*"):  # temporaries, which have hidden names, are swept when it begins
        kept = set_aside(folder, asked.run.stale)
        if kept is not None:
            asked.progress.warn(
                f"`{folder.path}` held files but no intact record of how they were made; they are now in `{kept}`"
            )


def _target(asked: StageOrder) -> StageFolder | None:
    """The folder to work in; None when another process finished the stage while this one waited."""
    run, stage, folder, redone = asked.run, asked.stage, asked.folder, asked.redone
    if _is_waiting_for_swap(asked):
        swap_in(redone, folder, run.stale)
        return None
    if folder.manifest and not asked.force:
        return None
    record = folder.started
    if record and not asked.force:
        _refuse_differences(asked, record)
    if not folder.manifest:
        if record and asked.force:
            if stage.check_free:
                stage.check_free(run, asked.iteration)
            so_far = folder.so_far()
            kept = set_aside(folder, run.stale)
            if kept is not None and not so_far.startswith("0 "):
                asked.progress.warn(f"{so_far} of the unfinished `{stage.name}` are now in `{kept}`")
        return folder
    _keep_only_same_work(asked)
    return redone


def _keep_only_same_work(asked: StageOrder) -> None:
    redone = asked.redone
    record = redone.started
    if redone.path.exists() and (record is None or _differences(asked, record)):
        if asked.stage.check_free:
            asked.stage.check_free(asked.run, asked.iteration)
        set_aside(redone, asked.run.stale)


def _is_waiting_for_swap(asked: StageOrder) -> bool:
    """Whether a forced redo was finished and then interrupted before it took the old one's place."""
    record = asked.redone.manifest
    if record is None:
        return False
    is_between_renames = asked.folder.manifest is None
    return is_between_renames or (asked.force and not _differences(asked, record))


def _differences(asked: StageOrder, record: Started) -> list[str]:
    """How given settings, the stage's version and its inputs of today differ from what the record says, as lines of text."""
    run, stage = asked.run, asked.stage
    own = set(every_setting_of(stage.sections)).difference(stage.also)
    differences = given_differences(run, record, _known(asked, record), own)
    if other := version_difference(record, stage.version, stage.standing):
        return differences + other  # what another version recorded need not say what this one's inputs depend on
    return differences + input_differences(record, stage.inputs_beside(run, asked.iteration, record))


def _known(asked: StageOrder, record: Started) -> dict[str, Any]:
    """The given settings, in which a file with the content that is recorded goes by the path under which it is."""
    return with_known_files(record, asked.stage.files, asked.given)


def _refuse_differences(asked: StageOrder, record: Started) -> None:
    try:
        differences = _differences(asked, record)
    except OracleNotFoundError as error:
        if not isinstance(record, Manifest):
            raise
        asked.progress.warn(f"whether the oracle has changed can't be told from here: {error.message}")
        differences = given_differences(asked.run, record, _known(asked, record))
    if differences:
        refuse(asked.run, asked.stage.name, asked.iteration, differences, asked.given, asked.execution)


def _do(asked: StageOrder, target: StageFolder, lock: HeldLock) -> Manifest | None:
    """Work in `target`; None where another process finished the stage while this one had lent its lock."""
    run, stage = asked.run, asked.stage
    record = target.started
    seen = stage.seen(run, record, asked.given)
    started = record or Started(
        stage=stage.name,
        stage_version=stage.version,
        iteration=asked.iteration,
        settings=stage.settings(with_changes(run.config, asked.given)),
        inputs=stage.inputs(run, asked.iteration, seen),
    )
    threads = stage_threads(started.execution, run.policy_bytes(started.inputs), asked.progress.warn)
    started = started.model_copy(update={"execution": execution_facts(threads)})
    context = Context(run, asked.iteration, seen, target, asked.execution, asked.progress, lock)
    if record is None:
        refuse_changed_fixed_settings(run)
        given_differences(run, None, asked.given)
    check_inputs(run, started.inputs, asked.progress)
    if record is None:
        stage.check(context)
    kept = {key: value for key, value in asked.given.items() if key not in started.settings} if record else asked.given
    task = Task(target, started, asked.claims, stage.logs, lock if stage.is_shared(seen) else None)
    written = all_settings(with_changes(run.config, asked.given), kept)

    def may_discard() -> bool:
        """Whether this process began the work, and nobody else works in its folder, who may not have left a file yet."""
        if record is None and stage.check_free:
            stage.check_free(run, asked.iteration)
        refuse_while_shared(asked.claims, str(target.path))
        return record is None and lock.is_held

    with _given_settings_kept(run, target, written, may_discard), working_with(threads):
        return carry_out(task, lambda: stage.open(context), asked.execution, asked.progress)


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
