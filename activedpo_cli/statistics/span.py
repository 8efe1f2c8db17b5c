"""The span of a few long vectors, so that what concerns them alone is computed in few dimensions."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float


def span_basis(rows: Float[Tensor, "rows proj_dim"]) -> Float[Tensor, "proj_dim rank"]:
    """Orthonormal columns whose span contains every row; min(rows, proj_dim) of them, none for no rows.

    Columns beyond the rank of the rows are arbitrary, which does no harm: all rows have the coordinate zero there.
    """
    return torch.linalg.qr(rows.T).Q
