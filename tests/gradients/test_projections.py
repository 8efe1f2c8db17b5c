import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from activedpo_cli.base.errors import UsageError
from activedpo_cli.gradients.lora_matrices import MatrixShape
from activedpo_cli.gradients.projections import PROJECTIONS, Projection, make_projection
from activedpo_cli.gradients.projections.count_sketch import CountSketch
from activedpo_cli.gradients.projections.factored import Factored

KINDS: dict[str, Callable[[int, int], Projection]] = {
    "factored": lambda proj_dim, seed: make_projection("factored", proj_dim, seed),
    "factored-wide": lambda proj_dim, seed: make_projection("factored", proj_dim, seed, width=3),
    "count-sketch": lambda proj_dim, seed: make_projection("count-sketch", proj_dim, seed),
    "dense": lambda proj_dim, seed: make_projection("dense", proj_dim, seed),
}


def factors(tokens: int, shape: MatrixShape, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    short = torch.randn(3, tokens, shape.rank, generator=generator, dtype=torch.float64)
    long = torch.randn(3, tokens, shape.width, generator=generator, dtype=torch.float64)
    return short.to(dtype), long.to(dtype)


def image(sketch: Projection, shape: MatrixShape, short: Tensor, long: Tensor) -> Tensor:
    into = torch.zeros(len(short), sketch.proj_dim, dtype=torch.promote_types(short.dtype, torch.float32))
    sketch.add(shape, short, sketch.compress(shape, long), into)
    return into


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    proj_dim=st.integers(1, 40),
    rank=st.integers(1, 9),
    width=st.integers(1, 60),
    tokens=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_adding_equals_the_written_out_matrix(
    kind: str, proj_dim: int, rank: int, width: int, tokens: int, seed: int
) -> None:
    """Sizes below, at and above the dimension, compressed or not, no multiples of anything."""
    sketch, shape = KINDS[kind](proj_dim, seed), MatrixShape("q/lora_A", rank, width)
    short, long = factors(tokens, shape)
    into = torch.ones(3, proj_dim, dtype=torch.float64)
    norms = torch.zeros(3, dtype=torch.float64) if sketch.forms_gradient(shape) else None
    sketch.add(shape, short, sketch.compress(shape, long), into, norms)
    gradients = torch.einsum("ntr,ntq->nrq", short, long).flatten(1)
    assert torch.allclose(into, 1 + gradients @ sketch.matrix(shape).T, rtol=0, atol=1e-10)
    if norms is not None:
        assert torch.allclose(norms, gradients.square().sum(dim=1))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(proj_dim=st.integers(1, 40), rank=st.integers(1, 9), width=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_each_unit_vector_keeps_its_length(kind: str, proj_dim: int, rank: int, width: int, seed: int) -> None:
    """PᵀP has a unit diagonal, not only in expectation."""
    matrix = KINDS[kind](proj_dim, seed).matrix(MatrixShape("q", rank, width))
    assert torch.allclose(matrix.square().sum(dim=0), torch.ones(rank * width, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(("rank", "width", "proj_dim"), [(4, 8, 32), (4, 8, 64), (1, 5, 5), (7, 3, 22)])
def test_what_fits_is_only_moved(rank: int, width: int, proj_dim: int) -> None:
    """Up to d entries of one matrix never meet, so that all their inner products are exact."""
    matrix = Factored(proj_dim, seed=5).matrix(MatrixShape("q", rank, width))
    assert torch.equal(matrix.T @ matrix, torch.eye(rank * width, dtype=torch.float64))


def test_the_rank_side_stays_whole() -> None:
    """Compressed gradients of different rank rows never meet at c = 1."""
    sketch, shape = Factored(32, seed=5), MatrixShape("q", 8, 100)
    assert not sketch.forms_gradient(shape)
    matrix = sketch.matrix(shape).view(32, 8, 100)
    rows = [matrix[:, row].abs().sum(dim=1) > 0 for row in range(8)]
    assert all((rows[i] & rows[j]).sum() == 0 for i in range(8) for j in range(i))
    assert all(row.sum() == 4 for row in rows)


@pytest.mark.parametrize(
    ("rank", "width", "proj_dim", "forms"), [(32, 384, 8192, True), (128, 2048, 8192, False), (16, 1024, 8192, True)]
)
def test_the_cheaper_order_is_taken(rank: int, width: int, proj_dim: int, forms: bool) -> None:
    """Multiplications a token: rank · width for the gradient, p (width + rank) with p = d / rank for the other."""
    assert Factored(proj_dim, 0).forms_gradient(MatrixShape("q", rank, width)) is forms


def test_count_sketch_has_one_sign_in_one_bucket_and_balanced_buckets() -> None:
    matrix = CountSketch(8, seed=0).matrix(MatrixShape("q", 1, 83))
    assert torch.equal(matrix.abs().sum(dim=0), torch.ones(83, dtype=torch.float64))
    assert set(matrix.abs().sum(dim=1).tolist()) <= {9, 10, 11}
    assert 20 < (matrix.sum(dim=0) > 0).sum() < 63


@pytest.mark.parametrize("kind", KINDS)
def test_linear_in_the_gradient(kind: str) -> None:
    sketch, shape = KINDS[kind](7, 1), MatrixShape("q", 5, 60)
    short, long = factors(2, shape)
    other = torch.randn(3, 2, 60, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    combined = image(sketch, shape, short, 2 * long - 3 * other)
    assert torch.allclose(
        combined, 2 * image(sketch, shape, short, long) - 3 * image(sketch, shape, short, other), atol=1e-10
    )


@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_seed_and_matrix_only(kind: str) -> None:
    first, again, other = KINDS[kind](8, 0), KINDS[kind](8, 0), KINDS[kind](8, 1)
    q, k = MatrixShape("q", 4, 50), MatrixShape("k", 4, 50)
    again.matrix(k)
    image(again, q, *factors(2, q, torch.float32))
    assert torch.equal(first.matrix(q), again.matrix(q))
    assert not torch.equal(first.matrix(q), first.matrix(k))
    assert not torch.equal(first.matrix(q), other.matrix(q))


@pytest.mark.parametrize("kind", KINDS)
def test_global_random_state_is_neither_used_nor_moved(kind: str) -> None:
    shape = MatrixShape("q", 4, 50)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    matrix = KINDS[kind](8, 0).matrix(shape)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(matrix, KINDS[kind](8, 0).matrix(shape))


def images_by_seed(kind: str, proj_dim: int, seeds: int, gradients: list[Tensor]) -> Iterator[Tensor]:
    """The images of some examples' gradients for each seed; `gradients` holds those of one matrix after another."""
    shapes = [MatrixShape(f"layer{number}", *matrix.shape[1:]) for number, matrix in enumerate(gradients)]
    short = [torch.eye(shape.rank, dtype=torch.float64).expand(len(gradients[0]), -1, -1) for shape in shapes]
    for seed in range(seeds):
        sketch = KINDS[kind](proj_dim, seed)
        images = torch.zeros(len(gradients[0]), proj_dim, dtype=torch.float64)
        for shape, rows, matrix in zip(shapes, short, gradients, strict=True):
            sketch.add(shape, rows, sketch.compress(shape, matrix), images)
        yield images


STRUCTURES: dict[str, Callable[[torch.Generator, int, int], Tensor]] = {
    "positive mean": lambda generator, rank, width: 0.5 + torch.rand(2, rank, width, generator=generator).double(),
    "rank one": lambda generator, rank, width: (
        torch.randn(2, rank, 1, generator=generator).double() @ torch.ones(2, 1, width, dtype=torch.float64)
    ),
    "one heavy column": lambda generator, rank, width: (
        torch.randn(2, rank, width, generator=generator).abs().double() * torch.eye(width)[3].double() + 0.1
    ),
}
SHAPES = ((5, 12), (5, 40), (8, 64))
"""All of them are compressed to 16 numbers before they are laid."""


@functools.cache
def ratios_of_structures(kind: str) -> dict[str, tuple[Tensor, Tensor]]:
    """⟨Pg, Ph⟩/⟨g, h⟩ and ‖Pg‖²/‖g‖² of each structure for 1500 seeds; g and h have a matrix of each shape."""
    generator = torch.Generator().manual_seed(0)
    pairs = [[make(generator, *shape) for make in STRUCTURES.values()] for shape in SHAPES]
    gradients = [torch.cat(matrices) for matrices in pairs]
    images = torch.stack(list(images_by_seed(kind, 16, 1500, gradients)))
    found = {}
    for place, structure in enumerate(STRUCTURES):
        g, h = images[:, 2 * place], images[:, 2 * place + 1]
        exact = [(matrices[place][0], matrices[place][1]) for matrices in pairs]
        found[structure] = (
            (g * h).sum(dim=1) / sum((one * other).sum() for one, other in exact),
            g.square().sum(dim=1) / sum(one.square().sum() for one, _ in exact),
        )
    return found


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_and_norms_are_kept_on_average(kind: str, structure: str) -> None:
    """Over 1500 seeds, within four standard errors, which themselves must be small enough to see a wrong scale."""
    wrong = "the mean over seeds of {} is {:.3f} of the exact value, not 1"
    for what, values in zip(("⟨Pg, Ph⟩", "‖Pg‖²"), ratios_of_structures(kind)[structure], strict=True):
        mean, error = values.mean().item(), (values.std() / len(values) ** 0.5).item()
        assert error < 0.05
        assert mean == pytest.approx(1, abs=4 * error), wrong.format(what, mean)


@pytest.mark.parametrize("kind", KINDS)
def test_variance_is_about_a_dense_projections(kind: str) -> None:
    """Var ‖Pg‖²/‖g‖⁴ = 2/d for a Gaussian matrix; 100 seeds of 16 gradients estimate it within about 8 %.

    Their energy is in 8 matrices, and they are nearly orthogonal, so that a dense projection sees 16 independent ones.
    """
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(16, 4, 24, generator=generator, dtype=torch.float64) for _ in range(8)]
    exact = sum(matrix.square().sum(dim=(1, 2)) for matrix in gradients)
    squares = torch.stack([images.square().sum(dim=1) / exact for images in images_by_seed(kind, 16, 100, gradients)])
    assert squares.var(dim=0).mean() < 1.25 * 2 / 16


@pytest.mark.parametrize(
    ("rank", "width", "proj_dim", "times"), [(8, 64, 32, 1), (16, 200, 32, 1), (16, 200, 32, 4), (16, 200, 16, 8)]
)
def test_variance_of_one_compressed_matrix_of_rank_one_is_as_the_docstring_says(
    rank: int, width: int, proj_dim: int, times: int
) -> None:
    """ρ = 1 is the worst there is: 2/d · (1 + 1 + rank/c). Four gradients that are orthogonal on both sides, 375 seeds."""
    shape, seeds = MatrixShape("q", rank, width), 375
    assert not Factored(proj_dim, 0, times).forms_gradient(shape)
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    short, long = signs.repeat(1, rank // 4)[:, None], signs.repeat(1, width // 4)[:, None]
    squares = torch.stack(
        [image(Factored(proj_dim, seed, times), shape, short, long).square().sum(dim=1) for seed in range(seeds)]
    )
    variance = (squares / (rank * width)).var(dim=0).mean().item()
    assert variance < 1.15 * 2 / proj_dim * (2 + rank / times)
    assert variance > 2 / proj_dim, "a bound that is far from what happens would say little"


@pytest.mark.parametrize("kind", ["factored", "count-sketch"])
def test_sums_in_float32_what_comes_in_half_precision(kind: str) -> None:
    """256 + 64 ones do not fit bfloat16's eight bits; a float32 sum has them all."""
    sketch, into = KINDS[kind](1, 0), torch.zeros(1, 1)
    shapes = [MatrixShape(f"m{number}", 1, 1) for number in range(321)]
    for shape in shapes:
        sign = sketch.matrix(shape).sign().bfloat16()
        sketch.add(shape, torch.ones(1, 1, 1, dtype=torch.bfloat16), sign[None], into)
    assert into.item() == 321


def test_half_precision_scales_nothing() -> None:
    """1/√p is no bfloat16 number for p = 3; the norm must not lean to one side for it."""
    sketch, shape = Factored(12, seed=3), MatrixShape("q", 4, 32)
    short, long = factors(2, shape, torch.bfloat16)
    exact = image(sketch, shape, short.double(), long.double())
    assert torch.allclose(image(sketch, shape, short, long).double(), exact, atol=0.03 * exact.abs().max().item())


@pytest.mark.parametrize("kind", ["count-sketch", "count_sketch"])
def test_factory(kind: str) -> None:
    projection, shape = make_projection(kind, 5, 7), MatrixShape("q", 3, 3)
    assert projection.proj_dim == 5
    assert torch.equal(projection.matrix(shape), CountSketch(5, 7).matrix(shape))


def test_factory_knows_what_it_lists() -> None:
    assert all(make_projection(kind, 4, 0).proj_dim == 4 for kind in PROJECTIONS)


def test_factory_suggests_the_nearest_kind() -> None:
    with pytest.raises(UsageError, match="did you mean `count-sketch`") as caught:
        make_projection("count-skech", 5, 7)
    assert caught.value.hint == "--projection count-sketch"
    with pytest.raises(UsageError, match="`gaussian` is not a projection"):
        make_projection("gaussian", 5, 7)
