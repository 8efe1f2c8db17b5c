"""Stage 3: choose the pairs to label (paper Eq. 3 and 4, or another method). Reads no model."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, NotReadyError
from activedpo_cli.base.records import SelectedPair
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context, Stage, always, require_each
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.pairs.candidates import candidate_pairs, label_inputs, no_such_score, response_inputs
from activedpo_cli.select.candidate_table import (
    READ_BY_SELECT,
    candidate_table,
    command_for_columns,
    prompt_index,
    stored_columns,
)
from activedpo_cli.select.method_settings import method_settings, settings_of_choice
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.select.methods.base import Candidates, Selection


def settings(config: Config) -> dict[str, Any]:
    """What the selection depends on; of the methods' own settings those of the chosen method, defaults written out."""
    chosen = settings_of_choice(config)
    # Implicit rewards are β log π/π_ref.
    is_of_rewards = "ref_logps" in discovery.load("acquisition", config.select.method).NEEDS
    return {
        **chosen,
        **({"train.beta": config.train.beta} if is_of_rewards else {}),
        # The recorded oracle can answer only about pairs that have its score, so only those are candidates.
        "label.oracle": config.label.oracle,
        "label.score_field": config.label.score_field,
    }


def inputs(run: Run, iteration: int, config: Config) -> dict[str, str]:
    """The features, the responses they belong to, and what was answered before."""
    first = 1 if config.select.history == "frozen" else iteration
    digests = require_each(run, "featurize", range(first, iteration + 1))
    return digests | response_inputs(run, iteration) | label_inputs(run, range(1, iteration))


def check(context: Context) -> None:
    """Refuse a budget larger than the pool, and a method whose columns featurize did not compute."""
    from activedpo_cli.select.methods.base import capacity

    method_settings(context.settings)
    first = 1 if context.settings.select.history == "frozen" else context.iteration
    for iteration in range(first, context.iteration + 1):
        _check_columns(context, iteration)
    pairs = candidate_pairs(context.run, context.iteration, context.settings)
    available = capacity(prompt_index(pairs), context.settings.select.max_per_prompt)
    if available == 0:
        command = context.command("select", "--score-field", "NAME")
        raise nothing_to_choose(context.run, context.iteration, context.settings, command)
    if context.settings.select.budget > available:
        fewer = context.command("select", "--budget", str(available))
        raise InvalidDataError(
            f"select.budget is {context.settings.select.budget}, but only {available} pairs can be chosen",
            hint=f"choose fewer with `{fewer}`, or generate for more prompts",
        )


def _check_columns(context: Context, iteration: int) -> None:
    method = context.settings.select.method
    needed = discovery.load("acquisition", method).NEEDS
    lacking = sorted(set(needed) - stored_columns(context.run, iteration) - READ_BY_SELECT)
    if lacking:
        raise NotReadyError(
            f"method `{method}` needs {', '.join(lacking)}, which featurize of iteration {iteration} did not compute",
            hint=command_for_columns(context.run, iteration, lacking),
        )


def nothing_to_choose(run: Run, iteration: int, config: Config, naming: str) -> InvalidDataError:
    """Why no pair is a candidate: no two responses to a prompt differ, all are answered, or the oracle can answer none.

    `naming` is how to name a score that is there, and ends in NAME.
    """
    field = config.label.score_field
    present = sorted({name for row in run.responses(iteration) for name in row.scores or {}})
    if field is not None and field not in present:
        return no_such_score(
            f"no response of iteration {iteration} has the recorded score `{field}`, which `label.score_field` names",
            field,
            present,
            naming,
        )
    if field is None and config.label.oracle == "recorded" and not run.pool_preferences():
        return InvalidDataError(
            f"`label.oracle` is `recorded`, and no preference came with the responses of iteration {iteration}",
            details=[f"scores there are: {', '.join(present) or 'none'}"],
            hint=naming.removesuffix("NAME") + shlex.quote(present[0]) if present else naming,
        )
    return InvalidDataError(
        f"iteration {iteration} has no pair left to choose",
        details=["a pair needs two different responses to one prompt, and an answered one is not asked about again"],
        hint="generate for other prompts",
    )


def work(context: Context) -> dict[str, Any]:
    """Score the candidates and write down the best."""
    import torch

    config = context.settings
    pairs = candidate_pairs(context.run, context.iteration, config)
    method = discovery.load("acquisition", config.select.method)
    candidates = candidate_table(context.run, context.iteration, config, pairs, with_texts="texts" in method.NEEDS)
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "select", context.iteration))
    own = method_settings(config)
    chosen = method.choose(candidates, config.select.budget, own, generator, config.select.max_per_prompt)
    described = method.describe(candidates, chosen, own) if hasattr(method, "describe") else {}
    rows, scores = chosen.rows.tolist(), chosen.scores.tolist()
    selected = [
        SelectedPair(
            pair_id=pairs[row].pair_id,
            prompt_id=pairs[row].prompt_id,
            response_a_id=pairs[row].response_a_id,
            response_b_id=pairs[row].response_b_id,
            rank=rank,
            score=score,
        )
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1)
    ]
    context.folder.write_rows("selection.jsonl", selected)
    context.folder.write_tensors(
        "scores.safetensors", _score_tensors(candidates, chosen), {"method": config.select.method}
    )
    return {
        "selected": len(rows),
        "candidates": len(pairs),
        "method": config.select.method,
        "prompts": len({pair.prompt_id for pair in selected}),
        "first_score": scores[0],
        "last_score": scores[-1],
        **described,
    }


def headline(summary: Mapping[str, Any]) -> str:
    """`30 of 744 pairs by activedpo`."""
    return f"{summary['selected']} of {summary['candidates']} pairs by {summary['method']}"


def _score_tensors(candidates: "Candidates", chosen: "Selection") -> "dict[str, Tensor]":
    """For every candidate its two feature rows, its rank (0: not picked) and its score when picked (NaN: not picked)."""
    import torch

    ranks = torch.zeros(len(candidates), dtype=torch.int64)
    ranks[chosen.rows] = torch.arange(1, len(chosen.rows) + 1)
    scores = torch.full((len(candidates),), torch.nan, dtype=torch.float64)
    scores[chosen.rows] = chosen.scores.to(torch.float64)
    rows = torch.stack([candidates.row_a, candidates.row_b], dim=1)
    return {"candidate_rows": rows, "rank": ranks, "score": scores}


STAGE = Stage(
    "select",
    1,
    settings,
    inputs,
    lambda context: AtOnce(lambda: work(context)),
    headline,
    check,
    sections=("select",),
    is_done_here=always,
)
