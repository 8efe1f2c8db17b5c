"""A LoRA SFT model merged into full weights computes what base plus adapter computed."""

import copy
import json

import pytest
import torch
from model_families import family_policy
from peft import LoraConfig, get_peft_model
from small_models import byte_tokenizer, save_small_model
from small_policies import disturb, load
from transformers import AutoModelForCausalLM, AutoTokenizer

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.models.merging import merge_adapter_model, merge_in_float32, write_full_weights
from activedpo_cli.models.quiet import quiet_libraries

PROBE = torch.tensor([[5, 17, 99, 200, 31]])


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("llama", ["q_proj", "down_proj"]),
        ("gemma", ["q_proj", "lm_head"]),  # tied to the embedding, which must stay as it was
        ("gemma", ["embed_tokens"]),
        ("gemma", ["v_proj"]),
    ],
)
def test_merged_equals_base_with_adapter(model_folder, tmp_path, family, targets):
    base = load(model_folder(family))
    policy = disturb(get_peft_model(base, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))).eval()
    with torch.no_grad():
        expected = policy(PROBE).logits
    policy.save_pretrained(tmp_path / "sft", save_embedding_layers=False)
    merge_adapter_model(tmp_path / "sft", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(PROBE).logits, expected, rtol=1e-4, atol=1e-4)
    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not any(name.startswith("adapter") for name in files)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == 260


FIELDS = {
    "rsLoRA": ("llama", {"use_rslora": True}),
    "DoRA": ("llama", {"use_dora": True}),
    "ranks": ("llama", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}}),
    "layers": ("llama", {"layers_to_transform": [1], "layers_pattern": "layers"}),
    "norm": ("llama", {"modules_to_save": ["norm"]}),
    "biases": ("gpt2", {"target_modules": ["c_attn"], "bias": "all"}),
    "bias of B": ("gpt2", {"target_modules": ["c_attn"], "lora_bias": True}),
    "head": ("gemma", {"modules_to_save": ["lm_head"]}),  # tied to the embedding
    "tokens": ("gemma", {"trainable_token_indices": [5, 99]}),
    "tokens of either": ("gemma", {"trainable_token_indices": {"embed_tokens": [5], "lm_head": [99]}}),
    "PiSSA": ("llama", {"init_lora_weights": "pissa"}),
    "embeddings": ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "tied embeddings": ("gemma", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
}


def trained(base, folder, **settings):
    """An adapter as PEFT saves it by itself; returns what it computes of a probe that ends in the last token."""
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings
    with quiet_libraries():
        policy = disturb(get_peft_model(base, LoraConfig(**settings))).eval()
    probe = torch.cat([PROBE, torch.tensor([[base.config.vocab_size - 1]])], dim=1)
    with torch.no_grad():
        expected = policy(probe).logits
    with quiet_libraries():
        policy.save_pretrained(folder)
    return probe, expected


def merged(folder):
    destination = folder.parent / "merged"
    merge_adapter_model(folder, destination)
    return AutoModelForCausalLM.from_pretrained(destination)


@pytest.mark.parametrize("name", FIELDS)
def test_settings_of_adapters_count(model_folder, tmp_path, name):
    family, settings = FIELDS[name]
    probe, expected = trained(load(model_folder(family)), tmp_path / "sft", **settings)
    with torch.no_grad():
        torch.testing.assert_close(merged(tmp_path / "sft")(probe).logits, expected, rtol=1e-4, atol=1e-4)


VOCABULARIES = {
    "as it was": {},
    "trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "adapted": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "tokens": {"trainable_token_indices": [5, 249]},
}


@pytest.mark.parametrize("rows", [262, 250])
@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_of_another_size(model_folder, tmp_path, family, name, rows):
    base = load(model_folder(family))
    base.resize_token_embeddings(rows, mean_resizing=False)
    probe, expected = trained(base, tmp_path / "sft", **VOCABULARIES[name])
    model = merged(tmp_path / "sft")
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == rows
    with torch.no_grad():
        torch.testing.assert_close(model(probe).logits, expected, rtol=1e-4, atol=1e-4)


