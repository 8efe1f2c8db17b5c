"""What every acquisition method keeps; a new file in the folder is tested by being there."""

from dataclasses import fields
from types import ModuleType

import pydantic
import pytest
import torch
from torch import Tensor

from activedpo_cli import discovery
from activedpo_cli.acquisition.base import Candidates, Selection
from activedpo_cli.settings import Section


@pytest.fixture(params=sorted(discovery.available("acquisition")))
def method(request: pytest.FixtureRequest) -> ModuleType:
    return discovery.load("acquisition", request.param)


def make_candidates(
    prompts: int = 8,
    labelled: int = 0,
    features: Tensor | None = None,
    logps: Tensor | None = None,
    *,
    pair: bool = False,
) -> Candidates:
    """Three responses and three pairs a prompt; columns are random where they are not given."""
    generator = torch.Generator().manual_seed(1)
    first = 3 * torch.arange(prompts).repeat_interleave(3)
    responses = 3 * prompts
    return Candidates(
        row_a=first + torch.tensor([0, 0, 1]).repeat(prompts),
        row_b=first + torch.tensor([1, 2, 2]).repeat(prompts),
        prompt_index=torch.arange(prompts).repeat_interleave(3),
        features=torch.randn(responses, 6, generator=generator) if features is None else features,
        labelled_pair_features=torch.randn(labelled, 6, generator=generator) if labelled else None,
        logps=-10 * torch.rand(responses, generator=generator) if logps is None else logps,
        normalise_pairs=pair,
    )


def choose(
    method: ModuleType, candidates: Candidates, budget: int, seed: int = 0, max_per_prompt: int | None = None
) -> Selection:
    generator = torch.Generator().manual_seed(seed)
    return method.choose(candidates, budget, method.Settings(), generator, max_per_prompt)


def assert_sound(selection: Selection, candidates: Candidates, budget: int) -> None:
    rows = selection.rows.tolist()
    assert len(rows) == len(set(rows)) == len(selection.scores) == budget
    assert all(0 <= row < len(candidates) for row in rows)
    assert selection.scores.isfinite().all()


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("labelled", [0, 5])
@pytest.mark.parametrize("budget", [1, 7, 24])
def test_exactly_the_budget_without_repeats(method: ModuleType, labelled: int, budget: int, pair: bool) -> None:
    candidates = make_candidates(labelled=labelled, pair=pair)
    assert_sound(choose(method, candidates, budget), candidates, budget)


@pytest.mark.parametrize("labelled", [0, 5])
def test_equal_seeds_choose_equally(method: ModuleType, labelled: int) -> None:
    candidates = make_candidates(labelled=labelled)
    first, second = choose(method, candidates, 6, seed=3), choose(method, candidates, 6, seed=3)
    assert torch.equal(first.rows, second.rows)
    assert torch.equal(first.scores, second.scores)


def all_tied() -> Candidates:
    """Every response has its own direction, of equal length, and every log-probability is equal."""
    return make_candidates(prompts=8, features=torch.eye(24)[torch.arange(24)], logps=torch.full((24,), -5.0))


def test_ties_are_broken_by_the_seed_not_by_the_file_order(method: ModuleType) -> None:
    """Twenty seeds of 2024 first picks from 24 rows: far more than one row, and not always the first."""
    candidates = all_tied()
    firsts = {int(choose(method, candidates, 1, seed=seed).rows[0]) for seed in range(20)}
    assert len(firsts) > 5
    batches = {tuple(choose(method, candidates, 6, seed=seed).rows.tolist()) for seed in range(5)}
    assert len(batches) == 5
    assert tuple(range(6)) not in batches


@pytest.mark.parametrize("limit", [1, 2])
def test_at_most_so_many_pairs_of_one_prompt(method: ModuleType, limit: int) -> None:
    candidates = make_candidates()
    selection = choose(method, candidates, 8 * limit, max_per_prompt=limit)
    assert_sound(selection, candidates, 8 * limit)
    assert candidates.prompt_index[selection.rows].bincount().tolist() == [limit] * 8


def test_a_budget_that_can_not_be_met_is_an_error(method: ModuleType) -> None:
    for budget, limit in [(25, None), (9, 1), (0, None)]:
        with pytest.raises(ValueError, match="budget"):
            choose(method, make_candidates(), budget, max_per_prompt=limit)


@pytest.mark.parametrize("pair", [False, True])
def test_zero_features_give_numbers(method: ModuleType, pair: bool) -> None:
    candidates = make_candidates(features=torch.zeros(24, 6), labelled=2, pair=pair)
    assert_sound(choose(method, candidates, 24), candidates, 24)


def test_columns_not_needed_may_be_missing(method: ModuleType) -> None:
    full = make_candidates()
    columns = {"features", "logps"}
    assert set(method.NEEDS) <= {field.name for field in fields(Candidates)}
    missing = dict.fromkeys(columns - set(method.NEEDS))
    candidates = Candidates(**{field.name: getattr(full, field.name) for field in fields(full)} | missing)
    assert_sound(choose(method, candidates, 5), candidates, 5)


def test_the_module_describes_itself(method: ModuleType) -> None:
    docstring = method.__doc__ or ""
    assert len(docstring.splitlines()[0]) > 20
    assert "Source:" in docstring
    assert "Cost:" in docstring
    assert "Score:" in docstring
    assert isinstance(method.NEEDS, tuple)


def test_settings_are_frozen_described_and_strict(method: ModuleType) -> None:
    assert issubclass(method.Settings, Section)
    assert all(field.description for field in method.Settings.model_fields.values())
    for name in method.Settings.model_fields:
        with pytest.raises(pydantic.ValidationError):
            setattr(method.Settings(), name, 1)
    with pytest.raises(pydantic.ValidationError):
        method.Settings(no_such_setting=1)


def test_candidates_are_unchanged(method: ModuleType) -> None:
    candidates, same = make_candidates(labelled=3), make_candidates(labelled=3)
    choose(method, candidates, 6)
    for field in fields(Candidates):
        before, after = getattr(same, field.name), getattr(candidates, field.name)
        assert torch.equal(before, after) if isinstance(before, Tensor) else before == after
