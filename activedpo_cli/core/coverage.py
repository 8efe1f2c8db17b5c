"""What labelled and picked pairs cover: V = λI + Σ φφᵀ and λV⁻¹; a matrix of d × d entries only once they are d."""

import torch
from torch import Tensor

from activedpo_cli.shapes import Float

NEGLIGIBLE = 1e-13
"""A part of a vector this short, relatively, is rounding."""

EPSILON = 2.3e-16
"""Of float64."""

MOSTLY = 1e-2
"""Of ‖φ‖², what lies outside of what is covered: from this on it is a difference of squares, good to 1e-13."""

FEWEST_ENTERING = 32
"""Picks that enter R at a time; more where R is large, of whose rows and columns that costs the third power."""

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
        self._exact: _ExactBasis | None = None

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
        if self._triangle is None:
            left = feature - self._history.T @ (self._history @ feature)
        else:
            left = torch.cholesky_solve(feature[:, None], self._triangle, upper=True)[:, 0] * self.ridge
        return left - directions.T @ (directions @ feature)

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

    def _exact_basis(self) -> "_ExactBasis":
        if self._exact is None:
            if self._triangle is None:
                basis, spread = self._row_space_of_history()
                triangle = torch.diag((spread.square() + self.ridge).sqrt())
            else:
                basis, triangle = None, self._triangle
            self._exact = _ExactBasis(basis, triangle, self.ridge, len(self._picked))
        for pick in range(self._exact.picks, self.count):
            self._exact.add(self._picked[pick])
        return self._exact


