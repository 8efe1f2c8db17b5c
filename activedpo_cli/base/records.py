"""The rows that stages hand to each other. Ids join by eye: `p000123`, `p000123/i001/r2`, `p000123/i001/r0-r2`."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Message = dict[str, str]
PromptText = str | list[Message]
Outcome = Literal["chosen", "tie", "both_bad", "skip"]

Role = Literal["selected", "overlap", "control", "gold", "repeat"]

SPENT_OUTCOMES = frozenset({"chosen", "tie", "both_bad"})
"""Outcomes that cost an answer; `skip` does not."""


@dataclass(frozen=True)
class Spent:
    """What was asked of a judge, which somebody may have to pay; replies that were there before are no part of it."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Of prompts and replies."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __sub__(self, other: "Spent") -> "Spent":
        return self + Spent(-other.calls, -other.prompt_tokens, -other.completion_tokens)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt: plain text, or messages with `role` and `content`."""

    prompt_id: str
    split: Literal["train", "eval"]
    prompt: PromptText


@dataclass(frozen=True, kw_only=True)
class Response:
    """One response and the very tokens that stand for it everywhere.

    `token_ids` holds what was sampled, a generated end-of-text token included. `finish_reason` is `stop` (ended by
    itself), `length` (cut off) or `recorded` (made elsewhere, unknown). `scores` came with a recorded response.
    """

    response_id: str
    prompt_id: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: Literal["stop", "length", "recorded"]
    scores: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class RecordedPreference:
    """A preference that came with recorded responses; `preferred_id` is None for a tie."""

    prompt_id: str
    response_a_id: str
    response_b_id: str
    preferred_id: str | None


@dataclass(frozen=True, kw_only=True)
class GivenPair:
    """Two responses that a row of the responses file holds as a pair; `line` is where the first such row begins."""

    prompt_id: str
    response_a_id: str
    response_b_id: str
    line: int


@dataclass(frozen=True, kw_only=True)
class LeftOutRow:
    """A row of the responses file that is no candidate, by the line where it begins, and why."""

    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class UnreadScore:
    """Values of recorded responses under one name that are there and no finite numbers.

    `numbers` and `others` count responses that have a number under the name, and those that have something else;
    `first` says where the first of these stands and what it is.
    """

    name: str
    numbers: int
    others: int
    first: str


@dataclass(frozen=True, kw_only=True)
class FeatureRow:
    """Which response a row of the feature matrix belongs to; rows count from 0 over all units."""

    row: int
    response_id: str
    prompt_id: str


@dataclass(frozen=True, kw_only=True)
class ExcludedResponse:
    """A response that forms no pair, because what was computed for it is not finite; `columns` names what."""

    response_id: str
    columns: list[str]


@dataclass(frozen=True, kw_only=True)
class LabelledPairRow:
    """A pair labelled earlier, as two rows of `labelled.safetensors`."""

    pair_id: str
    row_a: int
    row_b: int


@dataclass(frozen=True, kw_only=True)
class SelectedPair:
    """One pair to be labelled; `rank` counts from 1, `score` is the method's value when it was picked."""

    pair_id: str
    prompt_id: str
    response_a_id: str
    response_b_id: str
    rank: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Label:
    """One answer about one pair. `preferred_id` is set if and only if the outcome is `chosen`.

    `texts` are the sha256 of the prompt, of response a and of response b: the question, whatever ids it has. An answer that
    was not asked for again says in `taken_from` for which stage it was given (`iter-001/label`) and in `first_given` when.
    `role` says why it was asked: `selected` may train, the others measure. An `overlap` is what a further person says of a
    selected pair, a `control` pair was drawn at random, of a `gold` pair the better response is known (`known_id`), and a
    `repeat` is the same question to the same person. `first_id` is the response that was shown first, `view` and `channel`
    say how and where it was asked, and `answer_id` is the name by which a page sends an answer again, or a file holds it.
    Logs of older versions lack all but the first nine fields.
    """

    pair_id: str
    outcome: Outcome
    preferred_id: str | None
    oracle: str
    score_a: float | None = None
    score_b: float | None = None
    annotator: str | None = None
    seconds: float | None = None
    note: str | None = None
    texts: list[str] | None = None
    taken_from: str | None = None
    first_given: str | None = None
    role: Role | None = None
    known_id: str | None = None
    first_id: str | None = None
    answer_id: str | None = None
    view: str | None = None
    channel: str | None = None

    @property
    def asked(self) -> "Asked":
        """What this is the answer to; the last one given to it stands."""
        return Asked(self.pair_id, self.annotator, self.role == "repeat")

    @property
    def may_train(self) -> bool:
        """Whether it is about a selected pair and was not asked to measure alone."""
        return self.role not in ("control", "gold", "repeat")


