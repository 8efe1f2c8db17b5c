"""What was measured of each method against random choice: the numbers of docs/results.md, as they come with the package.

`docs/experiments/collect.py` writes them into `evidence.json`; nothing is worked out here.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PLACE = Path(__file__).with_name("evidence.json")
ONE_A_PROMPT = {"select.max_per_prompt": 1}
MARK = "*"
"""Behind what was measured with one pair a prompt; twice, with other settings too."""
NOTHING = "no evidence yet of how it compares with random"
BETTER = "yes"
IN_WORDS = {
    BETTER: "better than random on",
    "perhaps": "perhaps better on",
    "below": "below random on",
    "perhaps below": "perhaps below random on",
    "no sign": "no sign on",
}
"""What each verdict is called, in the order in which they are told."""
Interval = list[float | None]
"""Mean and both ends of the 95 % interval over seeds; an end is None where the seeds give none."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one experiment says of one method.

    Attributes:
        method: Its name.
        settings: Other settings in which it differed from the baseline.
        task: The short name of what was learnt.
        experiment: Where the numbers are, a folder of docs/results.
        seeds: How many there were.
        verdict: A key of IN_WORDS, by the scorer that answers: perhaps where only the interval says so, and not p by Holm.
        second_scorer: The same by the scorer that gave no labels; None without one.
        share: Of the way from random to a choice that reads the answers; None for that choice, or where it is no better.
        difference: Mean height of the curve, minus that of random.
        p: Of that difference, by flips of signs.
        p_holm: The same corrected for all arms of the experiment; None for a choice that reads the answers.

    """

    method: str
    settings: dict[str, Any]
    task: str
    experiment: str
    seeds: int
    verdict: str
    second_scorer: str | None
    share: Interval | None
    difference: Interval | None
    p: float | None
    p_holm: float | None

    @property
    def mark(self) -> str:
        """Nothing for the method as it is."""
        return "" if self.settings == {} else MARK if self.settings == ONE_A_PROMPT else 2 * MARK


def findings(method: str) -> list[Finding]:
    """What is known of a method; empty for one that was compared with random nowhere."""
    return [Finding(**entry) for entry in _read()["found"] if entry["method"] == method]


def tasks() -> dict[str, dict[str, str]]:
    """What was learnt, and who answered, by the short name of the task."""
    return _read()["tasks"]


def in_short(method: str) -> str:
    """What is known of a method in a sentence: as it is where that was measured, else with one pair a prompt.

    What was measured with other settings is told beside it, whatever it says.
    """
    if method == _read()["baseline"]:
        return "what the others are compared with"
    known = sorted(findings(method), key=lambda one: -len(one.mark))
    short = {one.task: one for one in known if one.mark != 2 * MARK}
    found = [*short.values(), *(one for one in known if one.mark == 2 * MARK)]
    if not found:
        return NOTHING
    told = []
    for verdict, words in IN_WORDS.items():
        named = [_named(one) for task in tasks() for one in found if (one.task, one.verdict) == (task, verdict)]
        if named:
            told.append(f"{words} {', '.join(named)}")
    return "; ".join(told)


def _named(finding: Finding) -> str:
    share = f" ({100 * finding.share[0]:.0f} %)" if finding.verdict == BETTER and finding.share else ""  # type: ignore[operator]
    return f"{finding.task}{finding.mark}{share}"


@cache  # a file of the package, which a process that has begun with it may read once
def _read() -> dict[str, Any]:
    return json.loads(PLACE.read_text(encoding="utf-8"))
