"""φ of pairs whose responses' features lie elsewhere, a few pairs at a time."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.pairs.normalisation import unit_rows
from activedpo_cli.pairs.pair_features import difference_features


@runtime_checkable
class ResponseRows(Protocol):
    """Features of responses, wherever they lie."""

    shape: tuple[int, int]

    def take(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        """Some responses; `rows` rises and repeats none."""


class DifferenceRows:
    """φ = features of a − features of b, with the normalisation of `select.normalise`."""

    def __init__(
        self,
        responses: ResponseRows,
        row_a: Int[Tensor, " pairs"],
        row_b: Int[Tensor, " pairs"],
        normalise: str = "none",
    ) -> None:
        self._responses = responses
        self._row_a, self._row_b = row_a, row_b
        self._normalise = normalise
        self.shape = (len(row_a), responses.shape[1])

    def read(self, start: int, stop: int) -> Float[Tensor, "pairs proj_dim"]:
        """φ of consecutive pairs, in float64."""
        return self._differences(self._row_a[start:stop], self._row_b[start:stop])

    def take(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        """φ of some pairs, in float64."""
        return self._differences(self._row_a[rows], self._row_b[rows])

    def _differences(self, row_a: Int[Tensor, " rows"], row_b: Int[Tensor, " rows"]) -> Float[Tensor, "rows proj_dim"]:
        needed, places = torch.cat([row_a, row_b]).unique(return_inverse=True)
        features = normalised_responses(self._responses.take(needed), self._normalise)
        place_a, place_b = places.chunk(2)
        return difference_features(features, place_a, place_b, normalise=self._normalise == "pair")


def normalised_responses(
    features: Float[Tensor, "responses proj_dim"], normalise: str
) -> Float[Tensor, "responses proj_dim"]:
    """Each response at unit norm where `select.normalise` is `response`, in float64; else as it is.

    The difference of two nearly parallel responses is small beside them, so that float32's rounding of each would decide
    between pairs that tie.
    """
    return unit_rows(features.double()) if normalise == "response" else features