def changed(folder, **fields):
    """Other fields in the settings of an adapter."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "`peft_type` is PREFIX_TUNING"),
        ({"peft_type": "NO_SUCH_TYPE"}, "`peft_type` is NO_SUCH_TYPE"),
        ({"task_type": "SEQ_CLS"}, "`task_type` is SEQ_CLS"),
        ({"init_lora_weights": "pissa_niter_4"}, "`init_lora_weights` is pissa_niter_4"),
        ({"init_lora_weights": "lora_ga"}, "`init_lora_weights` is lora_ga"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "`layer_replication` is set"),
        ({"alora_invocation_tokens": [5, 17]}, "`alora_invocation_tokens` is set"),
        ({"use_later": True}, "`use_later`"),
        ({"target_modules": ["nowhere"]}, "nowhere"),
        ({"lora_bias": True}, None),
    ],
)
def test_what_no_weights_can_say_is_refused_by_name(model_folder, tmp_path, fields, said):
    trained(load(model_folder()), tmp_path / "sft", **({"lora_bias": True} if "lora_bias" in fields else {}))
    changed(tmp_path / "sft", **fields)
    with pytest.raises(InvalidDataError) as refusal:
        merge_adapter_model(tmp_path / "sft", tmp_path / "merged")
    assert (said or "the base layer has no bias") in " ".join([refusal.value.message, *refusal.value.details])


def test_fields_that_say_nothing_are_passed_over(model_folder, tmp_path):
    probe, expected = trained(load(model_folder()), tmp_path / "sft")
    changed(tmp_path / "sft", use_later=False, group_size_of_later=16, later=None)
    with torch.no_grad():
        torch.testing.assert_close(merged(tmp_path / "sft")(probe).logits, expected, rtol=1e-4, atol=1e-4)


def test_another_embedding_than_the_base_has(model_folder, tmp_path):
    base = load(model_folder())
    base.get_input_embeddings().weight.data += 1
    trained(base, tmp_path / "sft", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(InvalidDataError, match=r"holds another `model\.embed_tokens\.weight` than its base") as refusal:
        merge_adapter_model(tmp_path / "sft", tmp_path / "merged")
    assert "merge_and_unload" in refusal.value.hint


def test_an_embedding_in_another_number_format_is_the_same(model_folder, tmp_path):
    """Stored as bfloat16 with the adapter, it does not take the place of the base's own float32."""
    base = load(model_folder(), dtype="bfloat16")
    base.resize_token_embeddings(262, mean_resizing=False)
    trained(base, tmp_path / "sft")
    merged_rows = merged(tmp_path / "sft").get_input_embeddings().weight
    assert torch.equal(merged_rows[:260], load(model_folder()).get_input_embeddings().weight)
    assert torch.equal(merged_rows[260:], base.get_input_embeddings().weight[260:].float())


def test_tokens_that_were_added_and_not_stored(model_folder, tmp_path):
    base = load(model_folder())
    base.resize_token_embeddings(262, mean_resizing=False)
    trained(base, tmp_path / "sft", target_modules=["q_proj", "embed_tokens"])  # the rows of the head are nowhere
    with pytest.raises(InvalidDataError, match="trained with 262 tokens, and its base knows 260") as refusal:
        merge_adapter_model(tmp_path / "sft", tmp_path / "merged")
    assert refusal.value.details == ("the folder does not hold the rows of `lm_head` that were added",)


def test_the_commit_of_the_base_counts(model_folder, tmp_path, monkeypatch):
    """Two commits of a base in the hub's cache: what is merged is the one that the adapter names, not the newest."""
    folder = tmp_path / "hub" / "models--acme--base"
    commits = {"old": "a" * 40, "new": "b" * 40}
    for seed, commit in enumerate(commits.values(), start=1):
        save_small_model(folder / "snapshots" / commit, seed=seed)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commits["new"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    probe, expected = trained(load(folder / "snapshots" / commits["old"]), tmp_path / "sft")
    changed(tmp_path / "sft", base_model_name_or_path="acme/base", revision=commits["old"])
    with torch.no_grad():
        torch.testing.assert_close(merged(tmp_path / "sft")(probe).logits, expected, rtol=1e-4, atol=1e-4)


def test_sums_are_rounded_once():
    """The weights are those of float32, to the last bit; PEFT alone rounds the update before it adds it, too."""
    policy = family_policy("llama", "attention", dtype=torch.bfloat16)
    alone = copy.deepcopy(policy)
    layers = {name: layer for name, layer in policy.named_modules() if hasattr(layer, "lora_A")}
    expected = {}
    for name, layer in layers.items():
        update = (
            layer.scaling["default"] * layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
        )
        expected[name] = (layer.get_base_layer().weight.float() + update).bfloat16()
        for matrix in (layer.lora_A["default"], layer.lora_B["default"]):
            matrix.float()
    merge_in_float32(policy)
    assert len(expected) == 8
    for name, weight in expected.items():
        assert torch.equal(layers[name].get_base_layer().weight, weight)
    alone.merge_adapter(safe_merge=True)
    others = dict(alone.named_modules())
    assert any(not torch.equal(others[name].get_base_layer().weight, weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("family", "wanted"), [("gpt2", "attention"), ("mixtral", "all-linear"), ("gemma3-text", "attention")]
)
def test_what_was_merged_in_float32_computes_the_same(tmp_path, family, wanted):
    """Transposed weights, bare ones of experts, and tied embeddings, whose layer is not adapted."""
    policy = family_policy(family, wanted)
    with torch.no_grad():
        expected = policy(PROBE).logits
        with policy.disable_adapter():
            assert (policy(PROBE).logits - expected).abs().max() > 0.1
    merge_in_float32(policy)
    with quiet_libraries():
        write_full_weights(policy, byte_tokenizer(), tmp_path)
        merged_model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(merged_model(PROBE).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_tied_and_adapted_is_merged_alone(model_folder, tmp_path):
    base = load(model_folder("gemma"))
    policy = disturb(get_peft_model(base, LoraConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM"))).eval()
    with torch.no_grad():
        expected = policy(PROBE).logits
    merge_in_float32(policy)
    with quiet_libraries():
        write_full_weights(policy, byte_tokenizer(), tmp_path)
    with torch.no_grad():
        merged_model = AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(merged_model(PROBE).logits, expected, rtol=1e-4, atol=1e-4)


def test_base_must_be_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    with pytest.raises(InvalidDataError, match="base model"):
        merge_adapter_model(tmp_path, tmp_path / "merged")
