"""What every oracle has in common: the question, the answer, and how scores become answers.

An oracle is one module in this folder, or an entry point of the group `activedpo.oracles`. Its file name is the value
of `label.oracle`, the first line of its docstring the help, and it has, at module level,

- `ASKS_PEOPLE`: True where its answers come from people, whom *label* asks pair by pair; such a module needs nothing more
  than this and `SCORES_TEXT = False`. `"some"` where people get the pairs about which it has no verdict; else False;
- `SCORES_TEXT: bool`: it can score new text, so that *evaluate* may use it; `build` then returns a `Scorer` too;
- `build(argument, settings, device, *, preferences=()) -> Oracle`: `argument` is what follows the first colon of the
  setting; `preferences` are those that came with recorded responses, which most oracles ignore;
- `KEEPS_REPLIES = True`, where every question costs something: `build` then has a keyword `memory`, a `ReplyMemory`, and
  what it returns is a `Judge`;
- `identity(argument, settings) -> dict[str, str]`: digests of whatever the answers depend on beside the settings, taken
  without importing anything heavy, because the up-to-date check calls it.
"""

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.looking_once import once
from activedpo_cli.base.records import Label, PromptText, RecordedPreference, Response, Spent
from activedpo_cli.base.settings import LabelSettings

Preferred = Literal["a", "b", "tie"]
SeedOfPair = Callable[[str], int]
"""The seed by which a pair's answer is drawn; it depends on the pair's id alone, never on its place in a batch."""


@dataclass(frozen=True)
class Comparison:
    """The question which of two responses to a prompt is better."""

    pair_id: str
    prompt: PromptText
    response_a: Response
    response_b: Response

    @cached_property
    def texts(self) -> list[str]:
        """The sha256 of the prompt's and of both responses' JSON, by which the question is known whatever ids it has."""
        texts = (self.prompt, self.response_a.text, self.response_b.text)
        return [hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest() for text in texts]


@dataclass(frozen=True)
class Verdict:
    """The answer to a comparison, with the scores it rests on where there are any; `preferred` None is no answer."""

    pair_id: str
    preferred: Preferred | None
    score_a: float | None
    score_b: float | None


class Oracle(Protocol):
    """Answers comparisons."""

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """One verdict for each comparison, in their order."""


class ReplyMemory(Protocol):
    """Where the replies of a judge are kept, each before it is used, so that none is paid for twice."""

    def replies(self, key: str) -> Sequence[Mapping[str, Any]]:
        """The replies to a question, in the order in which they came."""

    def sent(self, call: str, at_most: Spent) -> None:
        """Note that a call of this name is about to be made, and what it may cost; it is safe when this returns."""

    def untaken(self, call: str) -> None:
        """Note that the call cost nothing, since the server did not take it."""

    def keep(self, key: str, reply: Mapping[str, Any]) -> None:
        """Store a reply, which names its `call` where there was one; it is safe when this returns."""

    def spent(self) -> Spent:
        """What was asked so far, by this process or before; a call of which no more is known counts with all it may cost."""

    def advance(self) -> None:
        """Note that one more pair is done."""

    def tell(self, message: str) -> None:
        """Let whoever waits know."""


@dataclass(frozen=True)
class Judgement:
    """What a judge said of a pair in either order: who won, None where nothing could be read.

    `unreadable` counts by reason the replies from which nothing could be read.
    """

    pair_id: str
    a_first: Preferred | None
    b_first: Preferred | None
    unreadable: Mapping[str, int]

    @property
    def probability(self) -> float | None:
        """P(a), the mean over both orders; None unless both have an answer."""
        if self.a_first is None or self.b_first is None:
            return None
        share = {"a": 1.0, "tie": 0.5, "b": 0.0}
        return (share[self.a_first] + share[self.b_first]) / 2

    @property
    def preferred(self) -> Preferred | None:
        """The answer where both orders agree, a tie where they do not, None unless both have one."""
        if self.a_first is None or self.b_first is None:
            return None
        return self.a_first if self.a_first == self.b_first else "tie"

    def is_sure(self, threshold: float) -> bool:
        """Whether |P − ½| reaches the threshold; two orders that contradict each other are never sure."""
        probability = self.probability
        if probability is None or {self.a_first, self.b_first} == {"a", "b"}:
            return False
        return abs(probability - 0.5) >= threshold


