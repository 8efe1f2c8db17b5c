"""What was answered in an iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

from activedpo_cli.base.records import SPENT_OUTCOMES, OutcomeRow, Response
from activedpo_cli.reports.selection_data import Couple
from activedpo_cli.reports.sources import is_outdated
from activedpo_cli.statistics.summaries import FiveNumbers, MeanInterval, five_numbers, win_rate_interval
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

RECORDED = "recorded"
OUTCOMES = ("chosen", "tie", "both_bad", "skip")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The answers of one iteration.

    Attributes:
        counts: Answers by outcome.
        gaps: |score a − score b| of the answered pairs, where the oracle gave scores.
        scored_pairs: Pairs with both scores.
        pool_gaps: The same over all candidates, where the score that the oracle reads came with the responses.
        longer_won: Share of chosen responses that were the longer one, with Wilson's 95 % interval over pairs; None too
            where the responses that were answered about are gone.
        unequal_pairs: Pairs that it is a share of: one chosen, lengths unequal.
        seconds: Seconds for each answer, where people gave them.
        timed_answers: Answers with a time.

    """

    iteration: int
    source: str
    oracle: str
    counts: dict[str, int]
    unanswered: int
    labels_spent: int
    gaps: FiveNumbers | None
    scored_pairs: int
    pool_gaps: FiveNumbers | None
    longer_won: MeanInterval | None
    unequal_pairs: int
    seconds: FiveNumbers | None
    timed_answers: int


def read_labels(
    run: Run,
    iteration: int,
    manifests: dict[str, Manifest],
    responses: Sequence[Response] | None,
    couples: Sequence[Couple] | None,
) -> Labels | None:
    """The answers of an iteration, None where *label* is not finished.

    Responses and candidates are left out where the answers are about others that had the same ids.
    """
    name = f"iter-{iteration:03d}/label"
    manifest = manifests.get(name)
    if manifest is None:
        return None
    if any(is_outdated(manifest, f"iter-{iteration:03d}/{stage}", manifests) for stage in ("generate", "select")):
        responses = couples = None
    folder = run.stage("label", iteration)
    rows = folder.read_rows("outcomes.jsonl", OutcomeRow)
    gaps = [abs(row.score_a - row.score_b) for row in rows if row.score_a is not None and row.score_b is not None]
    wins = _longer_wins(rows, {row.response_id: len(row.token_ids) for row in responses or ()})
    times = [label.seconds for label in folder.label_log().labels().values() if label.seconds is not None]
    return Labels(
        iteration=iteration,
        source=name,
        oracle=str(manifest.settings.get("label.oracle")),
        counts={outcome: sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES},
        unanswered=int(manifest.summary.get("unanswered", 0)),
        labels_spent=sum(row.outcome in SPENT_OUTCOMES for row in rows),
        gaps=five_numbers(gaps),
        scored_pairs=len(gaps),
        pool_gaps=five_numbers(_pool_gaps(_score_field(manifest), responses or (), couples or ())),
        longer_won=win_rate_interval(wins) if wins else None,
        unequal_pairs=len(wins),
        seconds=five_numbers(times),
        timed_answers=len(times),
    )


def _longer_wins(rows: Sequence[OutcomeRow], lengths: dict[str, int]) -> list[float]:
    """1 or 0 for each pair of which one response was chosen and one is longer: whether these are the same."""
    wins = []
    for row in rows:
        a, b = lengths.get(row.response_a_id), lengths.get(row.response_b_id)
        if row.preferred_id is not None and a is not None and b is not None and a != b:
            wins.append(float((row.preferred_id == row.response_a_id) == (a > b)))
    return wins


def _score_field(manifest: Manifest) -> str | None:
    """The score that the oracle read; other oracles than `recorded` read none, whatever the setting says."""
    is_recorded = manifest.settings.get("label.oracle") == RECORDED
    return manifest.settings.get("label.score_field") if is_recorded else None


def _pool_gaps(field: str | None, responses: Sequence[Response], couples: Sequence[Couple]) -> list[float]:
    if field is None:
        return []
    scores = {row.response_id: row.scores[field] for row in responses if field in (row.scores or {})}  # type: ignore[index]
    return [abs(scores[a] - scores[b]) for a, b in couples if a in scores and b in scores]
