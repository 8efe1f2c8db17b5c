"""Passes that are imagined without weights against the same passes made, of which every storage is followed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import byte_tokenizer

from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.bench.imagined import Adapter, ImaginedModel, Tokens
from activedpo_cli.bench.measuring import peak_memory
from activedpo_cli.generate.backends.base import SamplingSettings
from activedpo_cli.generate.backends.transformers_backend import sample_unit
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.checkpointing import checkpointed_layers
from activedpo_cli.gradients.per_response import response_gradients
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.train.dpo_trainer import DPOExample, train_dpo

CPU = torch.device("cpu")
LAYERS = 5
"""More than are imagined, so that the rest is added."""
SIZES = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": LAYERS}
TOKENS = Tokens(rows=4, prompt=24, response=40)


@pytest.fixture
def real(make_random_policy: Any) -> Any:
    return make_random_policy(r=8, **SIZES)


@pytest.fixture
def imagined(real: Any) -> ImaginedModel:
    return ImaginedModel(real.get_base_model().config, torch.float32, Adapter(8, "all-linear"))


def test_weights_are_counted(real: Any, imagined: ImaginedModel) -> None:
    adapter = sum(weight.numel() for name, weight in real.named_parameters() if ".lora_" in name)
    assert imagined.adapter_weights() == adapter
    assert imagined.weights() == sum(weight.numel() for weight in real.parameters()) - adapter


@pytest.mark.parametrize(("attention", "checkpointing"), [("sdpa", False), ("sdpa", True), ("eager", False)])
def test_features(make_random_policy: Any, attention: str, checkpointing: bool) -> None:
    real = make_random_policy(r=8, attn_implementation=attention, **SIZES)
    imagined = ImaginedModel(real.get_base_model().config, torch.float32, Adapter(8, "all-linear"), attention)
    batch = pad_responses([[1] * TOKENS.prompt] * TOKENS.rows, [[2] * TOKENS.response] * TOKENS.rows, 0, CPU)
    projection = make_projection("factored", 512, 0)
    with checkpointed_layers(real, enabled=checkpointing):
        response_gradients(real, batch, projection)  # which draws what the projection keeps
        made = peak_memory(lambda: response_gradients(real, batch, projection), CPU)
    assert 0.9 < imagined.features(TOKENS, 512, "factored", checkpointing=checkpointing) / made < 1.3


def test_an_update(real: Any, imagined: ImaginedModel, tmp_path: Path) -> None:
    """TRL's own, with the adapter's gradients and the optimizer, which are no part of the pass."""
    examples = [
        DPOExample(pair_id=str(n), prompt_ids=[5] * 24, chosen_ids=[6] * 40, rejected_ids=[7] * 40) for n in range(2)
    ]
    settings = TrainSettings(num_train_epochs=1, per_device_train_batch_size=2)

    def train() -> None:
        train_dpo(
            real, byte_tokenizer(), examples, settings, seed=0, device=CPU, on_log=lambda row: None, scratch=tmp_path
        )

    for name, weight in real.named_parameters():
        weight.requires_grad_(".lora_" in name)
    made = peak_memory(train, CPU)
    beside = 3 * 4 * imagined.adapter_weights()
    assert 0.75 < (imagined.training(TOKENS, checkpointing=False) + beside) / made < 1.3


def test_sampling(real: Any, imagined: ImaginedModel) -> None:
    settings = SamplingSettings(
        num_responses=2, max_new_tokens=40, temperature=1.0, top_k=0, top_p=1.0, stop_token_ids=frozenset()
    )
    prompts = [[1] * TOKENS.prompt] * 2
    made = peak_memory(lambda: sample_unit(real, prompts, sampling=settings, seed=0, pad_token_id=0), CPU)
    assert 0.75 < imagined.sampling(TOKENS) / made < 1.4