class Asked(NamedTuple):
    """What one person is asked once: a pair, and the same pair for the second time."""

    pair_id: str
    annotator: str | None
    is_repeat: bool = False


@dataclass(frozen=True, kw_only=True)
class OutcomeRow:
    """The answer that stands for a selected pair once its stage is closed; it holds no times, so it can be compared."""

    pair_id: str
    prompt_id: str
    response_a_id: str
    response_b_id: str
    outcome: Outcome
    preferred_id: str | None
    oracle: str
    score_a: float | None = None
    score_b: float | None = None


@dataclass(frozen=True, kw_only=True)
class Preference:
    """A labelled pair in TRL's columns, for whoever trains elsewhere; no stage reads it, since it has no tokens.

    Prompt and responses are messages where the model reads the prompt through its chat template, and texts otherwise: TRL
    refuses one beside the other, and would render no text. A response holds the whole answer where the prompt began it.
    `chat_template_kwargs` stands behind these columns where the run has some.
    """

    pair_id: str
    prompt_id: str
    prompt: PromptText
    chosen: PromptText
    rejected: PromptText
    chosen_id: str
    rejected_id: str
    oracle: str
    score_chosen: float | None = None
    score_rejected: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluatedResponse:
    """A response to a held-out prompt with what was measured about it; None where nobody measured it.

    `logps` and `ref_logps` are summed over the response's tokens; the initial model's own rows have neither.
    """

    response_id: str
    prompt_id: str
    sample_index: int
    num_tokens: int
    truncated: bool
    reward: float | None
    second_reward: float | None
    logps: float | None = None
    ref_logps: float | None = None


@dataclass(frozen=True, kw_only=True)
class ResponseReward:
    """What a scorer gave to a response of the initial model."""

    response_id: str
    scorer: str
    reward: float


def prompt_as_text(prompt: PromptText) -> str:
    """The prompt as one text: itself, the content of a single user message, else `role: content` paragraphs."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def with_whole_answer(prompt: PromptText, response: str) -> tuple[PromptText, str]:
    """A prompt without an answer that its last message begins, and the response with that beginning in front."""
    if isinstance(prompt, list) and len(prompt) > 1 and prompt[-1]["role"] == "assistant":
        return prompt[:-1], prompt[-1]["content"] + response
    return prompt, response


def response_id(prompt_id: str, iteration: int | None, index: int) -> str:
    """`p000123/i001/r2`, or `p000123/pool/r2` for a response made elsewhere (`iteration` None)."""
    origin = "pool" if iteration is None else f"i{iteration:03d}"
    return f"{prompt_id}/{origin}/r{index}"


def pair_id(response_a_id: str, response_b_id: str) -> str:
    """`p000123/i001/r0-r2`; both responses belong to one prompt and one origin."""
    stem_a, _, tail_a = response_a_id.rpartition("/")
    stem_b, _, tail_b = response_b_id.rpartition("/")
    if stem_a != stem_b:
        raise ValueError(f"{response_a_id} and {response_b_id} are not responses to one prompt")
    return f"{stem_a}/{tail_a}-{tail_b}"


def sides_of(pair_id: str) -> tuple[str, str]:
    """The ids of both responses of a pair: `p000123/i001/r0` and `p000123/i001/r2`."""
    stem, _, tails = pair_id.rpartition("/")
    tail_a, _, tail_b = tails.partition("-")
    return f"{stem}/{tail_a}", f"{stem}/{tail_b}"
