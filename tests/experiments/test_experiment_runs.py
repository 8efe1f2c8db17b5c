"""Whole experiments through the command line: shared work is what each run would have made alone."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import STAGES, activedpo, all_outputs, done, refused, rows, snapshot
from small_runs import SMALL

ORACLE = """
def score(prompts, responses):
    return [float(len(response) + sum(map(ord, response)) % 7) for response in responses]
"""
ARMS = {"random": {"select.method": "random"}, "norm": {"select.method": "largest-norm"}}


def write_spec(path: Path, model: Path, prompts: Path, **changed: Any) -> Path:
    settings = SMALL | {
        "model.name": str(model),
        "prompts.source": str(prompts),
        "prompts.eval_prompts": 4,
        "label.oracle": "python:some_oracle:score",
        "evaluate.second_scorer": "python:letter_rule:score",
    }
    spec = {
        "title": "A small comparison",
        "settings": settings | changed.pop("settings", {}),
        "arms": ARMS,
        "seeds": "3-4",
        "iterations": 2,
        "baseline": "random",
    }
    path.write_text(yaml.safe_dump(spec | changed, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("experiment")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "some_oracle.py").write_text(ORACLE)
        write_spec(folder / "small.yaml", small_model, prompts_file)
        done("experiment", "small.yaml", "--quiet")
        yield folder


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    monkeypatch.chdir(folder)
    return folder


def test_a_run_of_an_experiment_is_the_run_made_alone(copied: Path, small_model: Path, prompts_file: Path) -> None:
    """Arm `norm` comes second and took from `random` what is the same: its files are those of a run of its own."""
    spec = yaml.safe_load((copied / "small.yaml").read_text())
    assignments = [f"{key}={json.dumps(value)}" for key, value in spec["settings"].items()]
    words = [word for text in [*assignments, "seed=4", "select.method=largest-norm"] for word in ("--set", text)]
    done("run", "--run", "alone", "--iterations", 2, "--no-report", "--quiet", *words)
    alone, shared = all_outputs(Path("runs/alone")), all_outputs(Path("runs/small/runs/norm-s4"))
    pruned = {"iter-001/featurize", "iter-002/featurize"}
    assert alone.keys() - shared.keys() == pruned
    assert {name: found for name, found in alone.items() if name not in pruned} == shared


def test_arms_of_one_seed_begin_with_the_same_and_end_apart(made: Path) -> None:
    first, second = (all_outputs(made / f"runs/small/runs/{arm}-s3") for arm in ARMS)
    for name in ("iter-001/generate", "reference/evaluate"):
        assert first[name] == second[name]
    assert first["iter-001/select"] != second["iter-001/select"]
    other = all_outputs(made / "runs/small/runs/random-s4")
    assert first["iter-001/generate"] != other["iter-001/generate"]


def test_the_results_are_what_the_evaluations_say(made: Path) -> None:
    found = rows(made / "runs/small/results.jsonl")
    assert [(row["arm"], row["seed"], row["iteration"]) for row in found] == [
        (arm, seed, iteration) for seed in (3, 4) for arm in ARMS for iteration in (0, 1, 2)
    ]
    for row in found:
        if row["iteration"]:
            run = made / f"runs/small/runs/{row['arm']}-s{row['seed']}"
            metrics = json.loads((run / f"iter-{row['iteration']:03d}/evaluate/metrics.json").read_bytes())
            for name in ("reward_mean", "second_reward_mean", "win_rate", "labels_spent", "kl_to_reference"):
                assert row["measures"][name] == metrics[name]
            answers = rows(run / f"iter-{row['iteration']:03d}/label/outcomes.jsonl")
            gaps = [abs(answer["score_a"] - answer["score_b"]) for answer in answers]
            assert row["score_gap"] == pytest.approx(sum(gaps) / len(gaps))
        if row["iteration"]:
            assert row["seconds"].keys() == set(STAGES), "also of features that are deleted by now"
    tables = (made / "runs/small/tables.md").read_text()
    assert "| norm | 2 |" in tables
    assert (made / "runs/small/index.html").stat().st_size > 10_000


def test_again_is_a_no_op_that_loads_no_torch(copied: Path) -> None:
    before = snapshot(copied / "runs")
    script = (
        "import sys; sys.argv = ['activedpo', 'experiment', 'small.yaml', '--quiet']\n"
        "from activedpo_cli.cli.app import app\n"
        "try: app()\n"
        "finally: print('torch' in sys.modules)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=copied)
    assert told.stdout.strip().endswith("False")
    assert snapshot(copied / "runs") == before


def test_an_unfinished_experiment_goes_on(copied: Path) -> None:
    whole = {path.name: all_outputs(path) for path in Path("runs/small/runs").iterdir()}
    results = [json.loads(line)["digest"] for line in Path("runs/small/results.jsonl").read_text().splitlines()]
    shutil.rmtree("runs/small/runs/norm-s3")
    shutil.rmtree("runs/small/runs/random-s4/iter-002/evaluate")
    done("experiment", "small.yaml", "--quiet")
    assert {path.name: all_outputs(path) for path in Path("runs/small/runs").iterdir()} == whole
    assert [json.loads(line)["digest"] for line in Path("runs/small/results.jsonl").read_text().splitlines()] == results


def test_seeds_and_arms_can_be_added(copied: Path, small_model: Path, prompts_file: Path) -> None:
    before = snapshot(copied / "runs/small/runs/random-s3")
    arms = ARMS | {"gap": {"select.method": "reward-gap"}}
    write_spec(copied / "small.yaml", small_model, prompts_file, arms=arms, seeds=[3])
    done("experiment", "small.yaml", "--arms", "gap", "--quiet")
    found = {(row["arm"], row["seed"]) for row in rows(Path("runs/small/results.jsonl"))}
    assert found == {("random", 3), ("norm", 3), ("gap", 3)}
    assert snapshot(copied / "runs/small/runs/random-s3") == before


def test_other_settings_under_finished_runs_are_refused(copied: Path, small_model: Path, prompts_file: Path) -> None:
    write_spec(copied / "small.yaml", small_model, prompts_file, settings={"train.learning_rate": 0.02})
    before = snapshot(copied / "runs/small/runs")
    assert "train.learning_rate  0.01 → 0.02" in refused(3, "experiment", "small.yaml")
    assert snapshot(copied / "runs/small/runs") == before


def test_a_run_that_fails_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    spec = yaml.safe_load((made / "small.yaml").read_text())
    arms = {"none": {"generate.num_prompts": 1, "select.budget": 50}, "random": ARMS["random"]}
    Path("small.yaml").write_text(yaml.safe_dump(spec | {"arms": arms, "seeds": [3], "iterations": 1}))
    told = activedpo("experiment", "small.yaml")
    assert told.exit_code == 1
    assert "none-s3: select.budget is 50, but only 3 pairs can be chosen" in told.stderr
    assert {row["arm"] for row in rows(Path("runs/small/results.jsonl"))} == {"random"}


def test_two_processes_share_the_runs(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they do each run once, and what they make is what one makes."""
    tmp_path = Path(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    command = [sys.executable, "-m", "activedpo_cli", "experiment", "small.yaml", "--no-report"]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    workers = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = [worker.communicate(timeout=240)[1] for worker in workers]
    assert {worker.returncode for worker in workers} <= {0, 75}, told
    monkeypatch.chdir(tmp_path)
    done("experiment", "small.yaml", "--quiet")
    alone = {path.name: all_outputs(path) for path in (made / "runs/small/runs").iterdir()}
    together = {path.name: all_outputs(path) for path in (tmp_path / "runs/small/runs").iterdir()}
    assert together == alone


def test_workers_do_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    told = done("experiment", "small.yaml", "--jobs", 2)
    assert "4 of 4 runs are done" in told.stderr
    alone = {path.name: all_outputs(path) for path in (made / "runs/small/runs").iterdir()}
    assert {path.name: all_outputs(path) for path in Path("runs/small/runs").iterdir()} == alone
