from typing import Any

import peft
import pytest
import torch
import transformers
from honest_lora import CONFIGS, HEADS, SIZES, MakeModel, Rows, honest_gradients

from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.logps import response_logps


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_equals_one_unpadded_example_at_a_time(kind: str, side: str, make_model: MakeModel, rows: Rows) -> None:
    model = make_model(kind)
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu", side=side)
    expected = [honest_gradients(model, *row)[0] for row in rows]
    assert response_logps(model, batch).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_reference_is_the_model_with_adapters_off(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("llama")
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    with model.disable_adapter():
        reference = response_logps(model, batch)
    fresh = make_model("llama", random_b=False)
    assert torch.allclose(reference, response_logps(fresh, batch), rtol=1e-6)
    assert not torch.allclose(reference, response_logps(model, batch), rtol=1e-3)


def test_a_known_distribution(make_model: MakeModel) -> None:
    """With a zero output layer every token has probability 1/61, the response's only."""
    model = make_model("llama")
    model.get_output_embeddings().weight.data.zero_()
    batch = pad_responses([[1, 2, 3], [4]], [[5, 6], []], 0, "cpu")
    assert response_logps(model, batch).tolist() == pytest.approx([-2 * torch.tensor(61.0).log().item(), 0.0])


def test_only_empty_responses(make_model: MakeModel) -> None:
    batch = pad_responses([[1], [2]], [[], []], 0, "cpu")
    assert response_logps(make_model("llama"), batch).tolist() == [0.0, 0.0]


def test_dropout_is_off_and_modes_are_restored(make_model: MakeModel, rows: Rows) -> None:
    model = make_model("gpt2", dropout=0.5)
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    quiet = response_logps(model.eval(), batch)
    model.train()
    model.get_base_model().transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    assert torch.equal(response_logps(model, batch), quiet)
    assert [module.training for module in model.modules()] == modes
    assert not response_logps(model, batch).requires_grad


def test_a_model_that_knows_no_logits_to_keep_is_served_too(rows: Rows) -> None:
    """Two prompts of several tokens, so that the first logits are not needed; a model measured by its own forward."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.GraniteConfig(**SIZES, **HEADS, logits_scaling=7.0)
    )
    prompts, responses = zip(*rows[:2], strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    expected, calls, forward = response_logps(model, batch), [], model.forward

    def without_choice(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Any:
        calls.append(forward(input_ids, attention_mask))
        return calls[-1]

    model.forward = without_choice
    assert torch.allclose(response_logps(model, batch), expected, rtol=1e-6)
    assert [found.logits.shape[1] for found in calls] == [batch.input_ids.shape[1]]


def test_an_output_layer_that_is_adapted_later_is_seen(make_model: MakeModel, rows: Rows) -> None:
    base_model = make_model("llama").unload()
    prompts, responses = zip(*rows, strict=True)
    batch = pad_responses(prompts, responses, 0, "cpu")
    response_logps(base_model, batch)
    model = peft.get_peft_model(base_model, peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    expected = [honest_gradients(model, *row)[0] for row in rows]
    assert response_logps(model, batch).tolist() == pytest.approx(expected, rel=1e-5)
