"""A judge answers first, and people get what it is unsure about: `mixed:MODEL`, set up as `judge:MODEL`.

It is unsure of a pair where its two orders disagree, where it gave no verdict, and where |P − ½| is below
`label.judge.threshold`. `activedpo judge check` says how often it is right above which threshold.
"""

from collections.abc import Sequence
from dataclasses import replace

from activedpo_cli.base.records import RecordedPreference
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles import judge
from activedpo_cli.oracles.base import Comparison, Judgement, ReplyMemory, SeedOfPair, Verdict

ASKS_PEOPLE = "some"
SCORES_TEXT = False
KEEPS_REPLIES = True

identity = judge.identity


def build(
    argument: str | None,
    settings: LabelSettings,
    device: str,
    *,
    preferences: Sequence[RecordedPreference] = (),
    memory: ReplyMemory | None = None,
) -> "MixedOracle":
    """The judge, who has asked nobody yet; raises what `judge.build` does."""
    return MixedOracle(judge.build(argument, settings, device, memory=memory), settings.judge.threshold)


class MixedOracle:
    """A judge that keeps to itself what it is unsure of."""

    def __init__(self, asked: judge.JudgeOracle, threshold: float) -> None:
        self._judge = asked
        self._threshold = threshold

    @property
    def stopped(self) -> str | None:
        """Why the judge is asked no further."""
        return self._judge.stopped

    def prepare(self) -> None:
        """As of the judge."""
        self._judge.prepare()

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """The verdicts of which the judge is sure; the others are none, with the scores that they would rest on."""
        found = self._judge.compare(comparisons, seed_of_pair)
        known = self._judge.judgements(comparisons)
        return [
            verdict if judgement.is_sure(self._threshold) else replace(verdict, preferred=None)
            for verdict, judgement in zip(found, known, strict=True)
        ]

    def judgements(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """All that is known of pairs, sure or not."""
        return self._judge.judgements(comparisons)

    def calls_to_come(self, comparisons: Sequence[Comparison]) -> tuple[int, int]:
        """As of the judge."""
        return self._judge.calls_to_come(comparisons)
