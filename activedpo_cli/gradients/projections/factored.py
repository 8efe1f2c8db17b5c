"""Projection `factored`: sketches a gradient from its two factors, compressing the long one where that is cheaper.

A gradient of one LoRA matrix is G = Σ_t short_t long_tᵀ, rank × width. With p = c·d/rank and R of independent ±1/√p,
G R = Σ_t short_t (Rᵀ long_t)ᵀ costs p (width + rank) multiplications a token and needs no G; G itself costs rank · width.
The cheaper one is taken, by shape alone. Its rows are then laid into R^d: as many rows as fit form a tile, each tile
begins at a random place and goes round the end, and every entry gets the sign of its row times that of its column.

E[PᵀP] = I and ‖Pe‖ = 1 for each unit vector e. Two different entries meet in a coordinate with probability at most 1/d
and independent signs, so for one matrix Var ‖Pg‖²/‖g‖⁴ ≤ 2/d · (1 + ρ) with G, and 2/d · (1 + ρ + ρ · rank/c) with G R,
where 1/ρ is the effective rank of G; the excess over 2/d, what a dense projection has, is divided by the number of matrices
that share the gradient's energy.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float
from activedpo_cli.gradients.lora_matrices import MatrixShape
from activedpo_cli.gradients.projections.base import add_squared_norms, drawing, outer_products, random_signs

TILES_AT_ONCE = 4  # bounds what is held at a time by 4 d numbers an example, or 4 rows where these are longer than d


@dataclass(frozen=True)
class _Draw:
    """The random parts for one matrix: signs of rows and columns, the tiles' places, and R where it is used.

    R holds ±1, which every number format has exactly; its 1/√p is in the rows' weights.
    """

    row_weights: Float[Tensor, " rank"]
    column_signs: Float[Tensor, " columns"]
    places: list[int]
    compression: Float[Tensor, "width columns"] | None


class Factored:
    """The projection described above; `width` is c, how many times d the compressed gradient of a matrix may be."""

    def __init__(self, proj_dim: int, seed: int, width: int = 1) -> None:
        self.proj_dim = proj_dim
        self.seed = seed
        self.width = width
        self._draws: dict[tuple[MatrixShape, torch.device, torch.dtype], _Draw] = {}

    def forms_gradient(self, shape: MatrixShape) -> bool:
        """Whether G is cheaper than G R; then nothing is lost to compression."""
        columns = self._compressed_columns(shape)
        return columns * (shape.width + shape.rank) >= shape.size

    def compress(
        self, shape: MatrixShape, long: Float[Tensor, "examples tokens width"]
    ) -> Float[Tensor, "examples tokens kept"]:
        """Rᵀ long_t where the matrix is compressed, the factor itself where it is not."""
        compression = self._draw(shape, long).compression
        return long if compression is None else long @ compression

    def add(
        self,
        shape: MatrixShape,
        short: Float[Tensor, "examples tokens rank"],
        compressed: Float[Tensor, "examples tokens kept"],
        into: Float[Tensor, "examples proj_dim"],
        squared_norms: Float[Tensor, " examples"] | None = None,
    ) -> None:
        """Add the sketch of each example's gradient to `into`, in its dtype; exactly linear."""
        draw = self._draw(shape, compressed)
        columns = compressed.shape[2]
        rows_at_once = TILES_AT_ONCE * self._rows_of_tile(columns)
        for start in range(0, shape.rank, rows_at_once):
            block = outer_products(short[:, :, start : start + rows_at_once], compressed)
            add_squared_norms(block, squared_norms)
            for tile, rows, first, last in self._tiles(shape.rank, columns):
                if start <= rows.start < start + rows_at_once:
                    part = block[:, rows.start - start : rows.stop - start, first:last]
                    signs = draw.row_weights[rows.start : rows.stop, None] * draw.column_signs[first:last]
                    _lay(part.flatten(1), signs.flatten(), draw.places[tile], into)

    def matrix(self, shape: MatrixShape) -> Float[Tensor, "proj_dim size"]:
        """The sketch of one matrix as a dense float64 matrix."""
        draw = self._draw(shape, torch.empty(0, dtype=torch.float64))
        columns = len(draw.column_signs)
        laid = torch.zeros(self.proj_dim, shape.rank, columns, dtype=torch.float64)
        for tile, rows, first, last in self._tiles(shape.rank, columns):
            row, column = torch.cartesian_prod(torch.arange(rows.start, rows.stop), torch.arange(first, last)).T
            place = (draw.places[tile] + torch.arange(len(row))) % self.proj_dim
            laid[place, row, column] = draw.row_weights[row] * draw.column_signs[column]
        if draw.compression is not None:
            laid = laid @ draw.compression.T
        return laid.flatten(1)

    def _compressed_columns(self, shape: MatrixShape) -> int:
        return min(shape.width, max(1, self.width * self.proj_dim // shape.rank))

    def _rows_of_tile(self, columns: int) -> int:
        return max(1, self.proj_dim // columns)

    def _tiles(self, rank: int, columns: int) -> Iterator[tuple[int, range, int, int]]:
        """Number, rows, first and last column of each tile; no tile has more than d entries."""
        number, rows_of_tile = 0, self._rows_of_tile(columns)
        for row in range(0, rank, rows_of_tile):
            for column in range(0, columns, self.proj_dim):
                rows = range(row, min(row + rows_of_tile, rank))
                yield number, rows, column, min(column + self.proj_dim, columns)
                number += 1

    def _draw(self, shape: MatrixShape, like: Tensor) -> _Draw:
        """The random parts, on the device and in the type of `like`."""
        key = (shape, like.device, like.dtype)
        if key not in self._draws:
            generator = drawing(self.seed, "factored", shape.name)
            whole = self.forms_gradient(shape)
            columns = shape.width if whole else self._compressed_columns(shape)
            tiles = sum(1 for _ in self._tiles(shape.rank, columns))
            places = torch.randint(0, self.proj_dim, (tiles,), generator=generator).tolist()
            row_signs, column_signs = random_signs(shape.rank, generator), random_signs(columns, generator)
            r = None if whole else random_signs(shape.width * columns, generator).view(shape.width, columns)
            accumulated = torch.promote_types(like.dtype, torch.float32)
            self._draws[key] = _Draw(
                row_weights=row_signs.to(like.device, accumulated) / (1.0 if whole else columns**0.5),
                column_signs=column_signs.to(like.device, accumulated),
                places=places,
                compression=None if r is None else r.to(like),
            )
        return self._draws[key]


def _lay(
    values: Float[Tensor, "examples entries"],
    signs: Float[Tensor, " entries"],
    place: int,
    into: Float[Tensor, "examples proj_dim"],
) -> None:
    """Add signed entries to consecutive coordinates from `place` on, going round the end; at most once round."""
    ahead = min(values.shape[1], into.shape[1] - place)
    into[:, place : place + ahead].addcmul_(values[:, :ahead], signs[:ahead])
    rest = values.shape[1] - ahead
    if rest:
        into[:, :rest].addcmul_(values[:, ahead:], signs[ahead:])