class _ExactBasis:
    """An orthonormal basis of everything covered, and V within it: Rᵀ(I + AᵀA)R.

    R is a triangle, of the history at first, and a row of A a pick's coordinates times R⁻¹. With Aᵀ = QT, (I + AᵀA)⁻¹ is 1
    outside of Q and (I + TTᵀ)⁻¹ within, a matrix of picks × picks. Before that becomes large, the picks enter R.
    """

    def __init__(
        self,
        basis: Float[Tensor, "rank proj_dim"] | None,
        triangle: Float[Tensor, "rank rank"],
        ridge: float,
        budget: int,
    ) -> None:
        """Without a basis, every direction is covered and coordinates are the features themselves."""
        self._ridge = ridge
        self._rank = len(triangle)
        self._basis: Tensor | None = None
        width = self._rank
        if basis is not None:
            width = min(self._rank + budget, basis.shape[1])
            self._basis = basis.new_zeros(width, basis.shape[1])
            self._basis[: self._rank] = basis
        self._triangle = triangle
        self._inside = triangle.new_zeros(budget, width)
        """Coordinates of the picks."""
        self._scaled = torch.zeros_like(self._inside)
        """A, from pick `_entered` on."""
        self._entered = 0
        """Picks that are in R."""
        self.picks = 0
        """Pairs added so far."""
        self._factors: tuple[Tensor, Tensor] | None = None

    def add(self, feature: Float[Tensor, " proj_dim"]) -> None:
        """Cover one more pair."""
        inside, outside = self._split(feature[None])
        self._inside[self.picks, : self._rank] = inside[0]
        if self._basis is not None and self._rank < len(self._basis):
            length = torch.linalg.vector_norm(outside)
            if length > NEGLIGIBLE * torch.linalg.vector_norm(feature):
                self._basis[self._rank] = outside[0] / length
                self._inside[self.picks, self._rank] = length
                self._rank += 1
        self._scaled[self.picks, : self._rank] = self._over_triangle(self._inside[self.picks, None, : self._rank])[0]
        self.picks += 1
        self._factors = None
        is_all_covered = self._basis is not None and self._rank == self._basis.shape[1]
        if is_all_covered or self.picks - self._entered >= max(FEWEST_ENTERING, self._rank ** (2 / 3)):
            self._enter()

    def left_of(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair."""
        if self._basis is None:
            inside, squared = features, features.new_zeros(len(features))
        else:
            inside, squared = self._inside_and_beyond(features, self._basis[: self._rank])
        beside, within = self._by_picks(self._over_triangle(inside))
        whitened = torch.linalg.solve_triangular(self._q_and_r()[1].T, within.T, upper=False)
        by_picks = torch.linalg.vector_norm(whitened, dim=0).square()
        return squared + self._ridge * (torch.linalg.vector_norm(beside, dim=1).square() + by_picks)

    def shrink(self, feature: Float[Tensor, " proj_dim"]) -> Float[Tensor, " proj_dim"]:
        """λV⁻¹φ."""
        inside, outside = self._split(feature[None])
        beside, within = self._by_picks(self._over_triangle(inside))
        q, r = self._q_and_r()
        solved = beside + (q @ torch.cholesky_solve(within.T, r, upper=True)).T
        coordinates = self._over_triangle(solved, transposed=True)
        back = coordinates if self._basis is None else coordinates @ self._basis[: self._rank]
        return (outside + self._ridge * back)[0]

    def _inside_and_beyond(
        self, features: Float[Tensor, "pairs proj_dim"], basis: Float[Tensor, "rank proj_dim"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, " pairs"]]:
        """Coordinates in the basis, and the squared length of what lies outside of it."""
        inside = features @ basis.T
        whole = torch.linalg.vector_norm(features, dim=1).square()
        squared = whole - torch.linalg.vector_norm(inside, dim=1).square()
        mostly_covered = squared < MOSTLY * whole
        if mostly_covered.any():  # else the difference has its digits, at a quarter of the price
            again, outside = _split_twice(features[mostly_covered], basis)
            inside[mostly_covered] = again
            squared[mostly_covered] = torch.linalg.vector_norm(outside, dim=1).square()
        return inside, squared

    def _split(
        self, features: Float[Tensor, "pairs proj_dim"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, "pairs proj_dim"]]:
        """Coordinates in the basis, and what lies outside of it."""
        if self._basis is None:
            return features, torch.zeros_like(features)
        return _split_twice(features, self._basis[: self._rank])

    def _over_triangle(
        self, coordinates: Float[Tensor, "pairs rank"], *, transposed: bool = False
    ) -> Float[Tensor, "pairs rank"]:
        """Coordinates times R⁻¹, or R⁻ᵀ; directions that are not in R yet have √λ there."""
        triangle, size = self._triangle, len(self._triangle)
        if transposed:
            triangle = triangle.T
        first = torch.linalg.solve_triangular(triangle, coordinates[:, :size], upper=not transposed, left=False)
        return torch.cat([first, coordinates[:, size:] / self._ridge**0.5], dim=1)

    def _by_picks(
        self, scaled: Float[Tensor, "pairs rank"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, "pairs directions"]]:
        """Coordinates times R⁻¹: what lies beside the picks' own, and coordinates in Q."""
        within, beside = _split_twice(scaled, self._q_and_r()[0].T)
        return beside, within

    def _q_and_r(self) -> tuple[Float[Tensor, "rank directions"], Float[Tensor, "directions directions"]]:
        """Q and the triangle U, with Aᵀ = QT and UᵀU = I + TTᵀ."""
        if self._factors is None:
            q, t = torch.linalg.qr(self._scaled[self._entered : self.picks, : self._rank].T)
            identity = torch.eye(len(t), dtype=t.dtype, device=t.device)
            self._factors = q, torch.linalg.qr(torch.cat([t.T, identity]), mode="r").R
        return self._factors

    def _enter(self) -> None:
        """Take the picks into R, by rotations alone: squares would lose half of the digits."""
        old = torch.block_diag(
            self._triangle, torch.eye(self._rank - len(self._triangle)).to(self._triangle) * self._ridge**0.5
        )
        stacked = torch.cat([old, self._inside[self._entered : self.picks, : self._rank]])
        self._triangle = torch.linalg.qr(stacked, mode="r").R.contiguous()
        self._entered = self.picks
        self._factors = None
        if self._basis is not None and self._rank == self._basis.shape[1]:  # coordinates gain nothing any more
            self._triangle = torch.linalg.qr(self._triangle @ self._basis, mode="r").R.contiguous()
            self._basis = None


def _triangle_of(labelled: Float[Tensor, "labelled proj_dim"], ridge: float) -> Float[Tensor, "proj_dim proj_dim"]:
    """Upper triangle R with RᵀR = V of at least d pairs."""
    design = labelled.T @ labelled
    if design.abs().sum(dim=1).max() <= WELL_CONDITIONED * ridge:
        design.diagonal().add_(ridge)
        return torch.linalg.cholesky(design).contiguous().T  # columns lie together, which makes solving faster
    identity = torch.eye(len(design)).to(design)
    return torch.linalg.qr(torch.cat([labelled, identity * ridge**0.5]), mode="r").R.T.contiguous().T


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
