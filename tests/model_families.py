"""Tiny random models of many families by their own configurations, with vocabulary and special ids of `small_models`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from small_models import BOS, CONTEXT, EOS, PAD, VOCABULARY, byte_tokenizer
from transformers import PretrainedConfig

SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "max_position_embeddings": CONTEXT,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
}
SIZES = SHARED | {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.2}
HEADS = SIZES | {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = SIZES | {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}


def _gemma3() -> PretrainedConfig:
    text = {**HEADS, "sliding_window": 4}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.Gemma3Config(
        text_config=text,
        vision_config=vision | {"image_size": 8, "patch_size": 4},
        mm_tokens_per_image=4,
        image_token_index=PAD,
        **{name: SHARED[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )


def _gpt_oss() -> PretrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    routed = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4}
    return transformers.GptOssConfig(**HEADS, **routed, rope_parameters=rope)


CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "gemma2": lambda: transformers.Gemma2Config(**HEADS, sliding_window=4),
    "gemma3-text": lambda: transformers.Gemma3TextConfig(**HEADS, sliding_window=4),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**HEADS),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=4),
    "phi3": lambda: transformers.Phi3Config(**SIZES),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        initializer_range=0.2,
        bos_token_id=BOS,
        eos_token_id=EOS,
    ),
    "opt": lambda: transformers.OPTConfig(**SHARED, ffn_dim=48, word_embed_proj_dim=32, init_std=0.2),
    "ctrl": lambda: transformers.CTRLConfig(
        vocab_size=VOCABULARY,
        n_embd=32,
        dff=48,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        initializer_range=0.2,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    ),
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen2-moe": lambda: transformers.Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=24),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(**HEADS, **EXPERTS),
    "deepseek-v2": lambda: transformers.DeepseekV2Config(**LATENT, q_lora_rank=None),
    "deepseek-v3": lambda: transformers.DeepseekV3Config(**LATENT, q_lora_rank=16),
    "gpt-oss": _gpt_oss,
    "phimoe": lambda: transformers.PhimoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "gemma3": _gemma3,
}
"""The last is a model of text and images, of which text alone is used."""
MODULES = {
    "phi3": ["qkv_proj", "o_proj"],
    "gpt2": ["c_attn"],
    "opt": ["q_proj", "k_proj", "v_proj", "out_proj"],
    "ctrl": ["Wq", "Wk", "Wv"],
    "deepseek-v2": ["q_proj", "kv_b_proj", "o_proj"],
    "deepseek-v3": ["q_b_proj", "kv_b_proj", "o_proj"],
}
"""The layers of attention, where they are not those that the default of `adapter.target_modules` names."""
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
REFUSED = {("phimoe", "all-linear")}


def modules_of(family: str, wanted: str) -> str | list[str]:
    """`all-linear`, or the names of the layers of attention."""
    return MODULES.get(family, ATTENTION) if wanted == "attention" else wanted


def family_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(CONFIGS[family](), dtype=dtype).eval()


def family_policy(
    family: str, wanted: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, random_b: bool = True
) -> PeftModel:
    """A model with an adapter whose B is not zero, as after an iteration."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules=modules_of(family, wanted), task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = get_peft_model(family_model(family, dtype, seed), config)
        for name, parameter in policy.named_parameters():
            if random_b and "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    return policy.eval()


def save_family(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Path:
    family_model(family, dtype).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
