"""`Design`: V = λI + Σ φφᵀ and ‖φ‖ in V⁻¹, without a d × d matrix unless d pairs or more are labelled.

`design_matrix` and `pair_uncertainty` are the paper's equations as it writes them, slow and the truth in tests; `Design`
computes the same.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.exact_basis import NEGLIGIBLE, ExactBasis

EPSILON = 2.3e-16
"""The rounding of one operation in float64."""

PRECISE = 1e-10
"""A quick value is used where rounding can have changed it by no more than this, relatively; else it is computed exactly."""

WELL_CONDITIONED = 1e3
"""Up to this condition of V, a Cholesky decomposition of the labelled pairs' products is as good as an orthogonal basis."""


@dataclass(frozen=True, kw_only=True)
class DesignDiagnostics:
    """V in two numbers.

    Attributes:
        condition: Largest eigenvalue of V divided by the smallest, which is λ as long as the pairs leave a direction
            free. Near 1 all scores are plain norms divided by √λ; a large one means that what was labelled counts.
        effective_dimension: tr(K(K + λI)⁻¹) with K the products of the pairs: about how many directions are known to
            better than λ. At most the number of pairs, and of features; 0 as λ grows.

    """

    condition: float
    effective_dimension: float


class Design:
    """V = λI + Σ φφᵀ of the pairs labelled earlier and of those added since, up to `picks` of them.

    λφᵀV⁻¹φ, "what is left" of a pair, comes in two ways. The quick one, `left_by_history` less `covered_since`, is
    ‖φ‖² − ‖Wφ‖² with λV⁻¹ = I − WᵀW and a row of W for each direction covered: one product of matrices for many pairs, and
    rounding of about 1e-13 ‖φ‖². The exact one, `left_of` and `norms`, works in an orthonormal basis Q of what is covered,
    ‖φ − QᵀQφ‖² + λ‖R⁻ᵀQφ‖² with V = QᵀRᵀRQ in the span of Q, in which nothing cancels; it costs up to four products as
    large, so it pays for fewer pairs.

    Where at least d pairs were labelled earlier, they have a triangle R with V = RᵀR instead of rows of W, and Q is I.

    Raises ValueError unless λ is positive and the labelled pairs' features are finite.
    """

    def __init__(self, labelled: Float[Tensor, "labelled proj_dim"], ridge: float, picks: int = 0) -> None:
        if not ridge > 0:
            raise ValueError(f"ridge must be positive, not {ridge}")
        _check_finite(labelled)
        self.ridge = ridge
        self._labelled = labelled.to(torch.float64)
        self._directions = self._labelled.new_zeros(picks, labelled.shape[1])
        self._picked = torch.zeros_like(self._directions)
        self.count = 0
        """Pairs added so far."""
        self._exact: ExactBasis | None = None

    @property
    def has_history(self) -> bool:
        """Whether any pair was labelled earlier."""
        return len(self._labelled) > 0

    def norms(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """‖φ‖ in V⁻¹ of each pair, Eq. (3) of arXiv 2505.19241, in float64 and as accurate as V itself allows.

        Raises ValueError unless the features are finite.
        """
        _check_finite(features)
        return (self.left_of(features.to(self._labelled)) / self.ridge).sqrt()

    def diagnostics(self) -> DesignDiagnostics:
        """The condition and the effective dimension of V, without a matrix beyond the smaller side of the pairs."""
        pairs = torch.cat([self._labelled, self._picked[: self.count]])
        count, proj_dim = pairs.shape
        eigenvalues = pairs.new_zeros(proj_dim)
        if count and proj_dim:
            tall = pairs if count > proj_dim else pairs.T
            triangle = torch.linalg.qr(tall, mode="r").R  # faster than the singular values of all rows
            values = torch.linalg.svdvals(triangle).square()  # of V − λI; those of a product would lose the small ones
            eigenvalues[: len(values)] = values
        return DesignDiagnostics(
            condition=float((eigenvalues.max() + self.ridge) / (eigenvalues.min() + self.ridge)) if proj_dim else 1.0,
            effective_dimension=float((eigenvalues / (eigenvalues + self.ridge)).sum()),
        )

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

    def add(
        self, feature: Float[Tensor, " proj_dim"], slack: float = math.inf, exactly: bool | None = None
    ) -> tuple[float, bool]:
        """Add a pair to V; returns what was left of it before, and whether that was computed exactly.

        The result depends on this pair and those added before alone, to the last bit. `slack` is how large the rounding of
        the quick way can be. The exact way is taken where that is not small beside what is left, or where `exactly` says so.
        """
        self._picked[self.count] = feature
        feature = self._picked[self.count]  # where it lies in memory can decide how a product is rounded
        left, shrunk = self._shrink(feature)
        if exactly is None:
            exactly = slack > PRECISE * left
        if exactly:
            left, shrunk = self._exact_basis().shrink(feature)
        left = max(0.0, left)
        if left > 0:  # where nothing is left, V⁻¹φ is zero, and so is the direction
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

    @cached_property
    def _triangle(self) -> Tensor | None:
        is_all_covered = 0 < self._labelled.shape[1] <= len(self._labelled)
        return _triangle_of(self._labelled, self.ridge) if is_all_covered else None

    @cached_property
    def _history(self) -> Float[Tensor, "rank proj_dim"]:
        """Rows W with λV⁻¹ = I − WᵀW for the pairs labelled earlier, where these have no triangle."""
        gram = self._labelled @ self._labelled.T
        if not len(gram) or gram.abs().sum(dim=1).max() <= WELL_CONDITIONED * self.ridge:
            gram.diagonal().add_(self.ridge)
            return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), self._labelled, upper=False)
        basis, spread = self._row_space
        return (spread / (spread.square() + self.ridge).sqrt())[:, None] * basis

    @cached_property
    def _row_space(self) -> tuple[Float[Tensor, "rank proj_dim"], Float[Tensor, " rank"]]:
        return _row_space(self._labelled)

    def _exact_basis(self) -> ExactBasis:
        if self._exact is None:
            if self._triangle is None:
                basis, spread = self._row_space
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


def _check_finite(features: Float[Tensor, "pairs proj_dim"]) -> None:
    if not features.isfinite().all():
        raise ValueError("pair features are not finite")


def design_matrix(
    pair_features: Float[Tensor, "labelled proj_dim"], ridge: float
) -> Float[Tensor, "proj_dim proj_dim"]:
    """V = λI + Σ φφᵀ over labelled pairs: what the labels bought so far have covered.

    Eq. (4) of arXiv 2505.19241, with the transpose that is missing there. Raises ValueError unless λ is positive.
    """
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, not {ridge}")
    identity = torch.eye(pair_features.shape[1], dtype=pair_features.dtype, device=pair_features.device)
    return ridge * identity + pair_features.T @ pair_features


def pair_uncertainty(
    pair_features: Float[Tensor, "pairs proj_dim"], design_inverse: Float[Tensor, "proj_dim proj_dim"]
) -> Float[Tensor, " pairs"]:
    """How little the labels bought so far say about each pair: ‖φ‖ in V⁻¹.

    Eq. (3) of arXiv 2505.19241.
    """
    squared = ((pair_features @ design_inverse) * pair_features).sum(dim=1)
    return squared.clamp_min(0).sqrt()  # rounding can leave a tiny negative
