"""The command that takes the preferences of a run to another trainer."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from activedpo_cli.base.numbers import counted
from activedpo_cli.cli import completion
from activedpo_cli.cli.options import JsonOption, QuietOption, RunOption
from activedpo_cli.cli.render import make_progress, print_json, print_message, print_result


def export(
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Whose files: trl, openrlhf, axolotl, llama-factory (see `activedpo ls exporters`).",
            autocompletion=completion.exporters,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where they go, outside of the run.")],
    run: RunOption = None,
    iteration: Annotated[
        Optional[int],
        typer.Option(
            "--iteration", min=1, metavar="N", help="Of one iteration alone. [default: of all that are labelled]"
        ),
    ] = None,
    push: Annotated[
        Optional[str],
        typer.Option("--push", metavar="ORG/NAME", help="Make them a private data set on the Hugging Face hub too."),
    ] = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """The labelled preferences of a run as another trainer reads them.

    One row for each selected pair of which a response was preferred. Ties, both-bad and skipped pairs are left out and
    counted; control and gold pairs and repetitions were asked to measure by, and never go out.

    Reads   iter-N/label/preferences.jsonl      Writes   FOLDER/preferences.jsonl; for llama-factory dataset_info.json too

    Example:   activedpo export --format axolotl --output for-axolotl
    """
    from activedpo_cli.run.export import ExportRequest, export_preferences
    from activedpo_cli.store.run import Run, run_path

    request = ExportRequest(format_name=format_, output=output, iteration=iteration, push=push)
    found = export_preferences(Run.open(run_path(run)), request, make_progress(quiet))
    if json:
        print_json(_facts(found))
        return
    for warning in found.warnings:
        print_message(f"! {warning}", style="warning")
    if quiet:
        return
    if found.left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in found.left_out.items())
        print_message(f"left out: {reasons}")
    state = "there already" if found.was_there else "written"
    which = "iteration" if len(found.iterations) == 1 else "iterations"
    numbers = ", ".join(map(str, found.iterations))
    print_message(f"✓ {counted(found.preferences, 'preference')} of {which} {numbers} {state}", style="ok")
    for line in found.usage:
        print_message(f"  {line}")
    for place in [*map(str, found.files), *([found.pushed] if found.pushed else [])]:
        print_result(place)


def _facts(found: Any) -> dict[str, Any]:
    return {
        "files": [str(path) for path in found.files],
        "preferences": found.preferences,
        "iterations": list(found.iterations),
        "left_out": dict(found.left_out),
        "warnings": list(found.warnings),
        "usage": list(found.usage),
        "state": "up to date" if found.was_there else "done",
        "pushed": found.pushed,
    }
