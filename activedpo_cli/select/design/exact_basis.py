"""`ExactBasis`: λφᵀV⁻¹φ without cancellation, in an orthonormal basis of what is covered; slower than `Design`."""

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float

NEGLIGIBLE = 1e-13
"""A part of a vector this short, relatively, is rounding."""

MOSTLY = 1e-2
"""Where at least this share of ‖φ‖² lies outside of what is covered, a difference of squares gives it to 1e-13."""

FEWEST_ENTERING = 32
"""How many picks enter R at a time; where R is large it is more, since entering costs the third power of R's size."""


class ExactBasis:
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
        q, r = self._q_and_r()
        within, beside = _split_twice(self._over_triangle(inside), q.T)
        return squared + self._left_inside(beside, within, r)

    def shrink(self, feature: Float[Tensor, " proj_dim"]) -> tuple[float, Float[Tensor, " proj_dim"]]:
        """λφᵀV⁻¹φ and λV⁻¹φ."""
        inside, outside = self._split(feature[None])
        q, r = self._q_and_r()
        within, beside = _split_twice(self._over_triangle(inside), q.T)
        left = outside.square().sum() + self._left_inside(beside, within, r)[0]
        solved = beside + (q @ torch.cholesky_solve(within.T, r, upper=True)).T
        coordinates = self._over_triangle(solved, transposed=True)
        back = coordinates if self._basis is None else coordinates @ self._basis[: self._rank]
        return float(left), (outside + self._ridge * back)[0]

    def _left_inside(
        self,
        beside: Float[Tensor, "pairs rank"],
        within: Float[Tensor, "pairs directions"],
        r: Float[Tensor, "directions directions"],
    ) -> Float[Tensor, " pairs"]:
        """What is left of coordinates times R⁻¹: `within` are theirs in Q, and `beside` is the rest."""
        whitened = torch.linalg.solve_triangular(r.T, within.T, upper=False)
        by_picks = torch.linalg.vector_norm(whitened, dim=0).square()
        return self._ridge * (torch.linalg.vector_norm(beside, dim=1).square() + by_picks)

    def _inside_and_beyond(
        self, features: Float[Tensor, "pairs proj_dim"], basis: Float[Tensor, "rank proj_dim"]
    ) -> tuple[Float[Tensor, "pairs rank"], Float[Tensor, " pairs"]]:
        """Coordinates in the basis, and the squared length of what lies outside of it."""
        inside = features @ basis.T
        whole = torch.linalg.vector_norm(features, dim=1).square()
        squared = whole - torch.linalg.vector_norm(inside, dim=1).square()
        mostly_covered = squared < MOSTLY * whole
        if mostly_covered.any():  # for the others the difference of squares has its digits, at a quarter of the price
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
        if self._basis is not None and self._rank == self._basis.shape[1]:
            # A basis of all directions would only turn the coordinates, at the cost of a product.
            self._triangle = torch.linalg.qr(self._triangle @ self._basis, mode="r").R.contiguous()
            self._basis = None


def _split_twice(
    rows: Float[Tensor, "rows width"], basis: Float[Tensor, "rank width"]
) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rows width"]]:
    """Coordinates in an orthonormal basis, and what lies outside of it; taken twice, since once leaves rounding."""
    inside = rows @ basis.T
    outside = rows - inside @ basis
    more = outside @ basis.T
    return inside + more, outside - more @ basis
