"""Greedy selection against the paper's own form, with V and its inverse rebuilt at every step."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activedpo_cli.select.design.design import Design, design_matrix, pair_uncertainty
from activedpo_cli.select.design.greedy import greedy_uncertainty
from activedpo_cli.select.design.history import History


def textbook(
    features: Tensor, labelled: Tensor, ridge: float, budget: int, priority: Tensor
) -> tuple[list[int], list[float]]:
    """Algorithm 1, lines 5–9, literally; of scores equal to nine digits the smaller priority wins."""
    rows: list[int] = []
    scores: list[float] = []
    for _ in range(budget):
        design = design_matrix(torch.cat([labelled, features[rows]]), ridge)
        uncertainty = pair_uncertainty(features, torch.linalg.inv(design))
        uncertainty[rows] = -1
        tied = (uncertainty >= uncertainty.max() * (1 - 1e-9)).nonzero().flatten().tolist()
        row = min(tied, key=lambda candidate: int(priority[candidate]))
        rows.append(row)
        scores.append(float(uncertainty[row]))
    return rows, scores


def random_features(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 14),
    dim=st.integers(1, 9),
    labelled=st.integers(0, 6),
    ridge=st.sampled_from([1e-4, 1e-2, 0.1, 1.0, 30.0]),
    ragged=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_picks_and_scores_equal_the_textbook(
    count: int, dim: int, labelled: int, ridge: float, ragged: bool, seed: int
) -> None:
    features = random_features(count, dim, seed)
    if ragged:
        features *= torch.linspace(0.1, 10, count, dtype=torch.float64)[:, None]
    history = random_features(labelled, dim, seed + 1)
    priority = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    budget = max(1, count * 2 // 3)
    rows, scores = greedy_uncertainty(features, history, ridge, budget, priority)
    expected_rows, expected_scores = textbook(features, history, ridge, budget, priority)
    assert rows.tolist() == expected_rows
    assert scores.tolist() == pytest.approx(expected_scores, rel=1e-6)


def sherman_morrison(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> list[int]:
    """The picks with V⁻¹ itself kept, d × d, and brought up to date by (V + φφᵀ)⁻¹ = V⁻¹ − V⁻¹φφᵀV⁻¹/(1 + φᵀV⁻¹φ)."""
    inverse = torch.eye(features.shape[1], dtype=torch.float64) / ridge
    rows: list[int] = []
    for pair in [*labelled, *([None] * budget)]:
        if pair is None:
            scores = torch.einsum("pd,de,pe->p", features, inverse, features)
            scores[rows] = -1
            rows.append(int(scores.argmax()))
            pair = features[rows[-1]]
        solved = inverse @ pair
        inverse = inverse - torch.outer(solved, solved) / (1 + pair @ solved)
    return rows


@pytest.mark.parametrize(("count", "dim", "labelled"), [(60, 8, 0), (60, 8, 30), (40, 90, 0), (40, 90, 12)])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_three_ways_pick_the_same(count: int, dim: int, labelled: int, ridge: float) -> None:
    """V⁻¹ from scratch, V⁻¹ by Sherman and Morrison, and the pivoted decomposition without V."""
    features, history = random_features(count, dim, 5), random_features(labelled, dim, 6)
    priority = torch.arange(count)
    picks = greedy_uncertainty(features, history, ridge, 20, priority)[0].tolist()
    assert picks == sherman_morrison(features, history, ridge, 20)
    assert picks == textbook(features, history, ridge, 20, priority)[0]


@pytest.mark.parametrize("ridge", [0.01, 0.1, 10.0])
def test_float32_features_give_the_textbook_picks_at_a_larger_size(ridge: float) -> None:
    """Clustered features, so that residuals fall by very different amounts; 40 labelled pairs."""
    centres = random_features(12, 64, 0)
    members = torch.arange(300) % 12
    features = (centres[members] + 0.3 * random_features(300, 64, 1)).float()
    history = (centres[members[:40]] + 0.3 * random_features(40, 64, 2)).float()
    priority = torch.arange(300)
    rows, scores = greedy_uncertainty(features, history, ridge, 50, priority)
    expected_rows, expected_scores = textbook(features.double(), history.double(), ridge, 50, priority)
    assert rows.tolist() == expected_rows
    assert scores.tolist() == pytest.approx(expected_scores, rel=1e-9)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, float, int]:
    """Candidates and history with all that is unpleasant: scales, copies, zeros, candidates that are labelled already."""
    seed = draw(st.integers(0, 2**31))
    count, dim, labelled = draw(st.integers(1, 30)), draw(st.integers(1, 24)), draw(st.integers(0, 50))
    features, history = random_features(count, dim, seed), random_features(labelled, dim, seed + 1)
    if draw(st.booleans()):
        features *= torch.logspace(-2, 1, count, dtype=torch.float64)[:, None]
    if draw(st.booleans()):
        sources = torch.randint(count, (count // 2,), generator=torch.Generator().manual_seed(seed))
        features[: count // 2] = features[sources]
    if draw(st.booleans()):
        features[count // 2 :: 3] = 0
    if draw(st.booleans()):
        features[: min(count, labelled)] = history[: min(count, labelled)]
    if draw(st.booleans()):
        features = torch.nn.functional.normalize(features)
    ridge = 10.0 ** draw(st.floats(-6, 3))
    return features, history, ridge, draw(st.integers(1, count))


@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_each_pick_is_the_best_by_an_inverse_from_scratch(examples: int) -> None:
    """λ from 1e-6 to 1e3, also with pools so small that all pairs are read again and again, and few looked at at once."""

    @settings(max_examples=examples, deadline=None)
    @given(
        problem=problems(),
        pool=st.sampled_from([1, 3, 8, 256]),
        at_first=st.sampled_from([1, 4]),
        most=st.sampled_from([2, 256]),
        entering=st.sampled_from([1, 3, 32]),
        together=st.sampled_from([1, 2, 16]),
        largest=st.sampled_from([4, 1024]),
    )
    def try_one(problem: tuple[Tensor, Tensor, float, int], **sizes: int) -> None:
        check_each_pick(problem, **sizes)

    try_one()


def check_each_pick(
    problem: tuple[Tensor, Tensor, float, int],
    pool: int,
    at_first: int,
    most: int,
    entering: int,
    together: int,
    largest: int,
) -> None:
    features, history, ridge, budget = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activedpo_cli.select.design.greedy.POOL", pool)
        patch.setattr("activedpo_cli.select.design.greedy.AT_FIRST", at_first)
        patch.setattr("activedpo_cli.select.design.greedy.AT_A_TIME", most)
        patch.setattr("activedpo_cli.select.design.exact_basis.FEWEST_ENTERING", entering)
        patch.setattr("activedpo_cli.select.design.pool.SHARE_OF_FEATURES", 1)  # else of few features one is likely
        patch.setattr("activedpo_cli.select.design.pool.LIKELY", together)
        patch.setattr("activedpo_cli.select.design.pool.RECENT", together)
        patch.setattr("activedpo_cli.select.design.design.BLOCK", together)
        patch.setattr("activedpo_cli.select.design.sample_space.BLOCK", together)
        patch.setattr("activedpo_cli.select.design.design.LARGEST", largest // together * together or together)
        rows, scores = greedy_uncertainty(features, history, ridge, budget, torch.arange(len(features)))
    assert len(set(rows.tolist())) == budget
    for place, row in enumerate(rows.tolist()):
        design = design_matrix(torch.cat([history, features[rows[:place]]]), ridge)
        uncertainty = pair_uncertainty(features, torch.linalg.inv(design))
        blurred = 1e-15 * float(torch.linalg.cond(design))  # of the inverse itself
        uncertainty[rows[:place]] = 0
        assert uncertainty[row] >= uncertainty.max() * (1 - 1e-9 - blurred)
        assert float(scores[place]) == pytest.approx(float(uncertainty[row]), rel=1e-9 + blurred, abs=1e-300)


def well_covered(count: int, dim: int, labelled: int) -> tuple[Tensor, Tensor]:
    """As hidden states: a few coordinates far larger than the rest, pairs of pairs that add up to a third."""
    scales = torch.ones(dim, dtype=torch.float64)
    scales[:3] = 40.0
    hidden = random_features(count, dim, 5) * scales
    differences = torch.cat([hidden - hidden.roll(1, 0), hidden - hidden.roll(2, 0)])
    return differences[labelled:], differences[:labelled]


@pytest.mark.parametrize(("dim", "labelled"), [(96, 60), (96, 90), (48, 90)])
def test_a_ridge_far_below_the_features_gives_the_textbook_picks(dim: int, labelled: int) -> None:
    """λ = 1e-5 as published for last hidden states, where V spans ten digits: exact values decide every pick."""
    features, history = well_covered(120, dim, labelled)
    priority = torch.randperm(len(features), generator=torch.Generator().manual_seed(2))
    rows, scores = greedy_uncertainty(features, history, 1e-5, 40, priority)
    expected_rows, expected_scores = textbook(features, history, 1e-5, 40, priority)
    assert rows.tolist() == expected_rows
    assert scores.tolist() == pytest.approx(expected_scores, rel=1e-4)  # of the inverse: condition × 1e-16


@pytest.mark.parametrize(("labelled", "ridge"), [(0, 0.1), (12, 0.1), (12, 1e-4), (36, 0.1), (36, 1e-4)])
def test_more_picks_than_features_are_those_of_the_textbook(labelled: int, ridge: float) -> None:
    """Norms of 170, of which all is covered long before the end."""
    features = random_features(180, 24, 0) * 35
    history, priority = random_features(labelled, 24, 1) * 35, torch.arange(180)
    rows, scores = greedy_uncertainty(features, history, ridge, 120, priority)
    expected_rows, expected_scores = textbook(features, history, ridge, 120, priority)
    assert rows.tolist() == expected_rows
    assert scores.tolist() == pytest.approx(expected_scores, rel=1e-6)


def test_what_a_pick_costs_does_not_grow_with_the_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all is covered each pick takes an exact look; its decompositions stay of a size that d alone decides."""
    work = []
    qr = torch.linalg.qr

    def counted(matrix: Tensor, mode: str = "reduced") -> Tensor:
        work.append(max(matrix.shape) * min(matrix.shape) ** 2)
        return qr(matrix, mode=mode)

    monkeypatch.setattr(torch.linalg, "qr", counted)
    features = random_features(300, 32, 0) * 170
    greedy_uncertainty(features, random_features(15, 32, 1) * 170, 0.1, 200, torch.arange(300))
    first, last = work[: len(work) // 2], work[len(work) // 2 :]
    assert sum(last) <= 1.5 * sum(first)
    assert max(work) <= 100 * 32**2


def test_few_pairs_are_looked_at_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exact look costs a product with all that is covered, so a pick needs it for those that may be the best alone."""
    looked_at = 0
    left_of = Design.left_of

    def counted(self: Design, features: Tensor) -> Tensor:
        nonlocal looked_at
        looked_at += len(features)
        return left_of(self, features)

    monkeypatch.setattr(Design, "left_of", counted)
    features, history = random_features(500, 120, 0), random_features(100, 120, 1)
    greedy_uncertainty(features, history, 1e-7, 30, torch.arange(500))
    assert 30 <= looked_at <= 30 * 8


def test_hundreds_of_ties_that_need_an_exact_look_are_all_found() -> None:
    """3 orthogonal pairs, all labelled, 200 copies of each: a pick ties with more than are looked at at once."""
    features = torch.eye(3, dtype=torch.float64).repeat(200, 1)
    priority = torch.randperm(600, generator=torch.Generator().manual_seed(4))
    rows, _ = greedy_uncertainty(features, torch.eye(3, dtype=torch.float64), 1e-9, 6, priority)
    remaining, expected = priority.argsort().tolist(), []
    for place in range(6):  # one of each direction, then again
        covered = [row % 3 for row in expected[place // 3 * 3 :]]
        row = next(row for row in remaining if row % 3 not in covered and row not in expected)
        expected.append(row)
    assert rows.tolist() == expected


def by_fractions(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> tuple[list[int], list[float]]:
    """The picks without any rounding; of equal scores the first."""
    candidates = [[Fraction(value) for value in row] for row in features.tolist()]
    places = range(features.shape[1])
    inverse = [[Fraction(int(a == b)) / Fraction(ridge) for b in places] for a in places]

    def times_inverse(row: list[Fraction]) -> list[Fraction]:
        return [sum((inverse[a][b] * row[b] for b in places), Fraction()) for a in places]

    def dot(row: list[Fraction], other: list[Fraction]) -> Fraction:
        return sum((a * b for a, b in zip(row, other, strict=True)), Fraction())

    def cover(row: list[Fraction]) -> None:
        solved = times_inverse(row)
        gain = 1 + dot(row, solved)
        for a, b in itertools.product(places, places):
            inverse[a][b] -= solved[a] * solved[b] / gain

    for row in labelled.tolist():
        cover([Fraction(value) for value in row])
    rows: list[int] = []
    scores: list[float] = []
    for _ in range(budget):
        squared = [
            Fraction(-1) if place in rows else dot(row, times_inverse(row)) for place, row in enumerate(candidates)
        ]
        rows.append(squared.index(max(squared)))
        scores.append(float(max(squared)) ** 0.5)
        cover(candidates[rows[-1]])
    return rows, scores


@pytest.mark.parametrize("ridge", [2.0**-40, 2.0**-20, 0.125])
@pytest.mark.parametrize("outside", [0.0, 2.0**-22, 2.0**-10, 1.0])
def test_pairs_almost_within_what_is_labelled_and_almost_tied_are_told_apart(ridge: float, outside: float) -> None:
    """φ are sums of labelled pairs with a small part outside, in twos that differ by 3e-8, against exact fractions."""
    labelled = (random_features(4, 6, 0) * 2**10).round() / 2**10
    features = (random_features(8, 4, 1) * 2**10).round() / 2**10 @ labelled + outside * random_features(8, 6, 2)
    features = torch.cat([features, features * (1 + 2.0**-25)])
    rows, scores = greedy_uncertainty(features, labelled, ridge, 8, torch.arange(16))
    expected_rows, expected_scores = by_fractions(features, labelled, ridge, 8)
    assert rows.tolist() == expected_rows
    assert scores.tolist() == pytest.approx(expected_scores, rel=1e-9)


@pytest.mark.parametrize("gap", [1e-9, 1e-8])
def test_hundreds_that_are_almost_tied_are_taken_in_their_order(gap: float) -> None:
    """Orthogonal φ beside as many labelled; what is left of each is less by twice what counts as a tie, or by more."""
    basis = torch.linalg.qr(random_features(300, 300, 3)).Q
    order = torch.randperm(150, generator=torch.Generator().manual_seed(5))
    features = basis[:150] * (1 - gap * order.double())[:, None]
    rows, _ = greedy_uncertainty(features, basis[150:], 0.1, 60, torch.arange(150))
    assert order[rows].tolist() == list(range(60))


def test_what_is_labelled_is_not_read_for_each_pick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside all candidates only those that are likely to be picked, and blocks of picks, are multiplied with it."""
    multiplied = []
    coordinates = History.coordinates

    def counted(self: History, features: Tensor) -> Tensor:
        multiplied.append(len(features))
        return coordinates(self, features)

    monkeypatch.setattr(History, "coordinates", counted)
    features, history = random_features(1000, 2000, 0), random_features(20, 2000, 1)
    greedy_uncertainty(features, history, 1.0, 48, torch.arange(1000))
    assert sum(multiplied) <= 1000 + 3 * 64 + 48
    assert len(multiplied) <= 1 + 3 + 3


def test_first_pick_is_the_longest_and_scores_are_worked_by_hand() -> None:
    """λ = 1; φ = (2, 0), (2, 0)·0.9, (0, 1). First: √4 = 2. Then V = diag(5, 1): 3.24/5 = 0.648 against 1."""
    features = torch.tensor([[1.8, 0.0], [2.0, 0.0], [0.0, 1.0]])
    rows, scores = greedy_uncertainty(features, torch.zeros(0, 2), 1.0, 3, torch.arange(3))
    assert rows.tolist() == [1, 2, 0]
    assert scores.tolist() == pytest.approx([2.0, 1.0, 0.648**0.5], rel=1e-6)


def test_history_steers_away_from_what_is_covered() -> None:
    """φ = (1, 0) is labelled ten times, so the shorter (0, 0.5) is less certain: 1/11 against 0.25."""
    features = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    rows, scores = greedy_uncertainty(features, torch.tensor([[1.0, 0.0]] * 10), 1.0, 2, torch.arange(2))
    assert rows.tolist() == [1, 0]
    assert scores.tolist() == pytest.approx([0.5, (1 / 11) ** 0.5])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_scores_never_rise(seed: int) -> None:
    """Adding a pair to V lowers every uncertainty, so the greedy scores fall."""
    _, scores = greedy_uncertainty(
        random_features(20, 5, seed), random_features(3, 5, seed + 1), 0.1, 20, torch.arange(20)
    )
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(scores.tolist()))


