"""The model, the responses and the loss that every method of `peers.py` measures, and the shape of a method."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from activedpo_cli.models.random_models import random_base_model, random_policy

Pieces = list[Tensor]
"""Features of some responses, cut into blocks of columns: each is [responses, columns]."""

Collect = Callable[[], Iterator[Pieces]]
"""One pass over the responses, in order."""


@dataclass(frozen=True)
class Problem:
    """Random responses of equal length to random prompts, and a random policy with a LoRA adapter."""

    token_ids: Tensor  # [responses, prompt tokens + response tokens]
    prompt_tokens: int
    batch_size: int
    proj_dim: int

    def first(self, responses: int) -> "Problem":
        """The same with fewer responses."""
        return Problem(self.token_ids[:responses], self.prompt_tokens, self.batch_size, self.proj_dim)


@dataclass
class Method:
    """A way to collect features; `prepare` loads the peer and the model, and raises ImportError without the peer."""

    name: str
    prepare: Callable[[Problem], Collect]
    repetitions: int
    responses: int
    is_projected: bool = True
    is_warmed_up: bool = True
    seconds: list[float] = field(default_factory=list)
    output_dim: int | None = None
    gram: Tensor | None = None
    missing: str | None = None
    collect: Collect | None = None


def random_problem(responses: int, prompt_tokens: int, response_tokens: int, proj_dim: int) -> Problem:
    """Tokens drawn uniformly from the vocabulary of `policy`."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = policy().config.vocab_size
    token_ids = torch.randint(vocabulary, (responses, prompt_tokens + response_tokens), generator=generator)
    return Problem(token_ids, prompt_tokens, batch_size=min(16, responses), proj_dim=proj_dim)


def policy(attn_implementation: str = "sdpa") -> PeftModel:
    """A model of its own for each method, always with the same weights; nothing requires a gradient."""
    base_model = random_base_model(
        "tiny-llama-15m",
        seed=0,
        dtype=torch.float32,
        device=torch.device("cpu"),
        attn_implementation=attn_implementation,
    )
    return random_policy(base_model, r=32, lora_alpha=128, target_modules="all-linear", seed=0)


def require_adapter_gradients(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of lora_A and lora_B, from now on the only parameters that require gradients."""
    adapter = {name: weight for name, weight in model.named_parameters() if ".lora_" in name}
    for weight in adapter.values():
        weight.requires_grad_(True)
    return adapter


def summed_logps(model: Callable[..., Any], token_ids: Tensor, prompt_tokens: int, **inputs: Tensor) -> Tensor:
    """log π(y | x) of each row, from logits of the response only; `inputs` may hold `inputs_embeds` instead of ids."""
    inputs = inputs or {"input_ids": token_ids}
    kept = token_ids.shape[1] - prompt_tokens + 1
    logits = model(**inputs, use_cache=False, logits_to_keep=kept).logits[:, :-1]
    targets = token_ids[:, prompt_tokens:]
    return -nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(dim=1)
