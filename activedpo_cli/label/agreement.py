"""What people's answers say about the people: how far they agree, with each other, with themselves, and with what is known.

All of it is read from the logs of answers, so it can be looked at while a stage is open. Answers are compared as what they
say of the stored responses a and b, never of left and right, which were shuffled for each person.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from activedpo_cli.base.records import Label, Role, sides_of
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.statistics.agreement import (
    Interval,
    binomial_p,
    bootstrap_interval,
    cohen_kappa_of,
    krippendorff_alpha_of,
    wilson_interval,
)
from activedpo_cli.store.run import Run

FEWEST_PAIRS = 30
"""Below this the interval of a share is so wide that only the counts are shown."""

QUICK_SECONDS = 2.0
"""Whoever answers faster has hardly read two responses."""

WHY_SELECTED_DIFFER = (
    "People agree less on selected pairs than on pairs at random, because the method asks about what is close and unusual; "
    "so agreement on pairs at random is the headline, and nobody should be judged by the selected ones."
)


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What one person said of one pair; `said` is a, b, tie or both_bad, and None where they skipped it.

    `known` and `first` are a or b: the response of a gold pair that is known to be better, and the one shown first.
    """

    annotator: str
    iteration: int
    pair_id: str
    prompt_id: str
    role: Role
    said: str | None
    known: str | None
    first: str | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of some answers, with Wilson's 95 % interval; both are None where there are too few to say."""

    number: int
    of: int
    share: float | None
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Between:
    """How far two or more people agree on the pairs of a kind.

    What is compared are the first two answers to each pair. κ is given where they are always of the same two people, α for
    any people; both with 95 % intervals from drawing prompts. `decided` is `agreed` among pairs where both named a response.
    """

    pairs: int
    agreed: Share
    decided: Share
    kappa: float | None
    kappa_interval: Interval | None
    alpha: float | None
    alpha_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person's answers: how long they took, which side they took, and whether gold and repeated pairs came out right.

    `left_p` is the exact two-sided probability of a share of first places as far from one half, if sides did not matter.
    """

    annotator: str
    answers: int
    median_seconds: float | None
    quick: Share
    left: Share
    left_p: float | None
    gold: Share
    repeated: Share


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the logs of a run say about its annotators; `control` and `selected` are None where no pair has two answers."""

    control: Between | None
    selected: Between | None
    people: list[Person]


def agreement(run: Run) -> Agreement:
    """How far people agree, over all iterations of a run; raises InvalidDataError where a log is damaged."""
    return agreement_of(ratings(run), run.config.seed)


def ratings(run: Run, until: int | None = None) -> list[Rating]:
    """What people said, in the order in which they said it; an answer that a later stage took over counts once.

    `until` is the last iteration that counts; None counts all.
    """
    known: set[tuple[str, str, tuple[str, ...], bool]] = set()
    found = []
    for iteration in (number for number in run.iterations() if until is None or number <= until):
        for event in run.stage("label", iteration).label_log().standing():
            label = event.label
            if label is None or label.annotator is None:
                continue
            about = tuple(sorted(label.texts or [label.pair_id]))
            given = (label.annotator, label.first_given or event.time, about, label.role == "repeat")
            if given not in known:
                known.add(given)
                found.append(_rating(label, iteration))
    return found


def agreement_of(found: Sequence[Rating], seed: int = 0) -> Agreement:
    """How far people agree, from what they said; `seed` decides the draws of the bootstrap."""
    by_person = groupby(sorted(found, key=lambda rating: rating.annotator), key=lambda rating: rating.annotator)
    return Agreement(
        control=_between([rating for rating in found if rating.role == "control"], seed),
        selected=_between([rating for rating in found if rating.role in ("selected", "overlap")], seed),
        people=[_person(name, list(own)) for name, own in by_person],
    )


def first_two(found: Iterable[Rating]) -> list[list[Rating]]:
    """The first two answers to each pair that has two; who skipped has not answered.

    A third person is asked only where two differ, so a third answer would count disagreement twice.
    """
    units: dict[tuple[int, str], list[Rating]] = {}
    for rating in found:
        if rating.said is not None:
            units.setdefault((rating.iteration, rating.pair_id), []).append(rating)
    return [answers[:2] for answers in units.values() if len(answers) > 1]


