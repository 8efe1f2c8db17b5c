from collections.abc import Callable
from typing import Any

import pytest
import torch

from activedpo_cli.pairs.pair_features import pair_features
from activedpo_cli.select.methods.base import (
    Candidates,
    Labelled,
    capacity,
    check_budget,
    take_in_order,
)


def candidates(**columns: Any) -> Candidates:
    return Candidates(
        row_a=torch.tensor([0, 0, 3]), row_b=torch.tensor([1, 2, 2]), prompt_index=torch.tensor([0, 0, 1]), **columns
    )


FEATURES = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0], [3.0, 8.0]])


def test_pair_features_are_differences_of_rows() -> None:
    assert candidates(features=FEATURES).pair_features().tolist() == [[3, 4], [0, 0], [0, 4]]


def test_pair_features_of_unit_norm() -> None:
    normalised = candidates(features=FEATURES, normalise="pair").pair_features()
    assert torch.allclose(normalised, torch.tensor([[0.6, 0.8], [0, 0], [0, 1]], dtype=torch.float64))


def test_pair_features_of_normalised_responses() -> None:
    """By hand: rows 0 and 2 become (0.6, 0.8), row 1 stays 0 and row 3, (3, 8), is divided by √73."""
    table = candidates(features=FEATURES, normalise="response")
    expected = torch.tensor([[0.6, 0.8], [0, 0], [3 / 73**0.5 - 0.6, 8 / 73**0.5 - 0.8]], dtype=torch.float64)
    assert torch.allclose(table.pair_features(), expected)
    assert torch.equal(table.pair_features(torch.tensor([2, 0])), table.pair_features()[[2, 0]])


@pytest.mark.parametrize("normalise", ["none", "response", "pair"])
def test_pair_features_computed_in_parts_are_those_computed_at_once(
    normalise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 7, generator=generator)
    rows = torch.randint(30, (2, 200), generator=generator)
    whole = pair_features(features, *rows, normalise)
    monkeypatch.setattr("activedpo_cli.pairs.pair_features.CHUNK_BYTES", 8 * 7 * 9)
    assert torch.equal(pair_features(features, *rows, normalise), whole)
    used = torch.nn.functional.normalize(features.double()) if normalise == "response" else features.double()
    expected = used[rows[0]] - used[rows[1]]
    torch.testing.assert_close(whole, torch.nn.functional.normalize(expected) if normalise == "pair" else expected)


def test_float32_features_give_unit_norms_exact_enough_to_tie() -> None:
    """In float32 the norms would differ by 1e-7 and rounding would decide what is picked first."""
    features = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(100)
    norms = torch.linalg.vector_norm(pair_features(features, rows, rows + 100, "pair"), dim=1)
    assert (norms - 1).abs().max() < 1e-14


def labelled(**columns: Any) -> Labelled:
    rows = torch.tensor([0, 2])
    return Labelled(row_a=rows, row_b=rows + 1, preferred=torch.tensor([1, 0]), **columns)


def test_history_is_empty_where_nothing_is_labelled() -> None:
    assert candidates(features=FEATURES).history().shape == (0, 2)
    assert candidates(hidden=FEATURES).labelled_differences("hidden").shape == (0, 2)


def test_history_is_normalised_as_the_candidates_are() -> None:
    earlier = labelled(features=FEATURES)
    assert candidates(features=FEATURES, labelled=earlier).history().tolist() == [[3, 4], [0, -4]]
    normalised = candidates(features=FEATURES, labelled=labelled(features=FEATURES, normalise="pair")).history()
    assert torch.allclose(normalised, torch.tensor([[0.6, 0.8], [0, -1]], dtype=torch.float64))


def test_hidden_differences_keep_their_length() -> None:
    """Whatever `select.normalise` says, which is about gradients."""
    table = candidates(hidden=FEATURES, labelled=labelled(hidden=FEATURES), normalise="pair")
    assert table.differences("hidden").tolist() == [[3, 4], [0, 0], [0, 4]]
    assert table.labelled_differences("hidden").tolist() == [[3, 4], [0, -4]]


def test_margins_of_labelled_pairs_are_their_own() -> None:
    assert candidates().labelled_margins().tolist() == []
    given = labelled(logps=torch.tensor([1.0, 4.0, 0.0, 0.5]), ref_logps=torch.tensor([0.0, 1.0, 0.0, 0.25]))
    assert given.logps is not None
    assert given.ref_logps is not None
    expected = [
        0.5 * float((given.logps[a] - given.ref_logps[a]) - (given.logps[b] - given.ref_logps[b]))
        for a, b in zip(given.row_a.tolist(), given.row_b.tolist(), strict=True)
    ]
    assert candidates(labelled=given, beta=0.5).labelled_margins().tolist() == expected


def test_margins_are_differences_of_implicit_rewards() -> None:
    """By hand: β (log π − log π_ref) is 0.5 times 1, 3, 0 and −2."""
    logps, ref_logps = torch.tensor([-4.0, -4.0, -7.0, -9.0]), torch.tensor([-5.0, -7.0, -7.0, -7.0])
    assert candidates(logps=logps, ref_logps=ref_logps, beta=0.5).margins().tolist() == [-1.0, 0.5, -1.0]


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("features", Candidates.pair_features),
        ("features", Candidates.history),
        ("hidden", lambda table: table.differences("hidden")),
        ("hidden", lambda table: table.labelled_differences("hidden")),
        ("logps", Candidates.margins),
    ],
)
def test_missing_columns_are_named(name: str, of: Callable[[Candidates], object]) -> None:
    with pytest.raises(ValueError, match=f"candidates have no {name}"):
        of(candidates())
    with pytest.raises(ValueError, match="labelled have no features"):
        candidates(features=FEATURES, labelled=labelled()).history()


def test_capacity_counts_what_a_limit_leaves() -> None:
    prompt_index = torch.tensor([4, 4, 4, 7, 9, 9])
    assert [capacity(prompt_index, limit) for limit in (None, 1, 2, 3)] == [6, 3, 5, 6]
    with pytest.raises(ValueError, match="between 1 and 2"):
        check_budget(candidates(), 3, max_per_prompt=1)


def test_take_in_order_passes_over_full_prompts() -> None:
    prompt_index = torch.tensor([0, 0, 0, 1, 1])
    order = torch.tensor([2, 0, 4, 1, 3])
    assert take_in_order(order, prompt_index, 3).tolist() == [2, 0, 4]
    assert take_in_order(order, prompt_index, 2, max_per_prompt=1).tolist() == [2, 4]
