"""`select --pool`: makes a run of the pairs in a file and does its stages up to the picked pairs."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import LATER_RENDERING_SETTINGS, build_config, nested, with_changes
from activedpo_cli.base.errors import InvalidDataError, NotReadyError, RefusedError, UsageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import LeftOutRow, SelectedPair
from activedpo_cli.base.regular_files import open_regular
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.differences import given_differences, refuse
from activedpo_cli.engine.names import with_known_names
from activedpo_cli.engine.runner import StageOrder, run_stage
from activedpo_cli.engine.step import Execution, StageResult
from activedpo_cli.generate.pool import fitting_pairs
from activedpo_cli.models.resolve import is_adapter_folder, is_gguf_file, resolve_model
from activedpo_cli.pairs.candidates import answerable, usable_responses
from activedpo_cli.run.command import changeable, load_stage
from activedpo_cli.run.create import RunRequest, discard, find_run
from activedpo_cli.select.method_settings import check_given_settings, method_settings
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.run import Run, run_path

STAGES = ("generate", "featurize", "select")
SECTIONS = frozenset({"seed", "model", "adapter", "featurize", "select"})
FURTHER = frozenset(
    {"label.oracle", "label.score_field", "train.beta"}
    | {"generate.recorded_eos", "generate.stop_token_ids", "generate.truncated"}
    | {"prompts.chat_template", *LATER_RENDERING_SETTINGS}
)
"""Settings that may be given beside those of SECTIONS. All others are decided by `--pool`, or have no part in a choice."""

NEARLY_ALL = 2
"""A file of fewer pairs than so many budgets may hold too few that fit into the model's context, so they are counted before
a run is made. In a larger file the run's first stage counts them, since a million pairs take minutes to turn into tokens."""


@dataclass(frozen=True)
class PoolRequest:
    """The command as it was typed."""

    pool: Path
    run: str | None
    given: Mapping[str, Any]
    output: Path | None = None
    force: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class PoolChoice:
    """The finished selection, and whether nothing was left to do; `output` holds the picked pairs where it was asked for.

    `rows` counts those of the file; `left_out` holds the lines of those that are no candidates, by reason.
    """

    result: StageResult
    output: Path | None
    was_done: bool
    rows: int
    left_out: dict[str, list[int]]


def do_pool_choice(request: PoolRequest, progress: Progress) -> PoolChoice:
    """Make or go on with the run, do *generate*, *featurize* and *select* of iteration 1, and write down what was picked.

    `force` makes the selection again, and replaces the output; not the features.

    Raises:
        UsageError: a setting that has no meaning here, an output that is no place for one, or no model for a new run.
        RefusedError: the run, one of its stages or the output was made from something else.
        InvalidDataError: the file holds anything but pairs, or fewer than the budget; nothing is left behind.

    """
    given = _settings(request)
    path = run_path(request.run)
    _check_output(request, path)
    if not _is_begun(path):
        _check_new(request, given)
    with _another_run_where_refused(request):
        run, made = find_run(RunRequest(path, None, given), progress)
    try:
        with _another_run_where_refused(request):
            changes = changeable(run, given)
        method = changes.get("select.method", run.config.select.method)
        check_given_settings(request.given, method, progress)
        _refuse_differences(run, changes, request.force)
        results = [_do(run, name, changes, request, progress) for name in STAGES]
    except BaseException:
        if made and discard(run):
            progress.note(f"took `{run.path}` away again, since nothing was made in it")
        raise
    was_written = request.output is None or _write(request, run)
    was_done = was_written and all(result.was_done for result in results)
    return PoolChoice(results[-1], request.output, was_done, _rows(run), _left_out(run))


@contextmanager
def _another_run_where_refused(request: PoolRequest) -> Iterator[None]:
    """Where the run is of something else, the way out is this command on a run of its own."""
    try:
        yield
    except RefusedError as error:
        name = _free_name(request.pool)
        hint = f"the same command with `--run {name}` makes a run of its own for these pairs"
        raise RefusedError(error.message, details=error.details, hint=hint) from error


