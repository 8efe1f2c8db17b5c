"""The live view of `run`: what is done, what is being done, how long it will take, and the evaluations so far.

It stands on stderr and goes away when the loop ends, however it ends; notes and warnings stay above it.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import display_text
from activedpo_cli.cli.live_layout import live_lines
from activedpo_cli.cli.loop_state import LoopState, Work, duration
from activedpo_cli.cli.render import print_message, print_result
from activedpo_cli.cli.symbols import symbols_for
from activedpo_cli.engine.step import StageResult
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live


class LiveView:
    """Hears a loop and its work, and shows them; it appears with the first stage that has anything to do.

    States are replaced, never changed, since a thread of its own draws them four times a second.
    """

    def __init__(self, *, prints_folders: bool) -> None:
        self._prints_folders = prints_folders
        self._console: Console | None = None
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
        self._state = LoopState(
            name=run.path.name,
            model=run.base["name"],
            method=run.config.select.method,
            iterations=iterations,
            began=self._entered,
        )

    def began(self, iteration: int, stage: str) -> None:
        """Show that a stage runs."""
        self._change(iteration=iteration, running=stage, stage_began=time.monotonic(), work=None)
        if self._live is None:
            self._read_evaluations()
            self._open()
        else:
            self._live.refresh()  # else a stage of a few milliseconds would never be seen

    def finished(self, result: StageResult) -> None:
        """Show that it is done, and what it measured."""
        key, facts = (result.iteration, result.stage.name), result.manifest.execution
        state = self._known_state()
        self._up_to_date += result.was_done
        self._change(
            seconds={**state.seconds, key: facts["seconds"]},
            resumed=state.resumed | {key} if facts["resumed"] else state.resumed,
            running=None,
            work=None,
        )
        if self._live and result.stage.name == "evaluate":
            self._read_evaluations()
        if self._prints_folders:
            print_result(str(result.folder))

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        """Show a bar."""
        self._change(work=Work(label, total, unit, done, done, time.monotonic()))

    def advance(self, amount: int = 1) -> None:
        """Move the bar."""
        if self._state and self._state.work:
            work = self._state.work
            self._change(work=replace(work, done=work.done + amount))

    def stop(self) -> None:
        """Take the bar away."""
        self._change(work=None)

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
        from rich.console import Console
        from rich.live import Live

        self._console = self._console or Console(file=sys.stderr, force_terminal=True, highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
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

    def _render(self) -> "Group":
        from rich.console import Group

        console = self._console
        assert console is not None
        lines = live_lines(
            self._known_state(),
            time.monotonic(),
            width=console.width - 1,
            height=console.height - 1,
            symbols=symbols_for(console.file),
        )
        return Group(*lines)

    def _say(self, message: str, style: str | None = None) -> None:
        if self._live is None:
            print_message(message, style=style)
            return
        from rich.text import Text

        colour = "yellow" if style else ""
        self._live.console.print(Text(display_text(message), style=colour), soft_wrap=True)

    def _say_done(self, state: LoopState) -> None:
        total, before = len(state.seconds), self._up_to_date
        sign = symbols_for(sys.stderr).done
        if total == before:
            print_message(f"{sign} all {total} stages are up to date, to iteration {state.iterations}")
            return
        took = duration(time.monotonic() - state.began)
        rest = f"; {before} were up to date" if before else ""
        print_message(f"{sign} {total - before} of {total} stages done in {took}{rest}", style="ok")
