"""Other ways to pick greedily, in their fastest form that was found: what `select.design.greedy` is timed against."""

import torch
from torch import Tensor

from activedpo_cli.select.design.design import design_matrix, pair_uncertainty


def inverse_design(labelled: Tensor, ridge: float) -> Tensor:
    """V⁻¹, d × d, of the pairs labelled earlier by Woodbury's identity: one product of matrices and nothing of size d³."""
    count, proj_dim = labelled.shape
    inverse = torch.eye(proj_dim, dtype=labelled.dtype).div_(ridge)
    if count:
        gram = labelled @ labelled.T
        gram.diagonal().add_(ridge)
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), labelled, upper=False)
        inverse.addmm_(whitened.T, whitened, alpha=-1 / ridge)
    return inverse


def sherman_morrison(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> tuple[list[int], Tensor]:
    """The picks, with V⁻¹ and all scores brought up to date in place after each, and V⁻¹ at the end; O(d² + n d) a pick."""
    inverse = inverse_design(labelled, ridge)
    scores = (features @ inverse).mul_(features).sum(dim=1) if len(labelled) else features.square().sum(dim=1) / ridge
    rows: list[int] = []
    for _ in range(budget):
        row = int(scores.argmax())
        solved = inverse @ features[row]
        gain = 1 + float(features[row] @ solved)
        scores -= (features @ solved).square_().div_(gain)
        inverse.addr_(solved, solved, alpha=-1 / gain)
        rows.append(row)
        scores[rows] = -torch.inf
    return rows, inverse


def scores_as_written(features: Tensor, inverse: Tensor) -> Tensor:
    """φᵀV⁻¹φ of all pairs from V⁻¹, as the paper writes a pick; O(n d²)."""
    return (features @ inverse).mul_(features).sum(dim=1)


def textbook(features: Tensor, labelled: Tensor, ridge: float, budget: int) -> list[int]:
    """The picks in float64, with V and its inverse from scratch for each."""
    features, labelled = features.double(), labelled.double()
    rows: list[int] = []
    for _ in range(budget):
        design = design_matrix(torch.cat([labelled, features[rows]]), ridge)
        scores = pair_uncertainty(features, torch.linalg.inv(design))
        scores[rows] = -1
        rows.append(int(scores.argmax()))
    return rows
