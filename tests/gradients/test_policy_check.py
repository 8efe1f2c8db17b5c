"""What is refused of a policy: gradients that are not the derivatives, and layers that no adapter can stand in."""

from collections.abc import Callable
from types import MethodType

import pytest
import torch
from model_families import family_policy
from test_family_gradients import PROMPTS, RESPONSES, Whole, honest
from torch import Tensor, nn
from torch.nn.functional import linear

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.gradients import quality
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.checkpointing import checkpointed_layers
from activedpo_cli.gradients.per_response import response_gradients
from activedpo_cli.gradients.policy_check import check_policy
from activedpo_cli.gradients.projections import Factored
from activedpo_cli.gradients.separation import separation
from activedpo_cli.gradients.trial import made_up_responses


def change(policy: nn.Module, where: str, forward: Callable[[nn.Linear, Tensor], Tensor]) -> nn.Module:
    for name, layer in policy.named_modules():
        if isinstance(layer, nn.Linear) and "lora_" not in name and where in name:
            layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return policy


def without_backward(layer: nn.Linear, states: Tensor) -> Tensor:
    return linear(states.detach(), layer.weight, layer.bias)


class HalfAsSteep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states):
        return states.view_as(states)

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def with_a_wrong_backward(layer: nn.Linear, states: Tensor) -> Tensor:
    return linear(HalfAsSteep.apply(states), layer.weight, layer.bias)


@pytest.mark.parametrize(
    ("dtype", "where"),
    [(torch.float32, "down_proj"), (torch.float32, "1.mlp.down_proj"), (torch.float32, ""), (torch.bfloat16, "")],
)
def test_a_kernel_without_a_backward_pass_is_named(dtype: torch.dtype, where: str) -> None:
    policy = change(family_policy("llama", "all-linear", dtype=dtype), where, without_backward)
    with pytest.raises(InvalidDataError, match="not the derivatives of its log-probabilities") as refused:
        check_policy(policy)
    assert any("down_proj passes no gradient on" in line for line in refused.value.details)
    assert "quantised" in str(refused.value.hint)


def test_a_kernel_with_a_wrong_backward_pass_is_found() -> None:
    policy = change(family_policy("qwen3", "attention"), "o_proj", with_a_wrong_backward)
    with pytest.raises(InvalidDataError, match="not the derivatives") as refused:
        check_policy(policy)
    assert "attn_implementation=eager" in str(refused.value.hint)


def test_packed_weights_without_a_backward_pass_are_refused_in_any_number_format() -> None:
    """One quantised layer among many hides behind the rounding of half precision, but not by what it is."""
    policy = family_policy("llama", "all-linear", dtype=torch.bfloat16)
    change(policy, "1.mlp.down_proj", lambda layer, states: linear(states.detach(), layer.weight.to(states.dtype)))
    layer = policy.get_submodule("base_model.model.model.layers.1.mlp.down_proj.base_layer")
    layer.weight = nn.Parameter((8 * layer.weight).round().to(torch.int8), requires_grad=False)
    with pytest.raises(InvalidDataError, match="quantised layers have no backward pass") as refused:
        check_policy(policy)
    assert refused.value.details == ("model.layers.1.mlp.down_proj",)


def test_matrices_behind_a_cut_are_lost_and_named() -> None:
    policy = family_policy("llama", "attention")
    attention = policy.get_submodule("base_model.model.model.layers.1.self_attn")
    attention.register_forward_hook(lambda _module, _inputs, output: (output[0].detach(), *output[1:]))
    with pytest.raises(InvalidDataError, match="no gradient reaches 8 of the adapter's matrices") as refused:
        check_policy(policy)
    assert "model.layers.1.self_attn.q_proj/lora_A" in refused.value.details


def test_a_model_without_any_gradient_is_refused_with_a_way_out() -> None:
    policy = family_policy("llama", "attention")
    policy.get_submodule("base_model.model.model.norm").register_forward_pre_hook(lambda _m, inputs: inputs[0].detach())
    with pytest.raises(InvalidDataError, match="no gradient reached the LoRA adapter") as refused:
        check_policy(policy)
    assert "attn_implementation=eager" in str(refused.value.hint)


