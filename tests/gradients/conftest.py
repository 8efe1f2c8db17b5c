"""Fixtures of the gradient tests."""

import pytest
import torch
from honest_lora import VOCABULARY, MakeModel, Rows, build_model


@pytest.fixture
def make_model() -> MakeModel:
    """`make_model("llama", target_modules=…, dtype=…, random_b=…, dropout=…)` builds a seeded PEFT model."""
    return build_model


@pytest.fixture
def rows() -> Rows:
    """Prompts with responses of different lengths; one response is a single token."""
    generator = torch.Generator().manual_seed(3)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()

    return [(tokens(prompt), tokens(response)) for prompt, response in [(3, 7), (9, 4), (1, 1), (5, 12), (6, 2)]]
