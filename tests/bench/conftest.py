"""Random policies of any size for the measurements."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import PeftModel

from activedpo_cli.models.random_models import random_base_model, random_policy

MakePolicy = Callable[..., PeftModel]
SIZES = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}


@pytest.fixture(scope="session")
def make_random_policy() -> MakePolicy:
    """`make_random_policy(r=4, hidden_size=32, …)`: a Llama with all linear layers adapted; changes to its sizes."""

    def make(r: int = 4, dtype: torch.dtype = torch.float32, **sizes: Any) -> PeftModel:
        changes = {"vocab_size": 64, "hidden_size": 32, "max_position_embeddings": 64} | SIZES | sizes
        base_model = random_base_model("tiny-llama-15m", seed=0, dtype=dtype, device=torch.device("cpu"), **changes)
        return random_policy(base_model, r=r, lora_alpha=4 * r, target_modules="all-linear", seed=0)

    return make