def test_ties_follow_the_priority_not_the_file_order() -> None:
    """Six orthonormal φ tie at every step, whatever was picked before."""
    priority = torch.tensor([3, 5, 0, 4, 1, 2])
    rows, scores = greedy_uncertainty(torch.eye(6), torch.zeros(0, 6), 0.1, 6, priority)
    assert rows.tolist() == [2, 4, 5, 0, 3, 1]
    assert scores.tolist() == pytest.approx([10**0.5] * 6)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_file_order_acts_only_through_the_priority(seed: int) -> None:
    """Permuting rows and priorities together permutes the picks; unit norms tie all at first."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.normalize(random_features(12, 4, seed))
    features[6:] = features[:6]
    priority, order = torch.randperm(12, generator=generator), torch.randperm(12, generator=generator)
    rows, _ = greedy_uncertainty(features, torch.zeros(0, 4), 0.1, 8, priority)
    permuted, _ = greedy_uncertainty(features[order], torch.zeros(0, 4), 0.1, 8, priority[order])
    assert order[permuted].tolist() == rows.tolist()


@pytest.mark.parametrize("ridge", [1e-12, 1e-6, 1.0, 1e6])
def test_nothing_is_ever_nan(ridge: float) -> None:
    """Zero φ, copies, a history of copies, and many more picks than the rank of two."""
    features = torch.cat([torch.zeros(3, 2), torch.tensor([[1.0, 2.0]] * 5), torch.tensor([[1e-8, 0.0]] * 4)])
    labelled = torch.tensor([[1.0, 2.0]] * 7 + [[0.0, 0.0]])
    rows, scores = greedy_uncertainty(features, labelled, ridge, 12, torch.arange(12))
    assert sorted(rows.tolist()) == list(range(12))
    assert scores.isfinite().all()
    assert (scores >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_ridge_below_rounding_gives_no_nan_either(seed: int) -> None:
    """λ = 1e-20: residuals and eigenvalues are rounding errors of either sign."""
    features = random_features(6, 9, seed).repeat(3, 1)
    rows, scores = greedy_uncertainty(features, features[:8], 1e-20, 18, torch.arange(18))
    assert sorted(rows.tolist()) == list(range(18))
    assert scores.isfinite().all()
    assert (scores >= 0).all()


def test_rounding_does_not_decide_among_well_covered_pairs() -> None:
    """Orthonormal φ, each labelled three times: every residual is λ/(λ + 3) ≈ 3e-11, which rounding blurs by 1e-5."""
    features = torch.linalg.qr(random_features(40, 20, 0)).Q.T
    priority = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    rows, _ = greedy_uncertainty(features, features.repeat(3, 1), 1e-10, 20, priority)
    assert priority[rows].tolist() == list(range(20))


def test_copies_of_one_pair_stay_informative_under_a_small_ridge() -> None:
    """For λ → 0 the k-th copy of a unit φ has φᵀV⁻¹φ = 1 / (λ + k − 1)."""
    _, scores = greedy_uncertainty(torch.tensor([[0.6, 0.8]] * 4), torch.zeros(0, 2), 1e-6, 4, torch.arange(4))
    expected = [(1 / (1e-6 + k)) ** 0.5 for k in range(4)]
    assert scores.tolist() == pytest.approx(expected, rel=1e-6)


def test_at_most_so_many_of_one_group() -> None:
    groups = torch.tensor([0, 0, 0, 1, 1, 2])
    features = torch.diag(torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))

    def pick(limit: int, budget: int) -> list[int]:
        history, priority = torch.zeros(0, 6), torch.arange(6)
        return greedy_uncertainty(features, history, 1.0, budget, priority, groups, limit)[0].tolist()

    assert pick(1, 3) == [0, 3, 5]
    assert pick(2, 5) == [0, 1, 3, 4, 5]
    with pytest.raises(ValueError, match="fewer"):
        pick(1, 4)


@pytest.mark.parametrize("ridge", [0.0, -0.1, float("nan")])
def test_the_ridge_must_be_positive(ridge: float) -> None:
    with pytest.raises(ValueError, match="ridge"):
        greedy_uncertainty(torch.eye(2), torch.zeros(0, 2), ridge, 1, torch.arange(2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_must_be_finite(value: float) -> None:
    bad = torch.tensor([[value, 0.0]])
    with pytest.raises(ValueError, match="finite"):
        greedy_uncertainty(bad, torch.zeros(0, 2), 1.0, 1, torch.arange(1))
    with pytest.raises(ValueError, match="finite"):
        greedy_uncertainty(torch.eye(2), bad, 1.0, 1, torch.arange(2))


def test_the_arguments_are_unchanged() -> None:
    features, labelled = random_features(6, 3, 0), random_features(2, 3, 1)
    copies = features.clone(), labelled.clone()
    greedy_uncertainty(features, labelled, 0.1, 4, torch.arange(6))
    assert torch.equal(features, copies[0])
    assert torch.equal(labelled, copies[1])
