"""A weight that training would change and features do not see is refused, before anything is generated where possible."""

from pathlib import Path

import pytest
from command_line import done, on, refused
from small_models import save_small_model
from small_runs import small_run


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("mixture") / "model", "mixtral")


def test_a_mixtures_experts_are_refused_before_anything_is_generated(
    tmp_path: Path, mixture: Path, prompts_file: Path
) -> None:
    run = small_run(tmp_path / "run", mixture, prompts_file, adapter__target_modules="all-linear")
    said = refused(2, *on(run, "generate"), "--quiet")
    assert "model.layers.0.mlp.gate.lora_A" in said
    assert "model.layers.0.mlp.experts.lora_A" in said
    assert "--lora-modules k_proj,o_proj,q_proj,v_proj" in said
    assert not list(run.rglob("responses-*"))


def test_a_method_that_needs_no_gradients_goes_on(tmp_path: Path, mixture: Path, prompts_file: Path) -> None:
    changed = {"adapter__target_modules": "all-linear", "select__method": "random"}
    run = small_run(tmp_path / "run", mixture, prompts_file, **changed)
    done(*on(run, "generate"), "--quiet")


def test_featurize_refuses_what_was_chosen_since(tmp_path: Path, mixture: Path, prompts_file: Path) -> None:
    run = small_run(tmp_path / "run", mixture, prompts_file)
    done(*on(run, "generate"), "--quiet")
    said = refused(2, *on(run, "featurize"), "--set", "adapter.target_modules=all-linear", "--quiet")
    assert "features do not see" in said
    done(*on(run, "featurize"), "--quiet")
