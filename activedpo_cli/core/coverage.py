"""What labelled and picked pairs cover: V = λI + Σ φφᵀ and λV⁻¹, without a matrix of d × d entries."""

import torch
from torch import Tensor

from activedpo_cli.shapes import Float

NEGLIGIBLE = 1e-13
"""A part of a vector this short, relatively, is rounding."""

EPSILON = 2.3e-16
"""Of float64."""

WELL_CONDITIONED = 1e3
"""Of V: up to this, a Cholesky decomposition of the labelled pairs' products is as good as an orthogonal basis."""


class Coverage:
    """λV⁻¹ = I − WᵀW for the pairs labelled earlier and those picked since, a row of W for each direction they cover.

    λφᵀV⁻¹φ, "what is left" of a pair, comes in two ways. `covered` gives ‖Wφ‖², to be taken off ‖φ‖²: one product of
    matrices for many pairs, and rounding of about 1e-13 ‖φ‖². `left_of` works in an orthonormal basis Q of what is
    covered, ‖φ − QᵀQφ‖² + λ‖R⁻ᵀQφ‖² with V = QᵀRᵀRQ in the span of Q, in which nothing cancels; it is for few pairs.
    """

    def __init__(self, labelled: Float[Tensor, "labelled proj_dim"], ridge: float, budget: int) -> None:
        self.ridge = ridge
        self._labelled = labelled
        self._history = _history_directions(labelled, ridge)
        self._directions = labelled.new_zeros(budget, labelled.shape[1])
        self._picked = torch.zeros_like(self._directions)
        self.count = 0
        """Pairs added so far."""
        self._exact: _ExactBasis | None = None

    @property
    def has_history(self) -> bool:
        """Whether any pair was labelled earlier."""
        return len(self._labelled) > 0

    def rounding(self, largest_squared_norm: float) -> float:
        """Error of ‖φ‖² − ‖Wφ‖² that rounding can cause, relative to ‖φ‖², among pairs with norms up to this one's."""
        trace = float(self._labelled.square().sum()) + largest_squared_norm
        return 1e-13 + EPSILON * (4 * trace / self.ridge) ** 0.5

    def covered_by_history(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """‖Wφ‖² of each pair over the directions of the pairs labelled earlier."""
        return (features @ self._history.T).square_().sum(dim=1)

    def covered_since(self, features: Float[Tensor, "pairs proj_dim"], first: int) -> Float[Tensor, " pairs"]:
        """‖Wφ‖² of each pair over the pairs added, from number `first` on."""
        return (features @ self._directions[first : self.count].T).square_().sum(dim=1)

    def add(self, feature: Float[Tensor, " proj_dim"], left: float, *, exactly: bool) -> None:
        """Take a pair in, whose λφᵀV⁻¹φ so far is `left`; `exactly` where that is small beside ‖φ‖²."""
        self._picked[self.count] = feature
        if left > 0:  # else V⁻¹φ is zero, and so is the direction
            direction = self._exact_basis().shrink(feature) if exactly else self._shrink(feature)
            self._directions[self.count] = direction / (left + self.ridge) ** 0.5
        self.count += 1

    def left_of(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair, to a relative accuracy that V itself allows."""
        return self._exact_basis().left_of(features)

    def _shrink(self, feature: Float[Tensor, " proj_dim"]) -> Float[Tensor, " proj_dim"]:
        """λV⁻¹φ."""
        directions = self._directions[: self.count]
        by_history = self._history.T @ (self._history @ feature)
        return feature - by_history - directions.T @ (directions @ feature)

    def _exact_basis(self) -> "_ExactBasis":
        if self._exact is None:
            self._exact = _ExactBasis(*_row_space(self._labelled), self.ridge, len(self._picked))
        for pick in range(self._exact.picks, self.count):
            self._exact.add(self._picked[pick])
        return self._exact


class _ExactBasis:
    """An orthonormal basis of everything covered, and V within it as a triangular factor."""

    def __init__(
        self, basis: Float[Tensor, "rank proj_dim"], spread: Float[Tensor, " rank"], ridge: float, budget: int
    ) -> None:
        rank, proj_dim = basis.shape
        self._ridge = ridge
        self._basis = basis.new_zeros(min(rank + budget, proj_dim), proj_dim)
        self._basis[:rank] = basis
        self._rank = rank
        self._coordinates = basis.new_zeros(rank + budget, len(self._basis))
        self._coordinates[:rank, :rank] = torch.diag(spread)
        self._count = rank
        self._history = rank
        self._factor: Tensor | None = None

    @property
    def picks(self) -> int:
        """Pairs added so far."""
        return self._count - self._history

    def add(self, feature: Float[Tensor, " proj_dim"]) -> None:
        """Cover one more pair."""
        inside, outside = self._split(feature[None])
        length = torch.linalg.vector_norm(outside)
        self._coordinates[self._count, : self._rank] = inside[0]
        if length > NEGLIGIBLE * torch.linalg.vector_norm(feature) and self._rank < len(self._basis):
            self._basis[self._rank] = outside[0] / length
            self._coordinates[self._count, self._rank] = length
            self._rank += 1
        self._count += 1
        self._factor = None

    def left_of(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair."""
        inside, outside = self._split(features)
        whitened = torch.linalg.solve_triangular(self._triangle().T, inside.T, upper=False)
        squared = torch.linalg.vector_norm(outside, dim=1).square()
        return squared + self._ridge * torch.linalg.vector_norm(whitened, dim=0).square()

    def shrink(self, feature: Float[Tensor, " proj_dim"]) -> Float[Tensor, " proj_dim"]:
        """λV⁻¹φ."""
        inside, outside = self._split(feature[None])
        solved = torch.cholesky_solve(inside.T, self._triangle(), upper=True)
        return outside[0] + self._ridge * (solved.T @ self._basis[: self._rank])[0]

    def _split(
        self, features: Float[Tensor, "pairs proj_dim"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, "pairs proj_dim"]]:
        """Coordinates in the basis, and what lies outside of it; taken twice, since once leaves rounding."""
        basis = self._basis[: self._rank]
        inside = features @ basis.T
        outside = features - inside @ basis
        more = outside @ basis.T
        return inside + more, outside - more @ basis

    def _triangle(self) -> Float[Tensor, "rank rank"]:
        """R with RᵀR = V within the basis."""
        if self._factor is None:
            coordinates = self._coordinates[: self._count, : self._rank]
            padding = self._ridge**0.5 * torch.eye(self._rank, dtype=coordinates.dtype, device=coordinates.device)
            self._factor = torch.linalg.qr(torch.cat([coordinates, padding]), mode="r").R
        return self._factor


def _history_directions(labelled: Float[Tensor, "labelled proj_dim"], ridge: float) -> Float[Tensor, "rank proj_dim"]:
    """Rows W with λV⁻¹ = I − WᵀW for the pairs labelled earlier."""
    count, proj_dim = labelled.shape
    if count <= proj_dim:
        gram = labelled @ labelled.T
        if not count or gram.abs().sum(dim=1).max() <= WELL_CONDITIONED * ridge:
            gram.diagonal().add_(ridge)
            return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), labelled, upper=False)
    basis, spread = _row_space(labelled)
    return (spread / (spread.square() + ridge).sqrt())[:, None] * basis


def _row_space(
    rows: Float[Tensor, "rows proj_dim"],
) -> tuple[Float[Tensor, "rank proj_dim"], Float[Tensor, " rank"]]:
    """Right singular vectors, one a row, and the singular values; those that are rounding are left out."""
    if not len(rows):
        return rows, rows.new_zeros(0)
    q, r = torch.linalg.qr(rows.T)
    left, values, _ = torch.linalg.svd(r, full_matrices=False)
    kept = values > NEGLIGIBLE * values[0]
    return (q @ left[:, kept]).T.contiguous(), values[kept]
