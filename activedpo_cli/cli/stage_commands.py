"""The stages as subcommands: the six of an iteration, and the one before the first."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from activedpo_cli.base.errors import LabelsPendingError, UsageError
from activedpo_cli.cli import completion
from activedpo_cli.cli.options import (
    AccelerateOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    PresetOption,
    ProcessesOption,
    QuietOption,
    RunOption,
    SetOption,
    ShardOption,
    StageOptions,
    TrackOption,
    TrainOptions,
    all_given,
    flags_of,
    names_in,
    with_settings,
)
from activedpo_cli.cli.render import make_progress, print_json
from activedpo_cli.cli.select_forms import (
    FilesOptions,
    PoolOptions,
    RidgeOption,
    SelectOptions,
    select_from_files,
    select_from_pool,
    with_ridge,
)
from activedpo_cli.cli.sharing import device_of, processes_of, refuse_several, runner_of, shard_of, speaks
from activedpo_cli.cli.typed import typed_command, typed_options

if TYPE_CHECKING:
    from activedpo_cli.base.launchers import Processes, Shard
    from activedpo_cli.label.web.server import WebOptions
    from activedpo_cli.run.command import StageRequest

RUN_SETTINGS = ("model", "prompts", "seed")


@with_settings(flags_of("sft", *RUN_SETTINGS))
def sft(
    given: Mapping[str, Any],
    run: RunOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    force: ForceOption = False,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    num_processes: ProcessesOption = None,
    accelerate_config: AccelerateOption = None,
    track: TrackOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune the model on examples before iteration 1, as the paper does; what comes out is π_SFT.

    Leave it out where your model is fine-tuned already. Makes the run if there is none. Once anything was made with the
    reference it can not change any more. Interrupted, it goes on at its last checkpoint.

    A row of --data (.jsonl, .jsonl.gz, .csv, .parquet, …) has prompt and completion, or prompt and chosen, or messages that
    end with the assistant's: only the answer is learnt. Or it has text: all of it is learnt.

    Reads   --data, the model      Writes   reference/sft/model/, held-out.jsonl, metrics.jsonl

    Example:   activedpo sft --model gemma-2b --data examples.jsonl --prompts prompts.jsonl

    Example:   activedpo sft --run small --data examples.jsonl.gz --lora-r 64 --learning-rate 2e-4
    """
    options = TrainOptions(
        run,
        None,
        set_,
        force,
        device,
        shard,
        track=track,
        quiet=quiet,
        json=json,
        num_processes=num_processes,
        accelerate_config=accelerate_config,
    )
    _stage("sft", given, options, preset=preset, make=True)


@with_settings(flags_of("generate", "label.oracle", "label.score_field", *RUN_SETTINGS))
def generate(given: Mapping[str, Any], *, preset: PresetOption = None, options: StageOptions) -> None:
    """Sample responses to the prompts of an iteration from the current policy.

    Makes the run if there is none. Each unit of prompts is one file, so an interrupted command goes on where it stopped.

    Reads   prompts.jsonl, iter-(N-1)/train/adapter      Writes   iter-N/generate/

    Example:   activedpo generate --model gemma-2b
    """
    _stage("generate", given, options, preset=preset, make=True)


@with_settings(flags_of("featurize", "adapter", "model.dtype"))
def featurize(given: Mapping[str, Any], options: StageOptions) -> None:
    """Project each response's log-probability gradient to a feature vector.

    The responses of pairs labelled earlier are featurized again, under the current policy.

    Reads   iter-N/generate/, earlier labels, iter-(N-1)/train/adapter      Writes   iter-N/featurize/

    Example:   activedpo featurize --lora-r 16 --lora-modules all-linear --proj-dim 4096
    """
    _stage("featurize", given, options)


@with_settings(flags_of("select", "label.oracle", "label.score_field"))
def select(
    given: Mapping[str, Any],
    *,
    ridge: RidgeOption = None,
    files: FilesOptions,
    pool: PoolOptions,
    options: SelectOptions,
) -> None:
    """Pick the pairs to label.

    In a run: scores every pair of responses to one prompt and keeps the best; needs no model. With --features: the same
    among features and pairs of your own, without a run. With --pool: makes a run of the pairs in a file, featurizes them
    with --model, and picks; the pairs in the file are the only candidates. Typed again, each goes on where it stopped.

    Reads   iter-N/featurize/, earlier labels      Writes   iter-N/select/selection.jsonl, scores.safetensors

    Example:   activedpo select --method activedpo --budget 50

    Example:   activedpo select --features F.safetensors --pairs P.jsonl --budget 50 --output picked.jsonl

    Example:   activedpo select --pool pairs.jsonl --model gemma-2b --budget 50 --output picked.jsonl
    """
    from activedpo_cli.run.command import method_in_use
    from activedpo_cli.store.run import run_path

    among_files = any(path is not None for path in (files.features, files.pairs, files.labelled, files.output))
    in_run = None if among_files and pool.pool is None else run_path(options.run)
    typed = all_given(given, options.set_)
    if among_files or pool.pool is not None:
        refuse_several("select", options.shard)
    if ridge is not None:
        method = method_in_use(in_run, typed, options.iteration, force=options.force)
        options = replace(options, set_=with_ridge(options.set_, ridge, method, quiet=options.quiet))
        typed = all_given(given, options.set_)
    if pool.pool is not None:
        select_from_pool(files, pool, options, typed)
    elif pool.model is not None:
        raise UsageError("--model goes with --pool; a run has its model, and features need none")
    elif among_files:
        select_from_files(files, options, typed)
    else:
        _stage("select", given, options)


