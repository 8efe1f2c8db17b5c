import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activedpo_cli.errors import UsageError
from activedpo_cli.gradients.projection import CountSketch, make_projection


@settings(max_examples=40, deadline=None)
@given(proj_dim=st.integers(1, 40), rows=st.integers(1, 7), columns=st.integers(1, 13), seed=st.integers(0, 2**40))
def test_adding_equals_the_written_out_matrix(proj_dim: int, rows: int, columns: int, seed: int) -> None:
    """Sizes below, at and above the dimension, and no multiple of it."""
    sketch = CountSketch(proj_dim, seed)
    gradients = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    into = torch.ones(3, proj_dim, dtype=torch.float64)
    sketch.add("q/lora_A", gradients, into)
    expected = 1 + gradients.flatten(1) @ sketch.matrix("q/lora_A", rows * columns).T
    assert torch.allclose(into, expected, rtol=0, atol=1e-12)


def test_each_coordinate_has_one_sign_in_one_bucket_and_buckets_are_balanced() -> None:
    matrix = CountSketch(8, seed=0).matrix("q", 83)
    assert torch.equal(matrix.abs().sum(dim=0), torch.ones(83, dtype=torch.float64))
    assert set(matrix.abs().sum(dim=1).tolist()) <= {9, 10, 11}
    assert 20 < (matrix.sum(dim=0) > 0).sum() < 63


def test_linear_in_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 5, 6, generator=generator, dtype=torch.float64)
    sketch = CountSketch(7, seed=1)
    images = [torch.zeros(2, 7, dtype=torch.float64) for _ in range(3)]
    for gradients, image in zip([a, b, 2 * a - 3 * b], images, strict=True):
        sketch.add("q", gradients, image)
    assert torch.allclose(images[2], 2 * images[0] - 3 * images[1], atol=1e-12)


def test_draws_depend_on_seed_and_name_only() -> None:
    first, again = CountSketch(8, seed=0), CountSketch(8, seed=0)
    again.matrix("k", 40)
    assert torch.equal(first.matrix("q", 50), again.matrix("q", 50))
    assert not torch.equal(first.matrix("q", 50), first.matrix("k", 50))
    assert not torch.equal(first.matrix("q", 50), CountSketch(8, seed=1).matrix("q", 50))


def test_global_random_state_is_neither_used_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    matrix = CountSketch(8, seed=0).matrix("q", 50)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(matrix, CountSketch(8, seed=0).matrix("q", 50))


def test_inner_products_and_norms_are_kept_on_average() -> None:
    """Two matrices summed into one vector; gradients of positive mean, so that missing signs would show.

    Over 3000 seeds at d = 16 the standard error of ‖Pg‖²/‖g‖² is about √(2/16/3000) = 0.65 %; 3 % are allowed.
    """
    generator = torch.Generator().manual_seed(0)
    g = 0.5 + torch.rand(2, 60, generator=generator, dtype=torch.float64)
    h = g + 0.5 * torch.randn(2, 60, generator=generator, dtype=torch.float64)
    inner, squared = [], []
    for seed in range(3000):
        sketch = CountSketch(16, seed)
        into = torch.zeros(2, 16, dtype=torch.float64)
        for index, name in enumerate(["q/lora_A", "q/lora_B"]):
            sketch.add(name, torch.stack([g[index], h[index]]), into)
        inner.append(into[0] @ into[1])
        squared.append(into[0] @ into[0])
    wrong = "scale is wrong: the mean over seeds of {} is {:.3f} of the exact value, not 1"
    inner_ratio = (torch.stack(inner).mean() / (g * h).sum()).item()
    norm_ratio = (torch.stack(squared).mean() / g.square().sum()).item()
    assert inner_ratio == pytest.approx(1, abs=0.03), wrong.format("⟨Pg, Ph⟩", inner_ratio)
    assert norm_ratio == pytest.approx(1, abs=0.03), wrong.format("‖Pg‖²", norm_ratio)


def test_variance_is_no_larger_than_a_dense_projections() -> None:
    """Var ‖Pg‖²/‖g‖⁴ = 2/d for a Gaussian matrix; 2000 seeds estimate it within about 6 %."""
    g = torch.randn(1, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratios = []
    for seed in range(2000):
        into = torch.zeros(1, 16, dtype=torch.float64)
        CountSketch(16, seed).add("q", g, into)
        ratios.append(into.square().sum() / g.square().sum())
    assert torch.stack(ratios).var() < 1.2 * 2 / 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_accumulates_in_the_type_of_the_target(dtype: torch.dtype) -> None:
    """256 + 64 ones do not fit bfloat16's eight bits; a float32 sum has them all."""
    into = torch.zeros(1, 1, dtype=dtype)
    sketch = CountSketch(1, seed=0)
    gradients = sketch.matrix("q", 321).sign().bfloat16()
    sketch.add("q", gradients, into)
    assert into.item() == 321


@pytest.mark.parametrize("kind", ["count-sketch", "count_sketch"])
def test_factory(kind: str) -> None:
    projection = make_projection(kind, 5, 7)
    assert projection.proj_dim == 5
    assert torch.equal(projection.matrix("q", 9), CountSketch(5, 7).matrix("q", 9))


def test_factory_suggests_the_nearest_kind() -> None:
    with pytest.raises(UsageError, match="did you mean `count-sketch`") as caught:
        make_projection("count-skech", 5, 7)
    assert caught.value.hint == "--set featurize.projection=count-sketch"
    with pytest.raises(UsageError, match="`gaussian` is not a projection"):
        make_projection("gaussian", 5, 7)
