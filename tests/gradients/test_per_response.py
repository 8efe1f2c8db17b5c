"""Batched hooks against one backward pass per response through a plain forward, times the projection written out."""

import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from honest_lora import ATTENTION, CONFIGS, EAGER, MakeModel, Rows, as_rank_rows, honest_gradients
from torch import Tensor, nn

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.gradients.batch import GradientBatch, pad_responses
from activedpo_cli.gradients.checkpointing import checkpointed_layers
from activedpo_cli.gradients.lora_matrices import MatrixShape, active_lora_matrices
from activedpo_cli.gradients.per_response import backward_pass, plain_pass, response_gradients
from activedpo_cli.gradients.projections import Projection, make_projection
from activedpo_cli.gradients.projections.factored import Factored

WHOLE = Factored(proj_dim=96, seed=11)
COMPRESSED = Factored(proj_dim=12, seed=11)
"""Narrow enough that the long side of every matrix of the test's models is compressed first."""
SKETCHES: dict[str, Projection] = {
    "whole": WHOLE,
    "compressed": COMPRESSED,
    "compressed wide": Factored(proj_dim=6, seed=11, width=2),
    "count-sketch": make_projection("count-sketch", 96, 11),
    "dense": make_projection("dense", 96, 11),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def batched(model: nn.Module, rows: Rows, side: str = "right", sketch: Projection = WHOLE) -> GradientBatch:
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu", side=side)
    return response_gradients(model, batch, sketch, exact_norms="always")


@functools.cache
def written_out(sketch: Projection, shape: MatrixShape) -> Tensor:
    return sketch.matrix(shape)


def honest_features(gradients: dict[str, Tensor], sketch: Projection) -> Tensor:
    parts = [as_rank_rows(name, gradient) for name, gradient in gradients.items()]
    return sum(written_out(sketch, shape) @ gradient.flatten().double() for shape, gradient in parts)  # type: ignore[return-value]


class Recorder:
    """What reaches the projection, put together."""

    def __init__(self, on_add: Callable[[], None] = lambda: None) -> None:
        self.seen: dict[str, Tensor] = {}
        self.on_add = on_add

    def keep(self, shape: MatrixShape, long: Tensor) -> Tensor:
        return long

    def add(self, shape: MatrixShape, short: Tensor, kept: Tensor) -> None:
        self.on_add()
        self.seen[shape.name] = torch.einsum("ntr,ntq->nrq", short, kept)


def record(model: nn.Module, rows: Rows, recorder: Recorder) -> dict[str, Tensor]:
    prompts, responses = zip(*rows, strict=True)
    backward_pass(model, pad_responses(prompts, responses, 0, "cpu"), active_lora_matrices(model), recorder)
    return recorder.seen


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def assert_honest(
    model: nn.Module, rows: Rows, tolerance: float, side: str = "right", sketches: Sequence[Projection] = (WHOLE,)
) -> list[GradientBatch]:
    """The results of the batch for each projection, which have been compared with what is honest."""
    results = [batched(model, rows, side, sketch) for sketch in sketches]
    for row, example in enumerate(rows):
        logps, gradients = honest_gradients(model, *example)
        norm = torch.cat([g.flatten().double() for g in gradients.values()]).norm()
        for sketch, result in zip(sketches, results, strict=True):
            assert result.exact_norms is not None
            assert result.logps[row].item() == pytest.approx(logps, rel=tolerance)
            assert result.exact_norms[row].item() == pytest.approx(norm.item(), rel=tolerance)
            assert relative_error(result.features[row], honest_features(gradients, sketch)) < tolerance
    return results


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, torch.float32) for kind in CONFIGS] + [(kind, torch.float64) for kind in CONFIGS if kind not in EAGER],
)
def test_equals_an_honest_backward_pass(
    kind: str, side: str, dtype: torch.dtype, make_model: MakeModel, rows: Rows
) -> None:
    for result in assert_honest(make_model(kind, dtype=dtype), rows, TOLERANCE[dtype], side, (WHOLE, COMPRESSED)):
        assert result.exact_norms is not None
        assert result.features.dtype == result.exact_norms.dtype == result.logps.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SKETCHES)
def test_every_projection_equals_its_written_out_matrix(
    name: str, dtype: torch.dtype, make_model: MakeModel, rows: Rows
) -> None:
    model = make_model("llama", target_modules="all-linear", dtype=dtype)
    assert_honest(model, rows, TOLERANCE[dtype], sketches=[SKETCHES[name]])


