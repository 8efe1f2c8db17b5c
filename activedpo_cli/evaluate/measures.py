"""The numbers of an evaluation, from its rows: means over prompts, since prompts are what was drawn independently."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, Literal

from activedpo_cli.base.records import EvaluatedResponse
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval, win_rate, win_rate_interval

Role = Literal["", "second_"]
"""The first scorer or the second one, as the prefix of its measures."""
ROLES: tuple[Role, ...] = ("", "second_")

REWARD_NAMES = (
    "reward_mean",
    "reward_ci_low",
    "reward_ci_high",
    "reward_mean_initial",
    "reward_gain",
    "reward_gain_ci_low",
    "reward_gain_ci_high",
    "win_rate",
    "win_rate_ci_low",
    "win_rate_ci_high",
)

Value = Callable[[EvaluatedResponse], float | None]


def reward_measures(rows: Sequence[EvaluatedResponse], initial: Sequence[EvaluatedResponse]) -> dict[str, Any]:
    """Mean reward with a 95 % interval, its gain over the initial model, and the win rate, for both scorers.

    All are None where a scorer is missing. The gain is paired over prompts; win rates match responses by sample index.
    """
    return {
        "n": len({row.prompt_id for row in rows}),
        **_measures_of(rows, initial, lambda row: row.reward, ""),
        **_measures_of(rows, initial, lambda row: row.second_reward, "second_"),
    }


def text_measures(
    rows: Sequence[EvaluatedResponse], initial: Sequence[EvaluatedResponse], *, pure_sampling: bool
) -> dict[str, Any]:
    """KL to the reference in nats per response (None unless sampled from the policy itself) and response lengths."""
    ratios = [row.logps - row.ref_logps for row in rows if row.logps is not None and row.ref_logps is not None]
    kl = _per_prompt(rows, lambda row: row.logps - row.ref_logps) if ratios and pure_sampling else []  # type: ignore[operator]
    interval = mean_interval(kl) if kl else MeanInterval(None, None, None)  # type: ignore[arg-type]
    return {
        "kl_to_reference": interval.mean,
        "kl_ci_low": interval.low,
        "kl_ci_high": interval.high,
        "response_tokens_mean": fmean(row.num_tokens for row in rows),
        "response_tokens_mean_initial": fmean(row.num_tokens for row in initial),
        "truncated_share": fmean(row.truncated for row in rows),
        "responses_per_prompt": len(rows) / len({row.prompt_id for row in rows}),
    }


def _measures_of(
    rows: Sequence[EvaluatedResponse], initial: Sequence[EvaluatedResponse], value: Value, prefix: str
) -> dict[str, Any]:
    if any(value(row) is None for row in (*rows, *initial)):
        return {prefix + name: None for name in REWARD_NAMES}
    ours, before = _per_prompt(rows, value), _per_prompt(initial, value)
    reward = mean_interval(ours)
    gain = mean_interval([new - old for new, old in zip(ours, before, strict=True)])
    wins = win_rate_interval(_win_rates(rows, initial, value))
    values = (*reward, fmean(before), *gain, *wins)
    return {prefix + name: number for name, number in zip(REWARD_NAMES, values, strict=True)}


def _per_prompt(rows: Sequence[EvaluatedResponse], value: Value) -> list[float]:
    """The mean of a value over each prompt's responses, prompts in the order of their ids."""
    return [fmean(value(row) for row in group) for group in _by_prompt(rows)]  # type: ignore[misc]


def _win_rates(rows: Sequence[EvaluatedResponse], initial: Sequence[EvaluatedResponse], value: Value) -> list[float]:
    return [
        win_rate([value(row) for row in ours], [value(row) for row in before])  # type: ignore[misc]
        for ours, before in zip(_by_prompt(rows), _by_prompt(initial), strict=True)
    ]


def _by_prompt(rows: Sequence[EvaluatedResponse]) -> list[list[EvaluatedResponse]]:
    groups: dict[str, list[EvaluatedResponse]] = {}
    for row in sorted(rows, key=lambda row: (row.prompt_id, row.sample_index)):
        groups.setdefault(row.prompt_id, []).append(row)
    return list(groups.values())