class Judge(Oracle, Protocol):
    """An oracle that is asked about a pair in both orders."""

    @property
    def stopped(self) -> str | None:
        """Why it asks no further, None where nothing keeps it from that."""

    def prepare(self) -> None:
        """See that it can be asked: raises what keeps it from that, before anything is begun."""

    def judgements(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """What is known of pairs by the replies that are kept; nobody is asked."""

    def calls_to_come(self, comparisons: Sequence[Comparison]) -> tuple[int, int]:
        """How many calls these pairs still need if every reply can be read, and about how many tokens these ask with."""


class Scorer(Protocol):
    """Rates responses; higher is better."""

    def score(self, prompts: Sequence[PromptText], responses: Sequence[str]) -> list[float]:
        """The score of each response to the prompt at the same place.

        Raises:
            NonFiniteScoreError: A score is infinite or not a number.

        """


class NonFiniteScoreError(InvalidDataError):
    """A scorer gave infinity or not-a-number to the response at place `index` of what it was asked."""

    def __init__(self, index: int, score: float, scorer: str) -> None:
        super().__init__(f"{scorer} gave response {index + 1} of a batch the score {score}")
        self.index = index
        self.score = score
        self.scorer = scorer


def require_finite(scores: Sequence[float], scorer: str) -> None:
    """Raise NonFiniteScoreError at the first score that is not a finite number."""
    for index, score in enumerate(scores):
        if not math.isfinite(score):
            raise NonFiniteScoreError(index, score, scorer)


def parse_spec(spec: str) -> tuple[str, str | None]:
    """The oracle's name and its argument: `python:rewards:score` is `("python", "rewards:score")`.

    Raises:
        UsageError: No oracle has this name.

    """
    name, _, argument = spec.partition(":")
    try:
        return discovery.resolve("oracles", name), argument or None
    except UsageError as error:
        meant = _with_kind(name, argument)
        if meant:
            error.message = f"`{spec}` does not say what kind of oracle it is — did you mean `{meant}`?"
        raise


def _with_kind(name: str, argument: str) -> str | None:
    """The oracle whose argument alone was given: a module and a function, or a folder; None where it is none of these."""
    module = name.removesuffix(".py")
    if argument and ":" not in argument and all(part.isidentifier() for part in module.split(".")):
        return f"python:{module}:{argument}"
    return f"reward-model:{name}" if not argument and "/" in name else None


def asks_people(spec: str) -> bool:
    """Whether people alone answer under this value of `label.oracle`, so that it can't be called."""
    return discovery.load("oracles", parse_spec(spec)[0]).ASKS_PEOPLE is True


def asks_some_people(spec: str) -> bool:
    """Whether people answer, be it only the pairs about which something that is called has no verdict."""
    return bool(discovery.load("oracles", parse_spec(spec)[0]).ASKS_PEOPLE)


def keeps_replies(spec: str) -> bool:
    """Whether its replies cost something and are kept, so that it is a `Judge`."""
    return getattr(discovery.load("oracles", parse_spec(spec)[0]), "KEEPS_REPLIES", False)


def draws_answers(settings: LabelSettings) -> bool:
    """Whether seeds decide what is answered, so that another answer to the same question may differ.

    Neither a judge nor people answer by seeds, and recorded preferences have no scores to draw by.
    """
    if asks_some_people(settings.oracle) or keeps_replies(settings.oracle):
        return False
    has_scores = parse_spec(settings.oracle)[0] != "recorded" or settings.score_field is not None
    return settings.noise > 0 or (settings.answer != "argmax" and has_scores)


def open_judge(spec: str, settings: LabelSettings, memory: ReplyMemory) -> Judge:
    """The judge that `label.oracle` names, ready to be asked; its replies go to `memory`.

    Raises UsageError where the oracle is none.
    """
    name, argument = parse_spec(spec)
    if not keeps_replies(spec):
        raise UsageError(f"the oracle `{spec}` is no judge", hint="name one, such as `judge:MODEL`")
    return discovery.load("oracles", name).build(argument, _whole(settings), "cpu", memory=memory)


def open_oracle(
    spec: str, settings: LabelSettings, device: str, *, preferences: Sequence[RecordedPreference] = ()
) -> Oracle:
    """The oracle that `label.oracle` or `evaluate.scorer` names, ready to answer.

    Raises:
        UsageError: People answer there, whom nothing but *label* can ask.

    """
    if asks_people(spec):
        raise UsageError(
            f"people answer for the oracle `{spec}`, pair by pair, so it can neither be called nor score a text",
            hint="name an oracle that can, such as `reward-model:MODEL` (`activedpo ls oracles`)",
        )
    name, argument = parse_spec(spec)
    return discovery.load("oracles", name).build(argument, _whole(settings), device, preferences=preferences)


def oracle_identity(spec: str, settings: LabelSettings) -> dict[str, str]:
    """Digests of whatever the oracle's answers depend on beside the settings; quick, and without heavy imports.

    There are none where people answer: what they say is recorded answer by answer.
    """
    return once(("oracle", spec, settings.model_dump_json()), lambda: _identity(spec, settings))


def _identity(spec: str, settings: LabelSettings) -> dict[str, str]:
    if asks_people(spec):
        return {}
    name, argument = parse_spec(spec)
    return discovery.load("oracles", name).identity(argument, _whole(settings))


def _whole(settings: LabelSettings) -> LabelSettings:
    """Settings with the default of every one that the step at work did not declare, as *evaluate* has few of an oracle's."""
    return LabelSettings.model_validate(settings.model_dump())


def compare_by_score(
    scorer: Scorer, comparisons: Sequence[Comparison], settings: LabelSettings, seed_of_pair: SeedOfPair
) -> list[Verdict]:
    """Score every response once, and let the scores answer.

    Raises:
        InvalidDataError: A score is not finite; the message names the pair.

    """
    asked = {
        response.response_id: (comparison, response)
        for comparison in comparisons
        for response in (comparison.response_a, comparison.response_b)
    }
    prompts = [comparison.prompt for comparison, _ in asked.values()]
    try:
        scores = scorer.score(prompts, [response.text for _, response in asked.values()])
    except NonFiniteScoreError as error:
        comparison, response = list(asked.values())[error.index]
        raise InvalidDataError(
            f"{error.scorer} gave `{response.response_id}` of pair `{comparison.pair_id}` the score {error.score}"
        ) from error
    by_id = dict(zip(asked, scores, strict=True))
    return verdicts_from_scores(
        comparisons,
        [by_id[comparison.response_a.response_id] for comparison in comparisons],
        [by_id[comparison.response_b.response_id] for comparison in comparisons],
        answer=settings.answer,
        temperature=settings.temperature,
        seed_of_pair=seed_of_pair,
    )


def verdicts_from_scores(
    comparisons: Sequence[Comparison],
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    *,
    answer: Literal["argmax", "bradley-terry"],
    temperature: float,
    seed_of_pair: SeedOfPair,
) -> list[Verdict]:
    """Turn two scores per pair into an answer.

    Under `argmax` the higher score is preferred and equal scores are a tie (the paper's oracle). Under `bradley-terry`
    a is preferred with probability σ((s_a − s_b) / temperature), drawn with the pair's own seed, so that neither order
    nor batch matters; there are no ties.

    Raises:
        InvalidDataError: A score is infinite or not a number.

    """
    verdicts = []
    for comparison, score_a, score_b in zip(comparisons, scores_a, scores_b, strict=True):
        if not (math.isfinite(score_a) and math.isfinite(score_b)):
            raise InvalidDataError(f"the scores of pair `{comparison.pair_id}` are {score_a} and {score_b}")
        if answer == "bradley-terry":
            preferred = _drawn((score_a - score_b) / temperature, seed_of_pair(comparison.pair_id))
        else:
            preferred = _higher(score_a, score_b)
        verdicts.append(Verdict(comparison.pair_id, preferred, float(score_a), float(score_b)))
    return verdicts


def with_noise(verdicts: Sequence[Verdict], share: float, seed_of_pair: SeedOfPair) -> list[Verdict]:
    """The verdicts with each preference turned around with probability `share`, drawn with the pair's own seed.

    Scores stay as they are, and so do ties, and pairs without an answer.
    """
    other: dict[Preferred | None, Preferred | None] = {"a": "b", "b": "a", "tie": "tie", None: None}
    return [
        replace(verdict, preferred=other[verdict.preferred])
        if random.Random(seed_of_pair(verdict.pair_id)).random() < share
        else verdict
        for verdict in verdicts
    ]


def label_from_verdict(comparison: Comparison, verdict: Verdict, oracle: str) -> Label:
    """The label that a verdict about `comparison` amounts to; `oracle` is the setting that named who answered.

    Raises ValueError where the verdict is none, of which no label can be made: silence is no tie.
    """
    if verdict.preferred is None:
        raise ValueError(f"there is no verdict about pair `{comparison.pair_id}`")
    sides = {"a": comparison.response_a, "b": comparison.response_b}
    chosen = sides.get(verdict.preferred)
    return Label(
        pair_id=comparison.pair_id,
        outcome="tie" if chosen is None else "chosen",
        preferred_id=None if chosen is None else chosen.response_id,
        oracle=oracle,
        score_a=verdict.score_a,
        score_b=verdict.score_b,
        texts=comparison.texts,
    )


def _higher(score_a: float, score_b: float) -> Preferred:
    return "tie" if score_a == score_b else "a" if score_a > score_b else "b"


def _drawn(margin: float, seed: int) -> Preferred:
    return "a" if random.Random(seed).random() < _sigmoid(margin) else "b"


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))
