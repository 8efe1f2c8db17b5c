"""The two forms of `select` that need no run made before: their flags and calls."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from activedpo_cli.base.errors import UsageError

FILES_PANEL = "Without a run"
POOL_PANEL = "From a file of pairs"
FeaturesOption = Annotated[
    Optional[Path],
    typer.Option(
        "--features",
        help="Safetensors with `features` (responses × d), used as they are unless --normalise is given; or a folder.",
        rich_help_panel=FILES_PANEL,
    ),
]
PairsOption = Annotated[
    Optional[Path],
    typer.Option(
        "--pairs",
        help="A table with `pair_id`, `response_a`, `response_b` (rows of `features`), and perhaps `prompt_id`.",
        rich_help_panel=FILES_PANEL,
    ),
]
LabelledOption = Annotated[
    Optional[Path],
    typer.Option(
        "--labelled", help="Safetensors with `pair_features` of pairs labelled earlier.", rich_help_panel=FILES_PANEL
    ),
]
OutputOption = Annotated[
    Optional[Path],
    typer.Option(
        "--output",
        help="JSON lines of `pair_id`, `rank`, `score`; with --pool also `row` and the texts.",
        rich_help_panel=FILES_PANEL,
    ),
]
PoolOption = Annotated[
    Optional[Path],
    typer.Option(
        "--pool",
        help="A table of pairs: `prompt` with `chosen`, `rejected` or `response_a`, `response_b`, as TRL has them.",
        rich_help_panel=POOL_PANEL,
    ),
]
ModelOption = Annotated[
    Optional[str],
    typer.Option(
        "--model",
        help="Whose gradients the features are: alias, hub id or folder. Needed where the run is made.",
        rich_help_panel=POOL_PANEL,
    ),
]
SelectForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Make it again; in a run the old result is kept in .stale/, with --features it is replaced."
    ),
]
MemoryOption = Annotated[
    float,
    typer.Option(
        "--memory",
        min=0,
        metavar="GB",
        help="Memory for the features of candidates. Where they take more, activedpo and largest-norm read them in passes; "
        "k-center and badge hold them all the same, and say how much. Changes no pick.",
        rich_help_panel=FILES_PANEL,
    ),
]


def refuse_beside_pool(others: Mapping[str, Any]) -> None:
    """Raise UsageError for a flag, by name with its value, that was typed although `--pool` leaves it no meaning."""
    typed = [flag for flag, value in others.items() if value is not None]
    if typed:
        raise UsageError(f"{typed[0]} does not go with --pool, which makes features and a first iteration itself")


def select_from_pool(
    pool: Path,
    output: Path | None,
    given: dict[str, Any],
    ridge: float | None,
    run: str | None,
    force: bool,
    device: str,
    quiet: bool,
    json: bool,
) -> None:
    """`select --pool`: pick among the pairs of a file, by a run that is made of them."""
    from activedpo_cli.cli.render import make_progress
    from activedpo_cli.cli.stage_output import print_pool_choice
    from activedpo_cli.run.pool_choice import PoolRequest, do_pool_choice

    request = PoolRequest(pool, run, given, ridge, output, force, device)
    print_pool_choice(do_pool_choice(request, make_progress(quiet)), json=json, quiet=quiet)


def select_from_files(
    features: Path | None,
    pairs: Path | None,
    labelled: Path | None,
    output: Path | None,
    memory: float,
    given: dict[str, Any],
    ridge: float | None,
    run: str | None,
    iteration: int | None,
    force: bool,
    quiet: bool,
    json: bool,
) -> None:
    """`select --features`: pick among features and pairs in files, without a run."""
    from activedpo_cli.cli.render import make_progress
    from activedpo_cli.cli.stage_output import print_choice
    from activedpo_cli.select.from_files.standalone import StandaloneRequest, do_standalone

    if features is None or pairs is None or output is None:
        flags = {"--features": features, "--pairs": pairs, "--output": output}
        missing = [flag for flag, path in flags.items() if path is None]
        raise UsageError(
            f"a choice among files needs {' and '.join(missing)} too",
            hint="activedpo select --features F.safetensors --pairs P.jsonl --output picked.jsonl",
        )
    if run is not None or iteration is not None:
        raise UsageError("--features takes no run, so it goes with neither --run nor --iteration")
    limit = int(min(memory * 1e9, sys.maxsize))
    request = StandaloneRequest(features, pairs, labelled, output, given, ridge, limit, force)
    print_choice(do_standalone(request, make_progress(quiet)), json=json, quiet=quiet)
