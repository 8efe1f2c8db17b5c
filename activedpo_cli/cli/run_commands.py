"""Commands about whole runs: make one, and do all that is not done."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from activedpo_cli.base.errors import LabelsPendingError
from activedpo_cli.cli.options import (
    AccelerateOption,
    AddressOption,
    DeviceOption,
    ExecutorOption,
    GpusOption,
    JsonOption,
    PresetOption,
    ProcessesOption,
    QuietOption,
    RunOption,
    SetOption,
    ShardOption,
    TrackOption,
    WorkersOption,
    all_given,
    flags_of,
    names_in,
    with_settings,
    without_clashes,
)
from activedpo_cli.cli.render import make_progress, print_json, print_message, print_result
from activedpo_cli.cli.select_forms import RidgeOption, with_ridge
from activedpo_cli.cli.sharing import device_of, processes_of, runner_for, shard_of, speaks
from activedpo_cli.cli.typed import typed_command

LOOP_SETTINGS = without_clashes(
    [
        *flags_of("model", "prompts", "seed", "generate", "adapter", "featurize", "select", "label", "train"),
        *flags_of("evaluate", prefix="eval-"),
        *flags_of("sft", prefix="sft-"),
    ]
)


@with_settings(flags_of("model", "prompts", "seed"))
def init(
    given: Mapping[str, Any],
    run: RunOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Create a run: its settings, its prompts and its initial model.

    Prompts are a .jsonl, .json, .csv, .tsv, .parquet or .txt file, a hub dataset, or a named source.

    Writes   config.yaml, prompts.jsonl, run.json, reference/

    Example:   activedpo init --model gemma-2b --prompts prompts.jsonl --eval-prompts 100
    """
    from activedpo_cli.engine.names import with_known_names
    from activedpo_cli.run.create import RunRequest, ensure_run
    from activedpo_cli.store.run import run_path

    shard = shard_of(None)
    patience = None if shard else 0.0
    request = RunRequest(run_path(run), preset, with_known_names(all_given(given, set_)), typed_command(), patience)
    quiet = quiet or not speaks(shard)
    made_run, made = ensure_run(request, make_progress(quiet))
    if json and speaks(shard):
        print_json({"run": str(made_run.path), "state": "made" if made else "up to date"})
        return
    if not made and not quiet:
        print_message(f"✓ `{made_run.path}` is up to date")
    if not quiet:
        print_result(str(made_run.path))


@with_settings(LOOP_SETTINGS)
def run_loop(
    given: Mapping[str, Any],
    ridge: RidgeOption = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, metavar="T", help="Iterations in all. [default: as asked before, else 5]")
    ] = None,
    run: RunOption = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = None,
    ray_address: AddressOption = None,
    num_processes: ProcessesOption = None,
    accelerate_config: AccelerateOption = None,
    track: TrackOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Make the report page at the end.")] = True,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Do every stage that is not done, for as many iterations as asked, in one process.

    The same as the six commands in a loop, with sft before them where --sft-data is given; stop it at any time and run it
    again. Ends with the evaluations as table and chart, and the report page.

    Example:   activedpo run --iterations 5 --method activedpo --budget 50
    """
    from activedpo_cli.cli.loop_output import print_ending, show_loop
    from activedpo_cli.run.command import method_in_use
    from activedpo_cli.run.loop import LoopRequest
    from activedpo_cli.store.run import run_path

    if ridge is not None:
        method = method_in_use(run_path(run), all_given(given, set_), preset=preset, force=True)
        set_ = with_ridge(set_, ridge, method, quiet=quiet)
    do = runner_for(executor, workers, gpus_per_worker, ray_address, shard)
    own = shard_of(shard)
    together = processes_of(num_processes, accelerate_config, own, executor)
    request = LoopRequest(
        run,
        preset,
        all_given(given, set_),
        iterations,
        device_of(device, own),
        typed_command(),
        own,
        together,
        names_in(track),
    )
    try:
        done = show_loop(request, do, quiet=quiet or not speaks(own), json=json)
    except LabelsPendingError as error:
        if json:
            print_json(error.facts)
        raise
    if not speaks(own):
        return
    print_ending(done, quiet=quiet, json=json, with_report=report)
