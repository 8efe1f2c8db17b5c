"""The tensors of *featurize*, unit by unit on disk, as one table."""

from typing import TYPE_CHECKING, NamedTuple

from activedpo_cli.base.records import LabelledPairRow
from activedpo_cli.store.stage_folder import StageFolder

if TYPE_CHECKING:
    from torch import Tensor


class LabelledColumns(NamedTuple):
    """Columns of the responses labelled earlier, not normalised, and their pairs, each with its two rows."""

    columns: "dict[str, Tensor]"
    pair_ids: list[str]
    row_a: "Tensor"
    row_b: "Tensor"


def read_columns(folder: StageFolder) -> "dict[str, Tensor]":
    """Every computed column with one row for each featurized response; empty where nothing was computed."""
    import torch

    names = sorted(path.name for path in folder.path.glob("features-*.safetensors"))
    units = [folder.read_tensors(name) for name in names]
    return {name: torch.cat([unit[name] for unit in units]) for name in (units[0] if units else ())}


def read_labelled(folder: StageFolder) -> LabelledColumns | None:
    """The columns computed again for the pairs labelled earlier; None where there are none."""
    import torch

    if not folder.has("labelled.safetensors"):
        return None
    rows = folder.read_rows("labelled.jsonl", LabelledPairRow)
    row_a = torch.tensor([row.row_a for row in rows], dtype=torch.int64)
    row_b = torch.tensor([row.row_b for row in rows], dtype=torch.int64)
    return LabelledColumns(folder.read_tensors("labelled.safetensors"), [row.pair_id for row in rows], row_a, row_b)
