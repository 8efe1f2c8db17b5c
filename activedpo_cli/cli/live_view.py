"""The live view of `run`: what is done, what is being done, how long it will take, and the evaluations so far.

It stands on stderr and goes away when the loop ends, however it ends; notes and warnings stay above it.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import display_text
from activedpo_cli.base.numbers import shown
from activedpo_cli.cli.drawing import Symbols, sparkline, symbols_for
from activedpo_cli.cli.evaluation_output import comparable, evaluation_cells, finite, measured_columns
from activedpo_cli.cli.render import BarProgress, counting_bar, one_line, print_message, print_result
from activedpo_cli.engine.step import StageResult
from activedpo_cli.store.run import SFT, STAGES, Run

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

COLUMNS = ("labels", "reward", "win rate", "second reward")


@dataclass(frozen=True)
class LoopState:
    """One moment of a loop. All times are of one clock, in seconds.

    Args:
        seconds: How long each finished stage took, by iteration and name.
        resumed: Finished stages whose seconds tell of their last attempt only.
        iteration: The one being worked on.
        running: The stage being worked on; None between two.
        label: What the running stage says that it does.

    """

    name: str
    model: str
    method: str
    iterations: int
    began: float
    seconds: Mapping[tuple[int, str], float] = field(default_factory=dict)
    resumed: frozenset[tuple[int, str]] = frozenset()
    iteration: int = 1
    running: str | None = None
    stage_began: float = 0.0
    label: str = ""
    evaluations: tuple[Mapping[str, Any], ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the iteration, before them *sft* where it is part of this loop."""
        return (SFT, *STAGES) if self.running == SFT or (0, SFT) in self.seconds else STAGES

    def seconds_left(self, now: float) -> float | None:
        """Until the whole loop is done, from stages of the same kinds; None where a kind to come was never finished."""
        left = 0.0
        if self.running == SFT:
            return None
        for iteration in range(1, self.iterations + 1):
            for name in STAGES:
                if (iteration, name) in self.seconds:
                    continue
                usual = self._usual_seconds(name)
                if usual is None:
                    return None
                is_running = (iteration, name) == (self.iteration, self.running)
                left += max(usual - (now - self.stage_began), 0) if is_running else usual
        return left

    def _usual_seconds(self, name: str) -> float | None:
        """The mean over iterations; not of the first, which also pays for imports and iteration 0, once there are others."""
        known = {key[0]: seconds for key, seconds in self.seconds.items() if key[1] == name and key not in self.resumed}
        later = [seconds for iteration, seconds in known.items() if iteration > 1]
        return mean(later or known.values()) if known else None


