"""What a stage command prints when it is done."""

from typing import TYPE_CHECKING, Any

from activedpo_cli.base.numbers import shown
from activedpo_cli.cli.render import print_json, print_message, print_result
from activedpo_cli.engine.step import StageResult

if TYPE_CHECKING:
    from activedpo_cli.run.pool_choice import PoolChoice
    from activedpo_cli.select.from_files.command import FilesResult


def print_stage(result: StageResult) -> None:
    """One line about what was done, and the folder on stdout."""
    name = f"{result.stage.name} iter-{result.iteration:03d}" if result.iteration else result.stage.name
    headline = result.stage.headline(result.manifest.summary)
    if result.was_done:
        hint = f"; `--iteration {result.iteration + 1}` opens the next" if result.stage.name == "evaluate" else ""
        print_message(f"✓ {name} is up to date: {headline}{hint}")
    else:
        print_message(f"✓ {name}  {headline}  ({shown(result.manifest.execution['seconds'], 1)} s)", style="ok")
    print_result(str(result.folder))


def stage_as_json(result: StageResult) -> dict[str, Any]:
    """The same for programs."""
    return {
        "stage": result.stage.name,
        "iteration": result.iteration,
        "state": "up to date" if result.was_done else "done",
        "folder": str(result.folder),
        "digest": result.manifest.digest,
        "summary": result.manifest.summary,
    }


def print_pool_choice(choice: "PoolChoice", *, json: bool, quiet: bool) -> None:
    """A choice among the pairs of a file: one line about it; on stdout the output, or the folder of the selection."""
    result = choice.result
    place = choice.output or result.folder
    if json:
        state = {"state": "up to date" if choice.was_done else "done"}
        output = None if choice.output is None else str(choice.output)
        left_out = {reason: len(lines) for reason, lines in choice.left_out.items()}
        counted = {"rows": choice.rows, "left_out_rows": left_out, "left_out_lines": choice.left_out}
        print_json(stage_as_json(result) | state | {"output": output} | counted)
        return
    if quiet:
        return
    said = result.stage.headline(result.manifest.summary)
    if choice.was_done:
        print_message(f"✓ {place} is up to date: {said}")
    else:
        print_message(f"✓ {said}", style="ok")
    print_result(str(place))


def print_choice(result: "FilesResult", *, json: bool, quiet: bool) -> None:
    """A choice among files: one line about it, and the file on stdout."""
    summary = result.summary
    if json:
        state = "up to date" if result.was_done else "done"
        print_json({"state": state, "output": str(result.output), "summary": summary})
        return
    if quiet:
        return
    said = f"{summary['selected']} of {summary['candidates']} pairs by {summary['method']}"
    if summary["passes"] is not None:
        beside = summary["pairs_read"] - summary["passes"] * summary["candidates"]
        said += f", read in {summary['passes']} pass{'' if summary['passes'] == 1 else 'es'}"
        said += f" and {beside} more reads of a pair" if beside else ""
    if result.was_done:
        print_message(f"✓ {result.output} is up to date: {said}")
    else:
        print_message(f"✓ {said}", style="ok")
    print_result(str(result.output))
