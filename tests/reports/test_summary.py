"""What stands on top of a report is no more than its numbers support; the commands in it can be typed as they are."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from command_line import done
from report_page import facts, made_up_run
from ruamel.yaml import YAML

from activedpo_cli.reports.messages import reward_message, win_rate_message
from activedpo_cli.reports.page import Summary
from activedpo_cli.reports.run_data import Evaluation, RunData, Scorer, StageFact
from activedpo_cli.reports.summary import summary_of

RULE, JUDGE = Scorer("python:rule:score", ("r",)), Scorer("reward-model:judge", ("j",))
START = 0.1


def metrics(reward: float, gain: tuple[float, float], role: str = "", wins: tuple[float, float] = (0.4, 0.6)) -> Any:
    ends = {f"{role}reward_gain_ci_low": gain[0], f"{role}reward_gain_ci_high": gain[1]}
    ends |= {f"{role}win_rate_ci_low": wins[0], f"{role}win_rate_ci_high": wins[1]}
    return ends | {f"{role}reward_mean": reward, f"{role}reward_mean_initial": START, f"{role}win_rate": sum(wins) / 2}


def evaluation(iteration: int, found: dict[str, Any]) -> Evaluation:
    return Evaluation(
        iteration=iteration,
        source=f"iter-{iteration:03d}/evaluate",
        labels_spent=10 * iteration,
        scorer=RULE,
        second_scorer=JUDGE if "second_reward_mean" in found else None,
        metrics=found | {"n": 50},
    )


def run(method: str, seed: int, *found: dict[str, Any], name: str = "", unfinished: Sequence[str] = ()) -> RunData:
    """A run with an evaluation after each 10 labels; at 0 labels the reward is 0.1."""
    facts = [
        StageFact(
            name="",
            stage="evaluate",
            iteration=t,
            manifest="",
            digest="",
            seconds=1,
            was_resumed=False,
            attempts=1,
            outdated=[],
        )
        for t in range(1, len(found) + 1)
    ]
    return made_up_run(
        method,
        seed,
        name,
        settings={"seed": [seed], "select.method": [method]},
        stages=facts,
        unfinished=[*unfinished],
        evaluations=[
            evaluation(t, each) for t, each in enumerate([{"reward_mean": START, "n": 50}, *found][: len(found) + 1])
        ],
    )


def sides(differences: Sequence[float], method: str = "activedpo") -> list[RunData]:
    """Runs of a method whose curve over 0 and 10 labels is higher by these differences than 0.1, one for each seed.

    The height of a curve with two points is the mean of both, so its last point is higher by twice as much.
    """
    return [run(method, seed, metrics(START + 2 * value, (0.0, 1.0))) for seed, value in enumerate(differences)]


def answer(summary: Summary, question: str) -> str:
    (found,) = [row for row in summary.answers if row.question == question]
    return " ".join(found.sentences)


def command(summary: Summary) -> str:
    return summary.answers[-1].command


LEVEL = [0.0] * 7
BETTER = [0.30, 0.20, 0.25, 0.35, 0.15, 0.28]
MIXED = [0.30, -0.20, 0.25, -0.35, 0.15, -0.10]
SKEWED = [0.01, 0.02, 0.01, 0.02, 0.01, 3.0]
"""All of one sign, so that p is 2/64; Student's interval holds 0 nevertheless."""


