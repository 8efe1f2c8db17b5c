"""Adapters: seeded, reproducible to the byte, attached whole, switched off exactly."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import byte_tokenizer
from small_policies import ADAPTER, load

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import AdapterSettings
from activedpo_cli.models.adapters import (
    attach_adapter,
    create_initial_adapter,
    reference_mode,
    save_adapter,
)
from activedpo_cli.models.linear_layers import linear_layer_names

PROBE = torch.tensor([[5, 17, 99, 200, 31]])


def logits(model):
    with torch.no_grad():
        return model(PROBE).logits


def folder_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def create(base, folder, seed=3, settings=ADAPTER):
    create_initial_adapter(base, settings, seed=seed, destination=folder, base_name="the-base")
    return folder_bytes(folder)


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen3"])
def test_initial_adapter_is_the_base_and_leaves_it_alone(model_folder, tmp_path, family):
    base = load(model_folder(family))
    names, before = [name for name, _ in base.named_parameters()], logits(base)
    files = create(base, tmp_path / "a")
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert [name for name, _ in base.named_parameters()] == names
    assert torch.equal(logits(base), before)
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * 4  # layers, A and B, modules
    assert all(bool(weight.any()) == ("lora_A" in name) for name, weight in weights.items())
    assert torch.equal(logits(attach_adapter(base, tmp_path / "a", trainable=False)), before)
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "the-base"
    assert (config["r"], config["lora_alpha"]) == (4, 8)


def test_adapter_depends_on_its_seed_and_not_on_the_global_state(model_folder, tmp_path):
    torch.manual_seed(1)
    base = load(model_folder())
    first = create(base, tmp_path / "a")
    torch.manual_seed(2)
    expected_next_draw = torch.rand(())
    torch.manual_seed(2)
    assert create(base, tmp_path / "b") == first
    attach_adapter(base, tmp_path / "b", trainable=True).unload()
    assert torch.equal(torch.rand(()), expected_next_draw)
    assert create(base, tmp_path / "d", seed=4) != first


def test_layers_are_named_in_one_order(model_folder, tmp_path):
    create(load(model_folder()), tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]


@pytest.mark.parametrize("wanted", [["q_proj", "query"], ["lm_head"], ["mlp"], ["roj"]])
def test_unknown_layers_are_named_with_those_there_are(model_folder, tmp_path, wanted):
    with pytest.raises(UsageError) as caught:
        create(load(model_folder()), tmp_path / "a", settings=AdapterSettings(r=2, target_modules=wanted))
    assert f"`{wanted[-1]}`" in caught.value.message
    assert caught.value.details == ("its linear layers: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",)


@pytest.mark.parametrize(("family", "count"), [("llama", 7), ("gpt2", 4)])
def test_all_linear(model_folder, tmp_path, family, count):
    base = load(model_folder(family))
    create(base, tmp_path / "a", settings=AdapterSettings(r=2, target_modules="all-linear"))
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(weights) == 2 * 2 * count
    assert len(linear_layer_names(base)) == {"llama": 7, "gpt2": 3}[family]  # two layers are called c_proj in GPT-2


@pytest.mark.parametrize("trainable", [True, False])
def test_trainable_only_if_asked_and_in_float32(make_policy, trainable):
    policy = make_policy(trainable=trainable, dtype="bfloat16")
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad == (trainable and "lora_" in name)
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)
    assert not policy.training


@pytest.mark.parametrize("trainable", [True, False])
def test_reference_mode_is_the_base_and_restores_what_needs_gradients(make_policy, model_folder, trainable):
    policy = make_policy(continued=True, trainable=trainable)
    policy_logits, expected = logits(policy), logits(load(model_folder()))
    before = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    with reference_mode(policy):
        assert torch.equal(logits(policy), expected)
    assert {name: parameter.requires_grad for name, parameter in policy.named_parameters()} == before
    assert torch.equal(logits(policy), policy_logits)
    assert not torch.equal(policy_logits, expected)


def test_saved_adapter_comes_back_with_tokenizer_and_template(make_policy, model_folder, tmp_path):
    policy = make_policy(continued=True)
    tokenizer = byte_tokenizer("bytes-chat")
    for name in ("a", "b"):
        save_adapter(policy, tmp_path / name, base_name="the-base", tokenizer=tokenizer)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")
    files = set(folder_bytes(tmp_path / "a"))
    assert {"tokenizer.json", "chat_template.jinja", "adapter_model.safetensors"} < files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".md"))]
    again = attach_adapter(load(model_folder()), tmp_path / "a", trainable=False)
    assert torch.equal(logits(again), logits(policy))


def test_saving_does_not_ask_the_hub(make_policy, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_exists", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *_, **__: pytest.fail("asked"))
    policy = make_policy()
    policy.peft_config["default"].base_model_name_or_path = "google/gemma-2b"
    save_adapter(policy, tmp_path / "a", base_name="google/gemma-2b")


def broken(folder, edit):
    weights = load_file(folder / "adapter_model.safetensors")
    edit(weights, min(weights))
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def nan(weights, name):
    weights[name].view(-1)[0] = float("nan")


def renamed(weights, name):
    weights["base_model.model.model.layers.9.x.lora_A.weight"] = weights.pop(name)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda weights, name: weights.pop(name), id="missing"),
        pytest.param(renamed, id="renamed"),
        pytest.param(lambda weights, name: weights.update({name: torch.ones(3, 3)}), id="shape"),
        pytest.param(nan, id="nan"),
    ],
)
def test_adapter_that_does_not_fit_is_refused(model_folder, tmp_path, edit):
    base = load(model_folder())
    create(base, tmp_path / "a")
    broken(tmp_path / "a", edit)
    with pytest.raises(InvalidDataError):
        attach_adapter(base, tmp_path / "a", trainable=False)


def test_adapter_of_another_family_is_refused(model_folder, tmp_path):
    create(load(model_folder("llama")), tmp_path / "a")
    with pytest.raises(InvalidDataError):
        attach_adapter(load(model_folder("gpt2")), tmp_path / "a", trainable=False)
