"""The experiments of the paper from end to end with small models of the same architectures, run by name.

    pytest -n 0 tests/benchmarks/paper_experiments.py

Random models learn nothing; what is checked is that each specification runs through and what its report holds.
"""

import json
from pathlib import Path

import pytest
from command_line import done, rows
from small_models import save_small_model, save_small_reward_model
from small_runs import SMALL

from activedpo_cli.experiments.spec import read_spec

FAMILIES = {"gemma-2b": "gemma", "llama-2-7b": "llama", "qwen3-4b": "qwen3"}
PAPER_SPECS = (
    "figure-1-tldr", "figure-1-webgpt", "figure-3-webgpt", "figure-4-tldr", "figure-4-webgpt", "table-1-gemma-2b",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PAPER_SPECS)
def test_an_experiment_of_the_paper(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = {alias: save_small_model(tmp_path / alias, family, "bytes-bos") for alias, family in FAMILIES.items()}
    judge = save_small_reward_model(tmp_path / "judge", "deberta-v2")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"POST {n}: what happened TL;DR:"}) + "\n" for n in range(30)))
    spec = read_spec(name)
    wanted = spec.grid.get("model.name") or [spec.settings["model.name"]]
    places = [str(models[alias]) for alias in wanted]
    own = {key for settings in spec.arms.values() for key in settings} | {"model.dtype"}
    changes = {key: value for key, value in SMALL.items() if key not in own and key != "adapter.r"} | {
        "model.name": places if "model.name" in spec.grid else places[0],
        "prompts.source": str(prompts),
        "prompts.eval_prompts": 4,
        "label.oracle": f"reward-model:{judge}",
        "generate.num_prompts": 12,
        "select.budget": 12,
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done("experiment", name, "--seeds", "0", "--iterations", 1, "--quiet", *words)
    found = rows(Path("runs") / name / "results.jsonl")
    arms = {row["arm"] for row in found}
    assert len(arms) == len(spec.arms) * len(places)
    assert all(row["measures"]["reward_mean"] is not None for row in found)
    tables = (Path("runs") / name / "tables.md").read_text()
    assert "Cost of an iteration" in tables
    assert "Win rate against the initial model" in tables
