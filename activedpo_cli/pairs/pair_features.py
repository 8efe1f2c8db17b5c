"""φ of pairs: the difference of two responses' features, normalised as `select.normalise` says, in memory or from files."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int

CHUNK_BYTES = 2**24
"""Bytes of φ in float64 that are computed at once, so that what is needed on the way stays small beside the result."""


@runtime_checkable
class Rows(Protocol):
    """Rows of features, of responses or of pairs, wherever they lie; `base.tensor_rows.TensorRows` has those of files."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and features of each."""

    def read(self, start: int, stop: int) -> Float[Tensor, "rows proj_dim"]:
        """Consecutive rows, for a reading of all from the first to the last; any float type."""

    def take(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        """Some rows; `rows` rises and repeats none."""


class RowsInMemory:
    """Rows of a tensor."""

    def __init__(self, features: Float[Tensor, "rows proj_dim"]) -> None:
        self._features = features

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and features of each."""
        count, proj_dim = self._features.shape
        return count, proj_dim

    def read(self, start: int, stop: int) -> Float[Tensor, "rows proj_dim"]:
        """Consecutive rows, without a copy."""
        return self._features[start:stop]

    def take(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        """Some rows; without a copy where it is all of them."""
        return self._features if len(rows) == len(self._features) else self._features[rows]


class PairFeatures:
    """φ = features of a − features of b as rows, in float64, for candidates and for pairs labelled earlier alike.

    This is the one place where `select.normalise` is applied: `response` brings the features of each response to unit norm,
    `pair` each difference, `none` nothing. Responses are brought to float64 first: the difference of two nearly parallel
    ones is small beside them, so that rounding in float32 would decide between pairs that tie.
    """

    def __init__(
        self, responses: Rows, row_a: Int[Tensor, " pairs"], row_b: Int[Tensor, " pairs"], normalise: str = "none"
    ) -> None:
        self._responses = responses
        self._row_a, self._row_b = row_a, row_b
        self._normalise = normalise

    @property
    def shape(self) -> tuple[int, int]:
        """Pairs, and features of each."""
        return len(self._row_a), self._responses.shape[1]

    def read(self, start: int, stop: int) -> Float[Tensor, "pairs proj_dim"]:
        """φ of consecutive pairs."""
        return self._differences(self._row_a[start:stop], self._row_b[start:stop])

    def take(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        """φ of some pairs, in any order."""
        return self._differences(self._row_a[rows], self._row_b[rows])

    def all(self) -> Float[Tensor, "pairs proj_dim"]:
        """φ of all pairs as one tensor."""
        count, proj_dim = self.shape
        step = max(1, CHUNK_BYTES // (8 * max(1, proj_dim)))
        if count <= step:
            return self.read(0, count)
        found = torch.empty(count, proj_dim, dtype=torch.float64, device=self.read(0, 1).device)
        for start in range(0, count, step):
            found[start : start + step] = self.read(start, min(start + step, count))
        return found

    def _differences(self, row_a: Int[Tensor, " rows"], row_b: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        needed, places = torch.cat([row_a, row_b]).unique(return_inverse=True)
        features = self._responses.take(needed)
        if self._normalise == "response":
            features = unit_rows(features.double())
        place_a, place_b = places[: len(row_a)], places[len(row_a) :]
        difference = features[place_a].to(torch.float64)
        difference -= features[place_b]
        return unit_rows(difference) if self._normalise == "pair" else difference


def pair_features(
    features: Float[Tensor, "responses proj_dim"],
    row_a: Int[Tensor, " pairs"],
    row_b: Int[Tensor, " pairs"],
    normalise: str = "none",
) -> Float[Tensor, "pairs proj_dim"]:
    """φ of pairs given as two rows each of features in memory, as `PairFeatures` has them."""
    return PairFeatures(RowsInMemory(features), row_a, row_b, normalise).all()


def unit_rows(features: Float[Tensor, "rows proj_dim"]) -> Float[Tensor, "rows proj_dim"]:
    """Each row divided by its Euclidean norm; rows of zeros stay zero.

    Rows are first divided by their largest entry, so that very large and very small rows neither overflow nor vanish.
    """
    largest = torch.linalg.vector_norm(features, ord=torch.inf, dim=1, keepdim=True)
    scaled = features / torch.where(largest > 0, largest, 1.0)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled.div_(torch.where(norms > 0, norms, 1.0))