class LiveView(BarProgress):
    """Hears a loop and its work, and shows them; it appears with the first stage that has anything to do.

    States are replaced, never changed, since a thread of its own draws them four times a second.
    """

    def __init__(self, *, prints_folders: bool) -> None:
        self._prints_folders = prints_folders
        self._entered = time.monotonic()
        self._state: LoopState | None = None
        self._live: Live | None = None
        self._up_to_date = 0

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close()
        if kind is None and self._state:
            self._say_done(self._state)

    def opened(self, run: Run, iterations: int) -> None:
        """Learn what there is to do."""
        self._run = run
        self._state = LoopState(run.path.name, run.base["name"], run.config.select.method, iterations, self._entered)

    def began(self, iteration: int, stage: str) -> None:
        """Show that a stage runs."""
        self._change(iteration=iteration, running=stage, stage_began=time.monotonic(), label="")
        if self._live is None:
            self._read_evaluations()
            self._open()
        else:
            self._live.refresh()  # without it a stage of a few milliseconds would never be seen

    def finished(self, result: StageResult) -> None:
        """Show that it is done, and what it measured."""
        key, facts = (result.iteration, result.stage.name), result.manifest.execution
        state = self._known_state()
        self._up_to_date += result.was_done
        self._change(
            seconds={**state.seconds, key: facts["seconds"]},
            resumed=state.resumed | {key} if facts["resumed"] else state.resumed,
            running=None,
        )
        if self._live and result.stage.name == "evaluate":
            self._read_evaluations()
        if self._prints_folders:
            print_result(str(result.folder))

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Show a bar within the view."""
        self._change(label=label)
        self._bar = counting_bar("", total, unit, done)

    def stop(self) -> None:
        """Take the bar away."""
        self._change(label="")
        self._bar = None

    def note(self, message: str) -> None:
        """Print above the view, for good."""
        self._say(message)

    def warn(self, message: str) -> None:
        """Print above the view, for good."""
        self._say(f"warning: {message}", style="warning")

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Take the view away while somebody else has the terminal."""
        was_open = self._live is not None
        self._close()
        yield
        if was_open:
            self._open()

    def _known_state(self) -> LoopState:
        assert self._state is not None, "a loop says what it is before it does anything"
        return self._state

    def _change(self, **changes: Any) -> None:
        if self._state:
            self._state = replace(self._state, **changes)

    def _read_evaluations(self) -> None:
        from activedpo_cli.run.status import evaluations

        self._change(evaluations=tuple(evaluations(self._run)))

    def _open(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live

        console = Console(file=sys.stderr, force_terminal=True, highlight=False)
        self._live = Live(
            console=console,
            get_renderable=lambda: Group(*live_lines(self._known_state(), time.monotonic(), self._bar, console)),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what an oracle prints goes above the view, in a pipe it stays
            vertical_overflow="crop",
        )
        self._live.start(refresh=True)

    def _close(self) -> None:
        if self._live is None:
            return
        live, self._live = self._live, None
        try:
            live.stop()
        finally:
            live.console.show_cursor(True)  # also where a second Ctrl-C came in between

    def _say(self, message: str, style: str | None = None) -> None:
        if self._live is None:
            print_message(message, style=style)
            return
        from rich.text import Text

        self._live.console.print(Text(display_text(message), style="yellow" if style else ""), soft_wrap=True)

    def _say_done(self, state: LoopState) -> None:
        total, before = len(state.seconds), self._up_to_date
        sign = symbols_for(sys.stderr).done
        if total == before:
            print_message(f"{sign} all {total} stages are up to date, to iteration {state.iterations}")
            return
        took = duration(time.monotonic() - state.began)
        rest = f"; {before} were up to date" if before else ""
        print_message(f"{sign} {total - before} of {total} stages done in {took}{rest}", style="ok")


def live_lines(
    state: LoopState, now: float, bar: "RenderableType | None", console: "Console"
) -> "list[RenderableType]":
    """A moment of a loop in fewer lines than the terminal has; what matters least is left out where there is no room."""
    from rich.text import Text

    symbols = symbols_for(console.file)
    between = f" {symbols.between} "
    at = f"iteration {max(state.iteration, 1)} of {state.iterations}"
    head = Text(one_line(state.name), "bold") + Text(
        between.join(["", at, *map(one_line, (state.method, state.model))])
    )
    left = state.seconds_left(now)
    foot = f"elapsed {duration(now - state.began)}" + ("" if left is None else f"{between}about {duration(left)} left")
    stages = {name: _stage(state, name, now, symbols) for name in state.stages}
    height = max(console.height - 1, 1)  # the cursor stands in the last line when the view goes away
    if len(stages) + 3 > height:
        stages = {name: line for name, line in stages.items() if name == state.running}
    lines = [head, *stages.values(), Text(foot, "dim")]
    for line in lines:
        line.no_wrap = True
        line.truncate(console.width - 1, overflow="ellipsis" if symbols.to == "…" else "crop")
    shown: list[RenderableType] = [*lines[:-1], bar or Text(""), lines[-1]]
    room = height - len(state.stages) - 6
    if state.evaluations and room > 0:
        rewards = [
            row["reward_mean"] for row in comparable(state.evaluations) if finite(row.get("reward_mean")) is not None
        ]
        shown += [Text(""), _evaluations(state.evaluations, room, symbols)]
        if len(rewards) > 1:
            newest = rewards[-max(console.width - 9, 1) :]
            shown.append(Text("  reward ", "dim", no_wrap=True) + Text(sparkline(newest, symbols), "cyan"))
    return shown[:height]


def duration(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3:05`, `2:03:05` (hours, minutes, seconds)."""
    if seconds < 9.95:
        return f"{shown(seconds, 1)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _stage(state: LoopState, name: str, now: float, symbols: Symbols) -> "Text":
    from rich.text import Text

    seconds = state.seconds.get((0 if name == SFT else state.iteration, name))
    if seconds is not None:
        return Text(f"{symbols.done} {name:<10}{duration(seconds):>7}", style="green")
    if name != state.running:
        return Text(f"{symbols.waiting} {name}", style="dim")
    what = f"  {one_line(state.label)}" if state.label else ""
    return Text(f"{symbols.running} {name:<10}{duration(now - state.stage_began):>7}{what}", style="bold")


def _evaluations(evaluations: tuple[Mapping[str, Any], ...], room: int, symbols: Symbols) -> "Table":
    """Iteration 0 and the newest rows, as many as there is room for."""
    from rich.table import Table

    cells = [evaluation_cells(row, symbols) for row in evaluations]
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    columns = [name for name in measured_columns(cells, symbols) if name in COLUMNS]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True, overflow="crop")
    for row in cells if len(cells) <= room else [cells[0], *cells[len(cells) - room + 1 :]]:
        table.add_row(*(row[name] for name in columns))
    return table
