"""`activedpo show`: all that is known about a pair (texts, score, rank, label, tokens), and about features."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.errors import InvalidDataError, NotReadyError, UsageError
from activedpo_cli.base.records import ExcludedResponse, Label, OutcomeRow, Response, SelectedPair, prompt_as_text
from activedpo_cli.engine.repairs import OUTCOMES_NAME
from activedpo_cli.label.judging import described
from activedpo_cli.label.settlement import Rule, settled
from activedpo_cli.policy.policy import load_tokenizer_of
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PAIR = re.compile(r"(?P<stem>p\d+/(?:i(?P<iteration>\d+)|pool))/(?P<a>r\d+)-(?P<b>r\d+)")


def selected_pairs(run: Run, iteration: int) -> list[dict[str, Any]]:
    """The selected pairs of an iteration with their labels, best first."""
    labels = _labels(run, iteration)
    prompts = {prompt.prompt_id: prompt_as_text(prompt.prompt) for prompt in run.prompts()}
    return [
        {
            "rank": pair.rank,
            "score": pair.score,
            "pair_id": pair.pair_id,
            "label": label_text(labels.get(pair.pair_id)),
            "prompt": prompts[pair.prompt_id],
        }
        for pair in _selection(run, iteration)
    ]


def pair_details(run: Run, pair: str, iteration: int | None, *, tokens: bool) -> dict[str, Any]:
    """One pair in full; a pair of the pool is looked for in the given iteration, else in the newest that selected it.

    Raises UsageError for a malformed id and InvalidDataError for a pair that is not there.
    """
    number, names = pair_place(run, pair, iteration)
    responses = {row.response_id: row for row in run.responses(number)}
    missing = [name for name in names if name not in responses]
    if missing:
        raise InvalidDataError(f"there is no response `{missing[0]}` in iteration {number}")
    selected = {row.pair_id: row for row in _selection(run, number)}.get(pair)
    label = _labels(run, number).get(pair)
    prompts = {prompt.prompt_id: prompt_as_text(prompt.prompt) for prompt in run.prompts()}
    tokenizer = load_tokenizer_of(run) if tokens else None
    sides = [_response(responses[name], label, tokenizer) for name in names]
    return {
        "pair_id": pair,
        "iteration": number,
        "rank": selected.rank if selected else None,
        "score": selected.score if selected else None,
        "label": label_text(label),
        "answers": _answers_of_people(run, number, pair),
        "prompt": prompts[responses[names[0]].prompt_id],
        "response_a": sides[0],
        "response_b": sides[1],
    }


def pair_place(run: Run, pair: str, iteration: int | None) -> tuple[int, list[str]]:
    """The iteration that is meant by a pair, and the ids of its two responses; raises UsageError for a malformed id."""
    match = _PAIR.fullmatch(pair)
    if match is None:
        raise UsageError(
            f"`{pair}` is not a pair", hint="pairs look like p000123/i001/r0-r2; `activedpo show` lists some"
        )
    number = iteration or (int(match["iteration"]) if match["iteration"] else _newest_with(run, pair))
    return number, [f"{match['stem']}/{match[side]}" for side in ("a", "b")]


def feature_details(run: Run, iteration: int) -> dict[str, Any]:
    """How an iteration's features were made, how good their projection is, and which responses were left out.

    Raises NotReadyError where there are none.
    """
    folder = run.stage("featurize", iteration)
    if folder.manifest is None:
        raise NotReadyError(
            f"`featurize` of iteration {iteration} is not finished", hint=run.next_command("featurize", iteration)
        )
    settings, summary = folder.manifest.settings, folder.manifest.summary
    names = ("projection", "projection_width", "proj_dim", "exact_norms")
    return {
        "iteration": iteration,
        **{name: settings[f"featurize.{name}"] for name in names},
        "responses": summary["responses"],
        "columns": summary["columns"],
        "labelled": summary.get("labelled", 0),
        "quality": summary.get("projection"),
        "design": design_details(run, iteration),
        "excluded": [asdict(row) for row in folder.read_rows("excluded.jsonl", ExcludedResponse)]
        if folder.has("excluded.jsonl")
        else [],
    }


def design_details(run: Run, iteration: int) -> dict[str, Any] | None:
    """What V was with the batch of an iteration; None where nothing is selected, or by a method without it."""
    record = run.stage("select", iteration).manifest
    return record.summary.get("design") if record else None


def judge_details(run: Run, iteration: int) -> str | None:
    """What the judge of an iteration was like, in a sentence; None where nobody asked one, or *label* is not finished."""
    record = run.stage("label", iteration).manifest
    return described(record.summary) if record else None


def label_text(label: Label | OutcomeRow | None) -> str:
    """An answer in a few words."""
    if label is None:
        return "none"
    return f"{label.preferred_id} preferred" if label.preferred_id else label.outcome


def _labels(run: Run, iteration: int) -> Mapping[str, Label | OutcomeRow]:
    """By pair id the answer that trains: of a closed stage its outcomes, else what would count of the answers so far."""
    folder = run.stage("label", iteration)
    if folder.manifest and folder.has(OUTCOMES_NAME):
        return {row.pair_id: row for row in folder.read_rows(OUTCOMES_NAME, OutcomeRow)}
    rule: Rule = folder.started.settings.get("label.settle", "first") if folder.started else "first"
    return settled(folder.label_log().answers(), rule)


def _answers_of_people(run: Run, iteration: int, pair: str) -> list[dict[str, Any]]:
    """What each person said of a pair, and why if they wrote that, in the order in which they did.

    Nothing where the log can't be read: what trains is known from other files, and `verify` names the damage.
    """
    with suppress(InvalidDataError):
        return [
            {
                "annotator": label.annotator,
                "answer": label_text(label),
                "role": label.role,
                "seconds": label.seconds,
                "note": label.note,
            }
            for label in run.stage("label", iteration).label_log().answers()
            if label.pair_id == pair and label.annotator
        ]
    return []


def _selection(run: Run, iteration: int) -> list[SelectedPair]:
    folder = run.stage("select", iteration)
    return folder.read_rows("selection.jsonl", SelectedPair) if folder.manifest else []


def _newest_with(run: Run, pair: str) -> int:
    iterations = run.iterations() or [1]
    chosen = [t for t in iterations if pair in {row.pair_id for row in _selection(run, t)}]
    return (chosen or iterations)[-1]


def _response(
    response: Response, label: Label | OutcomeRow | None, tokenizer: "PreTrainedTokenizerBase | None"
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "response_id": response.response_id,
        "text": response.text,
        "finish_reason": response.finish_reason,
        "num_tokens": len(response.token_ids),
        "scores": response.scores,
        "preferred": label is not None and label.preferred_id == response.response_id,
    }
    if tokenizer is not None:
        from activedpo_cli.models.encoding import text_with_tokens

        pieces = text_with_tokens(tokenizer, [*response.prompt_token_ids, *response.token_ids])
        start = len(response.prompt_token_ids)
        shown["tokens"] = [{"id": i, "piece": piece, "mask": place >= start} for place, (i, piece) in enumerate(pieces)]
    return shown