T = {5: 2.776445, 6: 2.570582}
"""97.5 % quantile of Student's t for so many seeds."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    half = T[len(values)] * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def shown(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def test_better_than_random_with_the_interval_over_seeds() -> None:
    found = summary_of([*sides(BETTER), *sides(LEVEL[:6], "random")])
    low, high = interval(BETTER)
    numbers = f"{shown(fmean(BETTER))} [{shown(low)}, {shown(high)}]"
    assert found.message == f"activedpo is better than random by {numbers}"
    assert f"activedpo: better than random. +{numbers} in reward by python:rule:score, 6 seeds, p 0.031" in answer(
        found, "Better than random choice?"
    )
    assert command(found).splitlines() == [
        "activedpo run --run activedpo-0 --iterations 2",
        "activedpo export --run activedpo-0 --merged",
    ]


def test_worse_than_random() -> None:
    found = summary_of([*sides([-value for value in BETTER]), *sides(LEVEL[:6], "random")])
    low, high = interval(BETTER)
    assert found.message == f"activedpo is worse than random by {shown(fmean(BETTER))} [{shown(low)}, {shown(high)}]"


@pytest.mark.parametrize("differences", [MIXED, SKEWED])
def test_not_told_from_random(differences: list[float]) -> None:
    """By the interval alone in the second case, in which every seed is better."""
    low, high = interval(differences)
    assert low < 0 < high
    found = summary_of([*sides(differences), *sides(LEVEL[:6], "random")])
    assert found.message == "6 seeds do not tell activedpo from random"
    assert "activedpo: not told from random. +" in answer(found, "Better than random choice?")
    assert "better" not in found.message


def test_several_methods_are_corrected_for_each_other() -> None:
    """Two p of 2/64 become 4/64 by Holm, although both intervals leave 0 out."""
    runs = [*sides(BETTER), *sides(BETTER, "apo"), *sides(LEVEL[:6], "random")]
    assert summary_of(runs).message == "6 seeds do not tell activedpo and apo from random"
    more = [*BETTER, 0.22]
    runs = [*sides(more), *sides(more, "apo"), *sides(LEVEL, "random")]  # 2/128 becomes 4/128
    assert summary_of(runs).message == "activedpo and apo are better than random"


def test_five_seeds_tell_nothing_however_clear_they_look() -> None:
    found = summary_of([*sides(BETTER[:5]), *sides(LEVEL[:5], "random")])
    assert interval(BETTER[:5])[0] > 0
    assert found.message == "5 seeds are too few to tell activedpo from random"
    assert command(found) == "activedpo experiment mine.yaml"


def test_one_seed_tells_nothing() -> None:
    found = summary_of([*sides([5.0]), *sides([0.0], "random")])
    assert found.message == "Too few seeds to tell activedpo from random"
    told = answer(found, "Better than random choice?")
    assert told.startswith("This page can't say.")
    assert "activedpo-0 ends at 10.100 and random-0 ends at 0.100" in told


def test_an_unfinished_run_is_to_be_finished_first() -> None:
    begun = run("activedpo", 0, name="my run", unfinished=["iter-001/train", "iter-001/evaluate"])
    found = summary_of([begun])
    assert found.message == "Nothing is measured yet: 0 labels spent, no policy evaluated"
    assert command(found) == "activedpo run --run 'my run'"
    going_on = run("activedpo", 0, metrics(0.5, (0.2, 0.6)), unfinished=["iter-002/train", "iter-002/evaluate"])
    found = summary_of([going_on])
    assert found.message.startswith("After 10 labels reward is higher")
    assert command(found) == "activedpo run --run activedpo-0"


def test_a_run_that_nobody_scored_is_to_be_scored() -> None:
    unscored = run("activedpo", 0, {"reward_mean": None})
    found = summary_of([unscored])
    assert found.message == "After 10 labels nobody scored the policy, so that nothing is known of its answers"
    assert answer(found, "What came out") == "Nobody scored the responses"
    assert command(found).startswith("activedpo evaluate --run activedpo-0 --iteration 1 --scorer ")
    ordered = run("activedpo", 0, {"reward_mean": None, "preference_accuracy": 0.625})
    assert summary_of([ordered]).message == "After 10 labels the policy orders 62.5 % of held-out preferences rightly"


def test_features_that_were_deleted_to_save_space_leave_nothing_to_finish() -> None:
    whole = run("activedpo", 0, metrics(0.5, (0.2, 0.6)), unfinished=["iter-001/featurize"])
    assert command(summary_of([whole])).startswith("activedpo run --run activedpo-0-random ")


def test_many_are_counted_and_few_are_named() -> None:
    names = ["a", "b", "c", "d"]
    level = sides(LEVEL[:6], "random")
    alike = [one for name in names for one in sides(MIXED, name)]
    assert summary_of([*alike, *level]).message == "6 seeds do not tell any of 4 from random"
    values = [*BETTER, 0.22, 0.24, 0.26, 0.21]  # 4 · 2/2¹⁰ by Holm
    better = [one for name in names for one in sides(values, name)]
    assert summary_of([*better, *sides([0.0] * 10, "random")]).message == "4 of 4 are better than random"


@pytest.mark.parametrize(
    ("gain", "second", "message", "heading"),
    [
        (
            (0.2, 0.6),
            (0.1, 0.3),
            "higher than the initial model's, by both scorers",
            "Reward rose by 0.400 [0.200, 0.600]",
        ),
        (
            (0.2, 0.6),
            (-0.1, 0.3),
            "higher than the initial model's by python:rule:score, but not told from the initial model's by the second "
            "scorer",
            "Reward rose by 0.400 [0.200, 0.600]",
        ),
        (
            (-0.1, 0.9),
            None,
            "not told from the initial model's, by python:rule:score",
            "No change of reward is told: +0.400",
        ),
    ],
)
def test_one_run_is_compared_with_the_model_it_began_with(
    gain: tuple[float, float], second: tuple[float, float] | None, message: str, heading: str
) -> None:
    found = metrics(START + 0.4, gain) | (metrics(START + 0.1, second, "second_") if second else {})
    alone = run("activedpo", 0, found)
    assert summary_of([alone]).message == f"After 10 labels reward is {message}"
    assert reward_message([alone]).startswith(heading)


@pytest.mark.parametrize(("gain", "is_offered"), [((0.2, 0.6), True), ((-0.2, 0.6), True), ((-0.6, -0.2), False)])
def test_a_policy_is_offered_to_other_programs_unless_it_is_worse(gain: tuple[float, float], is_offered: bool) -> None:
    found = summary_of([run("activedpo", 0, metrics(START, gain), name="my run")])
    assert ("activedpo export --run 'my run' --merged" in command(found).splitlines()) is is_offered
    assert ("Take the policy of my run" in answer(found, "What next")) is is_offered


def test_a_loss_is_called_one() -> None:
    alone = run("activedpo", 0, metrics(START - 0.4, (-0.6, -0.2), wins=(0.2, 0.4)))
    assert (
        summary_of([alone]).message == "After 10 labels reward is lower than the initial model's, by python:rule:score"
    )
    assert reward_message([alone]) == "Reward fell by 0.400 [0.200, 0.600]"
    assert win_rate_message([alone]) == "30.0 % [20.0, 40.0] of comparisons won: fewer than half"


def test_headings_of_several_runs_count_them() -> None:
    found = [metrics(0.5, (0.2, 0.6)), metrics(0.5, (-0.1, 0.9)), metrics(-0.3, (-0.6, -0.2))]
    runs = [run("activedpo", seed, each) for seed, each in enumerate(found)]
    assert reward_message(runs) == "Reward rose in 1 of 3 runs, fell in 1, as their intervals tell"


@pytest.mark.usefixtures("blank_figures")
def test_no_random_run_is_said_and_the_command_makes_one(finished: Path, tmp_path: Path) -> None:
    """The command of the page gives a run whose settings are those of the first but for the method."""
    done("report", finished)
    summary = facts(finished / "report")["summary"]
    asked, told = summary["answers"][2], summary["answers"][3]
    assert asked["sentences"] == ["This page can't say: no run on it chose at random"]
    first, second, third = told["command"].splitlines()
    assert shlex.split(third) == ["activedpo", "export", "--run", "finished", "--merged"]
    assert shlex.split(second) == ["activedpo", "report", "finished", "finished-random"]
    words = shlex.split(first)
    assert words[:4] == ["activedpo", "run", "--run", "finished-random"]
    given = dict(zip(words[2:10:2], words[3:11:2], strict=True))
    assert (given["--method"], given["--iterations"]) == ("random", "2")
    seed_and_settings = words[words.index("--seed") :]
    made = ("init", "--run", tmp_path / "finished-random", "--preset", given["--preset"])
    done(*made, "--set", "select.method=random", *seed_and_settings)
    theirs, ours = (settings(path) for path in (finished, tmp_path / "finished-random"))
    assert ours.pop("select.method") == "random"
    assert theirs.pop("select.method") == "activedpo"
    assert ours == theirs


def settings(run: Path) -> dict[str, Any]:
    found = YAML(typ="safe").load((run / "config.yaml").read_text())
    return {
        f"{section}.{key}": value
        for section, values in found.items()
        for key, value in (values if isinstance(values, dict) else {"": values}).items()
    }