def test_a_trained_weight_outside_the_adapter_is_refused() -> None:
    policy = family_policy("llama", "attention")
    policy.get_submodule("base_model.model.model.norm").requires_grad_(True)
    with pytest.raises(UsageError, match="features do not see") as refused:
        check_policy(policy)
    assert refused.value.details == ("model.norm.weight",)
    assert str(refused.value.hint).endswith("in a new run: --set adapter.target_modules=k_proj,o_proj,q_proj,v_proj")


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("faulty", [False, True])
def test_a_check_leaves_no_trace(family: str, faulty: bool) -> None:
    policy = family_policy(family, "all-linear", random_b=False)
    if faulty:
        change(policy, "", without_backward)
    needed = [parameter.requires_grad for parameter in policy.parameters()]
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.train()
    state = torch.get_rng_state()
    if faulty:
        with pytest.raises(InvalidDataError):
            check_policy(policy)
    else:
        check_policy(policy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert [parameter.requires_grad for parameter in policy.parameters()] == needed
    assert all(layer.training for layer in policy.modules())
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert not any(layer._forward_hooks for layer in policy.modules())


class Shuffling(nn.Module):
    def __init__(self, inner: nn.Module, gather: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.gather = inner, gather

    def forward(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        order = self.gather(torch.arange(len(rows)))
        found = self.inner(rows[order])
        back = torch.zeros(len(rows), found.shape[-1], dtype=found.dtype).index_copy(0, order, found)
        return back.reshape(*states.shape[:-1], -1)


@pytest.mark.parametrize(
    ("gather", "apart"),
    [
        (lambda places: places, True),
        (lambda places: places.flip(0), False),
        (lambda places: places[places % 3 != 1], False),
    ],
    ids=["in order", "turned around", "some of them"],
)
def test_rows_are_told_apart_where_that_is_certain(gather: Callable[[Tensor], Tensor], apart: bool) -> None:
    """A layer that gets all tokens as rows: shapes are the same, whether they are in order or not."""
    policy = family_policy("llama", "all-linear")
    block = policy.get_submodule("base_model.model.model.layers.0.mlp")
    block.down_proj = Shuffling(block.down_proj, gather)
    alone = separation(policy).alone
    assert alone == (frozenset() if apart else {f"model.layers.0.mlp.down_proj.inner/lora_{letter}" for letter in "AB"})
    assert check_policy(policy).alone == alone
    batch = pad_responses(PROMPTS, RESPONSES, 0, "cpu")
    found = response_gradients(policy, batch, Whole(policy), exact_norms="always", alone=alone)
    _, gradients = honest(policy)
    expected = gradients @ gradients.T
    assert torch.allclose(found.features @ found.features.T, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_what_the_made_up_tokens_do_not_reach_is_taken_with_its_kind() -> None:
    """An expert that a few tokens are not sent to may see rows of several responses all the same."""
    policy = family_policy("llama", "all-linear")
    block = policy.get_submodule("base_model.model.model.layers.0.mlp")
    block.down_proj = Shuffling(block.down_proj, lambda places: places.flip(0))
    block.spare = policy.get_submodule("base_model.model.model.layers.1.mlp.up_proj")
    policy.get_submodule("base_model.model.model.layers.1.mlp").up_proj = nn.Linear(32, 48, bias=False)
    assert "model.layers.0.mlp.spare/lora_A" in separation(policy).alone


def test_special_tokens_are_not_among_the_made_up_ones() -> None:
    """Some stand for images, without which a model of text and images can't read them."""
    drawn = made_up_responses(family_policy("gemma3", "attention"))
    assert not set(drawn.input_ids[drawn.attention_mask.bool()].tolist()) & {256, 257, 258}


def test_numbers_that_are_not_finite_are_left_to_featurize() -> None:
    """A policy that has diverged is another matter than a kernel."""
    policy = family_policy("llama", "attention")
    policy.get_submodule("base_model.model.lm_head").weight.data *= 1e38
    check_policy(policy)


@pytest.mark.parametrize("family", ["mixtral", "opt"])
def test_checkpointing_changes_no_gradient(family: str) -> None:
    policy = family_policy(family, "all-linear")
    batch = pad_responses(PROMPTS, RESPONSES, 0, "cpu")
    plain = response_gradients(policy, batch, Whole(policy), exact_norms="always")
    with checkpointed_layers(policy):
        again = response_gradients(policy, batch, Whole(policy), exact_norms="always")
    assert torch.allclose(plain.features, again.features, rtol=1e-5, atol=1e-5 * float(plain.features.abs().max()))


@pytest.mark.parametrize("room", [2**28, 0], ids=["whole gradients fit", "none fits"])
def test_the_projections_error_is_measured_where_there_is_room(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = family_policy("mixtral", "all-linear")
    monkeypatch.setattr(quality, "ENTRIES_KEPT", room)
    errors = quality.cosine_errors(policy, pad_responses(PROMPTS, RESPONSES, 0, "cpu"), Factored(64, seed=1))
    assert len(errors) == (3 if room else 0)
