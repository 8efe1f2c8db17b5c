"""Answers that came with the responses: a score of each, or preferences between them.

With `label.score_field` (`--score-field`) the pair is decided by that score, without it by the recorded preferences.
Of several recorded preferences about one pair the most frequent answer counts, a, b or tie; an even split is a tie.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.records import RecordedPreference, Response
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles.base import Comparison, Preferred, SeedOfPair, Verdict, verdicts_from_scores

ASKS_PEOPLE = False
SCORES_TEXT = False


def build(
    argument: str | None, settings: LabelSettings, device: str, *, preferences: Sequence[RecordedPreference] = ()
) -> "RecordedOracle":
    """The oracle that reads `settings.score_field`, or `preferences` where no field is named."""
    if argument is not None:
        raise UsageError(
            "the oracle `recorded` takes nothing after its name",
            hint=f"use `--oracle recorded --score-field {argument}` to name the score it reads",
        )
    return RecordedOracle(settings, preferences)


def identity(argument: str | None, settings: LabelSettings) -> dict[str, str]:
    """By which rule several preferences about a pair are settled, where they are read.

    The answers themselves are part of the responses, whose digests are recorded with the stage that stored them.
    """
    return {} if settings.score_field else {"settled by": "most votes"}


class RecordedOracle:
    """Looks answers up; `covers` says beforehand whether it has one."""

    def __init__(self, settings: LabelSettings, preferences: Iterable[RecordedPreference]) -> None:
        self._settings = settings
        self._votes: dict[frozenset[str], Counter[str | None]] = {}
        for preference in preferences:
            pair = frozenset((preference.response_a_id, preference.response_b_id))
            self._votes.setdefault(pair, Counter())[preference.preferred_id] += 1

    def covers(self, comparison: Comparison) -> bool:
        """Whether an answer to this comparison was recorded."""
        field = self._settings.score_field
        if field is None:
            return _ids(comparison) in self._votes
        return field in _scores(comparison.response_a) and field in _scores(comparison.response_b)

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """The recorded answers.

        Raises:
            InvalidDataError: Nothing was recorded about a pair; the message names it and what there is to read.

        """
        for comparison in comparisons:
            if not self.covers(comparison):
                raise self._uncovered(comparison)
        field = self._settings.score_field
        if field is None:
            return [self._voted(comparison) for comparison in comparisons]
        return verdicts_from_scores(
            comparisons,
            [_scores(comparison.response_a)[field] for comparison in comparisons],
            [_scores(comparison.response_b)[field] for comparison in comparisons],
            answer=self._settings.answer,
            temperature=self._settings.temperature,
            seed_of_pair=seed_of_pair,
        )

    def _voted(self, comparison: Comparison) -> Verdict:
        votes = self._votes[_ids(comparison)]
        most = max(votes.values())
        leading = [name for name, number in votes.items() if number == most]
        sides: dict[str | None, Preferred] = {
            comparison.response_a.response_id: "a",
            comparison.response_b.response_id: "b",
        }
        return Verdict(comparison.pair_id, sides.get(leading[0], "tie") if len(leading) == 1 else "tie", None, None)

    def _uncovered(self, comparison: Comparison) -> InvalidDataError:
        shared = sorted(_scores(comparison.response_a).keys() & _scores(comparison.response_b).keys())
        wanted = self._settings.score_field
        if wanted is None:
            message = f"no preference was recorded for pair `{comparison.pair_id}`, and no score field is named"
        else:
            message = f"pair `{comparison.pair_id}` lacks the recorded score `{wanted}`"
        return InvalidDataError(
            message,
            details=[f"scores that both responses have: {', '.join(shared) or 'none'}"],
            hint=f"name one with `--score-field {shared[0]}`" if shared else None,
        )


def _scores(response: Response) -> dict[str, float]:
    return response.scores or {}


def _ids(comparison: Comparison) -> frozenset[str]:
    return frozenset((comparison.response_a.response_id, comparison.response_b.response_id))