@with_settings(flags_of("label"))
def label(
    given: Mapping[str, Any],
    *,
    annotator: Annotated[Optional[str], typer.Option(help="Who answers. [default: the user name]")] = None,
    guidelines: Annotated[Optional[Path], typer.Option(help="A text that people can call up while they label.")] = None,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Ask people line by line, as screen readers need it; else on the full screen."),
    ] = False,
    export: Annotated[
        Optional[Path],
        typer.Option(
            "--export",
            help="Write the pending pairs, of a closed stage the answers, to FILE.jsonl or FILE.csv, or as --format says, "
            "and stop.",
        ),
    ] = None,
    import_: Annotated[Optional[Path], typer.Option("--import", help="Read answers from such a file.")] = None,
    format_: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            metavar="NAME",
            help="Of that file: see `activedpo ls formats`. [default: as its suffix or its rows tell]",
            autocompletion=completion.formats,
        ),
    ] = None,
    map_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--map", metavar="2=ann", help="With --import: who is called `2` in the file is `ann` here; repeatable."
        ),
    ] = None,
    accept_partial: Annotated[
        bool, typer.Option("--accept-partial", help="Close the stage with the answers there are.")
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Write a closed stage's other files again from the answers in labels.jsonl."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many calls and tokens a judge would take, and make none.")
    ] = False,
    ask_again: Annotated[
        bool, typer.Option("--ask-again", help="Ask also about pairs that were answered before; else they are not.")
    ] = False,
    web: Annotated[bool, typer.Option("--web", help="Let people label on a page in their browsers.")] = False,
    host: Annotated[Optional[str], typer.Option(help="Where --web listens. [default: 127.0.0.1]")] = None,
    port: Annotated[
        Optional[int], typer.Option(min=0, max=65535, help="Where --web listens; 0 is a free port. [default: 0]")
    ] = None,
    public_url: Annotated[
        Optional[str], typer.Option("--public-url", help="Address of the page behind a proxy with TLS.")
    ] = None,
    annotators: Annotated[
        Optional[str], typer.Option(help="Who labels with --web, as ann,bo; each gets an address.")
    ] = None,
    options: StageOptions,
) -> None:
    """Ask the oracle which response of each selected pair is better.

    Every answer is on the disk before it is acknowledged. Exits 5 while pairs still wait for an answer. When the stage is
    made again, what people answered before about the same texts is taken over; so is what the same machine answered, if
    other pairs are selected now.

    Reads   iter-N/select/, iter-N/generate/      Writes   iter-N/label/labels.jsonl, outcomes.jsonl, preferences.jsonl

    Example:   activedpo label --oracle reward-model:OpenAssistant/reward-model-deberta-v3-large

    Example:   activedpo label --oracle judge:MODEL --set label.judge.base_url=http://127.0.0.1:8000/v1 --dry-run

    Example:   activedpo label --oracle human --export tasks.json --format label-studio

    Example:   activedpo label --oracle human --web --annotators ann,bo
    """
    doing = {
        "annotator": _annotator(annotator),
        "guidelines": guidelines,
        "plain": plain,
        "export": export,
        "import": import_,
        "format": format_,
        "map": map_,
        "accept_partial": accept_partial,
        "rebuild": rebuild,
        "ask-again": ask_again,
        "web": _web_options(web, host, port, public_url, annotators),
    }
    _refuse_contradictions(doing)
    if dry_run:
        _plan_labels(given, options, doing)
    else:
        _stage("label", given, options, doing=doing)


def _annotator(name: str | None) -> str | None:
    """Who answers, without the blanks around a name, which would make two people of one."""
    if name is not None and not name.strip():
        raise UsageError("--annotator takes a name, and blanks are none", hint="--annotator ann")
    return None if name is None else name.strip()


