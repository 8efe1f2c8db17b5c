"""`activedpo compare`: what several methods would choose from one iteration's candidates; no model is loaded."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import ModuleType
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.config import with_changes
from activedpo_cli.base.errors import InvalidDataError, NotReadyError, UsageError
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config, SelectSettings
from activedpo_cli.engine.declared import every_setting_of
from activedpo_cli.engine.differences import all_settings
from activedpo_cli.engine.step import Execution, again
from activedpo_cli.pairs.candidates import CandidatePair, candidate_pairs
from activedpo_cli.select.candidate_table import (
    READ_BY_SELECT,
    candidate_table,
    command_for_columns,
    stored_columns,
)
from activedpo_cli.select.method_settings import method_section, method_settings
from activedpo_cli.select.scores.overlap import chance_share, shared_share
from activedpo_cli.select.step import inputs, nothing_to_choose
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.select.methods.base import Candidates


ALSO_SETTABLE = frozenset({"train.beta", "label.oracle", "label.score_field"})
"""Settings beside those of `select`: β of implicit rewards, and what decides which pairs are candidates."""


DECIDED_HERE = ("method", "budget", "methods")
"""Settings of `select` that no comparison takes as such: the methods that are compared have their own."""


@dataclass(frozen=True)
class _Choice:
    """What is needed to choose and to describe a choice."""

    config: Config
    pairs: list[CandidatePair]
    table: "Candidates"
    lengths: dict[str, int]
    seed: int


def compare_methods(
    run: Run,
    iteration: int,
    names: Sequence[str],
    *,
    budget: int | None = None,
    seed: int | None = None,
    given: Mapping[str, Any] | None = None,
    typed: Sequence[str] = (),
) -> dict[str, Any]:
    """What each method chooses, and how their choices differ.

    Settings are those by which the iteration's pairs were chosen, where they were, else those of `config.yaml`, which also
    holds those of the methods that did not choose; given ones go before either.
    Without names all methods are compared whose columns are there; `left_out` lists the others with what they lack.
    `overlaps` are shares of the batch in common; `notes` name methods that agree, or choose at random, for a reason that the
    numbers do not show. `typed` are the words of the command, which hints repeat.

    The method that the run selects by has the seed of *select*, hence its picks where nothing is given; each other one has a
    seed of its own, since methods that fall back on the order of ties would agree by that alone.

    Raises UsageError for an unknown method, wrong settings of one, or a setting of none of them, NotReadyError where no
    method has its columns or an earlier stage is missing or stale, and InvalidDataError where so many pairs can not be
    chosen.
    """
    asked = list(dict.fromkeys(discovery.resolve("acquisition", name) for name in names))
    given = dict(given or {})
    methods = {name: discovery.load("acquisition", name) for name in asked or discovery.available("acquisition")}
    _check_settings(given, methods)
    config = with_changes(_made_with(run, iteration), given)
    inputs(run, iteration, config)
    left_out = _lacking(run, iteration, methods)
    command = command_for_columns(run, iteration, {column for lacking in left_out.values() for column in lacking})
    able = {name: method for name, method in methods.items() if name not in left_out}
    if not able:
        details = [f"{name} needs {', '.join(lacking)}" for name, lacking in left_out.items()]
        raise NotReadyError("none of these methods has the columns that it needs", details=details, hint=command)
    count = config.select.budget if budget is None else budget
    choice = _prepared(run, iteration, config, able, count, config.seed if seed is None else seed, typed)
    rows = {
        name: _described(choice, name, method, count, _seed_of(name, choice, iteration))
        for name, method in able.items()
    }
    picked = {name: set(row["picked"]) for name, row in rows.items()}
    return {
        "run": run.path.absolute().name,
        "iteration": iteration,
        "budget": count,
        "seed": choice.seed,
        "given": given,
        "candidates": _extent(choice),
        "methods": rows,
        "overlaps": {a: {b: shared_share(picked[a], picked[b]) for b in picked} for a in picked},
        "chance_overlap": chance_share(count, count, len(choice.pairs)),
        "notes": _notes(rows, methods, count, choice.table),
        "left_out": left_out,
        "command_for_left_out": command if left_out else None,
    }


def _extent(choice: _Choice) -> dict[str, Any]:
    """How much there is to choose from."""
    return {
        "pairs": len(choice.pairs),
        "prompts": len({pair.prompt_id for pair in choice.pairs}),
        "mean_tokens": _mean_tokens(choice, choice.pairs),
    }


def _made_with(run: Run, iteration: int) -> Config:
    """`config.yaml`, with what the iteration was made with in the place of what has been changed since.

    The seed is that of the features, also where nothing is selected yet: it is fixed for a run.
    """
    selected, trained = run.stage("select", iteration).manifest, run.stage("train", iteration).manifest
    if selected is None:
        featurized = run.stage("featurize", iteration).manifest
        return with_changes(run.config, {"seed": featurized.settings["seed"]} if featurized else {})
    general = [key for key in every_setting_of(["select"]) if key != "select.methods"]
    beta = {"train.beta": trained.settings["train.beta"]} if trained else {}
    return with_changes(run.config, {**all_settings(Config(), dict.fromkeys(general)), **beta, **selected.settings})


def _check_settings(given: Mapping[str, Any], methods: Iterable[str]) -> None:
    """Raise UsageError for a setting that decides nothing here, such as one of a method that is not compared."""
    theirs = tuple(f"select.methods.{method_section(method)}." for method in methods)
    ours = {f"select.{name}" for name in SelectSettings.model_fields} - {f"select.{name}" for name in DECIDED_HERE}
    for key in given:
        if key not in ours | ALSO_SETTABLE and not key.startswith(theirs):
            raise UsageError(
                f"`{key}` is no setting of a comparison of {', '.join(methods)}",
                details=[f"settings: select.methods.METHOD.… of these, {', '.join(sorted(ours | ALSO_SETTABLE))}"],
                hint="activedpo compare METHOD… --budget N --seed N --set select.methods.METHOD.KEY=VALUE",
            )


def _lacking(run: Run, iteration: int, methods: Mapping[str, ModuleType]) -> dict[str, list[str]]:
    """The methods that need columns which nobody computed, and which these are."""
    there = stored_columns(run, iteration) | READ_BY_SELECT
    lacking = {name: sorted(set(method.NEEDS) - there) for name, method in methods.items()}
    return {name: columns for name, columns in lacking.items() if columns}


def _seed_of(name: str, choice: _Choice, iteration: int) -> int:
    """The seed of *select* for the method that the run selects by; for any other a seed of its own."""
    selects_by = discovery.resolve("acquisition", choice.config.select.method)
    return derive_seed(choice.seed, "select", iteration, *(() if name == selects_by else (name,)))


def _prepared(
    run: Run,
    iteration: int,
    config: Config,
    methods: dict[str, ModuleType],
    budget: int,
    seed: int,
    typed: Sequence[str],
) -> _Choice:
    from activedpo_cli.select.methods.base import capacity

    pairs = candidate_pairs(run, iteration, config)
    with_texts = any("texts" in method.NEEDS for method in methods.values())
    table = candidate_table(run, iteration, config, pairs, with_texts=with_texts)
    possible = capacity(table.prompt_index, config.select.max_per_prompt)
    if not pairs:
        named = again(run, "compare", iteration, Execution(typed=typed), "--set", "label.score_field=NAME")
        raise nothing_to_choose(run, iteration, config, named)
    if budget > possible:
        raise InvalidDataError(
            f"the budget is {budget}, but only {possible} pairs of iteration {iteration} can be chosen",
            hint=f"compare with --budget {possible}",
        )
    lengths = {response.response_id: len(response.token_ids) for response in run.responses(iteration)}
    return _Choice(config, pairs, table, lengths, seed)


def _described(choice: _Choice, name: str, method: ModuleType, budget: int, generator_seed: int) -> dict[str, Any]:
    """The picks of one method, the time it took to choose them, and what they are like."""
    import torch

    select = choice.config.select.model_copy(update={"method": name})
    settings = method_settings(choice.config.model_copy(update={"select": select}))
    generator = torch.Generator().manual_seed(generator_seed)
    began = time.perf_counter()
    chosen = method.choose(choice.table, budget, settings, generator, select.max_per_prompt)
    seconds = time.perf_counter() - began
    picked = [choice.pairs[row] for row in chosen.rows.tolist()]
    return {
        "picked": [pair.pair_id for pair in picked],
        "mean_tokens": _mean_tokens(choice, picked),
        **_diversity(choice.table, chosen.rows),
        "prompts": len({pair.prompt_id for pair in picked}),
        "seconds": seconds,
        "tied": bool(torch.isclose(chosen.scores, chosen.scores[0], rtol=1e-9, atol=0).all()),
        "settings": settings.model_dump(mode="json"),
    }


def _notes(
    rows: Mapping[str, Mapping[str, Any]], methods: Mapping[str, ModuleType], budget: int, table: "Candidates"
) -> list[str]:
    notes = [
        f"`{name}`: all its picks have one score, so the seeded order of ties decides as in `random`"
        for name, row in rows.items()
        if row["tied"] and budget > 1 and methods[name].NEEDS
    ]
    for name, row in rows.items():
        method = methods[name]
        if hasattr(method, "note") and (note := method.note(table, budget, method.Settings(**row["settings"]))):
            notes.append(f"`{name}` {note}")
    for place, (name, row) in enumerate(rows.items()):
        same = [other for other in list(rows)[place + 1 :] if set(rows[other]["picked"]) == set(row["picked"])]
        if same and budget < len(table):
            notes.append(f"`{name}` chooses the same pairs as {', '.join(f'`{other}`' for other in same)}")
    return notes


def _diversity(table: "Candidates", rows: "Tensor") -> dict[str, float | None]:
    """Mean |cos| between the φ of every two picks, and the directions that they cover; None without features."""
    from activedpo_cli.select.scores.batch import absolute_cosines, effective_rank

    if table.features is None:
        return {"mean_abs_cosine": None, "effective_rank": None}
    features = table.pair_features(rows)
    cosines = absolute_cosines(features)
    return {
        "mean_abs_cosine": float(cosines.mean()) if len(cosines) else None,
        "effective_rank": effective_rank(features),
    }


def _mean_tokens(choice: _Choice, pairs: Sequence[CandidatePair]) -> float:
    """Tokens of a response, on average over both of every pair."""
    return fmean(choice.lengths[name] for pair in pairs for name in (pair.response_a_id, pair.response_b_id))
