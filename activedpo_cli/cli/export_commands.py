"""The command that takes what a run has made elsewhere: its policy, or its preferences."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.numbers import counted
from activedpo_cli.cli import completion
from activedpo_cli.cli.options import DeviceOption, JsonOption, QuietOption, RunOption, with_settings
from activedpo_cli.cli.render import make_progress, print_json, print_message, print_result

POLICY_PANEL = "The policy"
PREFERENCES_PANEL = "The preferences"
HUB_PANEL = "The hub"
FormatOption = Annotated[
    Optional[str],
    typer.Option(
        "--format",
        metavar="NAME",
        help="Whose files: trl, openrlhf, axolotl, llama-factory (see `activedpo ls exporters`).",
        autocompletion=completion.exporters,
        rich_help_panel=PREFERENCES_PANEL,
    ),
]
OutputOption = Annotated[
    Optional[Path],
    typer.Option(
        "--output",
        metavar="FOLDER",
        help="Where it goes, outside of the run; needed with --format. [default: export/iter-NNN-adapter or "
        "-merged in the run]",
    ),
]
WhoseOption = Annotated[
    Optional[int],
    typer.Option(
        "--iteration",
        min=0,
        metavar="N",
        help="After which one; 0 is the initial model, with --merged. With --format: of one alone. [default: the last "
        "one trained; with --format all that are labelled]",
    ),
]


@dataclass(frozen=True)
class PolicyOptions:
    """What the export of a policy can be told; each field is a flag."""

    merged: Annotated[
        bool,
        typer.Option(
            "--merged",
            help="Whole weights instead of the adapter: merged in float32, saved in the model's own number format.",
            rich_help_panel=POLICY_PANEL,
        ),
    ] = False
    base: Annotated[
        Optional[str],
        typer.Option(
            "--base",
            metavar="ORG/NAME",
            help="What the adapter names as its base, where that is on the hub by now. [default: as the run names it]",
            rich_help_panel=POLICY_PANEL,
        ),
    ] = None
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Write it again, also where another folder stands, which is kept beside.",
            rich_help_panel=POLICY_PANEL,
        ),
    ] = False
    device: DeviceOption = "auto"

    def typed(self) -> list[str]:
        """The flags that were given."""
        given = {"--merged": self.merged, "--base": self.base, "--force": self.force, "--device": self.device != "auto"}
        return [name for name, value in given.items() if value]


@dataclass(frozen=True)
class HubOptions:
    """What is to become of it on the hub; each field is a flag."""

    push: Annotated[
        Optional[str],
        typer.Option(
            "--push",
            metavar="ORG/NAME",
            help="Make it a private repository on the Hugging Face hub too.",
            rich_help_panel=HUB_PANEL,
        ),
    ] = None
    public: Annotated[
        bool, typer.Option("--public", help="With --push: one that everybody can see.", rich_help_panel=HUB_PANEL)
    ] = False


@with_settings([])
def export(
    given: Mapping[str, Any],
    format_: FormatOption = None,
    output: OutputOption = None,
    run: RunOption = None,
    iteration: WhoseOption = None,
    *,
    policy: PolicyOptions,
    hub: HubOptions,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """The policy as a folder that others load and serve; with --format the preferences, as another trainer reads them.

    The policy goes out as PEFT's adapter, or whole with --merged, with tokenizer, chat template, generation config and a
    model card that says what trained it. It is read back before it appears, and has to give the log-probabilities of the
    run's own policy.

    Of the preferences there is one row for each selected pair of which a response was preferred. Ties, both-bad and skipped
    pairs are left out and counted; control and gold pairs and repetitions were asked to measure by, and never go out.

    Reads   iter-N/train/adapter/, or iter-N/label/preferences.jsonl      Writes   FOLDER/, which has a README.md

    Example:   activedpo export --merged

    Example:   activedpo export --format axolotl --output for-axolotl
    """
    from activedpo_cli.run.export import ExportRequest
    from activedpo_cli.run.policy_export import PolicyRequest

    if format_ is None:
        wanted = PolicyRequest(
            form="merged" if policy.merged else "adapter",
            output=output,
            iteration=iteration,
            base=policy.base,
            push=hub.push,
            public=hub.public,
            force=policy.force,
        )
        _export_policy(run, wanted, policy.device, quiet=quiet, json=json)
        return
    wrong = [*policy.typed(), *(["--iteration 0"] if iteration == 0 else [])]
    if wrong:
        raise UsageError(
            f"{wrong[0]} is for the policy, and --format exports the preferences", hint="leave one of them out"
        )
    if output is None:
        raise UsageError("--format needs the folder that the preferences go to", hint="--output FOLDER")
    preferences = ExportRequest(
        format_name=format_, output=output, iteration=iteration, push=hub.push, public=hub.public
    )
    _export_preferences(run, preferences, quiet=quiet, json=json)


def _export_policy(run: str | None, request: Any, device: str, *, quiet: bool, json: bool) -> None:
    from activedpo_cli.engine.step import Execution
    from activedpo_cli.run.policy_export import export_policy
    from activedpo_cli.store.run import Run, run_path

    found = export_policy(Run.open(run_path(run)), request, Execution(device), make_progress(quiet))
    if json:
        print_json(_policy_facts(found))
        return
    for note in found.notes:
        print_message(f"! {note}", style="warning")
    if not quiet:
        _print_policy(found)


def _print_policy(found: Any) -> None:
    what = "adapter" if found.form == "adapter" else "whole weights"
    whose = f"policy of iteration {found.iteration}" if found.iteration else "initial model"
    print_message(f"✓ {whose}, {what} {'there already' if found.was_there else 'written'}", style="ok")
    check = found.check
    reader = "PEFT" if found.form == "adapter" else "transformers"
    print_message(
        f"  {reader} reads it, and gives log π of {counted(check['texts'], 'text')} as the run does, to "
        f"{check['mean_difference']:.1g} nats a token in the mean (up to {check['tolerance']:g} is taken for rounding)"
    )
    if found.pushed:
        print_message(f"  on the hub, {'private' if found.pushed.is_private else 'public'}")
    print_message(f"  serve   {found.usage.serve}")
    first, *more = [line for line in found.usage.python.splitlines() if line]
    print_message("\n".join([f"  load    {first}", *(f"          {line}" for line in more)]))
    print_result(str(found.folder))
    if found.pushed:
        print_result(found.pushed.address)


def _policy_facts(found: Any) -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "iteration": found.iteration,
        "form": found.form,
        "state": "up to date" if found.was_there else "done",
        "check": found.check,
        "notes": list(found.notes),
        "serve": found.usage.serve,
        "python": found.usage.python,
        "pushed": found.pushed.address if found.pushed else None,
        "private": found.pushed.is_private if found.pushed else None,
    }


def _export_preferences(run: str | None, request: Any, *, quiet: bool, json: bool) -> None:
    from activedpo_cli.run.export import export_preferences
    from activedpo_cli.store.run import Run, run_path

    found = export_preferences(Run.open(run_path(run)), request, make_progress(quiet))
    if json:
        print_json(_facts(found))
        return
    for warning in found.warnings:
        print_message(f"! {warning}", style="warning")
    if not quiet:
        _print_preferences(found)


def _print_preferences(found: Any) -> None:
    if found.left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in found.left_out.items())
        print_message(f"left out: {reasons}")
    state = "there already" if found.was_there else "written"
    which = "iteration" if len(found.iterations) == 1 else "iterations"
    numbers = ", ".join(map(str, found.iterations))
    print_message(f"✓ {counted(found.preferences, 'preference')} of {which} {numbers} {state}", style="ok")
    for line in found.usage:
        print_message(f"  {line}")
    for place in [*map(str, found.files), *([found.pushed.address] if found.pushed else [])]:
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
        "pushed": found.pushed.address if found.pushed else None,
    }
