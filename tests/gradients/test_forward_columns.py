"""Log-probabilities and last hidden states by one pass, against transformers' own of one unpadded example at a time."""

from typing import Any

import pytest
import torch
import transformers
from honest_lora import CONFIGS, HEADS, SIZES, MakeModel, Rows
from torch import Tensor, nn

from activedpo_cli.gradients import response_head
from activedpo_cli.gradients.batch import ResponseBatch, pad_responses
from activedpo_cli.gradients.forward_columns import forward_columns
from activedpo_cli.gradients.logps import response_logps


def padded(rows: Rows, side: Any = "right") -> ResponseBatch:
    prompts, responses = zip(*rows, strict=True)
    return pad_responses(prompts, responses, 0, "cpu", side=side)


def honest_hidden(model: nn.Module, rows: Rows) -> Tensor:
    """What transformers calls the last hidden state, behind the final norm, at the last token."""
    model.eval()
    with torch.no_grad():
        found = [model(input_ids=torch.tensor([p + r]), output_hidden_states=True).hidden_states[-1] for p, r in rows]
    return torch.stack([states[0, -1] for states in found])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_equals_transformers_own(kind: str, side: str, make_model: MakeModel, rows: Rows) -> None:
    model, batch = make_model(kind), padded(rows, side)
    found = forward_columns(model, batch, logps=True, hidden=True)
    assert found.hidden is not None
    assert found.logps is not None
    assert torch.allclose(found.hidden, honest_hidden(model, rows), rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.logps, response_logps(model, batch), rtol=1e-6)


def test_the_hidden_state_is_what_the_output_layer_receives(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    hidden = forward_columns(model, padded(rows), logps=False, hidden=True).hidden
    for state, (prompt, response) in zip(hidden, rows, strict=True):
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, -1]
        assert torch.allclose(model.get_output_embeddings()(state), logits, rtol=1e-4, atol=1e-5)


def test_only_what_was_asked_for(make_model: MakeModel, rows: Rows) -> None:
    model, batch = make_model("llama"), padded(rows)
    assert forward_columns(model, batch, logps=True, hidden=False).hidden is None
    assert forward_columns(model, batch, logps=False, hidden=True).logps is None


def test_one_pass_gives_both(make_model: MakeModel, rows: Rows) -> None:
    model, passes = make_model("llama"), []
    response_head.response_head(model)  # its probe is made once for a model
    model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))
    forward_columns(model, padded(rows), logps=True, hidden=True)
    assert len(passes) == 1


@pytest.mark.parametrize("without_backbone", [False, True])
def test_a_model_with_logits_of_its_own_kind(
    without_backbone: bool, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = transformers.GraniteConfig(**SIZES, **HEADS, logits_scaling=7.0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    expected = honest_hidden(model, rows)
    if without_backbone:
        monkeypatch.setattr(response_head, "_backbone", lambda base_model: None)
    found = forward_columns(model, padded(rows), logps=True, hidden=True)
    assert torch.allclose(found.hidden, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.logps, response_logps(model, padded(rows)), rtol=1e-6)


def test_half_precision_is_widened(make_model: MakeModel, rows: Rows) -> None:
    found = forward_columns(make_model("llama", dtype=torch.bfloat16), padded(rows), logps=True, hidden=True)
    assert found.hidden.dtype == found.logps.dtype == torch.float32
