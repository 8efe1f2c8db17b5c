"""The three ways to call `select`: in a run, with `--features`, and with `--pool`."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from activedpo_cli.base.errors import UsageError
from activedpo_cli.cli.options import StageOptions

FILES_PANEL = "Without a run"
POOL_PANEL = "From a file of pairs"
RidgeOption = Annotated[
    Optional[float],
    typer.Option("--ridge", help="λ of V = λI + Σφφᵀ, for methods that have it. [default: the method's]"),
]


@dataclass(frozen=True)
class SelectOptions(StageOptions):
    """What *select* can be told in all its forms; each field is a flag."""

    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Make it again; in a run the old result is kept in .stale/, with --features it is replaced."
        ),
    ] = False


@dataclass(frozen=True)
class FilesOptions:
    """What a choice among features and pairs of the user's own needs beside; each field is a flag."""

    features: Annotated[
        Optional[Path],
        typer.Option(
            "--features",
            help="Safetensors with `features` (responses × d), used as they are unless --normalise is given; or a folder.",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None
    pairs: Annotated[
        Optional[Path],
        typer.Option(
            "--pairs",
            help="A table with `pair_id`, `response_a`, `response_b` (rows of `features`), and perhaps `prompt_id`.",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None
    labelled: Annotated[
        Optional[Path],
        typer.Option(
            "--labelled",
            help="Safetensors with `pair_features` of pairs labelled earlier.",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None
    output: Annotated[
        Optional[Path],
        typer.Option(
            "--output",
            help="JSON lines of `pair_id`, `rank`, `score`; with --pool also `row` and the texts.",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None
    memory: Annotated[
        float,
        typer.Option(
            "--memory",
            min=0,
            metavar="GB",
            help="Memory for the features of candidates. Where they take more, activedpo and largest-norm read them in "
            "passes; k-center and badge hold them all the same, and say how much. Changes no pick.",
            rich_help_panel=FILES_PANEL,
        ),
    ] = 0.5


@dataclass(frozen=True)
class PoolOptions:
    """What a choice among the pairs of a file needs beside; each field is a flag."""

    pool: Annotated[
        Optional[Path],
        typer.Option(
            "--pool",
            help="A table of pairs: `prompt` with `chosen`, `rejected` or `response_a`, `response_b`, as TRL has them.",
            rich_help_panel=POOL_PANEL,
        ),
    ] = None
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            help="Whose gradients the features are: alias, hub id or folder. Needed where the run is made.",
            rich_help_panel=POOL_PANEL,
        ),
    ] = None


def with_ridge(assignments: Iterable[str] | None, ridge: float | None, method: str, *, quiet: bool) -> list[str]:
    """`--ridge` as the `--set` that it is short for; where the method has no λ, a warning says that it is ignored."""
    from activedpo_cli.base.discovery import setting_names
    from activedpo_cli.cli.render import make_progress
    from activedpo_cli.select.method_settings import method_section

    found = list(assignments or ())
    if ridge is None:
        return found
    if "ridge" in setting_names("acquisition", method):
        return [*found, f"select.methods.{method_section(method)}.ridge={ridge}"]
    make_progress(quiet).warn(f"--ridge is ignored: method `{method}` has no ridge")
    return found


def select_from_pool(files: FilesOptions, pool: PoolOptions, options: SelectOptions, given: Mapping[str, Any]) -> None:
    """`select --pool`: pick among the pairs of a file, by a run that is made of them."""
    from activedpo_cli.cli.render import make_progress
    from activedpo_cli.cli.stage_output import print_pool_choice
    from activedpo_cli.run.pool_choice import PoolRequest, do_pool_choice

    beside = {
        "--features": files.features,
        "--pairs": files.pairs,
        "--labelled": files.labelled,
        "--iteration": options.iteration,
    }
    typed = [flag for flag, value in beside.items() if value is not None]
    if typed:
        raise UsageError(f"{typed[0]} does not go with --pool, which makes features and a first iteration itself")
    _refuse_tracking(options)
    assert pool.pool is not None
    named = {} if pool.model is None else {"model.name": pool.model}
    request = PoolRequest(pool.pool, options.run, {**given, **named}, files.output, options.force, options.device)
    choice = do_pool_choice(request, make_progress(options.quiet))
    print_pool_choice(choice, json=options.json, quiet=options.quiet)


def select_from_files(files: FilesOptions, options: SelectOptions, given: Mapping[str, Any]) -> None:
    """`select --features`: pick among features and pairs in files, without a run."""
    from activedpo_cli.cli.render import make_progress
    from activedpo_cli.cli.stage_output import print_choice
    from activedpo_cli.select.from_files.command import FilesRequest, do_files_choice

    needed = {"--features": files.features, "--pairs": files.pairs, "--output": files.output}
    if files.features is None or files.pairs is None or files.output is None:
        missing = [flag for flag, path in needed.items() if path is None]
        raise UsageError(
            f"a choice among files needs {' and '.join(missing)} too",
            hint="activedpo select --features F.safetensors --pairs P.jsonl --output picked.jsonl",
        )
    if options.run is not None or options.iteration is not None:
        raise UsageError("--features takes no run, so it goes with neither --run nor --iteration")
    _refuse_tracking(options)
    memory = int(min(files.memory * 1e9, sys.maxsize))
    request = FilesRequest(files.features, files.pairs, files.labelled, files.output, given, memory, options.force)
    print_choice(do_files_choice(request, make_progress(options.quiet)), json=options.json, quiet=options.quiet)


def _refuse_tracking(options: SelectOptions) -> None:
    if options.track is not None:
        raise UsageError(
            "--track is for the stages of a run",
            hint="leave it out here; `activedpo label --track …` tells all before it",
        )
