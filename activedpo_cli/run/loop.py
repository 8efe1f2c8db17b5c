"""The whole loop in one process: every stage that is not done, iteration after iteration."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from activedpo_cli.base.combinations import refuse_ineffective, refuse_unestimated, unused
from activedpo_cli.base.config import with_changes
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.launchers import Processes, Shard
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import all_settings, given_differences, refuse
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.engine.runner import StageOrder, StageRunner, run_stage
from activedpo_cli.engine.step import Execution, StageResult
from activedpo_cli.label.answered_twice import answered_twice
from activedpo_cli.label.scoring import scorer_by_default
from activedpo_cli.label.step import refuse_beside
from activedpo_cli.oracles.base import asks_some_people, oracle_identity
from activedpo_cli.run.command import changeable, load_stage, refuse_foreign_sft
from activedpo_cli.run.create import RunRequest, discard, find_run
from activedpo_cli.run.tracking import check_trackers, trackers_of
from activedpo_cli.select.method_settings import check_given_settings, method_settings
from activedpo_cli.store import jsonl
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.run import SFT, STAGES, Run, run_path
from activedpo_cli.train.launching import check_processes
from activedpo_cli.train.sft_step import refuse_late
from activedpo_cli.train.step import check_effect

DEFAULT_ITERATIONS = 5
LOOP_NAME = "loop.json"
"""Holds the number of iterations that was asked for, so that the same command, typed shorter, goes on to it."""


@dataclass(frozen=True)
class LoopRequest:
    """A `run` command as it was typed."""

    run: str | None
    preset: str | None
    given: Mapping[str, Any]
    iterations: int | None = None
    device: str = "auto"
    command: Sequence[str] = ()
    shard: Shard | None = None
    processes: Processes | None = None
    track: Sequence[str] | None = None


class LoopListener(Protocol):
    """Hears how a loop advances from stage to stage."""

    def opened(self, run: Run, iterations: int) -> None:
        """The run is there and goes to so many iterations; nothing was refused."""

    def began(self, iteration: int, stage: str) -> None:
        """A stage that is not finished is taken up."""

    def finished(self, result: StageResult) -> None:
        """A stage is finished, or had been before."""


def do_loop(request: LoopRequest, progress: Progress, listener: LoopListener, do: StageRunner | None = None) -> Run:
    """Do all stages of all iterations; those that are done already cost next to nothing.

    A given setting concerns all stages that have not begun. Raises RefusedError, before anything is written, where it
    contradicts a stage that has.
    """
    request = replace(request, given=with_known_names(request.given))
    check_trackers(request.track or ())
    execution = Execution(request.device, shard=request.shard, processes=request.processes)
    wanted = RunRequest(
        run_path(request.run), request.preset, request.given, request.command, patience=execution.patience
    )
    run, made = find_run(wanted, progress)
    try:
        given = {} if made else changeable(run, request.given)
        method = given.get("select.method", run.config.select.method)
        check_given_settings(request.given, method, progress)
        for sentence in unused(with_changes(run.config, given), request.given):
            progress.warn(sentence)
        last = _last_iteration(run, request.iterations)
        _check(run, last, given, progress)
        _check_processes(run, last, with_changes(run.config, given), execution)
        if request.iterations is not None and request.iterations != iterations_asked_for(run):
            jsonl.write_json(run.path / LOOP_NAME, {"iterations": request.iterations})
        listener.opened(run, last)
        with trackers_of(run, request.track, progress) as trackers:
            for iteration, name in _stages(last, with_sft=_needs_sft(run, given)):
                record = _record(run, name, iteration)
                if not isinstance(record, Manifest):
                    listener.began(iteration, name)
                listener.finished(_do_stage(do or run_stage, run, name, iteration, record, given, execution, progress))
                if execution.speaks_for_all:
                    trackers.tell()
    except BaseException:
        if made and discard(run):
            progress.note(f"took `{run.path}` away again, since nothing was made in it")
        raise
    return run


def _last_iteration(run: Run, asked: int | None) -> int:
    """The number asked for now; else the one asked for before, or 5, and never fewer than there are."""
    return asked or max(iterations_asked_for(run) or DEFAULT_ITERATIONS, *run.iterations(), 1)


def iterations_asked_for(run: Run) -> int | None:
    """The number given to `run --iterations` the last time, None where none was; raises InvalidDataError when damaged."""
    path = run.path / LOOP_NAME
    if not path.is_file():
        return None
    content = jsonl.read_json(path)
    asked = content.get("iterations") if isinstance(content, dict) else None
    if not isinstance(asked, int) or asked < 1:
        raise InvalidDataError(f"`{path}` is damaged: it holds no number of iterations", hint=f"rm {path}")
    return asked


def _stages(last: int, *, with_sft: bool) -> Iterator[tuple[int, str]]:
    if with_sft:
        yield 0, SFT
    yield from ((iteration, name) for iteration in range(1, last + 1) for name in STAGES)


def _needs_sft(run: Run, given: Mapping[str, Any]) -> bool:
    """Whether *sft* is done or begun, or asked for by `sft.data`."""
    return _record(run, SFT, 0) is not None or with_changes(run.config, given).sft.data is not None


def _check(run: Run, last: int, given: Mapping[str, Any], progress: Progress) -> None:
    """Refuse what begun or finished stages contradict, and wrong settings of the method before anything is computed."""
    config = with_changes(run.config, given)
    if config.prompts.eval_prompts == 0:
        raise UsageError(
            f"`{run.path}` holds out no prompts, and every iteration of the loop ends with an evaluation",
            hint="make another run with `--eval-prompts 100`, or use the stage commands up to *train*",
        )
    missing = set()
    with_sft = _needs_sft(run, given)
    if not with_sft:
        refuse_foreign_sft(run, "run", given)
    elif _record(run, SFT, 0) is None:
        refuse_late(run)
    for iteration, name in _stages(last, with_sft=with_sft):
        record = _record(run, name, iteration)
        if record is None:
            missing.add(name)
        differences = given_differences(run, record, _comparable(record, given)) if record else []
        if differences:
            refuse(run, name, iteration, differences, given)
    if "generate" in missing:
        _check_budget(run, config)
    if missing & {"train", SFT}:
        check_effect(run, last + 1, config, progress)
        if with_sft:
            refuse_ineffective(config, SFT)
    if "train" in missing and not answered_twice(run, last).decided:
        refuse_unestimated(config)
    if "label" in missing and not asks_some_people(config.label.oracle):
        refuse_beside(config.label)
    if "select" in missing:
        method_settings(config)
    specs = (
        {config.label.oracle, scorer_by_default(config), config.evaluate.second_scorer} if "label" in missing else set()
    )
    for spec in sorted(spec for spec in specs if spec):
        oracle_identity(spec, config.label)  # raises for code that is not there, before hours of work


def _check_processes(run: Run, last: int, config: Config, execution: Execution) -> None:
    """Refuse processes that can't train together before hours of sampling."""
    if run.stage("train", last).manifest is None:
        check_processes(execution, config.train)
    if config.sft.data is not None and run.stage(SFT, 0).manifest is None:
        check_processes(execution, config.sft)


