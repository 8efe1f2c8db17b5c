"""Which responses may form pairs, and which pairs have been labelled: shared by featurize, select and train."""

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from activedpo_cli.base.errors import InvalidDataError, NotReadyError
from activedpo_cli.base.nearest import asking, nearest
from activedpo_cli.base.records import (
    SPENT_OUTCOMES,
    FeatureRow,
    GivenPair,
    OutcomeRow,
    Response,
    UnreadScore,
    pair_id,
)
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.intact import check_file
from activedpo_cli.engine.repairs import repair_of_shared
from activedpo_cli.engine.step import require
from activedpo_cli.pairs.pairing import all_pairs, times_sampled, usable_indices
from activedpo_cli.store.run import Run


@dataclass(frozen=True)
class LabelledPair:
    """A pair answered in an earlier iteration, with its two responses."""

    iteration: int
    outcome: OutcomeRow
    response_a: Response
    response_b: Response


def response_inputs(run: Run, iteration: int) -> dict[str, str]:
    """Digests of what the responses of an iteration are read from; looked at once, since every later iteration asks."""
    return dict(_known_inputs(run, iteration))


def _known_inputs(run: Run, iteration: int) -> dict[str, str]:
    if iteration not in run.response_inputs:
        run.response_inputs[iteration] = _response_inputs(run, iteration)
    return run.response_inputs[iteration]


def _response_inputs(run: Run, iteration: int) -> dict[str, str]:
    digests = {f"iter-{iteration:03d}/generate": require(run, "generate", iteration)}
    check_file(run, run.stage("generate", iteration), "prompts.json")
    if run.drawn_prompts(iteration)["source"] == "pool":
        manifest = run.pool.manifest
        if manifest is None:
            raise NotReadyError(
                f"the pool of responses in `{run.pool.path}` is gone",
                hint=repair_of_shared(run, "pool"),
            )
        digests["pool"] = manifest.digest
    return digests


def label_inputs(run: Run, iterations: range) -> dict[str, str]:
    """Digests of the labels of some iterations and of the responses that they are about."""
    if iterations.start > 1:
        return {name: digest for iteration in iterations for name, digest in _labels_of(run, iteration).items()}
    counts = run.label_input_counts  # how many of the inputs are of the iterations up to each
    while len(counts) < len(iterations):
        run.label_inputs |= _labels_of(run, len(counts) + 1)
        counts.append(len(run.label_inputs))
    return dict(islice(run.label_inputs.items(), counts[len(iterations) - 1] if iterations else 0))


def _labels_of(run: Run, iteration: int) -> dict[str, str]:
    return {**_known_inputs(run, iteration), f"iter-{iteration:03d}/label": require(run, "label", iteration)}


def usable_responses(run: Run, iteration: int, *, drop_truncated: bool) -> list[Response]:
    """The responses of an iteration that can be part of a pair, in order.

    Empty responses, repetitions of a response to the same prompt and, where asked for, cut-off ones are left out; so is
    the only usable response to a prompt.
    """
    given = given_pairs(run, iteration)
    return [
        response
        for _, group in groupby(run.responses(iteration), key=lambda response: response.prompt_id)
        for response in pairable(list(group), given, drop_truncated=drop_truncated)
    ]


def pairable(
    responses: Sequence[Response], given: Mapping[str, Sequence[GivenPair]] | None, *, drop_truncated: bool
) -> list[Response]:
    """The responses to ONE prompt that can be part of a pair, or, where pairs were `given`, of one of these."""
    indices = usable_indices(*_texts_and_ends(responses), drop_truncated)
    usable = [responses[index] for index in indices]
    if given is None:
        return usable if len(usable) > 1 else []
    names = {response.response_id for response in usable}
    pairs = [{pair.response_a_id, pair.response_b_id} for pair in given.get(responses[0].prompt_id, ())]
    paired = {name for pair in pairs if pair <= names for name in pair}
    return [response for response in usable if response.response_id in paired]


def truncated_were_dropped(run: Run, iteration: int) -> bool:
    """Whether *featurize* of an iteration left cut-off responses out, whatever `config.yaml` says of those to come."""
    record = run.stage("featurize", iteration).manifest
    return record is not None and record.settings.get("generate.truncated") == "drop"


def with_times_sampled(responses: Sequence[Response], *, drop_truncated: bool) -> Iterator[tuple[Response, int]]:
    """The responses to ONE prompt that a pair may hold, each with how often its text was sampled."""
    known = *_texts_and_ends(responses), drop_truncated
    for index, number in zip(usable_indices(*known), times_sampled(*known), strict=True):
        yield responses[index], number


def _texts_and_ends(responses: Sequence[Response]) -> tuple[list[str], list[bool]]:
    return [response.text for response in responses], [response.finish_reason == "length" for response in responses]


def given_pairs(run: Run, iteration: int) -> dict[str, list[GivenPair]] | None:
    """By prompt, the only pairs that an iteration's responses form; None where all responses to one prompt form pairs."""
    return pairs_by_prompt(run) if run.drawn_prompts(iteration).get("pairs") == "given" else None


def pairs_by_prompt(run: Run) -> dict[str, list[GivenPair]]:
    """The pairs that the pool was given as such, by prompt."""
    found: dict[str, list[GivenPair]] = {}
    for pair in run.given_pairs():
        found.setdefault(pair.prompt_id, []).append(pair)
    return found


