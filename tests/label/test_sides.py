import math

from compared_pairs import make_comparison

from activedpo_cli.label.sides import shown_sides


def first_shown(annotator="ann", seed=0, number=2000):
    comparisons = [make_comparison(index) for index in range(number)]
    return [shown_sides(pair, annotator, seed)[0] is pair.response_a for pair in comparisons]


def test_both_responses_are_shown():
    pair = make_comparison(3)
    assert set(map(id, shown_sides(pair, "ann", 0))) == {id(pair.response_a), id(pair.response_b)}


def test_sides_are_repeatable_and_about_half_are_swapped():
    sides = first_shown()
    assert sides == first_shown()
    assert abs(sum(sides) - 1000) < 4 * math.sqrt(500)


def test_sides_differ_between_people_and_seeds():
    for other in (first_shown(annotator="bob"), first_shown(seed=1)):
        agreeing = sum(x == y for x, y in zip(first_shown(), other, strict=True))
        assert abs(agreeing - 1000) < 4 * math.sqrt(500)
