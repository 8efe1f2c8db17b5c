"""Whether seeds tell methods from a baseline, and the words for it: never more than interval and test support."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from activedpo_cli.base.numbers import counted
from activedpo_cli.reports.wording import listed, number, share_with_interval, signed, with_interval
from activedpo_cli.statistics.multiple_comparisons import holm, sign_flip_p_value
from activedpo_cli.statistics.summaries import MeanInterval, mean_interval

FEWEST_SEEDS = 6
"""With fewer no sign-flip test reaches 0.05."""
LEVEL = 0.05
MOST_NAMED = 3
ANY, OTHERS = "any of {}", "{} others"
HOW_COMPARED = (
    "Differences at equal seeds in the mean height of the curve over labels, with 95 % intervals over seeds; p by sign "
    f"flips, by Holm for several. A verdict takes {FEWEST_SEEDS} seeds, p up to {LEVEL} and an interval without 0."
)
Verdict = Literal["better", "worse", "not told", "too few"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method, or a group of runs, minus the baseline at equal seeds.

    Attributes:
        interval: Mean difference in the height of the curve, reward over labels, with its 95 % interval over seeds.
        seeds: Those that both have.
        p_value: Of the two-sided sign-flip test, by Holm where several are compared.
        is_share: Whether what differs is a share, so that the difference is written as per cent.

    """

    name: str
    interval: MeanInterval
    seeds: int
    p_value: float
    is_share: bool = False

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where the interval leaves 0 out and p is at most 0.05, of at least six seeds."""
        if self.seeds < FEWEST_SEEDS:
            return "too few"
        mean, low, high = self.interval
        if low is None or high is None or low <= 0 <= high or self.p_value > LEVEL:
            return "not told"
        return "better" if mean > 0 else "worse"


def comparisons_of(differences: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """From the differences at equal seeds of each, at least one; Holm's correction is over all of them."""
    p_values = holm([sign_flip_p_value(values) for values in differences.values()])
    return [
        Comparison(name=name, interval=mean_interval(values), seeds=len(values), p_value=p_value)
        for (name, values), p_value in zip(differences.items(), p_values, strict=True)
    ]


def headline(compared: Sequence[tuple[str, Sequence[Comparison]]], base: str) -> str:
    """What the first of some measures says; it is named where another one does not say the same of every method."""
    (measure, first), *others = compared
    verdicts = {row.name: row.verdict for row in first}
    is_same = all(verdicts == {row.name: row.verdict for row in rows} for _, rows in others)
    return message_of(first, base) + ("" if is_same else f", in {measure}")


def message_of(found: Sequence[Comparison], base: str) -> str:
    """What the comparisons say together, in a sentence without a full stop."""
    by_verdict: dict[Verdict, list[str]] = {}
    for row in found:
        by_verdict.setdefault(row.verdict, []).append(row.name)
    better, worse, untold, few = (by_verdict.get(kind, []) for kind in ("better", "worse", "not told", "too few"))
    unknown = f"; {named(untold + few, OTHERS)} {_is(untold + few)} not told from it" if untold or few else ""
    all_named = "{} of " + str(len(found))
    if better:
        by = f" by {_height(found, better[0])}" if len(better) == 1 else ""
        lost = f"; {named(worse, OTHERS)} {_is(worse)} worse" if worse else ""
        return f"{named(better, all_named)} {_is(better)} better than {base}{by}{lost}{unknown}"
    if worse:
        by = f" by {_height(found, worse[0])}" if len(worse) == 1 else ""
        return f"{named(worse, all_named)} {_is(worse)} worse than {base}{by}{unknown}"
    if untold:
        seeds = max(row.seeds for row in found if row.verdict == "not told")
        lacking = f"; of {named(few, OTHERS)} there are too few" if few else ""
        return f"{seeds} seeds do not tell {named(untold, ANY)} from {base}{lacking}"
    seeds = max(row.seeds for row in found)
    return f"{counted(seeds, 'seed', ('is', 'are'))} too few to tell {named(few, ANY)} from {base}"


def sentence_of(found: Comparison, base: str, measure: str) -> str:
    """A comparison with its numbers, in a sentence without a full stop."""
    verdict = {
        "better": f"better than {base}",
        "worse": f"worse than {base}",
        "not told": f"not told from {base}",
        "too few": "too few seeds for a verdict",
    }[found.verdict]
    seeds = counted(found.seeds, "seed")
    difference = signed(found.interval, is_share=found.is_share)
    return f"{found.name}: {verdict}. {difference} in {measure}, {seeds}, p {number(found.p_value)}"


def named(names: Sequence[str], many: str) -> str:
    """All of a few names, else a phrase with how many there are for `{}`."""
    return listed(names) if len(names) <= MOST_NAMED else many.format(len(names))


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _height(found: Sequence[Comparison], name: str) -> str:
    compared = next(row for row in found if row.name == name)
    mean, low, high = compared.interval
    if mean < 0 and low is not None and high is not None:
        mean, low, high = -mean, -high, -low
    return (share_with_interval if compared.is_share else with_interval)(mean, low, high)
