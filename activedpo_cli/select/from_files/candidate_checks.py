"""What can be wrong with features, pairs and picks of the user's own although their files are whole."""

from typing import TYPE_CHECKING

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.select.from_files.pair_list import PairList

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.pairs.pair_features import Rows

NUMBERS_READ_AT_ONCE = 2**22
LARGEST = 1e150
"""Of float64: the squares of numbers beyond it overflow, or their sums do."""
LONGEST_UNIT_DIFFERENCE = 2.01
"""Of two rows at unit norm: 2, and what half precision makes of it."""


def check_used_responses(responses: TensorRows, pairs: PairList, normalise: str, progress: Progress) -> None:
    """Raise InvalidDataError for a response that a pair uses and that is not finite, or too large to be squared."""
    import torch

    used = torch.cat([pairs.row_a, pairs.row_b]).unique()
    step = max(1, NUMBERS_READ_AT_ONCE // responses.shape[1])
    with shown(progress, f"checking {responses.path.name}", len(used), "responses") as advance:
        for rows in used.split(step):
            bad = _first_bad(responses.take(rows), normalise == "none")
            if bad is not None:
                place, said = bad
                raise InvalidDataError(
                    f"row {int(rows[place])} of `features` of {responses.path} {said}",
                    hint="leave the pairs with that response out, or mend it",
                )
            advance(len(rows))


def check_labelled(labelled: "Tensor", path: object, normalise: str, progress: Progress) -> None:
    """The same for φ of labelled pairs; warns where they are no differences of responses at unit norm, and should be."""
    import torch

    name = f"`pair_features` of {path}"
    bad = _first_bad(labelled, normalise != "pair")
    if bad is not None:
        raise InvalidDataError(f"row {bad[0]} of {name} {bad[1]}", hint="leave that pair out, or mend it")
    lengths = torch.linalg.vector_norm(labelled, dim=1)
    if normalise == "response" and len(lengths) and lengths.max() > LONGEST_UNIT_DIFFERENCE:
        row = int(lengths.argmax())
        progress.warn(
            f"row {row} of {name} has the length {float(lengths[row]):.4g}, and two responses at unit norm differ by 2 at "
            "most: under select.normalise=response it should hold differences of normalised responses"
        )


def warn_of_repeated_pairs(pairs: PairList, progress: Progress) -> None:
    """The same two responses, in either order, under several names: each can be picked."""
    import torch

    smaller, larger = torch.minimum(pairs.row_a, pairs.row_b), torch.maximum(pairs.row_a, pairs.row_b)
    repeated = len(pairs) - len((smaller * (int(larger.max()) + 1) + larger).unique())
    if repeated:
        count = "1 pair has" if repeated == 1 else f"{repeated} pairs have"
        progress.warn(f"{count} the two responses of another pair, and could be picked beside it")


def warn_of_empty_picks(pairs: "Rows", rows: list[int], progress: Progress) -> None:
    """Picks whose responses have equal features."""
    import torch

    empty = int((pairs.take(torch.tensor(sorted(rows))) == 0).all(dim=1).sum())
    if empty:
        progress.warn(
            f"{empty} of {len(rows)} picks have responses of equal features: their labels would bring no information"
        )


def _first_bad(features: "Tensor", is_squared: bool) -> tuple[int, str] | None:
    """The first row that can not be used, and what is wrong with it."""
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
