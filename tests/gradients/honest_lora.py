"""Tiny random models whose LoRA B is not zero, and the honest gradient, which shares no code with the package."""

import copy
import functools
from collections.abc import Callable

import peft
import torch
import transformers
from torch import Tensor, nn

from activedpo_cli.gradients.lora_matrices import MatrixShape

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "initializer_range": 0.15,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

CONFIGS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, **HEADS),
    "llama-tied": lambda: transformers.LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=True),
    "gemma": lambda: transformers.GemmaConfig(**SIZES, **HEADS, head_dim=16),
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, **HEADS, head_dim=16, sliding_window=4),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, **HEADS, head_dim=16),
    "bloom": lambda: transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.15
    ),
}

Rows = list[tuple[list[int], list[int]]]
EAGER = {"bloom", "gemma2"}
"""Families whose attention is computed in float32 at best, and gives NaN for padding in float64."""

MakeModel = Callable[..., nn.Module]


def build_model(
    kind: str,
    *,
    target_modules: str | list[str] | None = None,
    dtype: torch.dtype = torch.float32,
    random_b: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """A model of its own, for the caller to change; copying one takes a part of the time that making it does."""
    wanted = tuple(target_modules) if isinstance(target_modules, list) else target_modules
    return copy.deepcopy(_built(kind, wanted, dtype, random_b, dropout))


@functools.cache
def _built(
    kind: str, target_modules: str | tuple[str, ...] | None, dtype: torch.dtype, random_b: bool, dropout: float
) -> nn.Module:
    torch.manual_seed(0)
    base_model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
    targets = (list(target_modules) if isinstance(target_modules, tuple) else target_modules) or {
        "gpt2": ["c_attn"],
        "bloom": ["query_key_value"],
    }.get(kind, ATTENTION)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=12,
        lora_dropout=dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=kind == "gpt2",
    )
    model = peft.get_peft_model(base_model, config)
    for name, parameter in model.named_parameters():
        if random_b and "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.to(dtype)


def honest_gradients(model: nn.Module, prompt: list[int], response: list[int]) -> tuple[float, dict[str, Tensor]]:
    """log π(y | x) of one unpadded example from full logits, and autograd's gradient of each adapter weight."""
    model.eval()
    weights = {name: p for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name}
    for weight in weights.values():
        weight.requires_grad_(True)
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0]
    logps = logits.log_softmax(dim=-1)
    total = sum(logps[len(prompt) - 1 + i, token] for i, token in enumerate(response))
    gradients = torch.autograd.grad(total, list(weights.values()))
    names = [
        name.removeprefix("base_model.model.").replace(".lora_", "/lora_").removesuffix(".default.weight")
        for name in weights
    ]
    return total.item(), dict(zip(names, gradients, strict=True))


def as_rank_rows(name: str, gradient: Tensor) -> tuple[MatrixShape, Tensor]:
    """A gradient with its rank side first: A's as it is, B's transposed."""
    gradient = gradient if name.endswith("lora_A") else gradient.T
    return MatrixShape(name, *gradient.shape), gradient
