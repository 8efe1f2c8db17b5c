import hashlib
import math
import statistics

import pytest
from compared_pairs import make_comparison, seed_of_pair
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import Label, prompt_as_text
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles.base import (
    Comparison,
    Verdict,
    compare_by_score,
    label_from_verdict,
    parse_spec,
    require_finite,
    verdicts_from_scores,
    with_noise,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def answered(comparisons, scores_a, scores_b, answer="argmax", temperature=1.0):
    return verdicts_from_scores(
        comparisons, scores_a, scores_b, answer=answer, temperature=temperature, seed_of_pair=seed_of_pair
    )


@given(st.lists(st.tuples(FINITE, FINITE), max_size=6))
def test_argmax_prefers_the_higher_score_and_calls_equality_a_tie(scores):
    comparisons = [make_comparison(index) for index in range(len(scores))]
    verdicts = answered(comparisons, [a for a, _ in scores], [b for _, b in scores])
    for verdict, (a, b) in zip(verdicts, scores, strict=True):
        assert {"a": a > b, "b": b > a, "tie": a == b}[verdict.preferred]
        assert (verdict.score_a, verdict.score_b) == (a, b)


@pytest.mark.parametrize(("difference", "temperature"), [(1.0, 1.0), (-2.0, 1.0), (3.0, 2.0), (0.0, 1.0)])
def test_bradley_terry_answers_follow_the_logistic_probability(difference, temperature):
    number = 4000
    comparisons = [make_comparison(index) for index in range(number)]
    verdicts = answered(comparisons, [difference] * number, [0.0] * number, "bradley-terry", temperature)
    share = statistics.fmean(verdict.preferred == "a" for verdict in verdicts)
    expected = 1 / (1 + math.exp(-difference / temperature))
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / number)
    assert all(verdict.preferred != "tie" for verdict in verdicts)


def test_bradley_terry_answers_depend_on_neither_order_nor_batch():
    comparisons = [make_comparison(index) for index in range(40)]
    scores_a, scores_b = [index / 10 for index in range(40)], [2.0] * 40
    whole = answered(comparisons, scores_a, scores_b, "bradley-terry")
    alone = [
        answered([pair], [a], [b], "bradley-terry")[0]
        for pair, a, b in reversed(list(zip(comparisons, scores_a, scores_b, strict=True)))
    ]
    assert whole == alone[::-1]


@given(FINITE, FINITE)
def test_bradley_terry_takes_any_finite_scores(score_a, score_b):
    (verdict,) = answered([make_comparison(1)], [score_a], [score_b], "bradley-terry")
    assert verdict.preferred in ("a", "b")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_name_the_pair(bad):
    with pytest.raises(InvalidDataError, match="p000002/i001/r0-r1"):
        answered([make_comparison(1), make_comparison(2)], [0.0, bad], [0.0, 0.0])


class LengthScorer:
    """The length of the response, except where it says nan; counts what it was asked."""

    asked = 0

    def score(self, prompts, responses):
        assert len(prompts) == len(responses)
        self.asked += len(responses)
        scores = [math.nan if text == "nan" else float(len(text)) for text in responses]
        require_finite(scores, "the scorer `length`")
        return scores


def test_a_scorer_compares_and_scores_shared_responses_once():
    first = make_comparison(1, "aa", "b")
    second = Comparison("p000001/i001/r1-r0", "Which one?", first.response_b, first.response_a)
    scorer = LengthScorer()
    verdicts = compare_by_score(scorer, [first, second], LabelSettings(), seed_of_pair)
    assert [(v.preferred, v.score_a, v.score_b) for v in verdicts] == [("a", 2.0, 1.0), ("b", 1.0, 2.0)]
    assert scorer.asked == 2


def test_a_scorer_without_an_answer_names_pair_and_response():
    comparisons = [make_comparison(1), make_comparison(2, "x", "nan")]
    with pytest.raises(InvalidDataError, match=r"p000002/i001/r1` of pair `p000002/i001/r0-r1`.*nan"):
        compare_by_score(LengthScorer(), comparisons, LabelSettings(), seed_of_pair)


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("human", ("human", None)),
        ("python:rewards:score", ("python", "rewards:score")),
        ("reward_model:/models/x:y", ("reward-model", "/models/x:y")),
        ("recorded:", ("recorded", None)),
    ],
)
def test_a_spec_splits_at_the_first_colon(spec, parsed):
    assert parse_spec(spec) == parsed


def test_an_unknown_oracle_is_a_usage_error():
    with pytest.raises(UsageError, match="did you mean `python`"):
        parse_spec("pyhton:rewards:score")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_noise_turns_a_share_of_the_preferences_around(share):
    count = 4000
    comparisons = [make_comparison(number) for number in range(count)]
    clean = answered(comparisons, [float(number % 3) for number in range(count)], [1.0] * count)
    noisy = with_noise(clean, share, seed_of_pair)
    turned = [a.preferred != b.preferred for a, b in zip(clean, noisy, strict=True) if a.preferred != "tie"]
    assert statistics.fmean(turned) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(turned)))
    assert all(b == a for a, b in zip(clean, noisy, strict=True) if a.preferred == "tie")
    assert [(v.pair_id, v.score_a, v.score_b) for v in noisy] == [(v.pair_id, v.score_a, v.score_b) for v in clean]
    assert with_noise(clean[::-1], share, seed_of_pair) == noisy[::-1]


def test_verdicts_become_labels_about_response_ids():
    pair = make_comparison(7)
    assert label_from_verdict(pair, Verdict(pair.pair_id, "b", 0.5, 1.5), "python:m:f") == Label(
        pair_id="p000007/i001/r0-r1",
        outcome="chosen",
        preferred_id="p000007/i001/r1",
        oracle="python:m:f",
        score_a=0.5,
        score_b=1.5,
        texts=[hashlib.sha256(text).hexdigest() for text in (b'"Which one?"', b'"first"', b'"second"')],
    )
    tie = label_from_verdict(pair, Verdict(pair.pair_id, "tie", None, None), "recorded")
    assert (tie.outcome, tie.preferred_id) == ("tie", None)


def test_prompts_of_messages_as_text():
    user, system = {"role": "user", "content": "Why?"}, {"role": "system", "content": "Be brief."}
    assert prompt_as_text("plain") == "plain"
    assert prompt_as_text([user]) == "Why?"
    assert prompt_as_text([system, user]) == "system: Be brief.\n\nuser: Why?"
