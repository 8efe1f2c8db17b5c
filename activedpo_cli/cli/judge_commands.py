"""Look at a judge before it is trusted.

The oracle itself is asked by *label*.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from activedpo_cli.base.errors import LabelsPendingError
from activedpo_cli.cli.help_text import HelpedCommand, HelpedGroup
from activedpo_cli.cli.options import JsonOption, QuietOption, RunOption, SetOption, all_given, flags_of, with_settings
from activedpo_cli.cli.render import make_progress, print_json

judge = typer.Typer(
    name="judge",
    cls=HelpedGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Compare a language model that judges with people, before it is trusted.",
)


@judge.callback()
def _one_of_several() -> None:
    """Keep `check` a word of its own."""


@judge.command(cls=HelpedCommand)
@with_settings(flags_of("label.oracle"), panel="As in a run's settings; config.yaml is not changed")
def check(
    given: Mapping[str, Any],
    run: RunOption = None,
    pairs: Annotated[int, typer.Option("--pairs", min=1, metavar="N", help="Pairs that are compared, at most.")] = 100,
    set_: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many calls and tokens it would take, and make none.")
    ] = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Ask a judge about pairs that people have answered in this run, and say how both agree.

    Prints the agreement with Wilson's 95 % interval and Cohen's κ, for control pairs and selected ones, beside it how often
    the longer response is the one that people chose, which is what a judge has to beat; how often both orders agree, how
    often the first response won; and what each threshold of the oracle mixed would leave to the judge. It goes on where it
    stopped.

    Reads   iter-N/label/labels.jsonl      Writes   judge-check-NNN.json, judge-check-replies.jsonl

    Example:   activedpo judge check --oracle judge:MODEL --pairs 100 --set label.judge.base_url=http://127.0.0.1:8000/v1
    """
    from activedpo_cli.base.config import with_changes
    from activedpo_cli.cli.judge_output import print_check, print_plan
    from activedpo_cli.engine.names import with_known_names
    from activedpo_cli.label.judge_check import check_judge, plan_check
    from activedpo_cli.run.create import open_run
    from activedpo_cli.store.run import run_path

    opened = open_run(run_path(run))
    config = with_changes(opened.config, with_known_names(all_given(given, set_)))
    if dry_run:
        print_plan(plan_check(opened, config, pairs, make_progress(quiet)), json=json)
        return
    try:
        result = check_judge(opened, config, pairs, make_progress(quiet))
    except LabelsPendingError as error:
        if json:
            print_json(error.facts)
        raise
    print_check(result, json=json, quiet=quiet)
