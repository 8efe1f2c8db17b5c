import pytest
from compared_pairs import make_comparison, seed_of_pair

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import RecordedPreference
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles import recorded


def preference(number, winner, *, swapped=False):
    ids = [f"p{number:06d}/i001/r0", f"p{number:06d}/i001/r1"]
    winning = None if winner is None else ids[winner]
    ids = ids[::-1] if swapped else ids
    return RecordedPreference(
        prompt_id=f"p{number:06d}", response_a_id=ids[0], response_b_id=ids[1], preferred_id=winning
    )


def preferred(preferences, numbers):
    oracle = recorded.build(None, LabelSettings(), "cpu", preferences=preferences)
    return [v.preferred for v in oracle.compare([make_comparison(number) for number in numbers], seed_of_pair)]


def test_the_named_score_decides():
    oracle = recorded.build(None, LabelSettings(score_field="rm"), "cpu")
    comparisons = [
        make_comparison(1, scores_a={"rm": 0.5, "other": 9.0}, scores_b={"rm": 1.0, "other": 0.0}),
        make_comparison(2, scores_a={"rm": 2.0}, scores_b={"rm": 2.0}),
    ]
    assert [v.preferred for v in oracle.compare(comparisons, seed_of_pair)] == ["b", "tie"]


def test_recorded_preferences_decide_whatever_their_sides():
    preferences = [preference(1, 0), preference(2, 1, swapped=True), preference(3, None)]
    assert preferred(preferences, [3, 2, 1]) == ["tie", "b", "a"]


def test_contradicting_preferences_are_settled_by_majority():
    preferences = [
        *(preference(1, 1), preference(1, 0, swapped=True), preference(1, 1, swapped=True)),
        *(preference(2, 0), preference(2, 1)),
        *(preference(3, None), preference(3, None), preference(3, 0)),
    ]
    assert preferred(preferences, [1, 2, 3]) == ["b", "tie", "tie"]


@pytest.mark.parametrize(
    ("votes", "answer"),
    [("attt", "tie"), ("aat", "a"), ("at", "tie"), ("aatt", "tie"), ("aabt", "a"), ("abtt", "tie"), ("bbtaabb", "b")],
)
def test_a_tie_is_a_vote_like_others(votes, answer):
    preferences = [preference(1, {"a": 0, "b": 1, "t": None}[vote]) for vote in votes]
    assert preferred(preferences, [1]) == [answer]


def test_a_missing_score_names_the_pair_and_what_is_there():
    oracle = recorded.build(None, LabelSettings(score_field="rm"), "cpu")
    pair = make_comparison(4, scores_a={"rm": 1.0, "judge": 1.0}, scores_b={"judge": 2.0, "length": 3.0})
    assert not oracle.covers(pair)
    with pytest.raises(InvalidDataError, match="p000004/i001/r0-r1") as raised:
        oracle.compare([pair], seed_of_pair)
    assert raised.value.details == ("scores that both responses have: judge",)
    assert "--score-field judge" in raised.value.hint


def test_a_missing_preference_names_the_pair():
    oracle = recorded.build(None, LabelSettings(), "cpu", preferences=[preference(1, 0)])
    assert [oracle.covers(make_comparison(number)) for number in (1, 2)] == [True, False]
    with pytest.raises(InvalidDataError, match="p000002/i001/r0-r1"):
        oracle.compare([make_comparison(1), make_comparison(2)], seed_of_pair)


def test_a_score_of_zero_is_a_score():
    oracle = recorded.build(None, LabelSettings(score_field="rm"), "cpu")
    assert oracle.covers(make_comparison(1, scores_a={"rm": 0.0}, scores_b={"rm": -1.0}))


def test_an_argument_is_refused_with_the_flag_that_does_it():
    with pytest.raises(UsageError) as raised:
        recorded.build("rm_test", LabelSettings(), "cpu")
    assert "--score-field rm_test" in raised.value.hint
