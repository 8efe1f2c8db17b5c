"""Base models load frozen, whole and finite; tokenizers get no new tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_small_model
from small_policies import load
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.models.loading import (
    context_length,
    context_length_at,
    keep_backward_passes,
    load_base_model,
    load_tokenizer,
    pick_device,
)


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen3", "gpt2"])
def test_families_load_frozen_in_evaluation_mode(model_folder, family):
    model = load(model_folder(family))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert context_length(model) == context_length(model.config) == 256


def test_a_configuration_that_was_changed_is_read_again(model_folder, tmp_path):
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    before = context_length_at(str(folder))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 77}))
    assert (before, context_length_at(str(folder))) == (256, 77)
    path.write_text("{")
    with pytest.raises(InvalidDataError):
        context_length_at(str(folder))


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype(model_folder, dtype, expected):
    assert {parameter.dtype for parameter in load(model_folder(), dtype=dtype).parameters()} == {expected}


def edited(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_nan_weight_is_named(tmp_path):
    folder = save_small_model(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    edited(folder, lambda weights: weights[name].view(-1)[7:8].fill_(float("nan")))
    with pytest.raises(InvalidDataError, match=name):
        load(folder)


def test_missing_weight_is_not_drawn_at_random(tmp_path):
    folder = edited(save_small_model(tmp_path), lambda weights: weights.pop("model.norm.weight"))
    with pytest.raises(InvalidDataError, match=r"model\.norm\.weight"):
        load(folder)


def test_wrong_shape_is_named(tmp_path):
    folder = save_small_model(tmp_path)
    edited(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(5)}))
    with pytest.raises(InvalidDataError, match=r"shape of 1 .*model\.norm\.weight"):
        load(folder)


def test_truncated_weights_are_an_explained_error(tmp_path):
    weights = save_small_model(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InvalidDataError):
        load(tmp_path)


def test_pickles_and_other_folders_are_refused(tmp_path):
    folder = save_small_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(InvalidDataError):
        load(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(InvalidDataError):
        load(folder)


def test_loading_prints_nothing(model_folder, capfd):
    load(model_folder("gemma"))
    load_tokenizer(str(model_folder("gemma")))
    assert capfd.readouterr() == ("", "")


def test_missing_pad_token_becomes_eos_without_new_tokens(model_folder, stories_folder):
    tokenizer = load_tokenizer(str(model_folder(with_pad=False)))
    assert (tokenizer.pad_token_id, len(tokenizer)) == (tokenizer.eos_token_id, 260)
    real = load_tokenizer(str(stories_folder))
    assert (real.pad_token_id, len(real)) == (2, 512)


def test_pad_token_of_the_tokenizer_is_kept(model_folder):
    assert load_tokenizer(str(model_folder())).pad_token_id == 258


def test_absent_tokenizer_is_an_explained_error(tmp_path):
    with pytest.raises(InvalidDataError, match="tokenizer"):
        load_tokenizer(str(tmp_path))


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:3", "gpu"):
        with pytest.raises(UsageError):
            pick_device(name)


class PackingLinear(torch.nn.Linear):
    """Evaluated as bitsandbytes evaluates 4-bit layers on a CPU that it has a kernel for: with no gradient to the input."""

    support_avx512bf16_for_cpu = True

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        packs = self.support_avx512bf16_for_cpu and not self.training and not states.requires_grad
        self.packed = getattr(self, "packed", False) or packs
        return torch.nn.functional.linear(states.detach() if self.packed else states, self.weight)


def test_layers_that_lose_their_backward_pass_in_evaluation_keep_it() -> None:
    layer = PackingLinear(3, 2).eval()
    states = torch.ones(1, 3)
    keep_backward_passes(torch.nn.Sequential(layer))
    layer(states)
    states.requires_grad_(True)
    layer(states).sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad[0], layer.weight.sum(0))


def test_gradients_through_four_bits_are_those_of_their_values(tmp_path: Path) -> None:
    """Against the same weights written out in full; the layers have been evaluated before, which is when they pack."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    folder = save_small_model(tmp_path / "full", hidden_size=64, intermediate_size=128, head_dim=32)
    AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization).save_pretrained(tmp_path / "four")
    models = {
        name: load_base_model(
            str(tmp_path / name), dtype="auto", device=torch.device("cpu"), attn_implementation="sdpa"
        )
        for name in ("full", "four")
    }
    layers = dict(models["four"].named_modules())
    for name, module in models["full"].named_modules():
        if isinstance(four := layers[name], bitsandbytes.nn.Linear4bit):
            weight: Any = four.weight
            values = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            module.weight.data = values.to(torch.float32)
    found = []
    for model in models.values():
        embeddings: Any = model.get_input_embeddings()
        states = embeddings(torch.arange(8)[None]).detach()
        model(inputs_embeds=states)
        states.requires_grad_(True)
        model(inputs_embeds=states).logits.log_softmax(-1)[..., 0].sum().backward()
        found.append(states.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
