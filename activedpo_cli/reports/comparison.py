"""A comparison of methods as files: how much their choices have in common as a picture, and every number of it."""

from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError, RefusedError
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.store import files
from activedpo_cli.store.jsonl import read_json, write_json
from activedpo_cli.store.run import Run

PICTURE_NAME = "overlap.png"
FACTS_NAME = "compare.json"


def default_place(run: Run, iteration: int) -> Path:
    """`compare/iter-NNN` in the run, beside `report`."""
    return run.path / "compare" / run.iteration_path(iteration).name


def check_place(folder: Path) -> None:
    """Raise RefusedError where files of these names would be lost that are no comparison."""
    if folder.exists() and not folder.is_dir():
        raise RefusedError(f"`{folder}` is not a folder", hint="name another one with --output FOLDER")
    taken = [name for name in (PICTURE_NAME, FACTS_NAME) if (folder / name).exists()]
    if taken and not _is_comparison(folder / FACTS_NAME):
        raise RefusedError(
            f"`{folder / taken[0]}` is not of a comparison, and one would take its place",
            hint="name another folder with --output FOLDER",
        )


def write_comparison(folder: Path, facts: dict[str, Any]) -> Path:
    """Write both files, replacing those of an earlier comparison; returns the picture's path."""
    from activedpo_cli.reports.drawing import draw

    picture = draw(overlap_plot(facts), ["png"])["png"]
    write_json(folder / FACTS_NAME, facts)
    files.write_bytes(folder / PICTURE_NAME, picture)
    return folder / PICTURE_NAME


def overlap_plot(facts: dict[str, Any]) -> Plot:
    """The overlaps as a matrix of shares."""
    names = list(facts["overlaps"])
    source = f"{facts['run']}/iter-{facts['iteration']:03d}/featurize"
    rows = [
        Series(
            label=name,
            x=[float(place) for place in range(len(names))],
            y=[facts["overlaps"][name][other] for other in names],
            sources=[source],
        )
        for name in names
    ]
    chance = 100 * facts["chance_overlap"]
    return Plot(
        name="overlap",
        title="What the methods have in common",
        caption="Pairs that both methods choose, in per cent of the batch.",
        alternative=f"A matrix of {len(names)} methods.",
        panels=[
            Panel(
                title=f"Pairs in common, % of {facts['budget']} (chance alone: {chance:.0f})",
                x_label="",
                y_label="",
                series=rows,
                kind="matrix",
            )
        ],
    )


def _is_comparison(path: Path) -> bool:
    try:
        facts = read_json(path)
    except (InvalidDataError, OSError):
        return False
    return isinstance(facts, dict) and {"overlaps", "methods", "left_out"} <= set(facts)
