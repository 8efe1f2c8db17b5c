"""Logits of response tokens only, a chunk at a time, against the model's own."""

from typing import Any

import pytest
import torch
import transformers
from honest_lora import CONFIGS, HEADS, SIZES, VOCABULARY, MakeModel, Rows, honest_gradients
from torch.utils._python_dispatch import TorchDispatchMode

from activedpo_cli.gradients import response_head as module
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.logps import response_logps
from activedpo_cli.gradients.per_response import plain_pass
from activedpo_cli.gradients.response_head import ResponseHead, response_head


class Widest(TorchDispatchMode):
    """Remembers the most rows that a tensor of vocabulary width had, the weights left out."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        super().__init__()
        self.rows = 0
        self._weights = {weight.data_ptr() for weight in weights}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and self._is_of_vocabulary_width(tensor):
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return result

    def _is_of_vocabulary_width(self, tensor: torch.Tensor) -> bool:
        is_weight = tensor.untyped_storage().data_ptr() in self._weights
        return tensor.ndim >= 2 and tensor.shape[-1] == VOCABULARY and not is_weight


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_output_layer_of_known_families_is_found(kind: str, make_model: MakeModel) -> None:
    head = response_head(make_model(kind))
    assert head is not None
    assert (head.softcap is not None) == (kind == "gemma2")


def test_a_model_that_scales_its_logits_is_measured_by_its_own_forward(rows: Rows) -> None:
    torch.manual_seed(0)
    config = transformers.GraniteConfig(**SIZES, **HEADS, logits_scaling=7.0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert response_head(model) is None
    prompts, responses = zip(*rows, strict=True)
    for side in ("right", "left"):
        found = response_logps(model, pad_responses(prompts, responses, 0, "cpu", side=side)).tolist()
        for (prompt, response), logps in zip(rows, found, strict=True):
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(dim=-1)
            expected = sum(logits[len(prompt) - 1 + i, token].item() for i, token in enumerate(response))
            assert logps == pytest.approx(expected, rel=1e-5)


def test_an_adapted_output_layer_is_measured_by_its_own_forward(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama", target_modules=["q_proj", "lm_head"])
    assert response_head(model) is None
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    expected = [honest_gradients(model, *row)[0] for row in rows]
    assert response_logps(model, batch).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_no_logits_for_prompt_tokens(kind: str, make_model: MakeModel, rows: Rows) -> None:
    model = make_model(kind)
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    plain_pass(model, batch)
    with Widest([parameter.data for parameter in model.parameters()]) as widest:
        plain_pass(model, batch)
    assert widest.rows == sum(map(len, responses))
    assert widest.rows < batch.input_ids.numel() / 2


def test_only_a_chunk_of_logits_at_a_time(make_model: MakeModel, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("gemma2", dtype=torch.float32)
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    expected = plain_pass(model, batch)
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", 4 * VOCABULARY)
    with Widest([parameter.data for parameter in model.parameters()]) as widest:
        assert torch.allclose(plain_pass(model, batch), expected, rtol=1e-6)
    assert widest.rows == 4


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("has_bias", [False, True])
def test_its_gradient_is_the_derivative(softcap: float | None, has_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By finite differences in float64, over several chunks."""
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", 20)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 6, generator=generator, dtype=torch.float64)
    bias = torch.randn(10, generator=generator, dtype=torch.float64) if has_bias else None
    hidden = torch.randn(5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    head = ResponseHead(weight, bias, softcap)
    assert torch.autograd.gradcheck(lambda states: head.logps(states, torch.tensor([0, 9, 3, 3, 7])), (hidden,))
