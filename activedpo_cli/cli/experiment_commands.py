"""The command that runs a whole comparison: arms × seeds, and what they say together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from activedpo_cli.base.errors import ActiveDPOError, BusyError
from activedpo_cli.cli.options import (
    AddressOption,
    DeviceOption,
    ExecutorOption,
    GpusOption,
    JsonOption,
    QuietOption,
    SetOption,
    ShardOption,
    WorkersOption,
)
from activedpo_cli.cli.render import make_progress, print_json, print_message, print_result, print_table
from activedpo_cli.cli.sharing import device_of, runner_for, shard_of_experiment, speaks

if TYPE_CHECKING:
    from activedpo_cli.experiments.conduct import ExperimentResult

SHOWN = 3
"""Names of runs that failed for one reason."""


def experiment(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A YAML file, or a name from `activedpo ls experiments`.")
    ],
    output: Annotated[
        Optional[Path], typer.Option("--output", metavar="FOLDER", help="Where it goes. [default: runs/SPEC]")
    ] = None,
    runs_from: Annotated[
        Optional[Path],
        typer.Option("--runs-from", metavar="FOLDER", help="Use and add to the runs of another experiment's folder."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes, a run at a time each.")] = 1,
    arms: Annotated[
        Optional[str], typer.Option("--arms", metavar="A,B", help="Only some of the arms. [default: all]")
    ] = None,
    seeds: Annotated[
        Optional[str], typer.Option("--seeds", metavar="0-4,7", help="Only some of the seeds. [default: all]")
    ] = None,
    iterations: Annotated[
        Optional[int], typer.Option("--iterations", min=1, metavar="T", help="Of each run. [default: the spec's]")
    ] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    gpus_per_worker: GpusOption = None,
    ray_address: AddressOption = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write what the finished runs say together at the end.")
    ] = True,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Compare methods or settings over seeds: a run for each arm and seed, and one report of what they say together.

    A file has a line each for `title: Mine`, `settings: {model.name: my-model, prompts.source: prompts.jsonl}`,
    `arms: [random, activedpo, reward-gap]` and `seeds: 0-5`; arms may be names with settings too, {small: {adapter.r: 8}}.

    --set changes a setting of all runs; where it stands in the grid, `--set key=[a,b]` replaces its values there.

    --arms and --seeds say which runs to do; the report is about every finished run of the experiment.

    Runs of one seed share prompts, held-out prompts and everything else that comes out the same. Stop it at any time; the
    same command goes on. Several processes or machines may work on one folder: each takes runs that nobody works on. With
    --shard, or under a launcher, each waits for the others too, and does the runs of those that died.

    Writes   runs/NAME/      results.jsonl, summary.json, tables.md, index.html, figures/

    Example:   activedpo experiment figure-1-tiny --jobs 2
    """
    from activedpo_cli.engine.runner import run_stage
    from activedpo_cli.experiments.conduct import ExperimentRequest, conduct

    do = runner_for(executor, workers, gpus_per_worker, ray_address, shard)
    own = shard_of_experiment(shard, jobs, executor)
    request = ExperimentRequest(
        spec=spec,
        output=output,
        runs_from=runs_from,
        jobs=jobs,
        arms=[name.strip() for name in (arms or "").split(",") if name.strip()],
        seeds=seeds,
        iterations=iterations,
        set_=set_ or [],
        device=device_of(device, own),
        with_report=report,
        shard=own,
    )
    quiet = quiet or not speaks(own)
    _print_experiment(conduct(request, make_progress(quiet), do or run_stage), quiet=quiet, json=json and speaks(own))


def _print_experiment(result: "ExperimentResult", *, quiet: bool, json: bool) -> None:
    """Exit code 1 where runs failed, 75 where others are still at work elsewhere; what is there is reported all the same."""
    if json:
        print_json(
            {
                "folder": str(result.folder),
                "runs": result.runs,
                "done": result.done,
                "busy": result.busy,
                "failed": result.failed,
                "page": None if result.page is None else str(result.page),
                "summary": result.summary,
            }
        )
    elif not quiet:
        _print_for_people(result)
    if not json:
        _print_failures(result.failed)
    if result.failed:
        raise typer.Exit(ActiveDPOError.exit_code)
    if result.busy:
        raise typer.Exit(BusyError.exit_code)


def _print_for_people(result: "ExperimentResult") -> None:
    for table in result.tables:
        print_message(table.title)
        print_table(table.columns, table.rows)
    if result.busy:
        print_message(
            f"{len(result.busy)} runs are being done by other processes; run the command again when they are done"
        )
    print_message(f"✓ {result.done} of {result.runs} runs are done", style="ok" if result.done == result.runs else "")
    if result.page is not None:
        print_result(str(result.page))


def _print_failures(failed: dict[str, str]) -> None:
    """Each reason once, with the runs that it stopped."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in failed.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        print_message(f"✗ {shown}: {reason}", style="bad")
    if failed:
        print_message("hint: the same command tries these runs again; what was finished is kept")
