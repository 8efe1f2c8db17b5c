"""What `run` prints: stages as they are done, and at the end the evaluations as table and chart, and where things are."""

import os
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.progress import Progress
from activedpo_cli.cli.evaluation_output import print_charts, print_evaluations
from activedpo_cli.cli.live_view import LiveView
from activedpo_cli.cli.render import can_redraw, make_progress, passing_message, print_json, print_message, print_result
from activedpo_cli.cli.stage_output import print_stage
from activedpo_cli.engine.runner import StageRunner
from activedpo_cli.engine.step import StageResult
from activedpo_cli.run.loop import LoopRequest, do_loop
from activedpo_cli.run.status import evaluations
from activedpo_cli.store.run import Run


class LoopPrinter:
    """Hears a loop where nothing can be drawn over: a line for every stage."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent

    def opened(self, run: Run, iterations: int) -> None:
        """Nothing to say."""

    def began(self, iteration: int, stage: str) -> None:
        """Nothing to say; progress speaks for itself."""

    def finished(self, result: StageResult) -> None:
        """Say what was done."""
        if not self._is_silent:
            print_stage(result)


def show_loop(request: LoopRequest, do: StageRunner | None, *, quiet: bool, json: bool) -> Run:
    """Do the loop, with the live view in a terminal and plain lines elsewhere."""
    view: AbstractContextManager[Any] = nullcontext()
    progress: Progress
    listener: LoopPrinter | LiveView
    if can_redraw() and not quiet:
        view = progress = listener = LiveView(prints_folders=not json and not sys.stdout.isatty())
    else:
        progress, listener = make_progress(quiet), LoopPrinter(is_silent=quiet or json)
    with view:
        return do_loop(request, progress, listener, do)


def print_ending(run: Run, *, quiet: bool, json: bool, with_report: bool) -> None:
    """The evaluations, and where the run and its report are; the report is made last, so that nobody waits for it."""
    rows = evaluations(run)
    if not quiet and not json:
        print_evaluations(rows)
        print_charts(rows)
        print_result(f"\nrun: {run.path}")
        sys.stdout.flush()
    with passing_message("making the report page") if with_report and not quiet else nullcontext():
        page, reason = make_report(run) if with_report else (None, None)
    if reason:
        print_message(f"warning: the report was not made: {reason}", style="warning")
        print_message(f"  the run is finished; to try again: `activedpo report {shlex.quote(str(run.path))}`")
    if json:
        print_json({"run": str(run.path), "evaluations": rows, "report": None if page is None else str(page)})
    elif page is not None and not quiet:
        print_result(f"report: {page}")


def make_report(run: Run) -> tuple[Path | None, str | None]:
    """The report page of a run, or why there is none: a failure must not make a finished run fail."""
    try:
        from activedpo_cli.reports.build import build_report

        return build_report([run]).page, None
    except Exception as error:
        if os.environ.get("ACTIVEDPO_DEBUG"):
            raise
        return None, error.message if isinstance(error, ActiveDPOError) else f"{type(error).__name__}: {error}"
