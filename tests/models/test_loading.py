"""Base models load frozen, whole and finite; tokenizers get no new tokens."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_small_model
from small_policies import load

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.models.loading import context_length, context_length_at, load_tokenizer, pick_device


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


def test_flash_attention_in_float32_is_refused(model_folder):
    with pytest.raises(UsageError, match="half precision"):
        load(model_folder(), dtype="float32", attn_implementation="flash_attention_2")


def test_flash_attention_that_is_not_installed_is_named(model_folder):
    with pytest.raises(ActiveDPOError, match="cannot be loaded") as refused:
        load(model_folder(), dtype="bfloat16", attn_implementation="flash_attention_2")
    assert any("FlashAttention2" in line for line in refused.value.details)


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
