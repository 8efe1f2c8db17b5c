"""What labelled and picked pairs cover: V = λI + Σ φφᵀ and λV⁻¹; a matrix of d × d entries only once they are d."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.exact_basis import NEGLIGIBLE, ExactBasis

EPSILON = 2.3e-16
"""Of float64."""

PRECISE = 1e-10
"""Relative error of what is left up to which it is taken as it is; beyond, it is computed without the rounding."""

WELL_CONDITIONED = 1e3
"""Of V: up to this, a Cholesky decomposition of the labelled pairs' products is as good as an orthogonal basis."""


class Coverage:
    """λV⁻¹ = I − WᵀW for the pairs labelled earlier and those picked since, a row of W for each direction they cover.

    λφᵀV⁻¹φ, "what is left" of a pair, comes in two ways. `left_by_history` and `covered_since` give it as ‖φ‖² − ‖Wφ‖²:
    one product of matrices for many pairs, and rounding of about 1e-13 ‖φ‖². `left_of` works in an orthonormal basis Q of
    what is covered, ‖φ − QᵀQφ‖² + λ‖R⁻ᵀQφ‖² with V = QᵀRᵀRQ in the span of Q, in which nothing cancels; it costs up to
    four products as large, with fewer pairs.

    Where at least d pairs were labelled earlier, they have a triangle R with V = RᵀR instead of rows of W, and Q is I.
    """

    def __init__(self, labelled: Float[Tensor, "labelled proj_dim"], ridge: float, budget: int) -> None:
        self.ridge = ridge
        self._labelled = labelled
        self._row_space: tuple[Tensor, Tensor] | None = None
        self._triangle = _triangle_of(labelled, ridge) if 0 < labelled.shape[1] <= len(labelled) else None
        self._history = labelled[:0] if self._triangle is not None else self._history_directions()
        self._directions = labelled.new_zeros(budget, labelled.shape[1])
        self._picked = torch.zeros_like(self._directions)
        self.count = 0
        """Pairs added so far."""
        self._exact: ExactBasis | None = None

    @property
    def has_history(self) -> bool:
        """Whether any pair was labelled earlier."""
        return len(self._labelled) > 0

    def rounding(self, largest_squared_norm: float) -> float:
        """Error of ‖φ‖² − ‖Wφ‖² that rounding can cause, relative to ‖φ‖², among pairs with norms up to this one's."""
        trace = float(self._labelled.square().sum()) + largest_squared_norm
        return 1e-13 + EPSILON * (4 * trace / self.ridge) ** 0.5

    def left_by_history(
        self, features: Float[Tensor, "pairs proj_dim"], squared_norms: Float[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """What the pairs labelled earlier leave of each pair, up to rounding."""
        if self._triangle is not None:
            whitened = torch.linalg.solve_triangular(self._triangle.T, features.T, upper=False)
            return whitened.square_().sum(dim=0).mul_(self.ridge)
        return squared_norms - (features @ self._history.T).square_().sum(dim=1)

    def covered_since(self, features: Float[Tensor, "pairs proj_dim"], first: int) -> Float[Tensor, " pairs"]:
        """‖Wφ‖² of each pair over the pairs added, from number `first` on."""
        return (features @ self._directions[first : self.count].T).square_().sum(dim=1)

    def add(self, feature: Float[Tensor, " proj_dim"], slack: float, exactly: bool | None = None) -> tuple[float, bool]:
        """Take a pair in; returns what was left of it, and whether that was computed without the rounding.

        That depends on the pairs taken in before and this one alone, to the last bit. `slack` is what rounding can be; where
        it is not small beside what is left, or `exactly` says so, an exact look is taken.
        """
        self._picked[self.count] = feature
        feature = self._picked[self.count]  # where it lies in memory can decide how a product is rounded
        left, shrunk = self._shrink(feature)
        if exactly is None:
            exactly = slack > PRECISE * left
        if exactly:
            left, shrunk = self._exact_basis().shrink(feature)
        left = max(0.0, left)
        if left > 0:  # else V⁻¹φ is zero, and so is the direction
            self._directions[self.count] = shrunk / (left + self.ridge) ** 0.5
        self.count += 1
        return left, exactly

    def left_of(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair, to a relative accuracy that V itself allows."""
        return self._exact_basis().left_of(features)

    def _shrink(self, feature: Float[Tensor, " proj_dim"]) -> tuple[float, Float[Tensor, " proj_dim"]]:
        """λφᵀV⁻¹φ and λV⁻¹φ, up to rounding."""
        directions = self._directions[: self.count]
        covered = directions @ feature
        if self._triangle is None:
            by_history = self._history @ feature
            shrunk = feature - self._history.T @ by_history
            left = feature.square().sum() - by_history.square().sum()
        else:
            whitened = torch.linalg.solve_triangular(self._triangle.T, feature[:, None], upper=False)
            shrunk = torch.linalg.solve_triangular(self._triangle, whitened, upper=True)[:, 0] * self.ridge
            left = whitened.square().sum() * self.ridge
        return float(left - covered.square().sum()), shrunk - directions.T @ covered

    def _history_directions(self) -> Float[Tensor, "rank proj_dim"]:
        """Rows W with λV⁻¹ = I − WᵀW for the pairs labelled earlier."""
        gram = self._labelled @ self._labelled.T
        if not len(gram) or gram.abs().sum(dim=1).max() <= WELL_CONDITIONED * self.ridge:
            gram.diagonal().add_(self.ridge)
            return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), self._labelled, upper=False)
        basis, spread = self._row_space_of_history()
        return (spread / (spread.square() + self.ridge).sqrt())[:, None] * basis

    def _row_space_of_history(self) -> tuple[Float[Tensor, "rank proj_dim"], Float[Tensor, " rank"]]:
        if self._row_space is None:
            self._row_space = _row_space(self._labelled)
        return self._row_space

    def _exact_basis(self) -> "ExactBasis":
        if self._exact is None:
            if self._triangle is None:
                basis, spread = self._row_space_of_history()
                triangle = torch.diag((spread.square() + self.ridge).sqrt())
            else:
                basis, triangle = None, self._triangle
            self._exact = ExactBasis(basis, triangle, self.ridge, len(self._picked))
        for pick in range(self._exact.picks, self.count):
            self._exact.add(self._picked[pick])
        return self._exact


def _triangle_of(labelled: Float[Tensor, "labelled proj_dim"], ridge: float) -> Float[Tensor, "proj_dim proj_dim"]:
    """Upper triangle R with RᵀR = V of at least d pairs."""
    design = labelled.T @ labelled
    if design.abs().sum(dim=1).max() <= WELL_CONDITIONED * ridge:
        design.diagonal().add_(ridge)
        return torch.linalg.cholesky(design).contiguous().T  # columns lie together, which makes solving faster
    identity = torch.eye(len(design)).to(design)
    return torch.linalg.qr(torch.cat([labelled, identity * ridge**0.5]), mode="r").R.T.contiguous().T


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
