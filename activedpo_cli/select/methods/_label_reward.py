"""The linear reward of the labels bought so far, for methods that choose by it."""

from activedpo_cli.select.methods.base import Candidates
from activedpo_cli.statistics.bradley_terry import PredictedGaps, predicted_gaps


def gaps_by_labels(candidates: Candidates, l2: float) -> PredictedGaps | None:
    """The candidates' reward gaps on mean states, by a Bradley–Terry head fitted to the labels; None before the first."""
    if candidates.labelled is None or len(candidates.labelled) == 0:
        return None
    labelled = candidates.labelled_mean_hidden_differences()
    return predicted_gaps(candidates.mean_hidden_differences(), labelled, candidates.labelled.preferred, l2)