def _refuse_contradictions(doing: Mapping[str, Any]) -> None:
    """Raise UsageError for options of *label* that can't be meant together."""
    reads, writes = doing["import"] is not None, doing["export"] is not None
    if doing["web"] and (reads or writes):
        raise UsageError("--web asks people on a page, and is no way of reading or writing files", hint="leave one out")
    if doing["web"] and doing["plain"]:
        raise UsageError("--plain is a way of asking in a terminal, and --web asks on a page", hint="leave one out")
    if doing["web"] and doing["web"].people and doing["annotator"]:
        raise UsageError("--annotators names everybody who labels on the page", hint="leave --annotator out")
    if doing["rebuild"] and doing["ask-again"]:
        raise UsageError("--rebuild keeps the answers that there are, and --ask-again asks anew", hint="leave one out")
    if doing["map"] and not reads:
        raise UsageError("--map gives the people of an imported file their names", hint="--import FILE")
    if doing["format"] and not (reads or writes):
        raise UsageError("--format is that of a file", hint="--export FILE or --import FILE")


def _plan_labels(given: Mapping[str, Any], options: StageOptions, doing: Mapping[str, Any]) -> None:
    """Print what a judge would be asked."""
    from activedpo_cli.cli.judge_output import print_plan
    from activedpo_cli.run.command import plan_labels

    request = _request("label", given, options, doing=doing)
    print_plan(plan_labels(request, make_progress(options.quiet)), json=options.json)


def _web_options(
    web: bool, host: str | None, port: int | None, public_url: str | None, annotators: str | None
) -> "WebOptions | None":
    """What --web and its options mean, checked before anything begins; None without it."""
    if not web:
        given = {"--host": host, "--port": port, "--public-url": public_url, "--annotators": annotators}
        alone = next((name for name, value in given.items() if value is not None), None)
        if alone:
            raise UsageError(f"{alone} goes with --web", hint="add --web, or leave it out")
        return None
    from activedpo_cli.label.web.access import people_named
    from activedpo_cli.label.web.server import WebOptions, require_web

    people = people_named(annotators) if annotators is not None else []
    options = WebOptions(host=host or "127.0.0.1", port=port or 0, public_url=public_url, people=people)
    require_web(options)
    return options


@with_settings(flags_of("train", "adapter"))
def train(given: Mapping[str, Any], options: TrainOptions) -> None:
    """Continue the policy with DPO on the preferences; the reference is the initial model in every iteration.

    Reads   iter-N/label/, iter-(N-1)/train/adapter      Writes   iter-N/train/adapter/, metrics.jsonl

    Example:   activedpo train --learning-rate 1e-4 --epochs 4 --labels new
    """
    _stage("train", given, options)


@with_settings(flags_of("evaluate"))
def evaluate(given: Mapping[str, Any], options: StageOptions) -> None:
    """Measure the new policy on held-out prompts, against the initial model.

    Reads   iter-N/train/adapter, the held-out prompts      Writes   iter-N/evaluate/metrics.json, samples.jsonl

    Example:   activedpo evaluate --num-responses 3
    """
    _stage("evaluate", given, options)


def _stage(
    name: str,
    given: Mapping[str, Any],
    options: StageOptions,
    *,
    preset: str | None = None,
    make: bool = False,
    doing: Mapping[str, Any] | None = None,
) -> None:
    """Do a stage and print what came of it; `doing` are options of its own that are no settings."""
    from activedpo_cli.cli.stage_output import print_stage, stage_as_json
    from activedpo_cli.run.command import do_stage

    do = runner_of(options)
    request = _request(name, given, options, preset=preset, make=make, doing=doing)
    quiet = options.quiet or not speaks(request.shard)
    try:
        result = do_stage(request, make_progress(quiet), do)
    except LabelsPendingError as error:
        if options.json:
            print_json(error.facts)
        raise
    if options.json and speaks(request.shard):
        print_json(stage_as_json(result))
    elif not quiet:
        print_stage(result)


def _request(
    name: str,
    given: Mapping[str, Any],
    options: StageOptions,
    *,
    preset: str | None = None,
    make: bool = False,
    doing: Mapping[str, Any] | None = None,
) -> "StageRequest":
    from activedpo_cli.run.command import StageRequest

    shard = shard_of(options.shard)
    return StageRequest(
        name,
        options.run,
        options.iteration,
        all_given(given, options.set_),
        options.force,
        device_of(options.device, shard),
        preset,
        make,
        dict(doing or {}),
        typed_command(),
        typed_options(),
        shard,
        _processes(options, shard),
        names_in(options.track),
    )


def _processes(options: StageOptions, shard: "Shard | None") -> "Processes | None":
    if not isinstance(options, TrainOptions):
        return None
    return processes_of(options.num_processes, options.accelerate_config, shard, options.executor)
