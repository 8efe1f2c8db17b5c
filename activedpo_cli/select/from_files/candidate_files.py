"""Reads the files of `select --features`, and checks what they hold."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.settings import Config
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.select.from_files.pair_list import PairList, read_pairs

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS_READ_AT_ONCE = 2**22
LARGEST = 1e150
"""The squares of larger numbers, or their sums, overflow in float64."""
LONGEST_UNIT_DIFFERENCE = 2.01
"""How far two rows at unit norm can be apart: 2, and what half precision makes of it."""


@dataclass(frozen=True)
class CandidateFiles:
    """Features of responses, pairs of them, and φ of the pairs labelled earlier, in float64."""

    responses: TensorRows
    labelled: "Tensor"
    pairs: PairList

    def bytes_in_memory(self) -> int:
        """What a choice in memory takes: the features as they are stored, and φ in float64, for the pool once more.

        What picks cover of the pool, and products of the likely ones with it, take a quarter of that (`SHARE_OF_FEATURES`).
        """
        count, proj_dim = self.responses.shape
        return proj_dim * (self.responses.bytes_per_number * count + 18 * len(self.pairs))


def read_candidate_files(
    features: Path, pairs: Path, labelled_pairs: Path | None, config: Config, progress: Progress
) -> CandidateFiles:
    """The three files; raises InvalidDataError, naming the file and what is wrong in it.

    Features are looked at only where the method needs them. Warns of pairs that are there twice.
    """
    import torch

    responses = TensorRows(features, "features")
    proj_dim = responses.shape[1]
    if not proj_dim or not responses.shape[0]:
        raise InvalidDataError(f"`features` of {features} is empty: its shape is {list(responses.shape)}")
    labelled = torch.zeros(0, proj_dim, dtype=torch.float64)
    if labelled_pairs is not None:
        rows = TensorRows(labelled_pairs, "pair_features")
        if rows.shape[1] != proj_dim:
            raise InvalidDataError(
                f"`pair_features` of {labelled_pairs} has {rows.shape[1]} columns, and `features` of "
                f"{features} has {proj_dim}"
            )
        labelled = rows.read(0, rows.shape[0]).double()
        _check_labelled(labelled, labelled_pairs, config.select.normalise, progress)
    listed = read_pairs(pairs, responses.shape[0], progress)
    _warn_of_repeated_pairs(listed, progress)
    if needs_features(config):
        _check_used_responses(responses, listed, config.select.normalise, progress)
    return CandidateFiles(responses, labelled, listed)


def check_budget(config: Config, table: CandidateFiles, path: Path) -> None:
    """Raise InvalidDataError where fewer pairs can be chosen than the budget asks for."""
    from activedpo_cli.select.methods.base import capacity

    pairs, budget, limit = table.pairs, config.select.budget, config.select.max_per_prompt
    if limit is not None and pairs.prompt_index is None:
        raise InvalidDataError(f"select.max_per_prompt needs a `prompt_id` in every line of {path}")
    available = len(pairs) if pairs.prompt_index is None else capacity(pairs.prompt_index, limit)
    if budget > available:
        raise InvalidDataError(
            f"the budget is {budget} pairs, but only {available} of {path} can be chosen", hint=f"--budget {available}"
        )


def needs_features(config: Config) -> bool:
    """Whether the method looks at features at all."""
    return "features" in discovery.declared_needs("acquisition", config.select.method)


def _check_used_responses(responses: TensorRows, pairs: PairList, normalise: str, progress: Progress) -> None:
    """Raise InvalidDataError for a response that a pair uses and that is not finite, or too large to be squared."""
    import torch

    used = torch.cat([pairs.row_a, pairs.row_b]).unique()
    step = max(1, NUMBERS_READ_AT_ONCE // responses.shape[1])
    with shown(progress, f"checking {responses.path.name}", len(used), "responses") as advance:
        for rows in used.split(step):
            bad = first_unusable(responses.take(rows), normalise == "none")
            if bad is not None:
                place, said = bad
                raise InvalidDataError(
                    f"row {int(rows[place])} of `features` of {responses.path} {said}",
                    hint="leave the pairs with that response out, or mend it",
                )
            advance(len(rows))


def _check_labelled(labelled: "Tensor", path: object, normalise: str, progress: Progress) -> None:
    """The same for φ of labelled pairs; warns where they are no differences of responses at unit norm, and should be."""
    import torch

    name = f"`pair_features` of {path}"
    bad = first_unusable(labelled, normalise != "pair")
    if bad is not None:
        raise InvalidDataError(f"row {bad[0]} of {name} {bad[1]}", hint="leave that pair out, or mend it")
    lengths = torch.linalg.vector_norm(labelled, dim=1)
    if normalise == "response" and len(lengths) and lengths.max() > LONGEST_UNIT_DIFFERENCE:
        row = int(lengths.argmax())
        progress.warn(
            f"row {row} of {name} has the length {float(lengths[row]):.4g}, and two responses at unit norm differ by 2 at "
            "most: under select.normalise=response it should hold differences of normalised responses"
        )


def _warn_of_repeated_pairs(pairs: PairList, progress: Progress) -> None:
    """The same two responses, in either order, under several names: each can be picked."""
    import torch

    smaller, larger = torch.minimum(pairs.row_a, pairs.row_b), torch.maximum(pairs.row_a, pairs.row_b)
    repeated = len(pairs) - len((smaller * (int(larger.max()) + 1) + larger).unique())
    if repeated:
        count = "1 pair has" if repeated == 1 else f"{repeated} pairs have"
        progress.warn(f"{count} the two responses of another pair, and could be picked beside it")


def first_unusable(features: "Tensor", is_squared: bool) -> tuple[int, str] | None:
    """The first row that can not be used, and what is wrong with it; rows that are squared must not overflow."""
    import torch

    bad = (~features.isfinite()).any(dim=1).nonzero().flatten()
    if len(bad):
        return int(bad[0]), "is not finite"
    if is_squared and features.dtype == torch.float64:
        large = (features.abs() > LARGEST).any(dim=1).nonzero().flatten()
        if len(large):
            row = int(large[0])
            return row, f"holds {float(features[row].abs().max()):.3g}, whose square is too large for float64"
    return None
