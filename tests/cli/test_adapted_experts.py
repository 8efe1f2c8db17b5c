"""Adapted weights of a mixture's experts and router have their part in features; what can't be adapted is refused early."""

import math
from pathlib import Path

import honest_policy
import pytest
import torch
from command_line import STAGES, done, on, refused, rows
from model_families import CONFIGS, REFUSED, modules_of, save_family
from safetensors import safe_open
from small_runs import small_run

ALL = {"adapter__target_modules": "all-linear"}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("mixture") / "model", "mixtral")


SWEEP = [
    pytest.param(family, wanted, marks=[] if (family, wanted) == ("mixtral", "all-linear") else pytest.mark.slow)
    for family in CONFIGS
    for wanted in ("attention", "all-linear")
    if (family, wanted) not in REFUSED
]


@pytest.mark.parametrize(("family", "wanted"), SWEEP)
def test_norms_are_those_of_all_that_training_changes(
    tmp_path: Path, prompts_file: Path, family: str, wanted: str
) -> None:
    """After an iteration, when B is not zero; and the first step's loss is ln 2."""
    model = save_family(tmp_path / "model", family)
    changed = {"adapter__target_modules": modules_of(family, wanted), "featurize__exact_norms": "always"}
    changed |= {"train__include_ties": True, "model__attn_implementation": "eager"}  # some have no other
    changed |= {"generate__num_prompts": 3, "generate__num_responses": 2, "select__budget": 2}
    run = small_run(tmp_path / "run", model, prompts_file, **changed)
    for stage in STAGES[:5]:
        done(*on(run, stage), "--quiet")
    assert rows(run / "iter-001" / "train" / "metrics.jsonl")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    done(*on(run, "generate", iteration=2), "--quiet")
    said = done(*on(run, "featurize", iteration=2), "--quiet").stderr
    if (family, wanted) == ("mixtral", "all-linear"):
        assert "12 of the adapter's matrices, first `model.layers.0.mlp.gate.weight/lora_A`" in said
        assert "slower" in said
    policy = honest_policy.load(run, run / "iter-001" / "train" / "adapter")
    responses = honest_policy.responses_of(run, 2)
    file = safe_open(run / "iter-002" / "featurize" / "features-00000.safetensors", "pt")
    norms, logps = file.get_tensor("exact_norms"), file.get_tensor("logps")
    for row in rows(run / "iter-002" / "featurize" / "rows.jsonl")[: len(norms)]:
        response = responses[row["response_id"]]
        assert norms[row["row"]].item() == pytest.approx(honest_policy.gradient_norm(policy, response), rel=1e-3)
        assert logps[row["row"]].item() == pytest.approx(honest_policy.logp(policy, response).item(), rel=1e-4)
    assert torch.isfinite(file.get_tensor("features")).all()


@pytest.mark.parametrize("stage", ["generate", "sft"])
def test_dropout_of_bare_weights_is_refused_by_its_setting(
    tmp_path: Path, mixture: Path, prompts_file: Path, stage: str
) -> None:
    run = small_run(tmp_path / "run", mixture, prompts_file, **ALL, adapter__lora_dropout=0.1)
    if stage == "generate":
        said = refused(2, *on(run, "generate"), "--quiet")
        assert "adapter.lora_dropout is 0.1, and adapter.target_modules takes in bare weights" in said
        assert "--set adapter.lora_dropout=0" in said
        assert not list(run.rglob("responses-*"))
        return
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"prompt": "a", "completion": "b"}\n' * 4)
    said = refused(2, *on(run, "sft"), "--data", examples, "--set", "sft.lora_r=2", "--set", "sft.lora_dropout=0.1")
    assert "--set sft.lora_dropout=0" in said


@pytest.mark.parametrize("method", ["activedpo", "random"])
def test_a_router_that_returns_more_than_a_layer_is_refused_before_generating(
    tmp_path: Path, prompts_file: Path, method: str
) -> None:
    """Training could not run it either, whatever selects."""
    model = save_family(tmp_path / "model", "phimoe")
    run = small_run(tmp_path / "run", model, prompts_file, **ALL, select__method=method)
    said = refused(2, *on(run, "generate"), "--quiet")
    assert "model.layers.0.mlp.router" in said
    way_out = "--set adapter.target_modules=k_proj,o_proj,q_proj,v_proj"
    assert way_out in said
    assert not list(run.rglob("responses-*"))
    done(*on(run, "generate"), *way_out.split(), "--quiet")


def test_so_does_fine_tuning(tmp_path: Path, prompts_file: Path) -> None:
    model = save_family(tmp_path / "model", "phimoe")
    run = small_run(tmp_path / "run", model, prompts_file)
    examples = tmp_path / "examples.jsonl"
    examples.write_text("".join(f'{{"prompt": "a{n}", "completion": "b"}}\n' for n in range(4)))
    said = refused(2, *on(run, "sft"), "--data", examples, "--set", "sft.lora_r=2")
    assert "sft.lora_modules: the model can't be run with an adapter on these layers" in said
    assert "--set sft.lora_modules=k_proj,o_proj,q_proj,v_proj" in said


def test_a_method_that_needs_no_gradients_asks_for_none(tmp_path: Path, mixture: Path, prompts_file: Path) -> None:
    run = small_run(tmp_path / "run", mixture, prompts_file, **ALL, select__method="random")
    assert "slower" not in done(*on(run, "generate"), "--quiet").stderr