def outcomes(run: Run, iteration: int) -> list[OutcomeRow]:
    """What was answered in an iteration."""
    return run.stage("label", iteration).read_rows("outcomes.jsonl", OutcomeRow)


def labels_spent(run: Run, iteration: int) -> int:
    """How many answers an iteration bought, as its label stage counted them; raises NotReadyError while that is open."""
    require(run, "label", iteration)
    record = run.stage("label", iteration).manifest
    assert record is not None
    return int(record.summary["labels_spent"])


def labelled_pairs(run: Run, iterations: Sequence[int]) -> Iterator[LabelledPair]:
    """The pairs that cost an answer in some iterations, in the order in which they were answered."""
    for iteration in iterations:
        by_id = {response.response_id: response for response in run.responses(iteration)}
        for row in outcomes(run, iteration):
            if row.outcome in SPENT_OUTCOMES:
                yield LabelledPair(iteration, row, by_id[row.response_a_id], by_id[row.response_b_id])


def pairs_among(
    names: Collection[str], prompt_id: str, given: Mapping[str, Sequence[GivenPair]] | None
) -> list[tuple[str, str]]:
    """The pairs that usable responses to ONE prompt form: all of them, or, where pairs were `given`, those of these."""
    if given is None:
        return all_pairs(names)
    asked = [(pair.response_a_id, pair.response_b_id) for pair in given.get(prompt_id, ())]
    return [(a, b) for a, b in asked if a in names and b in names]


def answered_before(run: Run, iteration: int) -> set[str]:
    """The pairs that were answered or skipped in an earlier iteration, which are no candidates any more."""
    return {row.pair_id for earlier in range(1, iteration) for row in outcomes(run, earlier)}


@dataclass(frozen=True)
class CandidatePair:
    """A pair that could be labelled now, with the feature rows of its responses."""

    pair_id: str
    prompt_id: str
    response_a_id: str
    response_b_id: str
    row_a: int
    row_b: int


def candidate_pairs(run: Run, iteration: int, config: Config) -> list[CandidatePair]:
    """All pairs of featurized responses to one prompt, or those given as pairs, less those not to be answered.

    Left out are pairs that were answered or skipped in an earlier iteration, and those that the recorded oracle could
    not answer: pairs without the score `label.score_field` where one is named, without a recorded preference otherwise.
    """
    rows = run.stage("featurize", iteration).read_rows("rows.jsonl", FeatureRow)
    gone = answered_before(run, iteration)
    is_answerable = answerable(run, iteration, config)
    given = given_pairs(run, iteration)
    pairs: list[CandidatePair] = []
    for prompt_id, group in groupby(rows, key=lambda row: row.prompt_id):
        members = {row.response_id: row for row in group}
        for a, b in pairs_among(members.keys(), prompt_id, given):
            pair = _pair(members[a], members[b])
            if pair.pair_id not in gone and is_answerable(pair):
                pairs.append(pair)
    return pairs


def _pair(a: FeatureRow, b: FeatureRow) -> CandidatePair:
    return CandidatePair(pair_id(a.response_id, b.response_id), a.prompt_id, a.response_id, b.response_id, a.row, b.row)


def refuse_unread_score(run: Run, field: str) -> None:
    """Raise InvalidDataError where the recorded score is something else than a finite number for any response.

    A response without the score is no candidate, which is said; one whose score can't be read would vanish unsaid.
    """
    rows = run.pool.read_rows("unread-scores.jsonl", UnreadScore) if run.pool.has("unread-scores.jsonl") else []
    for row in rows:
        if row.name == field:
            have = "has" if row.others == 1 else "have"
            count = f"{row.others} of {row.others + row.numbers} responses {have}"
            raise InvalidDataError(
                f"{count} a `{field}` that is no finite number of its own",
                details=[row.first],
                hint="write numbers as 0.5 (a point, no unit), and leave out what is unknown; then give the file again",
            )


def no_such_score(
    message: str, field: str, present: Iterable[str], naming: str = "--score-field NAME"
) -> InvalidDataError:
    """A named score that nothing has: says which scores are there, and by `naming`, which ends in NAME, how to name one."""
    known = sorted(present)
    meant = nearest(field, known)
    return InvalidDataError(
        message + asking(meant),
        details=[f"scores there are: {', '.join(known) or 'none'}"],
        hint=naming.removesuffix("NAME") + shlex.quote(meant or known[0]) if known else naming,
    )


def answerable(run: Run, iteration: int, config: Config) -> "Callable[[CandidatePair | GivenPair], bool]":
    """Whether the oracle could answer about a pair: the recorded one only where it has a score or a preference."""
    field = config.label.score_field
    if field is None and config.label.oracle != "recorded":
        return lambda pair: True
    if field is None:
        known = {frozenset((p.response_a_id, p.response_b_id)) for p in run.pool_preferences()}
        return lambda pair: frozenset((pair.response_a_id, pair.response_b_id)) in known
    refuse_unread_score(run, field)
    scored = {r.response_id for r in run.responses(iteration) if field in (r.scores or {})}
    return lambda pair: pair.response_a_id in scored and pair.response_b_id in scored
