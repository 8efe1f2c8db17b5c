"""What `experiment` prints: how far it is, what failed, the table of the curves, and the page's path on stdout."""

import typer

from activedpo_cli.base.errors import ActiveDPOError, BusyError
from activedpo_cli.cli.render import print_json, print_message, print_result, print_table
from activedpo_cli.experiments.conduct import ExperimentResult

SHOWN = 3
"""Names of runs that failed for one reason."""


def print_experiment(result: ExperimentResult, *, quiet: bool, json: bool) -> None:
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


def _print_for_people(result: ExperimentResult) -> None:
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
