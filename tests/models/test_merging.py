"""A LoRA SFT model merged into full weights computes what base plus adapter computed."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_policies import disturb, load
from transformers import AutoModelForCausalLM, AutoTokenizer

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.models.merging import merge_adapter_model

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


def test_base_must_be_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    with pytest.raises(InvalidDataError, match="base model"):
        merge_adapter_model(tmp_path, tmp_path / "merged")
