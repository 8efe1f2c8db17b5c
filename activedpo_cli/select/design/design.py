"""`Design`: V = λI + Σ φφᵀ and ‖φ‖ in V⁻¹, without a d × d matrix unless d pairs or more are labelled.

`design_matrix` and `pair_uncertainty` are the paper's equations as it writes them, slow and the truth in tests; `Design`
computes the same.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.select.design.exact_basis import ExactBasis
from activedpo_cli.select.design.history import History
from activedpo_cli.select.design.sample_space import BLOCK, LARGEST, SampleSpace

EPSILON = 2.3e-16
"""The rounding of one operation in float64."""

PRECISE = 1e-10
"""A quick value is used where rounding can have changed it by no more than this, relatively; else it is computed exactly."""


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

    λφᵀV⁻¹φ, "what is left" of a pair, comes in two ways. The quick one is ‖φ‖² − ‖Wφ‖² with λV⁻¹ = I − WᵀW and a row of W
    for each direction covered: products of matrices for many pairs, and rounding of about 1e-13 ‖φ‖². The exact one,
    `left_of` and `norms`, works in an orthonormal basis Q of what is covered, ‖φ − QᵀQφ‖² + λ‖R⁻ᵀQφ‖² with V = QᵀRᵀRQ in
    the span of Q, in which nothing cancels; it costs up to four products as large, so it pays for fewer pairs.

    Added pairs stay in `SampleSpace`, where they cost little, until the first one that needs the exact way.
    """

    def __init__(self, labelled: Float[Tensor, "labelled proj_dim"], ridge: float, picks: int = 0) -> None:
        """Raises ValueError unless λ is positive and the labelled pairs' features are finite."""
        if not ridge > 0:
            raise ValueError(f"ridge must be positive, not {ridge}")
        _check_finite(labelled)
        self.ridge = ridge
        self._labelled = labelled.to(torch.float64)
        self._history = History(self._labelled, ridge)
        self._most = picks
        self._picked = self._labelled.new_zeros(-(-picks // BLOCK) * BLOCK, labelled.shape[1])
        self._directions = torch.zeros_like(self._picked)
        """λV⁻¹φ/√(left + λ) of the pairs added, up to `_directed` of them."""
        self._directed = 0
        self.count = 0
        """Pairs added so far."""
        self._places = min(len(self._picked), max(BLOCK, labelled.shape[1] // BLOCK * BLOCK), LARGEST)
        self._sample_space: SampleSpace | None = SampleSpace(self._history, ridge, self._picked[: self._places])
        self._lefts: list[tuple[float, bool]] = []
        """Of all pairs added, once one was added outside of sample space."""
        self._exact: ExactBasis | None = None

    @property
    def has_history(self) -> bool:
        """Whether any pair was labelled earlier."""
        return len(self._labelled) > 0

    @property
    def is_in_sample_space(self) -> bool:
        """Whether no pair was added yet that needed the exact way, so that products of pairs are enough."""
        return self._sample_space is not None

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
        trace = float(torch.linalg.vector_norm(self._labelled)) ** 2 + largest_squared_norm
        return 1e-13 + EPSILON * (4 * trace / self.ridge) ** 0.5

    def left_by_history(
        self, features: Float[Tensor, "pairs proj_dim"], squared_norms: Float[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """What the pairs labelled earlier leave of each pair, up to rounding."""
        return self._history.left_of(squared_norms, self._history.coordinates(features))

    def covered_since(self, features: Float[Tensor, "pairs proj_dim"], first: int) -> Float[Tensor, " pairs"]:
        """‖Wφ‖² of each pair over the pairs added, from number `first` on."""
        return (features @ self._directions_of(self.count)[first:].T).square_().sum(dim=1)

    def shrink(self, features: Float[Tensor, "pairs proj_dim"], count: int) -> Float[Tensor, "pairs proj_dim"]:
        """λV⁻¹φ of each pair, up to rounding, V having the first `count` of the pairs added."""
        shrunk = self._history.shrink(features, self._history.coordinates(features))
        directions = self._directions_of(count)
        return torch.addmm(shrunk, features @ directions.T, directions, alpha=-1) if count else shrunk

    def add(
        self,
        feature: Float[Tensor, " proj_dim"],
        slack: float = math.inf,
        exactly: bool | None = None,
        about: float = 0.0,
    ) -> None:
        """Add a pair to V.

        `slack` is how large the rounding of the quick way can be, and `about` what is left of the pair to that precision,
        where that is known. The exact way is taken where `slack` is not small beside what is left, or where `exactly` says
        so.
        """
        self._picked[self.count] = feature
        if self._sample_space is not None and self.count < self._places:
            if exactly is None and slack <= PRECISE / 2 * about:  # then it is small beside what will be computed, too
                exactly = False
            if exactly is None:
                exactly = slack > PRECISE * self._sample_space.lefts(self.count + 1)[-1]
        if exactly is not False or self.count >= self._places:
            self._leave_sample_space()
        if self._sample_space is None:
            self._add_at_once(slack, exactly)
        self.count += 1

    def lefts(self) -> list[tuple[float, bool]]:
        """What was left of each pair added before it was, and whether that was computed exactly.

        The result for a pair depends on it and those added before alone, to the last bit.
        """
        if self._sample_space is None:
            return self._lefts
        return [(left, False) for left in self._sample_space.lefts(self.count)]

    def left_of(self, features: Float[Tensor, "pairs proj_dim"]) -> Float[Tensor, " pairs"]:
        """λφᵀV⁻¹φ of each pair, to a relative accuracy that V itself allows."""
        return self._exact_basis().left_of(features)

    def _add_at_once(self, slack: float, exactly: bool | None) -> None:
        feature = self._picked[self.count]  # where it lies in memory can decide how a product is rounded
        left, shrunk = self._shrink(feature)
        if exactly is None:
            exactly = slack > PRECISE * left
        if exactly:
            left, shrunk = self._exact_basis().shrink(feature)
        left = max(0.0, left)
        if left > 0:  # where nothing is left, V⁻¹φ is zero, and so is the direction
            self._directions[self.count] = shrunk / (left + self.ridge) ** 0.5
        self._lefts.append((left, exactly))

    def _leave_sample_space(self) -> None:
        """Keep what it knows of the pairs added so far; all further ones are added at once."""
        if self._sample_space is not None:
            self._directions_of(self.count)
            self._lefts = self.lefts()
            self._sample_space = None
            self._directions[self.count :] = 0

    def _directions_of(self, count: int) -> Float[Tensor, "count proj_dim"]:
        if self._sample_space is not None and self._directed < count:
            self._sample_space.write_directions(self._directions, self._directed, count)
            self._directed = count
        return self._directions[:count]

    def _shrink(self, feature: Float[Tensor, " proj_dim"]) -> tuple[float, Float[Tensor, " proj_dim"]]:
        """λφᵀV⁻¹φ and λV⁻¹φ, up to rounding."""
        by_history = self._history.coordinates(feature[None])
        left = self._history.left_of(feature.square().sum()[None], by_history)[0]
        directions = self._directions[: self.count]
        covered = directions @ feature
        shrunk = self._history.shrink(feature[None], by_history)[0] - directions.T @ covered
        return float(left - covered.square().sum()), shrunk

    def _exact_basis(self) -> ExactBasis:
        if self._exact is None:
            triangle, basis = self._history.triangle, None
            if triangle is None:
                basis, spread = self._history.row_space
                triangle = torch.diag((spread.square() + self.ridge).sqrt())
            self._exact = ExactBasis(basis, triangle, self.ridge, self._most)
        for pick in range(self._exact.picks, self.count):
            self._exact.add(self._picked[pick])
        return self._exact


def _check_finite(features: Float[Tensor, "pairs proj_dim"]) -> None:
    if features.numel() and not torch.linalg.vector_norm(features, ord=torch.inf).isfinite():
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
