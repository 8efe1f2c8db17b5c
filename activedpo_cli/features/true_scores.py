"""The column `scores`: the oracle's score of every response before any label is bought, for `true-gap` alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.records import Response
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import Context
from activedpo_cli.label.scoring import score_responses, scorer_settings
from activedpo_cli.oracles.base import parse_spec

if TYPE_CHECKING:
    from torch import Tensor

RECORDED = "recorded"


def scores_settings(config: Config) -> dict[str, Any]:
    """What the column depends on beside the responses."""
    return scorer_settings(config) | {
        "label.oracle": config.label.oracle,
        "label.score_field": config.label.score_field,
        "evaluate.unit_size": config.evaluate.unit_size,  # how many a reward model scores at once
    }


def check_scores(context: Context) -> None:
    """Raise UsageError where the oracle can't score responses, as people can't."""
    name, _ = parse_spec(context.settings.label.oracle)
    if name != RECORDED and not discovery.load("oracles", name).SCORES_TEXT:
        raise UsageError(
            f"the oracle `{context.settings.label.oracle}` has no scores to read, which the column `scores` needs",
            hint="use an oracle that scores text, or a method that does not read the answers",
        )
    context.progress.warn(
        "every candidate is scored by the oracle: this is a ceiling for experiments, and saves no label"
    )


def scores(context: Context, responses: Sequence[Response]) -> "Tensor":
    """The oracle's score of each response; of a recorded oracle those that came with the responses."""
    import torch

    config = context.settings.label
    if parse_spec(config.oracle)[0] != RECORDED:
        return torch.tensor(score_responses(context, responses, config.oracle), dtype=torch.float32)
    if config.score_field is None:
        there = sorted({name for response in responses for name in response.scores or {}})
        raise UsageError(
            "the recorded oracle has no score to read, which the column `scores` needs",
            details=[f"scores there are: {', '.join(there) or 'none'}"],
            hint=f"--score-field {there[0]}" if there else "another --oracle, such as `human`",
        )
    # Where there is no score, the pair is no candidate, and its number is never read.
    found = [(response.scores or {}).get(config.score_field, 0.0) for response in responses]
    return torch.tensor(found, dtype=torch.float32)