def _free_name(pool: Path) -> str:
    """A name for a run of the pairs in a file that no run has yet."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", pool.name.partition(".")[0]).strip("-_")[:48] or "pairs"
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(name for name in names if not run_path(name).exists())


def _rows(run: Run) -> int:
    manifest = run.pool.manifest
    return int(manifest.summary.get("rows", 0)) if manifest else 0


def _left_out(run: Run) -> dict[str, list[int]]:
    from activedpo_cli.generate.backends._recorded import LEFT_OUT

    found: dict[str, list[int]] = {reason: [] for reason in LEFT_OUT}
    for row in run.pool.read_rows("left-out.jsonl", LeftOutRow) if run.pool.has("left-out.jsonl") else []:
        found.setdefault(row.reason, []).append(row.line)
    return found


def picked_pairs(run: Run) -> list[dict[str, Any]]:
    """The picked pairs, best first, with their texts and the row of the file where each stands first."""
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    texts = {response.response_id: response.text for response in run.pool_responses()}
    rows = {(pair.response_a_id, pair.response_b_id): pair.line for pair in run.given_pairs()}
    return [
        {
            "pair_id": pair.pair_id,
            "rank": pair.rank,
            "score": pair.score,
            "row": rows[pair.response_a_id, pair.response_b_id],
            "prompt": prompts[pair.prompt_id],
            "response_a": texts[pair.response_a_id],
            "response_b": texts[pair.response_b_id],
        }
        for pair in run.stage("select", 1).read_rows("selection.jsonl", SelectedPair)
    ]


def _settings(request: PoolRequest) -> dict[str, Any]:
    given = with_known_names(request.given)
    foreign = [key for key in given if key not in FURTHER and key.partition(".")[0] not in SECTIONS]
    if foreign:
        raise UsageError(
            f"`{foreign[0]}` is not for a choice among the pairs of a file",
            details=[f"settings: those of {', '.join(sorted(SECTIONS))}, and {', '.join(sorted(FURTHER))}"],
        )
    return {
        "prompts.source": str(request.pool),
        "prompts.eval_prompts": 0,
        "generate.responses": str(request.pool),
        "generate.num_prompts": None,
        "generate.recorded_pairs": "given",
        **given,
    }


def _is_begun(path: Path) -> bool:
    try:
        return _record(Run.open(path), "generate") is not None
    except NotReadyError:
        return False


def _record(run: Run, name: str) -> Started | None:
    folder = run.stage(name, 1)
    return folder.manifest or folder.started


def _check_new(request: PoolRequest, given: Mapping[str, Any]) -> None:
    """Refuse, before anything is made, wrong settings of the method, and a file of no pairs or too few."""
    from activedpo_cli.generate.backends._recorded import read_recorded_pairs

    config = build_config(nested(given))
    method_settings(config)
    prompts = read_recorded_pairs(request.pool, template_kwargs=config.prompts.template_kwargs).prompts
    left = [len(item.pairs) for item in prompts]
    if NEARLY_ALL * config.select.budget > _choosable(config, left) and "model.name" in given:
        location = resolve_model(config.model.name, config.model.revision, may_be_packed=True)
        # An adapter may lack a tokenizer, and that of a GGUF file is had by converting it.
        is_whole = location.path is None or not (is_adapter_folder(location.path) or is_gguf_file(location.path))
        _check_budget(
            config, request.pool, fitting_pairs(request.pool, prompts, config, location) if is_whole else left
        )


def _check_enough_left(run: Run, config: Config, pool: Path) -> None:
    """Refuse, before features are computed, a budget that too few pairs are left for: too long ones, unanswerable ones."""
    usable = {
        response.response_id
        for response in usable_responses(run, 1, drop_truncated=config.generate.truncated == "drop")
    }
    is_answerable = answerable(run, 1, config)
    left = Counter(
        pair.prompt_id
        for pair in run.given_pairs()
        if {pair.response_a_id, pair.response_b_id} <= usable and is_answerable(pair)
    )
    _check_budget(config, pool, left.values())


def _choosable(config: Config, pairs_of_prompts: Iterable[int]) -> int:
    most = config.select.max_per_prompt
    return sum(number if most is None else min(number, most) for number in pairs_of_prompts)


def _check_budget(config: Config, pool: Path, pairs_of_prompts: Iterable[int]) -> None:
    available = _choosable(config, pairs_of_prompts)
    if available == 0:
        raise InvalidDataError(f"{pool} holds no pair that can be chosen")
    if config.select.budget > available:
        s = "" if available == 1 else "s"
        raise InvalidDataError(
            f"select.budget is {config.select.budget}, but only {available} pair{s} of {pool} can be chosen",
            hint=f"--budget {available}",
        )


def _refuse_differences(run: Run, given: Mapping[str, Any], force: bool) -> None:
    """Compare all stages before any of them writes something; a selection that is made again may differ."""
    for name in STAGES:
        record = _record(run, name)
        if record is None or (force and name == "select"):
            continue
        differences = given_differences(run, record, _known(record, given))
        if differences:
            refuse(run, name, 1, differences, given)


def _known(record: Started, given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in record.settings}


def _do(run: Run, name: str, given: Mapping[str, Any], request: PoolRequest, progress: Progress) -> StageResult:
    """Do one stage; one that was begun before does not write the settings of later stages to `config.yaml`."""
    record = _record(run, name)
    if name == "featurize" and record is None:
        _check_enough_left(run, with_changes(run.config, given), request.pool)
    force = request.force and name == "select"
    return run_stage(
        StageOrder(
            run=run,
            stage=load_stage(name),
            iteration=1,
            given=given if record is None or force else _known(record, given),
            force=force,
            execution=Execution(request.device),
            progress=progress,
        )
    )


def _check_output(request: PoolRequest, run: Path) -> None:
    output = request.output
    if output is None:
        return
    if output.resolve() == request.pool.resolve():
        raise UsageError(f"--output {output} is the file of the pairs itself")
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", hint=f"--output {output / 'picked.jsonl'}")
    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {output.parent}")
    is_selected = _is_begun(run) and Run.open(run).stage("select", 1).manifest is not None
    if output.exists() and not is_selected and not request.force:
        raise _foreign(output, f"nothing says what it was made from: `{run}` has picked no pairs yet")


def _foreign(output: Path, reason: str) -> RefusedError:
    return RefusedError(
        f"{output} is there, and was not made by this command",
        details=[reason],
        hint="--force replaces it; or another --output",
    )


def _write(request: PoolRequest, run: Run) -> bool:
    """Write the output; returns whether it was there already, from the same choice."""
    assert request.output is not None
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in picked_pairs(run)).encode()
    if request.output.exists():
        with open_regular(request.output) as stream:
            is_same = stream.read() == text
        if is_same:
            return True
        if not request.force:
            raise _foreign(
                request.output, f"it holds other lines than the picks of `{run.path}`: changed since, or older"
            )
    write_bytes(request.output, text)
    return False
