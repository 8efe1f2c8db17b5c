"""What stands on top of an experiment's page is no more than seeds, interval and test support."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import pytest

from activedpo_cli.experiments.curves import REWARD, analyse
from activedpo_cli.experiments.folder import ExperimentFolder
from activedpo_cli.experiments.results import MEASURES, ResultRow
from activedpo_cli.experiments.spec import ExperimentSpec, counterparts
from activedpo_cli.experiments.summary import experiment_summary
from activedpo_cli.reports.page import Summary
from activedpo_cli.reports.verdict import comparisons_of, headline

BETTER = [0.30, 0.20, 0.25, 0.35, 0.15, 0.28]
LEVEL = [0.0] * 6
T_5 = 2.570582  # 97.5 % quantile of Student's t with 5 degrees of freedom


def row(arm: str, seed: int, iteration: int, reward: float) -> ResultRow:
    return ResultRow(
        arm=arm,
        seed=seed,
        iteration=iteration,
        measures=dict.fromkeys(MEASURES) | {"labels_spent": 10 * iteration, REWARD: reward},
        seconds={},
        score_gap=None,
        bytes_of_features=None,
        digest="sha256:0",
    )


def summary(
    heights: Mapping[str, Sequence[float]], seeds: int = 6, baseline: str | None = "random", ceiling: str | None = None
) -> Summary:
    """Of arms whose curves over two points have these heights, one for each finished seed."""
    arms = {arm: {"select.method": arm} for arm in heights}
    spec = ExperimentSpec(
        title="T", arms=arms, seeds=list(range(seeds)), iterations=1, baseline=baseline, ceiling=ceiling
    )
    rows = [
        row(arm, seed, iteration, 2 * height * iteration)
        for arm, values in heights.items()
        for seed, height in enumerate(values)
        for iteration in (0, 1)
    ]
    curves = analyse(rows, REWARD, counterparts(spec, baseline), counterparts(spec, ceiling)) if rows else []
    return experiment_summary(ExperimentFolder(Path("runs/mine"), spec), rows, {"Reward": curves} if curves else {})


def command(found: Summary) -> str:
    return found.answers[-1].command


def test_better_than_the_baseline_with_its_interval() -> None:
    found = summary({"random": LEVEL, "ours": BETTER})
    mean, half = fmean(BETTER), T_5 * stdev(BETTER) / math.sqrt(6)
    numbers = f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"
    assert found.message == f"ours is better than random by {numbers}"
    assert found.answers[2].question == "Better than random?"
    assert found.answers[2].sentences[0] == f"ours: better than random. +{numbers} in reward, 6 seeds, p 0.031"
    assert command(found) == "activedpo report runs/mine/runs/random-s0 runs/mine/runs/ours-s0"


def test_arms_are_corrected_for_each_other_and_not_for_the_ceiling() -> None:
    arms = {"random": LEVEL, "ours": BETTER, "top": [3.0, 3.1, 3.2, 3.3, 3.1, 3.0]}
    assert "better than random" in summary(arms, ceiling="top").message
    found = summary(arms)
    assert found.message == "6 seeds do not tell ours and top from random"
    assert "p 0.062" in found.answers[2].sentences[0]


def test_arms_that_lose_are_said_to() -> None:
    found = summary({"random": BETTER, "ours": LEVEL})
    assert found.message.startswith("ours is worse than random by 0.255 [")
    assert found.answers[2].sentences[0].startswith("ours: worse than random. \N{MINUS SIGN}0.255 [")


def test_what_is_not_told_and_what_has_too_few_seeds_is_said_of_each() -> None:
    level = [0.1, -0.1, 0.2, -0.2, 0.1, -0.1]
    found = summary({"random": LEVEL, "ours": level, "short": BETTER[:3]})
    assert found.message == "6 seeds do not tell ours from random; of short there are too few"
    ten = [*BETTER, 0.22, 0.24, 0.26, 0.21]
    found = summary(
        {"random": [0.0] * 10, "ours": ten, "worse": [-value for value in ten], "level": [*level, *level[:4]]}, 10
    )
    assert found.message.startswith("ours is better than random by 0.246 [")
    assert found.message.endswith("; worse is worse; level is not told from it")


def test_two_seeds_are_too_few_and_the_number_that_it_takes_is_said() -> None:
    found = summary({"random": LEVEL[:2], "ours": BETTER[:2], "other": BETTER[:2]}, seeds=2)
    assert found.message == "2 seeds are too few to tell ours and other from random"
    # 2 comparisons · 2/2ⁿ is at most 0.05 from n = 7 on
    assert found.answers[-1].sentences == ["Add seeds to the specification: with 2 comparisons it takes 7"]


def test_one_seed_and_none() -> None:
    found = summary({"random": LEVEL[:1], "ours": BETTER[:1]}, seeds=1)
    assert found.message == "Nothing to tell from random yet: no arm has two seeds in common with it"
    assert found.answers[1].sentences[:2] == ["ours: 0.600", "random: 0.000"]
    none = summary({"random": [], "ours": []}, seeds=1)
    assert none.message == "Of 1 seed none has finished"
    assert all(answer.sentences for answer in none.answers)


def test_what_is_unfinished_is_to_be_done_first() -> None:
    found = summary({"random": LEVEL, "ours": BETTER[:5]})
    assert found.message == "5 seeds are too few to tell ours from random"
    assert found.answers[0].sentences == ["2 arms × 6 seeds, 1 iteration each: 11 of 12 runs finished"]
    assert shlex.split(command(found)) == [
        *("activedpo", "experiment", "runs/mine/experiment.json", "--output", "runs/mine"),
    ]


@pytest.mark.parametrize("ceiling", [None, "top"])
def test_a_ceiling_is_named_as_one(ceiling: str | None) -> None:
    found = summary({"random": LEVEL, "top": BETTER}, ceiling=ceiling)
    assert found.answers[1].sentences[0].startswith("top (a ceiling, not a method):" if ceiling else "top:")
    assert ("Nothing to tell from random yet" in found.message) == (ceiling is not None)


def test_the_measure_is_named_where_another_one_says_otherwise() -> None:
    told, untold = comparisons_of({"ours": BETTER}), comparisons_of({"ours": [0.1, -0.1, 0.2, -0.2, 0.1, -0.1]})
    assert headline([("reward", told), ("win rate", told)], "random").startswith(
        "ours is better than random by 0.255 ["
    )
    assert headline([("reward", told), ("win rate", told)], "random").endswith("]")
    assert headline([("reward", told), ("win rate", untold)], "random").endswith("], in reward")


def test_without_a_baseline_nothing_is_tested() -> None:
    found = summary({"a": LEVEL, "b": BETTER}, baseline=None)
    assert found.message == "b ends highest; no baseline is named, so no difference is tested"
    assert not [answer for answer in found.answers if answer.question.startswith("Better")]
