"""Commands that only look: where a run stands, why a pair was picked, what there is to choose from."""

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from activedpo_cli.base.errors import UsageError
from activedpo_cli.cli import completion
from activedpo_cli.cli.look_output import (
    print_comparison,
    print_features,
    print_pair,
    print_report,
    print_runs,
    print_selection,
    print_status,
    print_why,
)
from activedpo_cli.cli.options import IterationOption, JsonOption, QuietOption, RunOption, all_given
from activedpo_cli.cli.render import passing_message, print_json, print_message, print_table
from activedpo_cli.cli.typed import typed_options

if TYPE_CHECKING:
    from activedpo_cli.store.run import Run


def status(run: RunOption = None, json: JsonOption = False) -> None:
    """What is done, partial, stale or missing, and the next command.

    Example:   activedpo status --run tldr --json
    """
    from activedpo_cli.run.status import run_status
    from activedpo_cli.store.run import Run, run_path

    opened = Run.open(run_path(run))
    if json:
        print_json(run_status(opened, with_agreement=True))
    else:
        print_status(run_status(opened))


def show(
    pair: Annotated[
        Optional[str],
        typer.Argument(
            metavar="PAIR", help="A pair such as p000123/i001/r0-r2, `features` or `labels`; none lists the selected."
        ),
    ] = None,
    run: RunOption = None,
    iteration: IterationOption = None,
    tokens: Annotated[
        bool, typer.Option("--tokens/--no-tokens", help="Show what the model saw, token by token.")
    ] = True,
    why: Annotated[
        bool, typer.Option("--why", help="Score, what the batch leaves of it, and the pairs most like it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """A pair: its texts, score, rank and label, and the tokens and mask that the model saw.

    With --why: what the pair brought when it was picked, what is left of it now, and the nearest labelled and chosen pairs.

    `activedpo show features` says how the features were made, how good their projection is, and what was left out.

    `activedpo show labels` says how far the people who label agree, with each other, with themselves and with gold pairs.

    Example:   activedpo show p000123/i001/r0-r2

    Example:   activedpo show --why p000123/i001/r0-r2
    """
    from activedpo_cli.run.show import design_details, feature_details, judge_details, pair_details, selected_pairs
    from activedpo_cli.store.run import Run, run_path

    opened = Run.open(run_path(run))
    if why:
        _show_why(opened, pair, iteration, json=json)
        return
    number = iteration or (opened.iterations() or [1])[-1]
    if pair is None:
        found = selected_pairs(opened, number)
        print_json(found) if json else print_selection(
            found, design_details(opened, number), judge_details(opened, number)
        )
    elif pair == "labels":
        from activedpo_cli.cli.agreement_output import print_agreement
        from activedpo_cli.label.agreement import agreement, as_json

        agreed = agreement(opened)
        print_json(as_json(agreed)) if json else print_agreement(agreed)
    elif pair == "features":
        made = feature_details(opened, number)
        print_json(made) if json else print_features(made)
    else:
        details = pair_details(opened, pair, iteration, tokens=tokens)
        print_json(details) if json else print_pair(details)


def _show_why(run: "Run", pair: str | None, iteration: int | None, *, json: bool) -> None:
    from activedpo_cli.run.why import explain_pair

    if pair is None:
        shown = f"activedpo show --run {quote(str(run.path))}"
        raise UsageError("--why is about one pair", hint=f"{shown} --why PAIR; `{shown}` lists some")
    explained = explain_pair(run, pair, iteration)
    print_json(explained) if json else print_why(explained)


def compare(
    methods: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[METHOD]...",
            help="Methods. [default: all whose columns are there]",
            autocompletion=completion.methods,
        ),
    ] = None,
    run: RunOption = None,
    iteration: IterationOption = None,
    budget: Annotated[
        Optional[int],
        typer.Option("--budget", min=1, metavar="N", help="Pairs that each chooses. [default: select.budget]"),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option("--seed", metavar="N", help="Decides ties and draws. [default: the run's]")
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of select or of a method, for once; repeatable.",
            autocompletion=completion.setting_names,
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", metavar="FOLDER", help="Where it goes. [default: compare/iter-NNN/ in the run]"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """What several methods would choose from one iteration's candidates: overlap, lengths, diversity, prompts, seconds.

    Reads stored columns and no model; no stage of the run is changed. The settings are those of config.yaml, unless --set
    gives others. The method that the run selects by has the seed of select and so its picks; each other one has a seed made
    of that and its name, so that methods which must break ties do not agree by chance.

    Writes   overlap.png, compare.json

    Example:   activedpo compare activedpo random k-center --iteration 2

    Example:   activedpo compare --set select.methods.activedpo.ridge=10 --set select.methods.apo.greedy=true
    """
    from activedpo_cli.reports.comparison import check_place, default_place, write_comparison
    from activedpo_cli.run.compare import compare_methods
    from activedpo_cli.store.run import Run, run_path

    opened = Run.open(run_path(run))
    number = iteration or (opened.iterations() or [1])[-1]
    place = output or default_place(opened, number)
    check_place(place)
    with passing_message("comparing …"):
        given, typed = all_given({}, set_), typed_options()
        found = compare_methods(opened, number, methods or [], budget=budget, seed=seed, given=given, typed=typed)
        picture = write_comparison(place, found)
    told = {**found, "picture": str(picture)}
    print_json(told) if json else print_comparison(told)


def report(
    runs: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[RUN]...",
            help="Names or paths. [default: $ACTIVEDPO_RUN, else runs/default]",
            autocompletion=completion.run_names,
        ),
    ] = None,
    run: Annotated[
        Optional[list[str]],
        typer.Option(
            "--run",
            metavar="NAME_OR_PATH",
            help="A run, as elsewhere; repeatable.",
            autocompletion=completion.run_names,
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", metavar="FOLDER", help="Where it goes. [default: report/ in the first run]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it again, also where nothing has changed.")] = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """A page with figures about a run, or about several beside each other: rewards, selection, labels, training, cost.

    Writes   index.html, figures/NAME.png and .svg, report.json      Several runs: in report-SECOND-THIRD/ of the first

    Example:   activedpo report tldr tldr-random
    """
    from activedpo_cli.reports.build import build_report
    from activedpo_cli.store.run import Run, run_path

    names = [*(runs or []), *(run or [])]
    opened = [Run.open(run_path(name)) for name in names] or [Run.open(run_path(None))]
    print_report(build_report(opened, output, force=force), json=json, quiet=quiet)


def list_choices(
    what: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[WHAT]",
            help="methods, oracles, prompts, formats, exporters, models, presets, experiments or runs. [default: methods]",
            autocompletion=completion.kinds,
        ),
    ] = None,
    folder: Annotated[
        Optional[Path], typer.Argument(metavar="[FOLDER]", help="Whose runs are listed. [default: runs]")
    ] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Of methods: all that was measured against random choice.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """What there is to choose from, and what runs there are.

    Methods with their needs, and whether they were better than random choice; oracles, prompts (sources), formats of
    labelling tools, exporters (formats of trainers), models, presets, experiments; and the runs in a folder, with those of
    the experiments in it: how far each is, what comes next, and the labels it used.

    Example:   activedpo ls methods

    Example:   activedpo ls methods --evidence

    Example:   activedpo ls runs

    Example:   activedpo ls experiments
    """
    from activedpo_cli.run.choices import ALSO, METHODS, RUNS

    if evidence and what not in (None, METHODS):
        raise UsageError(f"`ls {what}` has no evidence", hint=f"activedpo ls {METHODS} --evidence")
    if what == RUNS:
        _list_runs(folder, json=json)
        return
    if folder is not None:
        raise UsageError(f"`ls {what}` takes no folder", hint=f"activedpo ls {RUNS} FOLDER")
    if what in (None, METHODS):
        _list_methods(with_evidence=evidence, json=json)
    else:
        _list_others(str(what), json=json)
    if what is None and not json:
        print_message(f"`activedpo ls KIND` lists others: {', '.join(ALSO)}")


def _list_runs(folder: Path | None, *, json: bool) -> None:
    from activedpo_cli.run.listing import DEFAULT_FOLDER, listed_runs

    place = folder or DEFAULT_FOLDER
    found = listed_runs(place)
    if json:
        print_json({"folder": str(place), "runs": [asdict(run) for run in found]})
    else:
        print_runs(place, found)


def _list_methods(*, with_evidence: bool, json: bool) -> None:
    from activedpo_cli.cli.methods_output import print_evidence, print_methods
    from activedpo_cli.run.choices import method_choices

    found = method_choices()
    if json:
        print_json(found)
    elif with_evidence:
        print_evidence(found)
    else:
        print_methods(found)


def _list_others(what: str, *, json: bool) -> None:
    from activedpo_cli.run.choices import EXPERIMENTS, choices

    if what == EXPERIMENTS:
        from activedpo_cli.experiments.spec import built_in_specs

        found = built_in_specs()
    else:
        found = choices(what)
    if json:
        print_json(found)
    else:
        print_table(["name", "what it is"], [[name, text] for name, text in found.items()])
