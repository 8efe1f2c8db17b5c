"""How the last policy of a run compares with the model it began with, as each scorer says."""

from dataclasses import dataclass
from typing import Literal

from activedpo_cli.evaluate.measures import ROLES, Role
from activedpo_cli.reports.run_data import Evaluation, RunData
from activedpo_cli.statistics.summaries import MeanInterval

Change = Literal["better", "worse", "not told", "no interval"]


@dataclass(frozen=True)
class Gain:
    """How the last policy of a run compares with the model it began with, by one scorer.

    Attributes:
        scorer: What the scorer is called in a sentence.
        initial: Mean reward of the initial model.
        now: That of the policy.
        reward: Mean reward now minus that of the initial model, with its 95 % interval over prompts.
        win_rate: Share of comparisons won, with its interval; None where it was not measured.

    """

    scorer: str
    initial: float
    now: float
    reward: MeanInterval
    win_rate: MeanInterval | None

    @property
    def change(self) -> Change:
        """What the interval of the reward says; better and worse only where it leaves 0 out."""
        _, low, high = self.reward
        if low is None or high is None:
            return "no interval"
        return "better" if low > 0 else "worse" if high < 0 else "not told"


def gains_of(run: RunData) -> list[Gain]:
    """What each scorer says of the last policy; empty where nobody scored it."""
    last = last_evaluation(run)
    return [gain for role in ROLES if last is not None and (gain := _gain(last, role, run)) is not None]


def last_evaluation(run: RunData) -> Evaluation | None:
    """The newest evaluation of a trained policy; None where there is none."""
    return next((row for row in reversed(run.evaluations) if row.iteration), None)


def _gain(last: Evaluation, role: Role, run: RunData) -> Gain | None:
    metrics, scorer = last.metrics, last.second_scorer if role else last.scorer
    mean, initial = metrics.get(f"{role}reward_mean"), metrics.get(f"{role}reward_mean_initial")
    if mean is None or initial is None or scorer is None:
        return None
    gave_labels = any(labels.oracle == scorer.name for labels in run.labels)
    name = "the scorer that gave the labels" if gave_labels else "the second scorer" if role else scorer.name
    gain = MeanInterval(mean - initial, *(metrics.get(f"{role}reward_gain_ci_{end}") for end in ("low", "high")))
    wins = [metrics.get(f"{role}win_rate{part}") for part in ("", "_ci_low", "_ci_high")]
    return Gain(name, initial, mean, gain, None if wins[0] is None else MeanInterval(wins[0], wins[1], wins[2]))
