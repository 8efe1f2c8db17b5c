"""Bring feature vectors to unit norm."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float


def unit_rows(features: Float[Tensor, "rows proj_dim"]) -> Float[Tensor, "rows proj_dim"]:
    """Each row divided by its Euclidean norm; rows of zeros stay zero.

    Rows are first divided by their largest entry, so that very large and very small rows neither overflow nor vanish.
    """
    largest = torch.linalg.vector_norm(features, ord=torch.inf, dim=1, keepdim=True)
    scaled = features / torch.where(largest > 0, largest, 1.0)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled.div_(torch.where(norms > 0, norms, 1.0))
