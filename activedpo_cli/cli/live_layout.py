"""A moment of a loop as lines that fit the terminal."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import display_text
from activedpo_cli.cli.chart import sparkline
from activedpo_cli.cli.evaluation_cells import comparable, evaluation_cells, measured_columns
from activedpo_cli.cli.loop_state import LoopState, duration
from activedpo_cli.cli.symbols import Symbols
from activedpo_cli.store.run import SFT, STAGES

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = ("labels", "reward", "95 % interval", "win rate", "second reward")
BY_WORTH = ("labels", "reward", "win rate", "second reward", "95 % interval")
"""The columns in the order in which a terminal that is too narrow keeps them."""
WIDEST_BAR = 40


def live_lines(state: LoopState, now: float, *, width: int, height: int, symbols: Symbols) -> "list[Text]":
    """At most `height` lines of at most `width` cells; what matters least is left out where there is no room."""
    head, work, foot = _header(state, symbols), _work(state, now, width, symbols), _times(state, now, symbols)
    names = (SFT, *STAGES) if state.has_sft else STAGES
    stages = [_stage(state, name, now, symbols) for name in names]
    room = height - len(stages) - 3
    if room < 0:
        running = [line for line, name in zip(stages, names, strict=True) if name == state.running]
        lines = [head, *running, work, foot][: max(height, 1)]
    else:
        lines = [head, *stages, work, *_evaluations(state, width, room, symbols), foot]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis" if symbols.to == "…" else "crop")
    return lines


def one_line(text: str) -> str:
    """Foreign text without anything that could steer a terminal or break the line."""
    return " ".join(display_text(text).split())


def _header(state: LoopState, symbols: Symbols) -> "Text":
    from rich.text import Text

    rest = [f"iteration {max(state.iteration, 1)} of {state.iterations}", one_line(state.method), one_line(state.model)]
    return Text(one_line(state.name), style="bold") + Text(f" {symbols.between} ".join(["", *rest]), style="none")


def _stage(state: LoopState, name: str, now: float, symbols: Symbols) -> "Text":
    from rich.text import Text

    seconds = state.seconds.get((0 if name == SFT else state.iteration, name))
    if seconds is not None:
        return Text(f"{symbols.done} {name:<10}{duration(seconds):>7}", style="green")
    if name != state.running:
        return Text(f"{symbols.waiting} {name}", style="dim")
    what = f"  {one_line(state.work.label)}" if state.work else ""
    return Text(f"{symbols.running} {name:<10}{duration(now - state.stage_began):>7}{what}", style="bold")


def _work(state: LoopState, now: float, width: int, symbols: Symbols) -> "Text":
    """The bar of the piece of work that is being counted, with count, rate and time left; else an empty line."""
    from rich.text import Text

    work = state.work
    if work is None:
        return Text("")
    rate, left = work.rate(now), work.seconds_left(now)
    facts = [f"{work.done}/{work.total} {work.unit}"]
    facts += [] if rate is None else [f"{rate:.1f} /s" if rate < 100 else f"{rate:.0f} /s"]
    facts += [] if left is None else [f"{duration(left)} left"]
    said = f" {symbols.between} ".join(facts)
    room = min(width - len(said) - 4, WIDEST_BAR)
    filled = int(room * min(work.done / work.total, 1)) if work.total > 0 and room > 0 else 0
    bar = Text("  ") + Text(symbols.filled * filled, style="cyan") + Text(symbols.unfilled * (room - filled), "dim")
    return (bar + Text("  ") if room >= 4 else Text("  ")) + Text(said)


def _evaluations(state: LoopState, width: int, room: int, symbols: Symbols) -> "list[Text]":
    """The table, iteration 0 and the newest rows where not all fit, and a sparkline of the reward."""
    from rich.text import Text

    if room < 3 or not state.evaluations:
        return []
    cells = [evaluation_cells(row, symbols) for row in state.evaluations]
    columns = _fitting(cells, width, symbols)
    rewards = [row["reward_mean"] for row in comparable(state.evaluations) if _is_number(row.get("reward_mean"))]
    has_sparkline = len(rewards) > 1 and room >= 5
    most = room - 2 - has_sparkline
    shown = cells if len(cells) <= most else [cells[0], *cells[len(cells) - most + 1 :]]
    widths = _widths(cells, columns)
    lines = [Text(""), Text(_row({name: name for name in columns}, widths), style="dim")]
    lines += [Text(_row(row, widths)) for row in shown[:most]]
    if has_sparkline:
        newest = rewards[-max(width - 8, 1) :]
        lines.append(Text("  reward ", style="dim") + Text(sparkline(newest, symbols), style="cyan"))
    return lines


def _fitting(cells: list[dict[str, str]], width: int, symbols: Symbols) -> list[str]:
    measured = measured_columns(cells, symbols)
    kept: list[str] = []
    for name in (name for name in BY_WORTH if name in measured):
        if sum(_widths(cells, [*kept, name]).values()) <= width:
            kept.append(name)
    return [name for name in COLUMNS if name in kept]


def _widths(cells: list[dict[str, str]], columns: list[str]) -> dict[str, int]:
    return {name: 2 + max(len(name), *(len(row[name]) for row in cells)) for name in columns}


def _row(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    return "".join(f"{cells[name]:>{width}}" for name, width in widths.items())


def _times(state: LoopState, now: float, symbols: Symbols) -> "Text":
    from rich.text import Text

    left = state.seconds_left(now)
    rest = "" if left is None else f" {symbols.between} about {duration(left)} left"
    return Text(f"elapsed {duration(now - state.began)}{rest}", style="dim")


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)
