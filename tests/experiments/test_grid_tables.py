"""Tables over a grid of two settings, against numbers worked out by numpy."""

import itertools
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.experiments.report import all_tables, analysis_of
from activedpo_cli.experiments.results import ResultRow
from activedpo_cli.experiments.spec import ExperimentSpec
from activedpo_cli.reports.page import Table
from activedpo_cli.reports.wording import number, share_with_interval
from activedpo_cli.statistics.multiple_comparisons import joint_sign_flip_p_value, sign_flip_p_value
from activedpo_cli.statistics.summaries import mean_interval

TITLE = "Win rate against the initial model, at the end, by name and source"
MODELS, SUBSETS = ("model-1", "model-2"), ("a.jsonl", "b.jsonl", "c.jsonl")


def spec_of(arms: list[str], **grid: list[str]) -> ExperimentSpec:
    return ExperimentSpec.model_validate({"title": "x", "arms": arms, "seeds": [0, 1, 2, 3], "grid": grid})


def row_of(arm: str, seed: int, iteration: int, value: float) -> ResultRow:
    measures = dict.fromkeys(("reward_mean", "second_reward_mean", "second_win_rate", "preference_accuracy"))
    others = dict.fromkeys(("length_controlled_reward", "response_tokens_mean", "kl_to_reference"))
    return ResultRow(
        arm=arm,
        seed=seed,
        iteration=iteration,
        measures={"labels_spent": 10.0 * iteration, "win_rate": value, **measures, **others},
        seconds={"train": 1.0},
        score_gap=None,
        bytes_of_features=None,
        digest="sha256:0",
    )


def found(values: np.ndarray, arms: list[str]) -> dict[str, Table]:
    """Tables of rewards by arm, model, subset and seed; earlier evaluations are of other numbers."""
    spec = spec_of(arms, **{"model.name": [f"/m/{m}" for m in MODELS], "prompts.source": [f"/s/{s}" for s in SUBSETS]})
    rows = [
        row_of(f"{arm}+name={model}+source={subset}", seed, t, float(values[a, m, s, seed]) if t == 2 else 0.5)
        for (a, arm), (m, model), (s, subset) in itertools.product(
            enumerate(arms), enumerate(MODELS), enumerate(SUBSETS)
        )
        for seed in range(values.shape[-1])
        for t in (0, 1, 2)
        if not np.isnan(values[a, m, s, seed])
    ]
    return {table.title: table for table in all_tables(analysis_of(rows, spec))}


def test_cells_are_means_over_seeds_and_the_contrast_has_no_main_effects() -> None:
    values = np.random.default_rng(0).uniform(size=(2, 2, 3, 4))
    rows = found(values, ["random", "ours"])[TITLE].rows
    assert [row[:2] for row in rows[:2]] == [["random", "model-1"], ["random", "model-2"]]
    assert rows[4][2:5] == [share_with_interval(*mean_interval(values[1, 1, s].tolist())) for s in range(3)]
    differences = values[:, 0] - values[:, 1]
    contrasts = differences - differences.mean(axis=1, keepdims=True)
    for arm in (0, 1):
        last = rows[3 * arm + 2]
        assert last[2:5] == [share_with_interval(*mean_interval(contrasts[arm, s].tolist())) for s in range(3)]
        sizes = [
            np.square((np.array(signs) * contrasts[arm]).mean(axis=1)).sum()
            for signs in itertools.product((1, -1), repeat=4)
        ]
        assert last[-1] == number(fmean(size >= sizes[0] - 1e-12 for size in sizes))


def test_no_contrast_where_both_models_gain_alike() -> None:
    values = np.zeros((1, 2, 3, 3)) + np.array([0.125, 0.5])[:, None, None] + np.array([0.0, 0.25, 0.5])[:, None]
    last = found(values, ["random"])[TITLE].rows[-1]
    assert [cell.partition(" ")[0].lstrip("−") for cell in last[2:5]] == ["0.0"] * 3
    assert last[-1] == "1.000"


def test_only_seeds_that_every_point_has() -> None:
    values = np.random.default_rng(1).uniform(size=(1, 2, 3, 4))
    values[0, 1, 2, 3] = np.nan
    rows = found(values, ["random"])[TITLE].rows
    assert rows[0][2] == share_with_interval(*mean_interval(values[0, 0, 0, :3].tolist()))
    assert [row[-2] for row in rows] == ["3", "3", "3"]
    values[0, 1, 2] = np.nan
    assert TITLE not in found(values, ["random"])


def test_no_such_table_for_other_grids() -> None:
    spec = spec_of(["random"], **{"select.budget": ["1", "2"]})
    rows = [row_of(f"random+budget={budget}", 0, t, 0.5) for budget in (1, 2) for t in (0, 1)]
    assert not any(
        " by " in table.title for table in all_tables(analysis_of(rows, spec)) if "at the end" in table.title
    )


@settings(deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=8))
def test_one_difference_a_row_is_the_test_of_one(differences: list[int]) -> None:
    assert joint_sign_flip_p_value([[value] for value in differences]) == sign_flip_p_value(differences)


def test_what_several_differences_share_is_seen_together() -> None:
    assert joint_sign_flip_p_value([[1.0, -1.0], [2.0, -2.0], [1.0, -3.0]]) == 2 / 2**3
    assert joint_sign_flip_p_value([[0.0, 0.0], [0.0, 0.0]]) == 1
    many = np.random.default_rng(0).normal(size=(40, 2)).tolist()
    assert 0.01 < joint_sign_flip_p_value(many) == joint_sign_flip_p_value(many) <= 1
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="no differences"):
            joint_sign_flip_p_value(rows)
