"""The pairs of a stage as whoever answers is asked about them, and what people are asked beside them to measure by."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from activedpo_cli.base.records import Response, Role, SelectedPair, pair_id
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.label.borrowed_names import borrowed_names
from activedpo_cli.label.gold import gold_pairs
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.pairs.candidates import (
    answered_before,
    given_pairs,
    pairs_among,
    truncated_were_dropped,
    usable_responses,
)
from activedpo_cli.store.run import Run


@dataclass(frozen=True, kw_only=True)
class Question:
    """A comparison that people are asked about.

    Attributes:
        comparison: The pair and its texts.
        role: Whether it was selected, drawn as a control, or is gold.
        people: How many people have to answer before the stage can be closed.
        known_id: Of a gold pair the response that is known to be better.
        name_in_files: The id by which a gold pair goes out to files; None where that is its own.

    """

    comparison: Comparison
    role: Role = "selected"
    people: int = 1
    known_id: str | None = None
    name_in_files: str | None = None

    @property
    def is_for_everybody(self) -> bool:
        """Whether each person is asked, however many have answered; by gold one sees how each reads."""
        return self.role == "gold"

    def role_of_answer(self, is_further: bool) -> Role:
        """What an answer counts as; a further person's about a selected pair is an overlap."""
        return "overlap" if self.role == "selected" and is_further else self.role


def questions(run: Run, iteration: int) -> list[Comparison]:
    """The selected pairs of an iteration with their texts, in the order of the selection."""
    responses = {response.response_id: response for response in run.responses(iteration)}
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    return [
        Comparison(
            pair_id=pair.pair_id,
            prompt=prompts[pair.prompt_id],
            response_a=responses[pair.response_a_id],
            response_b=responses[pair.response_b_id],
        )
        for pair in run.stage("select", iteration).read_rows("selection.jsonl", SelectedPair)
    ]


def selected_questions(run: Run, iteration: int, settings: LabelSettings, seed: int) -> list[Question]:
    """The selected pairs in their order; which of them get two answers depends on the run's seed and the iteration alone."""
    selected = [Question(comparison=comparison) for comparison in questions(run, iteration)]
    if not settings.overlap:
        return selected
    chance = random.Random(derive_seed(seed, "overlap", iteration))
    twice = set(chance.sample(range(len(selected)), min(settings.overlap, len(selected))))
    return [replace(one, people=2) if place in twice else one for place, one in enumerate(selected)]


def questions_for_people(run: Run, iteration: int, settings: LabelSettings, seed: int) -> list[Question]:
    """What people are asked: the selected pairs in their order, and among them control and gold pairs.

    Which pairs a second person answers too, which controls are drawn, and where they stand, depends on the run's seed and
    the iteration alone. Raises InvalidDataError where the gold pairs can't be read.
    """
    selected = selected_questions(run, iteration, settings, seed)
    controls = list(_controls(run, iteration, settings, seed, selected))
    extra = [*controls, *_named(run, iteration, seed, [*selected, *controls], _gold(run, iteration, settings, seed))]
    if not extra:
        return selected
    chance = random.Random(derive_seed(seed, "mixed-in", iteration))
    placed = [((place + 0.5) / len(selected), one) for place, one in enumerate(selected)]
    return [one for _, one in sorted([*placed, *((chance.random(), one) for one in extra)], key=lambda pair: pair[0])]


def _controls(
    run: Run, iteration: int, settings: LabelSettings, seed: int, selected: Sequence[Question]
) -> Iterator[Question]:
    """Pairs drawn at random among those that could have been selected and were not; fewer where there are fewer.

    What was answered in an earlier iteration could not, as a control neither: its answers would be taken over, and nobody
    asked. Where a second person answers selected pairs, one answers these too: agreement on pairs at random is the headline.
    """
    if not settings.control:
        return
    gone = answered_before(run, iteration) | {question.comparison.pair_id for question in selected}
    for earlier in range(1, iteration):
        gone |= {label.pair_id for label in run.stage("label", earlier).label_log().answers()}
    drawable = [pair for pair in _pairs(run, iteration) if pair_id(*(side.response_id for side in pair)) not in gone]
    prompts = {prompt.prompt_id: prompt.prompt for prompt in run.prompts()}
    chance = random.Random(derive_seed(seed, "control", iteration))
    for a, b in chance.sample(drawable, min(settings.control, len(drawable))):
        comparison = Comparison(pair_id(a.response_id, b.response_id), prompts[a.prompt_id], a, b)
        yield Question(comparison=comparison, role="control", people=2 if settings.overlap else 1)


def _pairs(run: Run, iteration: int) -> Iterator[tuple[Response, Response]]:
    responses = usable_responses(run, iteration, drop_truncated=truncated_were_dropped(run, iteration))
    given = given_pairs(run, iteration)
    for prompt_id, group in groupby(responses, key=lambda response: response.prompt_id):
        members = {response.response_id: response for response in group}
        yield from ((members[a], members[b]) for a, b in pairs_among(members.keys(), prompt_id, given))


def _gold(run: Run, iteration: int, settings: LabelSettings, seed: int) -> Iterator[Question]:
    if settings.gold is None:
        return
    free = max(int(prompt.prompt_id.removeprefix("p")) for prompt in run.prompts()) + 1
    known = gold_pairs(
        Path(settings.gold),
        iteration,
        number=settings.gold_pairs,
        first_number=free,
        seed=seed,
        of_pool=run.drawn_prompts(iteration)["source"] == "pool",
    )
    for comparison, known_id in known:
        yield Question(comparison=comparison, role="gold", known_id=known_id)


def _named(
    run: Run, iteration: int, seed: int, others: Sequence[Question], gold: Iterator[Question]
) -> Iterator[Question]:
    """The gold pairs with the names that they have in files."""
    found = list(gold)
    if not found:
        return
    names = borrowed_names(
        [question.comparison.pair_id for question in found],
        {question.comparison.pair_id for question in others},
        [prompt.prompt_id for prompt in run.prompts() if prompt.split == "train"],
        random.Random(derive_seed(seed, "gold-names", iteration)),
    )
    yield from (replace(question, name_in_files=names[question.comparison.pair_id]) for question in found)