def test_the_test_sees_both_orders_of_work(make_model: MakeModel) -> None:
    shapes = [matrix.shape for matrix in active_lora_matrices(make_model("llama", target_modules="all-linear"))]
    assert all(WHOLE.forms_gradient(shape) for shape in shapes)
    assert not any(COMPRESSED.forms_gradient(shape) for shape in shapes)
    assert not any(SKETCHES["compressed wide"].forms_gradient(shape) for shape in shapes)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_each_matrix_by_itself(kind: str, make_model: MakeModel, rows: Rows) -> None:
    """A sum over matrices could hide an error in a small one; a first token's q and k have gradients near zero."""
    model = make_model(kind)
    seen = record(model, rows, Recorder())
    for row, example in enumerate(rows):
        gradients = honest_gradients(model, *example)[1]
        largest = max(gradient.norm() for gradient in gradients.values())
        assert seen.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert (
                seen[name][row] - as_rank_rows(name, gradient)[1]
            ).norm() < 1e-5 * gradient.norm() + 1e-6 * largest, name


@pytest.mark.parametrize(
    ("kind", "target_modules"),
    [("llama", ["v_proj"]), ("llama", "all-linear"), ("gpt2", "all-linear"), ("qwen3", ["q_proj", "down_proj"])],
)
def test_any_choice_of_layers(kind: str, target_modules: str | list[str], make_model: MakeModel, rows: Rows) -> None:
    assert_honest(make_model(kind, target_modules=target_modules), rows, 1e-5)


def test_all_linear_covers_what_it_says(make_model: MakeModel) -> None:
    """Two layers with seven linear maps each, an A and a B for each of them; not the output layer."""
    matrices = active_lora_matrices(make_model("llama", target_modules="all-linear"))
    names = {matrix.shape.name for matrix in matrices}
    assert len(names) == 2 * 7 * 2
    assert "model.layers.1.mlp.down_proj/lora_B" in names
    assert len(active_lora_matrices(make_model("llama"))) == 2 * len(ATTENTION) * 2


