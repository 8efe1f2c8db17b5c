"""`History`: what the pairs labelled earlier leave of others, by products with them.

Up to rounding; nothing of size d × d unless at least d pairs were labelled.
"""

from functools import cached_property

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.exact_basis import NEGLIGIBLE

WELL_CONDITIONED = 1e3
"""Up to this condition of V, a Cholesky decomposition of the labelled pairs' products is as good as an orthogonal basis."""


class History:
    """λV⁻¹ with V = λI + Σ φφᵀ of the pairs labelled earlier: I − WᵀW, with a row of W for each direction covered.

    W is L⁻¹H with the labelled pairs as rows of H and LLᵀ = HHᵀ + λI, or, where that would lose digits, an orthonormal basis
    of the rows of H, scaled. It is applied as its factors, since products with H are all that is large.

    Where at least d pairs were labelled, there is a triangle R with V = RᵀR in place of W, and λV⁻¹ is λR⁻¹R⁻ᵀ.
    """

    def __init__(self, labelled: Float[Tensor, "labelled proj_dim"], ridge: float) -> None:
        self._labelled = labelled
        self._ridge = ridge

    @cached_property
    def triangle(self) -> Float[Tensor, "proj_dim proj_dim"] | None:
        """R, where at least d pairs were labelled."""
        is_all_covered = 0 < self._labelled.shape[1] <= len(self._labelled)
        return _triangle_of(self._labelled, self._ridge) if is_all_covered else None

    @cached_property
    def row_space(self) -> tuple[Float[Tensor, "rank proj_dim"], Float[Tensor, " rank"]]:
        """Right singular vectors of the labelled pairs, one a row, and the singular values."""
        return _row_space(self._labelled)

    def coordinates(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, "pairs rank"]:
        """Wφ of each pair, or √λR⁻ᵀφ where there is R."""
        if self.triangle is not None:
            whitened = torch.linalg.solve_triangular(self.triangle.T, features.T, upper=False)
            return whitened.T.mul_(self._ridge**0.5)
        rows, lower = self._factors
        products = features @ rows.T
        return products if lower is None else torch.linalg.solve_triangular(lower.T, products, upper=True, left=False)

    def left_of(
        self, squared_norms: Float[Tensor, " pairs"], coordinates: Float[Tensor, "pairs rank"]
    ) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair."""
        squared = torch.linalg.vector_norm(coordinates, dim=1).square()
        return squared_norms - squared if self.triangle is None else squared

    def products(
        self,
        features: Float[Tensor, "pairs proj_dim"],
        coordinates: Float[Tensor, "pairs rank"],
        others: Float[Tensor, "others proj_dim"],
        coordinates_of_others: Float[Tensor, "others rank"],
    ) -> Float[Tensor, "pairs others"]:
        """λφᵀV⁻¹φ' of each pair with each of some others."""
        inside = coordinates @ coordinates_of_others.T
        return features @ others.T - inside if self.triangle is None else inside

    def shrink(
        self, features: Float[Tensor, "pairs proj_dim"], coordinates: Float[Tensor, "pairs rank"]
    ) -> Float[Tensor, "pairs proj_dim"]:
        """λV⁻¹φ of each pair."""
        if self.triangle is not None:
            shrunk = torch.linalg.solve_triangular(self.triangle, coordinates.T, upper=True)
            return shrunk.T.mul_(self._ridge**0.5)
        rows, lower = self._factors
        if lower is not None:
            coordinates = torch.linalg.solve_triangular(lower, coordinates, upper=False, left=False)
        return torch.addmm(features, coordinates, rows, alpha=-1)

    @cached_property
    def _factors(self) -> tuple[Float[Tensor, "rank proj_dim"], Float[Tensor, "rank rank"] | None]:
        """Rows, and L: W is the rows where there is no L, else L⁻¹ times these."""
        gram = self._labelled @ self._labelled.T
        if not len(gram):
            return self._labelled, None
        if gram.abs().sum(dim=1).max() <= WELL_CONDITIONED * self._ridge:
            gram.diagonal().add_(self._ridge)
            return self._labelled, torch.linalg.cholesky(gram)
        basis, spread = self.row_space
        return (spread / (spread.square() + self._ridge).sqrt())[:, None] * basis, None


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
