"""Models with random weights, for `bench`: speed and memory do not depend on what the weights say."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from activedpo_cli.models.linear_layers import checked_targets
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import seeded_library_state

STANDARD_DEVIATION_OF_B = 0.02


ARCHITECTURES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "tiny-llama-15m": (
        LlamaConfig,
        {
            "vocab_size": 4096,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 7,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": 1024,
        },
    ),
    "random-gemma-2b": (
        GemmaConfig,
        {
            "vocab_size": 256_000,
            "hidden_size": 2048,
            "intermediate_size": 16_384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
        },
    ),
    "random-qwen3-4b": (
        Qwen3Config,
        {
            "vocab_size": 151_936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40_960,
            "tie_word_embeddings": True,
        },
    ),
    "random-llama-2-7b": (
        LlamaConfig,
        {
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
        },
    ),
}
"""What `bench --model` takes beside real models."""


def random_config(name: str, **changes: Any) -> PretrainedConfig:
    """The configuration of the architecture `name`, with some of its sizes changed; KeyError for an unknown name."""
    config_class, sizes = ARCHITECTURES[name]
    return config_class(**sizes | changes)


def random_base_model(
    name: str,
    *,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
    attn_implementation: str = "sdpa",
    **changes: Any,
) -> PreTrainedModel:
    """A frozen model of the architecture `name` with weights drawn from `seed`, made on `device` in `dtype`.

    `changes` are to its configuration. Raises KeyError for an unknown name.
    """
    config = random_config(name, **changes)
    with quiet_libraries(), seeded_library_state(seed), device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation)
    model.to(device).eval().requires_grad_(False)
    return model


def random_policy(
    base_model: PreTrainedModel, *, r: int, lora_alpha: float, target_modules: str | list[str], seed: int
) -> PeftModel:
    """The base with a LoRA adapter whose A and B are both random, as after training, so that no gradient is zero.

    Raises UsageError for layers that the model does not have.
    """
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,  # type: ignore[arg-type]
        target_modules=checked_targets(base_model, target_modules, "--lora-modules"),
        task_type=TaskType.CAUSAL_LM,
    )
    with quiet_libraries(), seeded_library_state(seed):
        policy = get_peft_model(base_model, config)  # type: ignore[arg-type]
        for name, parameter in policy.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=STANDARD_DEVIATION_OF_B)
    return policy.eval().requires_grad_(False)  # type: ignore[return-value]
