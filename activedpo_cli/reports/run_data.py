"""What a report knows of one run: plain records, which `report.json` holds as they are."""

from dataclasses import dataclass, field
from typing import Any

from activedpo_cli.base.records import PromptText
from activedpo_cli.label.agreement import Agreement
from activedpo_cli.statistics.summaries import FiveNumbers, MeanInterval

Metrics = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StageFact:
    """One finished stage: `digest` identifies what it made, `outdated` names inputs that have changed since.

    `seconds` are those of all its `attempts`; of the last one alone where these are None, as in older records.
    """

    name: str
    stage: str
    iteration: int
    manifest: str
    digest: str
    seconds: float | None
    was_resumed: bool
    attempts: int | None
    outdated: list[str]


@dataclass(frozen=True)
class Scorer:
    """Who gave rewards: a name, and the digests of its content. Rewards compare only where both are equal."""

    name: str
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics of an iteration, and who scored; no scorer where nobody did."""

    iteration: int
    source: str
    labels_spent: int
    scorer: Scorer | None
    second_scorer: Scorer | None
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Facts about φ, normalised as the method saw it.

    Attributes:
        picked_cosines: |cos| between every two picked pairs; None for a single pair.
        pool_cosines: |cos| between every two of `pool_sample` candidates.
        labelled_pairs: Pairs in V with this batch: those labelled earlier and those picked.
        effective_rank: Of Σ φφᵀ over these.
        random_effective_rank: The same with batches of equal size drawn at random from the candidates, on average.

    """

    picked_cosines: FiveNumbers | None
    pool_cosines: FiveNumbers | None
    pool_sample: int
    labelled_pairs: int
    effective_rank: float
    random_effective_rank: float


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The pairs picked in one iteration, best first.

    Attributes:
        scores: The method's value of each; None where the method gives none.
        candidates: How many pairs there were to pick from.
        candidates_digest: Equal for two batches if and only if they were picked from the same pairs of the same texts.
        picked_tokens: Lengths of the picked pairs' responses, a response counted once for each of its pairs.
        pool_tokens: The same over all candidates.
        geometry: What the features say; None, with the reason in `no_geometry`, where there are none.

    """

    iteration: int
    source: str
    method: str
    picked: list[str]
    scores: list[float] | None
    candidates: int
    candidates_digest: str | None
    picked_tokens: FiveNumbers | None
    pool_tokens: FiveNumbers | None
    picked_tokens_mean: float | None
    pool_tokens_mean: float | None
    geometry: Geometry | None
    no_geometry: str | None


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The answers of one iteration.

    Attributes:
        counts: Answers by outcome.
        gaps: |score a − score b| of the answered pairs, where the oracle gave scores.
        scored_pairs: Pairs with both scores.
        pool_gaps: The same over all candidates, where the score that the oracle reads came with the responses.
        longer_won: Share of chosen responses that were the longer one, with Wilson's 95 % interval over pairs; None too
            where the responses that were answered about are gone.
        unequal_pairs: Pairs that it is a share of: one chosen, lengths unequal.
        seconds: Seconds for each answer, where people gave them.
        timed_answers: Answers with a time.
        judge: What the record says of the judge that answered; None where there was none.
        people: How many of the answers are people's, who were asked beside a judge; None where there was none.

    """

    iteration: int
    source: str
    oracle: str
    counts: dict[str, int]
    unanswered: int
    labels_spent: int
    gaps: FiveNumbers | None
    scored_pairs: int
    pool_gaps: FiveNumbers | None
    longer_won: MeanInterval | None
    unequal_pairs: int
    seconds: FiveNumbers | None
    timed_answers: int
    judge: Metrics | None = None
    people: Metrics | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """The updates of one iteration; each column has a value for each update, None where it was not logged.

    `wrong_answers` is what the record of *train* says of an estimated share of wrong answers.
    """

    iteration: int
    source: str
    updates: int
    preferences: int | None
    wrong_answers: dict[str, Any] | None
    columns: dict[str, list[float | None]]


@dataclass(frozen=True, kw_only=True)
class SampledText:
    """A response as it is shown; `left_out` counts the characters that are not."""

    response_id: str
    text: str
    left_out: int
    was_cut_off: bool
    reward: float | None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A held-out prompt with the response of the initial model and that of the last policy to it."""

    prompt_id: str
    prompt: PromptText
    iteration: int
    labels_spent: int
    initial: SampledText
    last: SampledText


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run.

    Attributes:
        name: What it is called in the report.
        model: Its initial model as named by the user, with the digest of its weights.
        settings: Every setting that a finished stage was made with, and its values in the order of iterations.
        unfinished: Stages of begun iterations that are not finished, by name.
        agreement: How far people agree, where people answered.

    """

    name: str
    preset: str
    made_by: str
    model: str
    model_digest: str
    prompts_digest: str
    seed: int | None
    methods: list[str]
    settings: dict[str, list[Any]]
    stages: list[StageFact]
    unfinished: list[str]
    evaluations: list[Evaluation] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    samples: list[Answered] = field(default_factory=list)
    agreement: Agreement | None = None
