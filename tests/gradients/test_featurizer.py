"""Packing, halving and order must not show in the result."""

from typing import Any

import pytest
import torch
from honest_lora import ATTENTION, CONFIGS, MakeModel, Rows, as_rank_rows, honest_gradients
from torch import nn
from transformers import AutoModelForCausalLM

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import AdapterSettings
from activedpo_cli.gradients import featurizer as module
from activedpo_cli.gradients.featurizer import Featurizer
from activedpo_cli.gradients.memory import TooLargeError
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.gradients.quality import ProjectionQuality
from activedpo_cli.models.adapters import with_fresh_adapter

CPU = torch.device("cpu")


def featurizer(model: nn.Module, tokens_per_batch: int = 10_000, **changes: Any) -> Featurizer:
    projection = make_projection("factored", 128, 3)
    return Featurizer(model, projection, 0, CPU, tokens_per_batch, **changes)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((actual - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize("tokens_per_batch", [1, 17, 20, 40])
def test_batches_do_not_show(tokens_per_batch: int, make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    together, apart = featurizer(model).gradients(rows), featurizer(model, tokens_per_batch).gradients(rows)
    assert relative_error(apart.features, together.features) < 1e-5
    assert torch.allclose(apart.logps, together.logps, rtol=1e-5)
    assert together.exact_norms is not None
    assert apart.exact_norms is not None
    assert torch.allclose(apart.exact_norms, together.exact_norms, rtol=1e-5)
    forward = featurizer(model, tokens_per_batch).forward(rows, logps=True)
    assert forward.logps is not None
    assert torch.allclose(forward.logps, together.logps, rtol=1e-5)
    assert forward.hidden is None


@pytest.mark.parametrize(("use_rslora", "scale"), [(True, 12 / 4**0.5), (False, 12 / 4)])
def test_the_gradients_are_those_of_updates_scaled_as_the_settings_say(
    rows: Rows, use_rslora: bool, scale: float
) -> None:
    """The effect of B A in the policy's own forward pass is the scale; autograd gives the gradients that belong to it."""
    base = AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    settings = AdapterSettings(r=4, lora_alpha=12, use_rslora=use_rslora, target_modules=ATTENTION)
    policy = with_fresh_adapter(base, settings, seed=0)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    layer: Any = policy.base_model.model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 32)
    update = layer(x) - layer.base_layer(x)
    factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    assert torch.allclose(update, scale * x @ factors[0].T @ factors[1].T, atol=1e-5)
    found = featurizer(policy).gradients(rows)
    assert found.exact_norms is not None
    for norm, row in zip(found.exact_norms.tolist(), rows, strict=True):
        honest = honest_gradients(policy, *row)[1].values()
        assert norm == pytest.approx(sum(float(part.pow(2).sum()) for part in honest) ** 0.5, rel=1e-4)


def test_rows_come_back_in_their_order(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    found = featurizer(model, 17).gradients(rows)
    assert found.logps.tolist() == pytest.approx([honest_gradients(model, *row)[0] for row in rows], rel=1e-5)


def test_running_out_of_memory_changes_nothing(
    make_model: MakeModel, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real, sizes = make_model("llama"), module.response_gradients, []

    def limited(policy: nn.Module, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if len(batch.input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(batch.input_ids))
        return real(policy, batch, *args, **kwargs)

    expected = featurizer(model).gradients(rows)
    monkeypatch.setattr(module, "response_gradients", limited)
    found = featurizer(model).gradients(rows)
    assert sizes == [2, 1, 2]
    assert relative_error(found.features, expected.features) < 1e-5


def test_what_does_not_fit_alone_is_told_by_its_place(
    make_model: MakeModel, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(range(len(rows)), key=lambda index: len(rows[index][0]) + len(rows[index][1]))
    length, real = sum(map(len, rows[longest])), module.response_gradients

    def limited(policy: nn.Module, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if batch.input_ids.shape[1] >= length:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(policy, batch, *args, **kwargs)

    monkeypatch.setattr(module, "response_gradients", limited)
    with pytest.raises(TooLargeError) as caught:
        featurizer(make_model("llama")).gradients(rows)
    assert caught.value.row == longest


def test_checkpointing_does_not_show(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("qwen3")
    expected = featurizer(model).gradients(rows)
    found = featurizer(model, gradient_checkpointing=True).gradients(rows)
    assert relative_error(found.features, expected.features) < 1e-5


def test_a_model_without_layers_to_checkpoint_is_refused(rows: Rows) -> None:
    with pytest.raises(UsageError, match="no layers"):
        featurizer(nn.Linear(2, 2), gradient_checkpointing=True).gradients(rows)


def test_the_measured_error_of_cosines_is_the_honest_one(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama", target_modules="all-linear", dtype=torch.float64)
    exact = torch.stack([torch.cat([g.flatten() for g in honest_gradients(model, *row)[1].values()]) for row in rows])
    projection = make_projection("factored", 128, 3)
    projected = torch.stack(
        [
            sum(
                projection.matrix(shape) @ gradient.flatten()
                for shape, gradient in (as_rank_rows(n, g) for n, g in honest_gradients(model, *row)[1].items())
            )
            for row in rows
        ]
    )
    cosine = nn.functional.cosine_similarity
    errors = torch.stack(
        [
            cosine(projected[i], projected[j], dim=0) - cosine(exact[i], exact[j], dim=0)
            for i in range(len(rows))
            for j in range(i + 1, len(rows))
        ]
    )
    found = featurizer(model).quality(rows)
    assert found is not None
    assert found.pairs == len(errors) == 10
    assert found.cosine_rmse == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-8)
    assert found.floor == pytest.approx(128**-0.5)


def test_quality_compares_within_batches_and_leaves_out_empty_gradients(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    assert featurizer(model).quality(rows[:1]) is None
    assert featurizer(model).quality([]) is None
    in_twos = featurizer(model, 1).quality(rows)
    assert in_twos is not None
    assert in_twos.pairs < 10
    with_empty = featurizer(model).quality([*rows[:2], ([1, 2], [])])
    assert with_empty is not None
    assert with_empty.pairs == 1


def test_few_pairs_prove_no_fault() -> None:
    assert ProjectionQuality(cosine_rmse=0.16, floor=0.1, dense=0.1, pairs=6).is_good
    assert not ProjectionQuality(cosine_rmse=0.16, floor=0.1, dense=0.1, pairs=60).is_good
    assert ProjectionQuality(cosine_rmse=0.115, floor=0.1, dense=0.1, pairs=10**6).is_good
    assert not ProjectionQuality(cosine_rmse=0.117, floor=0.1, dense=0.1, pairs=10**6).is_good


def test_gradients_that_are_alike_are_judged_by_what_is_possible_for_them() -> None:
    """A dense projection's error of a cosine of .9 is (1 − .81)/√d, as a simulation says, so 1/√d would be no test."""
    generator = torch.Generator().manual_seed(0)
    size, proj_dim, cosine = 400, 64, 0.9
    a, b = torch.linalg.qr(torch.randn(size, 2, generator=generator, dtype=torch.float64))[0].T
    b = cosine * a + (1 - cosine**2) ** 0.5 * b
    signs = torch.randint(0, 2, (2000, proj_dim, size), generator=generator, dtype=torch.int8) * 2.0 - 1
    images = signs @ torch.stack([a, b], dim=1).float()
    projected = nn.functional.cosine_similarity(*images.double().unbind(dim=2), dim=1)
    found = ProjectionQuality.of(torch.stack([projected - cosine, torch.full((2000,), cosine)], dim=1), proj_dim)
    assert found is not None
    assert found.dense == pytest.approx((1 - cosine**2) / 8)
    assert found.cosine_rmse == pytest.approx(found.dense, rel=0.1)
    assert found.is_good
    assert found.cosine_rmse < 0.25 * found.floor
