"""What labelled and picked pairs cover: V = λI + Σ φφᵀ and λV⁻¹, without a matrix of d × d entries."""

import torch
from torch import Tensor

from activedpo_cli.shapes import Float

NEGLIGIBLE = 1e-13
"""A part of a vector this short, relatively, is rounding."""

EPSILON = 2.3e-16
"""Of float64."""

MOSTLY = 1e-2
"""Of ‖φ‖², what lies outside of what is covered: from this on it is a difference of squares, good to 1e-13."""

WELL_CONDITIONED = 1e3
"""Of V: up to this, a Cholesky decomposition of the labelled pairs' products is as good as an orthogonal basis."""


class Coverage:
    """λV⁻¹ = I − WᵀW for the pairs labelled earlier and those picked since, a row of W for each direction they cover.

    λφᵀV⁻¹φ, "what is left" of a pair, comes in two ways. `covered` gives ‖Wφ‖², to be taken off ‖φ‖²: one product of
    matrices for many pairs, and rounding of about 1e-13 ‖φ‖². `left_of` works in an orthonormal basis Q of what is
    covered, ‖φ − QᵀQφ‖² + λ‖R⁻ᵀQφ‖² with V = QᵀRᵀRQ in the span of Q, in which nothing cancels; it costs up to four
    products as large, with fewer pairs.
    """

    def __init__(self, labelled: Float[Tensor, "labelled proj_dim"], ridge: float, budget: int) -> None:
        self.ridge = ridge
        self._labelled = labelled
        self._row_space: tuple[Tensor, Tensor] | None = None
        self._history = self._history_directions()
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

    def _history_directions(self) -> Float[Tensor, "rank proj_dim"]:
        """Rows W with λV⁻¹ = I − WᵀW for the pairs labelled earlier."""
        count, proj_dim = self._labelled.shape
        if count <= proj_dim:
            gram = self._labelled @ self._labelled.T
            if not count or gram.abs().sum(dim=1).max() <= WELL_CONDITIONED * self.ridge:
                gram.diagonal().add_(self.ridge)
                return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), self._labelled, upper=False)
        basis, spread = self._row_space_of_history()
        return (spread / (spread.square() + self.ridge).sqrt())[:, None] * basis

    def _row_space_of_history(self) -> tuple[Float[Tensor, "rank proj_dim"], Float[Tensor, " rank"]]:
        if self._row_space is None:
            self._row_space = _row_space(self._labelled)
        return self._row_space

    def _exact_basis(self) -> "_ExactBasis":
        if self._exact is None:
            self._exact = _ExactBasis(*self._row_space_of_history(), self.ridge, len(self._picked))
        for pick in range(self._exact.picks, self.count):
            self._exact.add(self._picked[pick])
        return self._exact


class _ExactBasis:
    """An orthonormal basis of everything covered, and V within it: D(I + AᵀA)D, D of the history and A of the picks.

    The basis diagonalises what the labelled pairs add to V, so D is a diagonal; a row of A is a pick's coordinates times
    D⁻¹. With Aᵀ = QT, (I + AᵀA)⁻¹ is 1 outside of Q and (I + TTᵀ)⁻¹ = R⁻¹R⁻ᵀ within, a matrix of picks × picks.
    """

    def __init__(
        self, basis: Float[Tensor, "rank proj_dim"], spread: Float[Tensor, " rank"], ridge: float, budget: int
    ) -> None:
        rank, proj_dim = basis.shape
        self._ridge = ridge
        self._basis = basis.new_zeros(min(rank + budget, proj_dim), proj_dim)
        self._basis[:rank] = basis
        self._rank = rank
        self._scales = basis.new_full((len(self._basis),), ridge**0.5)
        self._scales[:rank] = (spread.square() + ridge).sqrt()
        self._picks = basis.new_zeros(budget, len(self._basis))
        self.picks = 0
        """Pairs added so far."""
        self._factors: tuple[Tensor, Tensor] | None = None

    def add(self, feature: Float[Tensor, " proj_dim"]) -> None:
        """Cover one more pair."""
        inside, outside = self._split(feature[None])
        length = torch.linalg.vector_norm(outside)
        self._picks[self.picks, : self._rank] = inside[0] / self._scales[: self._rank]
        if length > NEGLIGIBLE * torch.linalg.vector_norm(feature) and self._rank < len(self._basis):
            self._basis[self._rank] = outside[0] / length
            self._picks[self.picks, self._rank] = length / self._scales[self._rank]
            self._rank += 1
        self.picks += 1
        self._factors = None

    def left_of(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair."""
        inside = features @ self._basis[: self._rank].T
        whole = torch.linalg.vector_norm(features, dim=1).square()
        squared = whole - torch.linalg.vector_norm(inside, dim=1).square()
        mostly_covered = squared < MOSTLY * whole
        if mostly_covered.any():  # else the difference has its digits, at a quarter of the price
            again, outside = self._split(features[mostly_covered])
            inside[mostly_covered] = again
            squared[mostly_covered] = torch.linalg.vector_norm(outside, dim=1).square()
        beside, within = self._by_picks(inside / self._scales[: self._rank])
        whitened = torch.linalg.solve_triangular(self._q_and_r()[1].T, within.T, upper=False)
        by_picks = torch.linalg.vector_norm(whitened, dim=0).square()
        return squared + self._ridge * (torch.linalg.vector_norm(beside, dim=1).square() + by_picks)

    def shrink(self, feature: Float[Tensor, " proj_dim"]) -> Float[Tensor, " proj_dim"]:
        """λV⁻¹φ."""
        inside, outside = self._split(feature[None])
        beside, within = self._by_picks(inside / self._scales[: self._rank])
        q, r = self._q_and_r()
        solved = beside + (q @ torch.cholesky_solve(within.T, r, upper=True)).T
        return outside[0] + self._ridge * ((solved / self._scales[: self._rank]) @ self._basis[: self._rank])[0]

    def _split(
        self, features: Float[Tensor, "pairs proj_dim"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, "pairs proj_dim"]]:
        """Coordinates in the basis, and what lies outside of it."""
        return _split_twice(features, self._basis[: self._rank])

    def _by_picks(
        self, scaled: Float[Tensor, "pairs rank"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, "pairs directions"]]:
        """Coordinates times D⁻¹: what lies beside the picks' own, and coordinates in Q."""
        within, beside = _split_twice(scaled, self._q_and_r()[0].T)
        return beside, within

    def _q_and_r(self) -> tuple[Float[Tensor, "rank directions"], Float[Tensor, "directions directions"]]:
        """Q and R, with Aᵀ = QT and RᵀR = I + TTᵀ."""
        if self._factors is None:
            q, t = torch.linalg.qr(self._picks[: self.picks, : self._rank].T)
            identity = torch.eye(len(t), dtype=t.dtype, device=t.device)
            self._factors = q, torch.linalg.qr(torch.cat([t.T, identity]), mode="r").R
        return self._factors


def _split_twice(
    rows: Float[Tensor, "rows width"], basis: Float[Tensor, "rank width"]
) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rows width"]]:
    """Coordinates in an orthonormal basis, and what lies outside of it; taken twice, since once leaves rounding."""
    inside = rows @ basis.T
    outside = rows - inside @ basis
    more = outside @ basis.T
    return inside + more, outside - more @ basis


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
