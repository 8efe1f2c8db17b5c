"""Pairs labelled earlier with the columns by which they were chosen, each under the policy of its own iteration."""

from typing import TYPE_CHECKING

from activedpo_cli.base.records import FeatureRow
from activedpo_cli.pairs.candidates import LabelledPair, labelled_pairs
from activedpo_cli.store.feature_files import LabelledColumns, read_columns
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from torch import Tensor


def frozen_labelled(run: Run, iteration: int) -> LabelledColumns | None:
    """The columns that *featurize* made of them before they were labelled; None where nothing was labelled or computed."""
    import torch

    found = [_of_iteration(run, earlier) for earlier in range(1, iteration)]
    parts = [part for part in found if part is not None]
    if not parts:
        return None
    names = set.intersection(*(set(part.columns) for part in parts))
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + 2 * len(part.pair_ids))
    return LabelledColumns(
        {name: torch.cat([part.columns[name] for part in parts]) for name in sorted(names)},
        [pair for part in parts for pair in part.pair_ids],
        torch.cat([part.row_a + start for part, start in zip(parts, starts, strict=False)]),
        torch.cat([part.row_b + start for part, start in zip(parts, starts, strict=False)]),
    )


def _of_iteration(run: Run, iteration: int) -> LabelledColumns | None:
    """Two rows for each pair answered in one iteration: all responses a, then all responses b."""
    import torch

    columns = read_columns(run.stage("featurize", iteration))
    pairs = list(labelled_pairs(run, [iteration]))
    if not columns or not pairs:
        return None
    rows = {row.response_id: row.row for row in run.stage("featurize", iteration).read_rows("rows.jsonl", FeatureRow)}
    order = torch.tensor([rows[name] for side in zip(*map(_names, pairs), strict=True) for name in side])
    count = len(pairs)
    kept: dict[str, Tensor] = {name: values[order] for name, values in columns.items()}
    return LabelledColumns(
        kept, [pair.outcome.pair_id for pair in pairs], torch.arange(count), torch.arange(count, 2 * count)
    )


def _names(pair: LabelledPair) -> tuple[str, str]:
    return pair.outcome.response_a_id, pair.outcome.response_b_id
