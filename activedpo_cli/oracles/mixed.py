"""A judge answers first, and people get what it is unsure about: `mixed:MODEL`, set up as `judge:MODEL`.

It is unsure of a pair where its two orders disagree, where it gave no verdict, and where |P − ½| is below
`label.judge.threshold`. `activedpo judge check` says how often it is right above which threshold.
"""

from collections.abc import Sequence
from dataclasses import replace

from activedpo_cli.base.records import RecordedPreference
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles import judge
from activedpo_cli.oracles.base import Comparison, ReplyMemory, SeedOfPair, Verdict

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
    return MixedOracle(*judge.questioned(argument, settings, memory))


class MixedOracle(judge.JudgeOracle):
    """A judge that keeps to itself what it is unsure of."""

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """The verdicts of which the judge is sure; the others are none, with the scores that they would rest on."""
        return [
            verdict if judgement.is_sure(self.settings.threshold) else replace(verdict, preferred=None)
            for judgement in self.ask(comparisons)
            for verdict in [judge.verdict_of(judgement)]
        ]
