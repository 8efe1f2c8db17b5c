"""`activedpo show --why`: why a pair was picked or not, from its score, the batch, and the pairs most like it.

From stored features alone; no model is loaded.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, NotReadyError, UsageError
from activedpo_cli.base.records import FeatureRow, LabelledPairRow, Response, SelectedPair, pair_id, prompt_as_text
from activedpo_cli.base.settings import Config, SelectSettings
from activedpo_cli.engine.step import require
from activedpo_cli.pairs.candidates import CandidatePair, label_inputs, labelled_pairs
from activedpo_cli.run.command import load_stage
from activedpo_cli.run.show import label_text, pair_place
from activedpo_cli.select.candidate_table import candidate_table, command_for_columns, frozen_labelled, stored_columns
from activedpo_cli.select.method_settings import method_settings
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from torch import Tensor

NEAREST = 3
"""How many pairs are named as most alike."""


@dataclass(frozen=True)
class _Known:
    """A pair with φ that the one in question is compared with, and what is said of it."""

    row: dict[str, Any]
    response_a: Response
    response_b: Response


def explain_pair(run: Run, pair: str, iteration: int | None) -> dict[str, Any]:
    """Score, rank and what is left of a pair, with the labelled and the chosen pairs nearest to it by |cos| of φ.

    Uncertainties are ‖φ‖ in V⁻¹, whatever the method: `at_start` with the pairs labelled earlier in V, `when_picked`
    with the picks before it too, `after_batch` with the whole batch. Raises UsageError for a malformed id,
    InvalidDataError for a pair that is not there, and NotReadyError where its features are not, or are stale.
    """
    number, (name_a, name_b) = pair_place(run, pair, iteration)
    if name_a == name_b:
        raise UsageError(f"`{pair}` is one response, not a pair")
    record = run.stage("select", number).manifest
    config = load_stage("select").seen(run, record, {})
    for needed in range(1 if config.select.history == "frozen" else number, number + 1):
        _require_features(run, needed)
    batch = run.stage("select", number).read_rows("selection.jsonl", SelectedPair) if record else []
    rows = {row.response_id: row for row in run.stage("featurize", number).read_rows("rows.jsonl", FeatureRow)}
    for name in (name_a, name_b):
        if name not in rows:
            raise InvalidDataError(
                f"`{name}` has no features in iteration {number}",
                details=["there is no such response, it repeats another or is empty, or its gradient was not finite"],
                hint=f"`{run.next_command('show features', number)}` names what was left out",
            )
    asked = _candidate(rows[name_a], rows[name_b])
    chosen = [_candidate(rows[row.response_a_id], rows[row.response_b_id]) for row in batch]
    table = candidate_table(run, number, config, [asked, *chosen], with_texts=False)
    features = table.pair_features()
    couple = {name_a, name_b}
    place = next((place for place, row in enumerate(batch) if {row.response_a_id, row.response_b_id} == couple), None)
    known = _labelled(run, number, config), _chosen(run, number, batch)
    return {
        "pair_id": pair if place is None else batch[place].pair_id,
        "iteration": number,
        "method": config.select.method if record else None,
        "candidates": record.summary["candidates"] if record else None,
        "rank": None if place is None else batch[place].rank,
        "score": None if place is None else batch[place].score,
        **_uncertainties(features[0], table.history(), features[1:], place, config, run.config),
        **_texts_of(run, number, asked),
        "nearest_labelled": _nearest(features[0], table.history(), known[0], couple),
        "nearest_chosen": _nearest(features[0], features[1:], known[1], couple),
    }


def _require_features(run: Run, iteration: int) -> None:
    """Raise unless there are features, and the batch, if any, was chosen by these."""
    columns = stored_columns(run, iteration)
    label_inputs(run, range(1, iteration))
    if "features" not in columns:
        raise NotReadyError(
            f"featurize of iteration {iteration} computed no features, and without them no pair is like another",
            hint=command_for_columns(run, iteration, ["features"]),
        )
    if run.stage("select", iteration).manifest is not None:
        require(run, "select", iteration)


def _uncertainties(
    asked: "Tensor", history: "Tensor", batch: "Tensor", place: int | None, config: Config, today: Config
) -> dict[str, Any]:
    """Uncertainties by the V of the method that chose, or where that has none of the default method as it is set `today`."""
    import torch

    method = discovery.load("acquisition", config.select.method)
    if not hasattr(method, "design"):
        select = today.select.model_copy(update={"method": SelectSettings.model_fields["method"].default})
        config = today.model_copy(update={"select": select})
        method = discovery.load("acquisition", select.method)
    settings = method_settings(config)

    def given(picks: int) -> float:
        return float(method.design(torch.cat([history, batch[:picks]]), settings).norms(asked[None]))

    return {
        "ridge": method.design(history, settings).ridge,
        "norm": float(torch.linalg.vector_norm(asked)),
        "at_start": given(0),
        "when_picked": None if place is None else given(place),
        "after_batch": given(len(batch)),
    }


def _nearest(asked: "Tensor", features: "Tensor", known: list[_Known], couple: set[str]) -> list[dict[str, Any]]:
    """The known pairs with the largest |cos| to the one asked about, itself left out."""
    from activedpo_cli.select.scores.batch import absolute_cosines_to

    cosines = absolute_cosines_to(asked, features).tolist()
    rows = [
        {
            **row.row,
            "abs_cosine": cosine,
            "response_a": row.response_a.text,
            "response_b": row.response_b.text,
        }
        for row, cosine in zip(known, cosines, strict=True)
        if {row.response_a.response_id, row.response_b.response_id} != couple
    ]
    return sorted(rows, key=lambda row: -row["abs_cosine"])[:NEAREST]


def _labelled(run: Run, iteration: int, config: Config) -> list[_Known]:
    """The pairs labelled earlier that have features, in the order of these."""
    folder, prompts = run.stage("featurize", iteration), _prompts(run)
    pairs = {pair.outcome.pair_id: pair for pair in labelled_pairs(run, range(1, iteration))}
    if config.select.history == "frozen":
        found = frozen_labelled(run, iteration)
        stored = [] if found is None else found.pair_ids
    else:
        rows = folder.read_rows("labelled.jsonl", LabelledPairRow) if folder.has("labelled.jsonl") else []
        stored = [row.pair_id for row in rows]
    return [
        _Known(
            {
                "pair_id": pair.outcome.pair_id,
                "iteration": pair.iteration,
                "label": label_text(pair.outcome),
                "prompt": prompts[pair.outcome.prompt_id],
            },
            pair.response_a,
            pair.response_b,
        )
        for pair in (pairs[name] for name in stored)
    ]


def _chosen(run: Run, iteration: int, batch: list[SelectedPair]) -> list[_Known]:
    prompts, responses = _prompts(run), _responses(run, iteration)
    return [
        _Known(
            {"pair_id": row.pair_id, "rank": row.rank, "score": row.score, "prompt": prompts[row.prompt_id]},
            responses[row.response_a_id],
            responses[row.response_b_id],
        )
        for row in batch
    ]


def _texts_of(run: Run, iteration: int, pair: CandidatePair) -> dict[str, str]:
    responses = _responses(run, iteration)
    return {
        "prompt": _prompts(run)[pair.prompt_id],
        "response_a": responses[pair.response_a_id].text,
        "response_b": responses[pair.response_b_id].text,
    }


def _candidate(a: FeatureRow, b: FeatureRow) -> CandidatePair:
    return CandidatePair(pair_id(a.response_id, b.response_id), a.prompt_id, a.response_id, b.response_id, a.row, b.row)


def _prompts(run: Run) -> dict[str, str]:
    return {prompt.prompt_id: prompt_as_text(prompt.prompt) for prompt in run.prompts()}


def _responses(run: Run, iteration: int) -> dict[str, Response]:
    return {response.response_id: response for response in run.responses(iteration)}
