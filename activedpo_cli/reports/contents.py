"""What a report is made from, and the bytes of all its files; nothing is written here."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from activedpo_cli.base.records import Response
from activedpo_cli.base.version import __version__
from activedpo_cli.reports.cost import cost_section
from activedpo_cli.reports.labels import label_section, read_agreement, read_labels
from activedpo_cli.reports.origin import origin_section
from activedpo_cli.reports.over_seeds import seed_section
from activedpo_cli.reports.page import Section, render_page
from activedpo_cli.reports.rewards import read_evaluations, reward_section
from activedpo_cli.reports.run_data import Batch, Labels, RunData
from activedpo_cli.reports.samples import read_samples, sample_section
from activedpo_cli.reports.selection import candidate_couples, overlaps, read_batch, selection_section
from activedpo_cli.reports.sources import finished_stages, identity_of, is_outdated, stage_facts, unfinished_stages
from activedpo_cli.reports.summary import summary_of
from activedpo_cli.reports.training import read_training, training_section
from activedpo_cli.reports.wording import number, share
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

SCHEMA = 1
FACTS_NAME = "report.json"
PAGE_NAME = "index.html"
FIGURES_NAME = "figures"
MOST_NAMES = 6
"""Runs that a title names."""

Inputs = dict[str, dict[str, str]]
"""By the name of each run the digests of its files that identify it, by path; a stage that is not finished is named so."""


def report_inputs(runs: Sequence[Run]) -> Inputs:
    """Everything that a report about these runs depends on; quick, whatever the size of the runs."""
    return {name: identity_of(run) for name, run in zip(run_names(runs), runs, strict=True)}


def report_contents(runs: Sequence[Run], names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of all files of a report by their names, `report.json` with all its numbers among them.

    `names` are what the runs are called. Raises InvalidDataError where a file of a run is damaged.
    """
    from activedpo_cli.reports.drawing import draw, draw_panels

    found = [read_run(run, name) for run, name in zip(runs, names, strict=True)]
    sections = _sections(found)
    summaries = [summary_sentence(run) for run in found]
    plots = [plot for section in sections for plot in section.plots]
    drawn = {plot.name: draw(plot) for plot in plots}
    images = {plot.name: draw_panels(plot, drawn[plot.name]["svg"]) for plot in plots}
    contents = {f"{FIGURES_NAME}/{name}.{kind}": data for name, kinds in drawn.items() for kind, data in kinds.items()}
    summary, title = summary_of(found), f"activedpo report: {_listed(names)}"
    contents[PAGE_NAME] = render_page(title, summary, summaries, sections, images).encode()
    facts = {
        "schema": SCHEMA,
        "activedpo_cli": __version__,
        "summary": asdict(summary),
        "summaries": summaries,
        "figures": {plot.name: asdict(plot) for plot in plots},
        "overlaps": [asdict(row) for row in overlaps(found)],
        "runs": [asdict(run) for run in found],
    }
    contents[FACTS_NAME] = json.dumps(facts, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    return contents


def run_names(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its folder's name, with its parent's where two have the same."""
    paths = [run.path.absolute() for run in runs]
    counts = Counter(path.name for path in paths)
    names = [path.name if counts[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths]
    repeated = Counter(names)
    return [name if repeated[name] == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def _listed(names: Sequence[str]) -> str:
    """The runs in a title: all of a few, else the first and how many there are."""
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{names[0]} and {len(names) - 1} other runs"


def read_run(run: Run, name: str) -> RunData:
    """Read a run; raises InvalidDataError naming the file where one is damaged."""
    manifests = finished_stages(run)
    facts, base = run.facts, run.base
    batches, labels = _batches_and_labels(run, manifests)
    trainings = [read_training(run, iteration, manifests) for iteration in run.iterations()]
    return RunData(
        name=name,
        preset=str(facts["preset"]),
        made_by=str(facts.get("activedpo_cli", "")),
        model=base["name"],
        model_digest=base["digest"],
        prompts_digest=facts["prompts_digest"],
        seed=facts.get("fixed", {}).get("seed"),
        methods=list(dict.fromkeys(batch.method for batch in batches)),
        settings=_settings(facts.get("fixed", {}), manifests),
        stages=stage_facts(run, manifests),
        unfinished=unfinished_stages(run),
        evaluations=read_evaluations(run, manifests),
        batches=batches,
        labels=labels,
        trainings=[row for row in trainings if row],
        samples=read_samples(run, manifests),
        agreement=read_agreement(run, labels),
    )


def _batches_and_labels(run: Run, manifests: dict[str, Manifest]) -> tuple[list[Batch], list[Labels]]:
    batches: list[Batch] = []
    labels: list[Labels] = []
    for iteration in run.iterations():
        responses = _responses(run, iteration, manifests)
        couples = candidate_couples(run, iteration, manifests)
        if batch := read_batch(run, iteration, manifests, responses):
            batches.append(batch)
        if answers := read_labels(run, iteration, manifests, responses, couples):
            labels.append(answers)
    return batches, labels


def _responses(run: Run, iteration: int, manifests: dict[str, Manifest]) -> list[Response] | None:
    """The responses that an iteration's pairs were picked from; None where they are gone or others took their place."""
    name = f"iter-{iteration:03d}/generate"
    select = manifests.get(f"iter-{iteration:03d}/select")
    if select is None or name not in manifests or is_outdated(select, name, manifests):
        return None
    if run.drawn_prompts(iteration)["source"] == "pool" and "pool" not in manifests:
        return None
    return run.responses(iteration)


def _settings(fixed: dict[str, Any], manifests: dict[str, Manifest]) -> dict[str, list[Any]]:
    """A setting that several stages record is taken from the stage that it belongs to, where that is finished."""
    by_iteration: dict[int, dict[str, Any]] = {}
    for own in (False, True):
        for manifest in manifests.values():
            found = by_iteration.setdefault(manifest.iteration, {})
            found.update({k: v for k, v in manifest.settings.items() if not own or k.startswith(f"{manifest.stage}.")})
    values: dict[str, list[Any]] = {key: [value] for key, value in fixed.items()}
    for iteration in sorted(by_iteration):
        for key, value in by_iteration[iteration].items():
            row = values.setdefault(key, [])
            if value not in row[-1:]:
                row.append(value)
    return dict(sorted(values.items()))


def _sections(runs: Sequence[RunData]) -> list[Section]:
    """Rewards, seeds, selection, labels, training, cost, samples, origin."""
    makers = (
        reward_section,
        seed_section,
        selection_section,
        label_section,
        training_section,
        cost_section,
        sample_section,
    )
    found = [maker(runs) for maker in makers]
    return [*(section for section in found if section), origin_section(runs, __version__)]


def summary_sentence(run: RunData) -> str:
    """`tldr (activedpo): reward 0.36 → 0.87 after 80 labels, win rate 92.5 % against the initial model`."""
    name = f"{run.name} ({', '.join(run.methods)})" if run.methods and run.methods != [run.name] else run.name
    evaluated = [row for row in run.evaluations if row.iteration]
    if not evaluated:
        spent = sum(row.labels_spent for row in run.labels)
        return f"{name}: {spent} labels spent, no policy evaluated yet"
    last = evaluated[-1]
    metrics, facts = last.metrics, []
    if metrics.get("reward_mean") is not None:
        change = f"{number(metrics['reward_mean_initial'], 2)} → {number(metrics['reward_mean'], 2)}"
        facts.append(f"reward {change} after {last.labels_spent} labels")
        facts.append(f"win rate {share(metrics['win_rate'])} against the initial model")
    if metrics.get("preference_accuracy") is not None:
        facts.append(f"preference accuracy {share(metrics['preference_accuracy'])}")
    if not facts:
        facts.append(f"evaluated after {last.labels_spent} labels, nobody scored")
    return f"{name}: {', '.join(facts)}"