def test_neighbours_in_the_batch_do_not_matter(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("gemma")
    whole, reversed_, alone = batched(model, rows), batched(model, rows[::-1]), [batched(model, [row]) for row in rows]
    for row in range(len(rows)):
        assert relative_error(whole.features[row], alone[row].features[0]) < 1e-5
        assert relative_error(reversed_.features[-1 - row], alone[row].features[0]) < 1e-5


def test_a_fresh_adapter_has_a_gradient_in_b_only(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama", random_b=False)
    assert_honest(model, rows, 1e-5)
    seen = record(model, rows, Recorder())
    assert seen.keys() == {matrix.shape.name for matrix in active_lora_matrices(model)}
    for name, gradients in seen.items():
        assert bool(gradients.any()) == name.endswith("lora_B"), name


def test_no_gradient_of_a_weight_is_prepared_for(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama").requires_grad_(True)

    def on_add() -> None:
        assert not any(parameter.requires_grad for parameter in model.parameters())

    assert record(model, rows, Recorder(on_add))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_empty_response_has_no_gradient(make_model: MakeModel, rows: Rows) -> None:
    result = batched(make_model("llama"), [rows[0], ([1, 2], [])])
    assert result.logps[1] == 0
    assert result.exact_norms[1] == 0
    assert not result.features[1].any()
    assert result.exact_norms[0] > 0
    assert not batched(make_model("llama"), [([1], [])]).features.any()


def test_dropout_has_no_effect_and_the_model_is_left_as_it_was(make_model: MakeModel, rows: Rows) -> None:
    quiet = batched(make_model("gpt2"), rows)
    model = make_model("gpt2", dropout=0.9)
    model.train()
    model.get_base_model().transformer.h[1].eval()
    next(p for n, p in model.named_parameters() if "lora_A" in n).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    result = batched(model, rows)
    assert torch.equal(result.features, quiet.features)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == required
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not result.features.requires_grad
    assert not result.logps.requires_grad


def test_the_model_is_left_as_it_was_after_a_failure(make_model: MakeModel, rows: Rows) -> None:
    def on_add() -> None:
        raise RuntimeError("broken projection")

    model = make_model("llama").train()
    required = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="broken projection"):
        record(model, rows, Recorder(on_add))
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == required
    assert not any(module._forward_hooks for module in model.modules())


def test_two_calls_are_equal_bit_for_bit(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("qwen3")
    first = batched(model, rows)
    with torch.no_grad():
        second = batched(model, rows)
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.exact_norms, second.exact_norms)
    assert torch.equal(first.logps, second.logps)


def test_the_adapters_name_and_the_wrapper_do_not_matter(make_model: MakeModel, rows: Rows) -> None:
    """A copy of the adapter under another name gives the same features, and so does the model inside the wrapper."""
    model = make_model("llama")
    expected = batched(model, rows).features
    assert torch.equal(batched(model.get_base_model(), rows).features, expected)
    model.add_adapter("other", model.peft_config["default"])
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        if ".other." in name:
            weight.data.copy_(weights[name.replace(".other.", ".default.")].data)
    model.set_adapter("other")
    assert torch.equal(batched(model, rows).features, expected)


def test_a_half_precision_model_keeps_float32_features(make_model: MakeModel, rows: Rows) -> None:
    result = batched(make_model("llama", dtype=torch.bfloat16), rows)
    exact = batched(make_model("llama"), rows)
    assert result.features.dtype == result.logps.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(result.features, exact.features)
    assert (cosine > 0.95).all()


def test_models_whose_gradient_can_not_be_taken(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    with model.disable_adapter(), pytest.raises(InvalidDataError, match="switched off"):
        batched(model, rows)
    with pytest.raises(InvalidDataError, match="no active LoRA"):
        batched(make_model("llama").unload(), rows)
    model.merge_adapter()
    with pytest.raises(InvalidDataError, match="merged"):
        batched(model, rows)
    with pytest.raises(InvalidDataError, match="embedding"):
        batched(make_model("llama", target_modules=["embed_tokens", "q_proj"]), rows)


def test_gradient_checkpointing_changes_nothing(make_model: MakeModel, rows: Rows) -> None:
    """Layers run twice, so hooks fire twice; still one contribution from each matrix."""
    for kind, sketch in (("llama", WHOLE), ("llama", COMPRESSED), ("gpt2", WHOLE), ("qwen3", COMPRESSED)):
        model = make_model(kind, dropout=0.5)
        expected = batched(model, rows, sketch=sketch)
        with checkpointed_layers(model):
            result = batched(model, rows, sketch=sketch)
        assert torch.allclose(result.features, expected.features, rtol=1e-5, atol=1e-6)
        assert not any("forward" in vars(module) for module in model.modules())


def test_checkpointing_really_runs_layers_again(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    runs: list[int] = []
    layer = model.get_base_model().model.layers[0].self_attn
    batched(model, rows)  # the first call looks at the model's output layer
    layer.register_forward_hook(lambda *_: runs.append(1))
    batched(model, rows)
    assert len(runs) == 1
    with checkpointed_layers(model):
        batched(model, rows)
    assert len(runs) == 3


def test_the_gradient_of_an_unused_a_is_not_computed(make_model: MakeModel, rows: Rows) -> None:
    """Where B = 0 in some layers only, just their A are left out."""
    model = make_model("llama")
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    layer.lora_B["default"].weight.data.zero_()
    without = {matrix.shape.name for matrix in active_lora_matrices(model) if not matrix.has_gradient}
    assert without == {"model.layers.0.self_attn.q_proj/lora_A"}
    assert_honest(model, rows, 1e-5)


def test_exact_norms_come_where_they_are_free(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    assert response_gradients(model, batch, COMPRESSED).exact_norms is None
    free = response_gradients(model, batch, WHOLE).exact_norms
    paid = batched(model, rows, sketch=COMPRESSED).exact_norms
    assert free is not None
    assert paid is not None
    assert torch.allclose(free, paid, rtol=1e-5)


def test_the_plain_pass_is_the_same_pass(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    prompts, responses = zip(*rows, strict=True)
    assert torch.equal(plain_pass(model, pad_responses(prompts, responses, 0, "cpu")), batched(model, rows).logps)


def test_a_half_precision_base_under_a_float32_adapter(make_model: MakeModel, rows: Rows) -> None:
    """What PEFT makes of a bfloat16 checkpoint: factors are narrowed to what they were computed in, sums are float32."""
    model, exact = make_model("llama", dtype=torch.bfloat16), make_model("llama")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    seen: list[torch.dtype] = []

    class Looking(Recorder):
        def add(self, shape: MatrixShape, short: Tensor, kept: Tensor) -> None:
            seen.extend([short.dtype, kept.dtype])

    record(model, rows, Looking())
    assert set(seen) == {torch.bfloat16}
    for sketch in (WHOLE, COMPRESSED):
        found, expected = batched(model, rows, sketch=sketch), batched(exact, rows, sketch=sketch)
        assert found.features.dtype == torch.float32
        assert (torch.nn.functional.cosine_similarity(found.features, expected.features) > 0.95).all()