def _check_budget(run: Run, config: Config) -> None:
    """Raise UsageError where the responses to be sampled can not make as many pairs as are to be chosen."""
    if config.generate.responses is not None:
        return
    prompts = config.generate.num_prompts or len(run.prompts("train"))
    pairs = math.comb(config.generate.num_responses, 2)
    most = prompts * min(pairs, config.select.max_per_prompt or pairs)
    if config.select.budget > most:
        raise UsageError(
            f"select.budget is {config.select.budget}, but {prompts} prompts with {config.generate.num_responses} responses "
            f"each make no more than {most} pairs to choose from",
            hint=f"--budget {most}, or more with --num-prompts or --num-responses",
        )


def _record(run: Run, name: str, iteration: int) -> Started | None:
    folder = run.stage(name, iteration)
    return folder.manifest or folder.started


def _comparable(record: Started, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings that a record has; in `select` not the oracle, which may be named for `label` alone."""
    return {
        key: value
        for key, value in given.items()
        if key in record.settings and not (record.stage == "select" and key.startswith("label."))
    }


def _do_stage(
    do: StageRunner,
    run: Run,
    name: str,
    iteration: int,
    record: Started | None,
    given: Mapping[str, Any],
    execution: Execution,
    progress: Progress,
) -> StageResult:
    """Do one stage; the first that has not begun writes all given settings to `config.yaml`, once its checks have passed.

    Where a begun stage comes first they are written before it goes on: its own checks have passed, and it may take long.
    """
    if record is not None:
        if not isinstance(record, Manifest):
            run.change_config(all_settings(with_changes(run.config, given), given))
        given = _comparable(record, given)
    stage = load_stage(name)
    return do(
        StageOrder(run=run, stage=stage, iteration=iteration, given=given, execution=execution, progress=progress)
    )
