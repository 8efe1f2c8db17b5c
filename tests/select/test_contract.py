"""What every acquisition method keeps; a new file in the folder is tested by being there."""

import ast
import json
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, get_args

import pydantic
import pytest
import torch
from torch import Tensor

from activedpo_cli.base import discovery
from activedpo_cli.base.settings import Column, FeaturizeSettings, Section
from activedpo_cli.select.methods.base import Candidates, Labelled, Selection


@pytest.fixture(params=sorted(discovery.available("acquisition")))
def method(request: pytest.FixtureRequest) -> ModuleType:
    return discovery.load("acquisition", request.param)


COLUMNS = ("features", "logps", "ref_logps", "hidden", "mean_hidden", "scores", "texts")


def make_candidates(prompts: int = 8, labelled: int = 0, *, pair: bool = False, **columns: Any) -> Candidates:
    """Three responses and three pairs a prompt; columns are random where they are not given."""
    generator = torch.Generator().manual_seed(1)
    first = 3 * torch.arange(prompts).repeat_interleave(3)
    responses = 3 * prompts
    return Candidates(
        row_a=first + torch.tensor([0, 0, 1]).repeat(prompts),
        row_b=first + torch.tensor([1, 2, 2]).repeat(prompts),
        prompt_index=torch.arange(prompts).repeat_interleave(3),
        labelled=make_labelled(labelled, pair=pair) if labelled else None,
        normalise="pair" if pair else "none",
        **(random_columns(responses, generator) | {"texts": random_texts(responses, generator)} | columns),
    )


def make_labelled(pairs: int, *, pair: bool = False) -> Labelled:
    """Pairs of responses of their own, with every answer there is."""
    rows = 2 * torch.arange(pairs)
    return Labelled(
        row_a=rows,
        row_b=rows + 1,
        preferred=torch.tensor([1, -1, 0]).repeat(pairs)[:pairs],
        normalise="pair" if pair else "none",
        **random_columns(2 * pairs, torch.Generator().manual_seed(2)),
    )


def random_columns(responses: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "features": torch.randn(responses, 6, generator=generator),
        "logps": -10 * torch.rand(responses, generator=generator),
        "ref_logps": -10 * torch.rand(responses, generator=generator),
        "hidden": torch.randn(responses, 5, generator=generator),
        "mean_hidden": torch.randn(responses, 5, generator=generator),
        "scores": torch.randn(responses, generator=generator),
    }


def random_texts(responses: int, generator: torch.Generator) -> tuple[str, ...]:
    words = torch.randint(0, 9, (responses, 4), generator=generator).tolist()
    return tuple(" ".join(f"word{number}" for number in row) for row in words)


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
    """Every response has its own direction, of equal length, and its own word; every log-probability is equal."""
    logps = torch.full((24,), -5.0)
    texts = tuple("abcdefghijklmnopqrstuvwx")
    eye, scores = torch.eye(24), torch.zeros(24)
    return make_candidates(
        features=eye, logps=logps, ref_logps=logps, hidden=eye, mean_hidden=eye, scores=scores, texts=texts
    )


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
def test_zeros_give_numbers(method: ModuleType, pair: bool) -> None:
    zeros = {"features": torch.zeros(24, 6), "hidden": torch.zeros(24, 5), "logps": torch.zeros(24)}
    zeros |= {"ref_logps": torch.zeros(24), "mean_hidden": torch.zeros(24, 5), "scores": torch.zeros(24)}
    candidates = make_candidates(labelled=2, pair=pair, texts=("",) * 24, **zeros)
    assert_sound(choose(method, candidates, 24), candidates, 24)


def test_what_a_method_offers_beside_is_for_records_and_people(method: ModuleType) -> None:
    candidates, settings = make_candidates(labelled=3), method.Settings()
    if hasattr(method, "describe"):
        facts = method.describe(candidates, choose(method, candidates, 4), settings)
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    if hasattr(method, "design"):
        chosen = choose(method, candidates, 1)
        norms = method.design(candidates.history(), settings).norms(candidates.pair_features())
        assert float(chosen.scores[0]) == pytest.approx(float(norms.max()))
    if hasattr(method, "note"):
        for budget in (1, 24):
            note = method.note(candidates, budget, settings)
            assert note is None or not note.endswith(".")


def test_every_column_is_described() -> None:
    table = (discovery.ROOT.parent / "docs" / "artifacts.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` | float32 | responses" in table for name in get_args(Column))
    help_text = FeaturizeSettings.model_fields["compute"].description or ""
    assert all(name in help_text for name in get_args(Column))


def test_nobody_names_a_method() -> None:
    """What is particular to one is asked for from it; the default is named with the settings, and examples in help."""
    names = set(discovery.available("acquisition"))
    for module in ("select.step", "select.candidate_table", "select.method_settings", "run.why", "run.compare"):
        path = discovery.ROOT / f"{module.replace('.', '/')}.py"
        found = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not found & names, module


def test_columns_not_needed_may_be_missing(method: ModuleType) -> None:
    assert set(method.NEEDS) <= set(COLUMNS)
    missing: dict[str, Any] = dict.fromkeys(set(COLUMNS) - set(method.NEEDS))
    labelled = replace(make_labelled(4), **{name: None for name in missing if name != "texts"})
    candidates = replace(make_candidates(), **missing, labelled=labelled)
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
    assert_equal(candidates, same)
    assert_equal(candidates.labelled, same.labelled)


def assert_equal(table: Candidates | Labelled | None, other: Candidates | Labelled | None) -> None:
    assert table is not None
    for field in fields(table):
        before, after = getattr(other, field.name), getattr(table, field.name)
        if isinstance(before, Tensor):
            assert torch.equal(before, after)
        elif not isinstance(before, Labelled):
            assert before == after
