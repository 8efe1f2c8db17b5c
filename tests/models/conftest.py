"""Fixtures of the model tests: tiny folders made once, and policies whose adapter differs from the base."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel
from small_models import save_small_model
from small_policies import ADAPTER, disturb, load

from activedpo_cli.base.settings import AdapterSettings
from activedpo_cli.models.adapters import attach_adapter, create_initial_adapter


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Callable[..., Path]:
    """A tiny model of a family, written once for each set of arguments."""
    made: dict[tuple, Path] = {}

    def make(family: str = "llama", tokenizer: str = "bytes", **options) -> Path:
        key = (family, tokenizer, *sorted(options.items()))
        if key not in made:
            made[key] = save_small_model(tmp_path_factory.mktemp(family), family, tokenizer, **options)
        return made[key]

    return make


@pytest.fixture
def make_policy(model_folder, tmp_path) -> Callable[..., PeftModel]:
    """A policy with a fresh adapter, or (`continued`) with one that is no longer the base."""

    def make(
        family: str = "llama",
        *,
        continued: bool = False,
        trainable: bool = True,
        adapter: AdapterSettings = ADAPTER,
        dtype: str = "auto",
    ) -> PeftModel:
        base = load(model_folder(family), dtype=dtype)
        folder = tmp_path / f"adapter-{family}"
        create_initial_adapter(base, adapter, seed=3, destination=folder, base_name="base")
        policy = attach_adapter(base, folder, trainable=trainable)
        return disturb(policy) if continued else policy

    return make


@pytest.fixture(scope="session")
def stories_folder() -> Path:
    """The real pretrained model of the shared data."""
    data = Path(os.environ.get("ACTIVEDPO_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not (data / "stories260k").is_dir():
        pytest.skip("stories260k is not there (set ACTIVEDPO_DATA)")
    return data / "stories260k"