def _rating(label: Label, iteration: int) -> Rating:
    sides = dict(zip(sides_of(label.pair_id), "ab", strict=True))
    said = {"tie": "tie", "both_bad": "both_bad", "skip": None}.get(label.outcome, sides.get(label.preferred_id or ""))
    return Rating(
        annotator=label.annotator or "",
        iteration=iteration,
        pair_id=label.pair_id,
        prompt_id=label.pair_id.partition("/")[0],
        role=label.role or "selected",
        said=said,
        known=sides.get(label.known_id or ""),
        first=sides.get(label.first_id or ""),
        seconds=label.seconds,
    )


def _between(found: Sequence[Rating], seed: int) -> Between | None:
    import numpy as np  # imported on use: `status` reads this module

    shared = first_two(found)
    if not shared:
        return None
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    for answers in shared:
        one, other = sorted(answers, key=lambda rating: rating.annotator)  # of two people each in the same place always
        by_prompt.setdefault(one.prompt_id, []).append((str(one.said), str(other.said)))
    counts = Counter(said for pairs in by_prompt.values() for said in pairs)
    people = {rating.annotator for answers in shared for rating in answers}
    is_enough = len(shared) >= FEWEST_PAIRS
    has_two = is_enough and len(people) == 2
    generator = np.random.default_rng(derive_seed(seed, "agreement"))
    firsts = [(answers[0].said, answers[1].said) for answers in shared]
    return Between(
        pairs=len(shared),
        agreed=_share(one == other for one, other in firsts),
        decided=_share(one == other for one, other in firsts if {one, other} <= {"a", "b"}),
        kappa=cohen_kappa_of(counts) if has_two else None,
        kappa_interval=bootstrap_interval(by_prompt, cohen_kappa_of, generator) if has_two else None,
        alpha=krippendorff_alpha_of(counts) if is_enough else None,
        alpha_interval=bootstrap_interval(by_prompt, krippendorff_alpha_of, generator) if is_enough else None,
    )


def _person(name: str, own: Sequence[Rating]) -> Person:
    times = [rating.seconds for rating in own if rating.seconds is not None]
    once = [rating for rating in own if rating.role != "repeat"]  # the second time the sides are changed on purpose
    sided = [rating.said == rating.first for rating in once if rating.said in ("a", "b") and rating.first]
    return Person(
        annotator=name,
        answers=len(own),
        median_seconds=statistics.median(times) if times else None,
        quick=_share((seconds < QUICK_SECONDS for seconds in times), fewest=1),
        left=_share(sided),
        left_p=binomial_p(sum(sided), len(sided)) if len(sided) >= FEWEST_PAIRS else None,
        gold=_share((rating.said == rating.known for rating in once if rating.known and rating.said), fewest=1),
        repeated=_share(_repetitions(own), fewest=1),
    )


def _repetitions(own: Sequence[Rating]) -> Iterable[bool]:
    """Whether a pair got the same answer the second time, of pairs that were answered twice."""
    before: Mapping[tuple[int, str], str | None] = {
        (rating.iteration, rating.pair_id): rating.said for rating in own if rating.role != "repeat"
    }
    for rating in own:
        earlier = before.get((rating.iteration, rating.pair_id))
        if rating.role == "repeat" and rating.said is not None and earlier is not None:
            yield rating.said == earlier


def _share(successes: Iterable[bool], fewest: int = FEWEST_PAIRS) -> Share:
    values = list(successes)
    number, of = sum(values), len(values)
    if of < fewest:
        return Share(number=number, of=of, share=None, interval=None)
    return Share(number=number, of=of, share=number / of, interval=wilson_interval(number, of))


def as_json(found: Agreement) -> dict[str, Any]:
    """The same as nested dictionaries and lists, intervals as two numbers."""
    from dataclasses import asdict

    return {**asdict(found), "why_selected_differ": WHY_SELECTED_DIFFER if found.selected else None}
