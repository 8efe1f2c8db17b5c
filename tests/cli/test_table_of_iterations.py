"""Tables: every iteration of a long run is shown, and what needs no folding is what rich draws."""

import io
import shutil
import sys
from pathlib import Path

import pytest
from command_line import STAGES, done, on
from rich.console import Console
from rich.table import Table
from rich.text import Text

from activedpo_cli.cli.render import PIPE_TABLE_WIDTH, print_table


def test_every_iteration_of_a_long_run_is_shown(finished: Path) -> None:
    """Side by side, the columns of so many iterations would have no width left."""
    for number in range(3, 13):
        shutil.copytree(finished / "iter-002", finished / f"iter-{number:03d}", dirs_exist_ok=True)
    shown = done(*on(finished, "status")).stdout
    rows = [line.split() for line in shown.splitlines() if line.startswith("iter-")]
    assert [row[0] for row in rows] == [f"iter-{number:03d}" for number in range(1, 13)]
    assert rows[0].count("complete") == len(STAGES)
    assert all(row.count("stale") + row.count("complete") == len(STAGES) for row in rows)
    assert ["iteration", *STAGES] in [line.split() for line in shown.splitlines()]


@pytest.mark.parametrize("rows", [[], [["a", "b"]], [["漢字", "é"], ["", "x" * 30]], [["😀 y", "-0.1 … 2"]]])
def test_a_table_that_needs_no_folding_is_what_rich_draws(
    rows: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("one", "number two"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*map(Text, row))
    wanted, shown = io.StringIO(), io.StringIO()
    Console(file=wanted, width=PIPE_TABLE_WIDTH).print(table)
    monkeypatch.setattr(sys, "stdout", shown)
    print_table(["one", "number two"], rows)
    assert shown.getvalue() == wanted.getvalue()
