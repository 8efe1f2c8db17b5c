"""Whole experiments through the command line: shared work is what each run would have made alone."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from command_line import STAGES, activedpo, all_outputs, done, refused, rows, snapshot
from small_runs import SMALL
from zygote import Zygote

from activedpo_cli.experiments import workers
from activedpo_cli.experiments.folder import ExperimentFolder
from activedpo_cli.experiments.report import all_tables, analysis_of, summarise
from activedpo_cli.experiments.results import row_of
from activedpo_cli.experiments.spec import read_spec
from activedpo_cli.experiments.summary import experiment_summary
from activedpo_cli.select.methods import largest_norm
from activedpo_cli.store.operations import operations

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


@pytest.fixture(autouse=True)
def _figures_are_drawn_once(blank_figures: None) -> None:
    """All of them were drawn for `made`."""


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
    _put_in_the_place_of(copied, "norm-s4", Path("runs/alone"))


def _put_in_the_place_of(folder: Path, name: str, alone: Path) -> None:
    """Killed when its run was just finished, an experiment keeps what features cost before it deletes them."""
    made = folder / "runs" / "small"
    before = rows(made / "results.jsonl")
    shutil.rmtree(made / "runs" / name)
    shutil.move(alone, made / "runs" / name)
    [kept] = made.rglob(f"{name}.jsonl")
    kept.unlink()
    done("experiment", "small.yaml", "--quiet", "--no-report")
    assert not list((made / "runs" / name).glob("iter-*/featurize"))
    done("experiment", "small.yaml", "--quiet")
    without_times = [
        [{**row, "seconds": sorted(row["seconds"])} for row in found]
        for found in (before, rows(made / "results.jsonl"))
    ]
    assert without_times[0] == without_times[1]


def test_arms_of_one_seed_begin_with_the_same_and_end_apart(made: Path) -> None:
    first, second = (all_outputs(made / f"runs/small/runs/{arm}-s3") for arm in ARMS)
    for name in ("iter-001/generate", "reference/evaluate"):
        assert first[name] == second[name]
    assert first["iter-001/select"] != second["iter-001/select"]
    other = all_outputs(made / "runs/small/runs/random-s4")
    assert first["iter-001/generate"] != other["iter-001/generate"]


def test_status_of_a_run_says_what_was_deleted(made: Path) -> None:
    found = json.loads(done("status", "--run", made / "runs/small/runs/norm-s3", "--json").stdout)
    for iteration in found["iterations"]:
        states = {name: stage["state"] for name, stage in iteration["stages"].items()}
        assert states.pop("featurize") == "deleted to save space"
        assert set(states.values()) == {"complete"}
    assert found["next"].endswith("generate --run " + str(made / "runs/small/runs/norm-s3") + " --iteration 3")


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


def test_a_resumed_stage_of_an_older_record_is_told_beside_the_cost(copied: Path) -> None:
    """Rows kept by the version before say nothing of attempts; they are read anew, but for features deleted since."""
    folder = copied / "runs" / "small"
    before = rows(folder / "results.jsonl")
    assert not any("last_attempt_only" in row for row in before)
    assert "resumed" not in (folder / "tables.md").read_text()
    for name, attempts in (("norm-s3", {}), ("norm-s4", {"attempts": 2})):
        path = folder / "runs" / name / "iter-002" / "train" / "manifest.json"
        record = json.loads(path.read_bytes())
        record["execution"].pop("attempts", None)
        path.write_text(json.dumps(record | {"execution": record["execution"] | {"resumed": True} | attempts}))
    for path in (folder / "rows").glob("*.jsonl"):
        kept = [{key: row[key] for key in row if key != "last_attempt_only"} for row in rows(path)]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    done("experiment", "small.yaml", "--quiet")
    after = rows(folder / "results.jsonl")
    resumed = [row.pop("last_attempt_only") for row in after if "last_attempt_only" in row]
    assert resumed == [["train"]]
    assert after == before, "also what is known of features that were deleted"
    (line,) = [line for line in (folder / "tables.md").read_text().splitlines() if line.endswith("| 1 (train) |")]
    assert line.startswith("| norm |")


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


def test_more_iterations_go_on_without_the_features_that_were_deleted(copied: Path) -> None:
    before = {path.name: all_outputs(path) for path in Path("runs/small/runs").iterdir()}
    costs = {
        (row["arm"], row["seed"], row["iteration"]): row["seconds"] for row in rows(Path("runs/small/results.jsonl"))
    }
    done("experiment", "small.yaml", "--iterations", 3, "--seeds", "3", "--quiet")
    for name in ("random-s3", "norm-s3"):
        after = all_outputs(Path("runs/small/runs") / name)
        assert before[name].items() <= after.items()
        assert {"iter-001/featurize", "iter-002/featurize"}.isdisjoint(after), "not made again"
        assert "iter-003/evaluate" in after
    for row in rows(Path("runs/small/results.jsonl")):
        if row["seed"] == 3 and 0 < row["iteration"] < 3:
            assert row["seconds"] == costs[row["arm"], 3, row["iteration"]], "known from before"


def test_another_experiment_shares_the_runs_and_leaves_the_report(
    copied: Path, small_model: Path, prompts_file: Path
) -> None:
    before = snapshot(copied / "runs/small")
    arms = {"random": ARMS["random"], "wide": {"select.method": "largest-norm", "select.budget": 5}}
    write_spec(copied / "other.yaml", small_model, prompts_file, arms=arms, seeds=[3], title="Another")
    assert "holds another experiment" in refused(3, "experiment", "other.yaml", "--output", "runs/small")
    done("experiment", "other.yaml", "--runs-from", "runs/small", "--quiet")
    assert {row["arm"] for row in rows(Path("runs/other/results.jsonl"))} == {"random", "wide"}
    assert not Path("runs/other/runs").exists()
    after = snapshot(copied / "runs/small")
    assert {name: after[name] for name in before} == before
    assert any(name.startswith("runs/wide-s3/") for name in after)


def test_a_run_under_another_name_is_copied_not_made_again(copied: Path, small_model: Path, prompts_file: Path) -> None:
    """A manifest says when its stage ran: equal bytes were copied. Features are gone, and made again to the same digests."""
    write_spec(
        copied / "other.yaml", small_model, prompts_file, title="Another", arms={"again": ARMS["random"]}, baseline=None
    )
    done("experiment", "other.yaml", "--runs-from", "runs/small", "--quiet")
    for stage in ("generate", "label", "train", "evaluate"):
        for iteration in ("iter-001", "iter-002"):
            first, second = (
                (copied / f"runs/small/runs/{arm}-s4/{iteration}/{stage}/manifest.json").read_bytes()
                for arm in ("random", "again")
            )
            assert first == second, f"{iteration}/{stage}"


def test_a_damaged_run_fails_alone(copied: Path) -> None:
    manifest = Path("runs/small/runs/norm-s3/iter-002/evaluate/manifest.json")
    manifest.write_text("{")
    done("experiment", "small.yaml", "--arms", "random", "--quiet")
    told = activedpo("experiment", "small.yaml", "--quiet")
    assert told.exit_code == 1
    assert "norm-s3" in told.stderr
    assert {(row["arm"], row["seed"]) for row in rows(Path("runs/small/results.jsonl"))} == {
        ("random", 3), ("random", 4), ("norm", 4),
    }  # fmt: skip


def test_what_nobody_foresaw_in_one_run_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(largest_norm, "choose", broken)
    told = activedpo("experiment", "small.yaml", "--seeds", "3", "--iterations", 1)
    assert told.exit_code == 1
    assert "norm-s3: RuntimeError: out of memory" in told.stderr
    assert "Traceback" in Path("runs/small/.failed/norm-s3.txt").read_text()
    assert {row["arm"] for row in rows(Path("runs/small/results.jsonl"))} == {"random"}


def test_a_worker_that_dies_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr(workers, "sys", SimpleNamespace(executable="/bin/false"))
    told = refused(1, "experiment", "small.yaml", "--jobs", 2, "--seeds", "3", "--iterations", 1)
    assert "2 runs are not done" in told


def test_held_out_accuracy_alone_makes_a_report(made: Path, tmp_path: Path) -> None:
    """Iteration 0 has none, as with a pool of recorded answers."""
    found = [row_of(row) for row in rows(made / "runs/small/results.jsonl")]
    nothing = dict.fromkeys(("reward_mean", "second_reward_mean", "win_rate"))
    changed = [
        replace(row, measures=row.measures | nothing | {"preference_accuracy": 0.5 + 0.1 * row.iteration or None})
        for row in found
    ]
    changed = [
        replace(row, measures=row.measures | {"preference_accuracy": None}) if row.iteration == 0 else row
        for row in changed
    ]
    spec = read_spec(str(made / "small.yaml"))
    summary = summarise(analysis_of(changed, spec))
    (accuracy,) = summary["measures"]
    assert accuracy == "preference_accuracy"
    assert summary["measures"][accuracy][0]["height"][0] == pytest.approx(0.65)
    tables = all_tables(analysis_of(changed, spec))
    assert tables[0].title == "Accuracy on held-out preferences"
    by_title = {table.title: table for table in tables}
    column = tables[0].columns.index("at the end")
    once = {row[column].partition(" [")[0] for row in tables[0].rows}
    after_each = by_title["Accuracy on held-out preferences, after each iteration"]
    beside = by_title["After the last iteration, means over seeds with 95 % intervals"]
    column = beside.columns.index("held-out preference accuracy")
    assert once == {row[-1].partition(" [")[0] for row in after_each.rows} == {"70.0 %"}
    assert once == {row[column].partition(" [")[0] for row in beside.rows}, "one quantity is written in one way"
    top = experiment_summary(
        ExperimentFolder(tmp_path, spec), changed, {tables[0].title: analysis_of(changed, spec).curves[accuracy]}
    )
    assert "random: 70.0 % [70.0, 70.0]" in top.answers[1].sentences


def test_other_settings_under_finished_runs_are_refused(copied: Path, small_model: Path, prompts_file: Path) -> None:
    write_spec(copied / "small.yaml", small_model, prompts_file, settings={"train.learning_rate": 0.02})
    before = snapshot(copied / "runs/small/runs")
    assert "train.learning_rate  0.01 → 0.02" in refused(3, "experiment", "small.yaml")
    assert snapshot(copied / "runs/small/runs") == before


def test_settings_left_out_under_finished_runs_are_refused_for_new_seeds_too(copied: Path) -> None:
    """A report of all would average runs made differently."""
    spec = yaml.safe_load(Path("small.yaml").read_text())
    del spec["settings"]["select.budget"]
    Path("small.yaml").write_text(yaml.safe_dump(spec | {"seeds": "3-5"}))
    before = snapshot(copied / "runs")
    told = refused(3, "experiment", "small.yaml", "--seeds", 5)
    assert "select.budget  4 → 50" in told
    assert "--output FOLDER" in told
    assert snapshot(copied / "runs") == before
    done("experiment", "small.yaml", "--set", "select.budget=4", "--seeds", 3, "--quiet")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"arms": {"random": {}, "ours": {"select.method": "activdpo"}}}, "arm `ours`: `activdpo` is not a method"),
        ({"settings": {"select.budgt": 4}}, "did you mean `select.budget`?"),
        ({"settings": {"model.name": "no/such/folder"}}, "arm `random`: "),
        ({"preset": "tinny"}, "tinny"),
    ],
)
def test_what_no_run_can_have_is_said_before_any_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path, changed: dict, reason: str
) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    spec = yaml.safe_load(Path("small.yaml").read_text())
    Path("small.yaml").write_text(
        yaml.safe_dump(spec | changed | {"settings": spec["settings"] | changed.get("settings", {})})
    )
    told = activedpo("experiment", "small.yaml")
    assert told.exit_code in {2, 4}
    assert reason in told.stderr
    assert told.stderr.count("arm `random`") <= 1
    assert not Path("runs/small").exists()


def test_runs_of_a_folder_that_has_none(copied: Path) -> None:
    assert "holds no runs" in refused(2, "experiment", "small.yaml", "--runs-from", "runs/nothing")
    assert not Path("runs/nothing").exists()


def test_a_run_that_fails_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    spec = yaml.safe_load((made / "small.yaml").read_text())
    arms = {"none": {"generate.num_prompts": 1, "select.budget": 50}, "random": ARMS["random"]}
    Path("small.yaml").write_text(yaml.safe_dump(spec | {"arms": arms, "seeds": [3], "iterations": 1}))
    told = activedpo("experiment", "small.yaml")
    assert told.exit_code == 1
    assert "none-s3: select.budget is 50, but only 3 pairs can be chosen" in told.stderr
    assert "Traceback" not in told.stderr
    assert {row["arm"] for row in rows(Path("runs/small/results.jsonl"))} == {"random"}


def test_a_run_whose_last_record_the_disk_did_not_confirm_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    plain = operations.sync

    def failing(path: Path, descriptor: int) -> None:
        if path.name == "evaluate" and path.parent.name == "iter-001" and (path / "manifest.json").exists():
            raise OSError(errno.EIO, "injected")
        plain(path, descriptor)

    command = ("experiment", "small.yaml", "--iterations", 1, "--seeds", "3", "--arms", "random", "--no-report")
    with monkeypatch.context() as patch:
        patch.setattr(operations, "sync", failing)
        told = activedpo(*command)
    assert told.exit_code == 1
    assert "✗ random-s3: `runs/small/runs/random-s3/iter-001/evaluate" in told.stderr.replace("\n", "")
    assert "✓ 1 of 1 runs are done" in done(*command).stderr
    assert not [
        path for path in Path("runs/small").rglob("*") if path.is_file() and "injected" in path.read_text("latin-1")
    ]


def test_two_processes_share_the_runs(
    zygote: Zygote, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they do each run once, and what they make is what one makes."""
    said = [tmp_path / "said-0", tmp_path / "said-1"]
    tmp_path = Path(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    command = ("experiment", "small.yaml", "--iterations", 1, "--no-report")
    workers = [zygote.start(command, tmp_path, stderr=path) for path in said]
    ended = {zygote.wait(worker) for worker in workers}
    assert ended <= {0, 75}, [path.read_text() for path in said]
    monkeypatch.chdir(tmp_path)
    done("experiment", "small.yaml", "--iterations", 1, "--quiet")
    alone = {path.name: _first_iteration(path) for path in (made / "runs/small/runs").iterdir()}
    together = {path.name: all_outputs(path) for path in (tmp_path / "runs/small/runs").iterdir()}
    assert together == alone


def _first_iteration(run: Path) -> dict[str, dict[str, str]]:
    return {name: found for name, found in all_outputs(run).items() if not name.startswith("iter-002")}


def test_who_is_left_does_the_runs_of_a_killed_one_and_reports(zygote: Zygote, tmp_path: Path, made: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    command = ("experiment", "small.yaml", "--seeds", "3", "--iterations", 1)
    runs = folder / "runs" / "small" / "runs"
    slowed = "activedpo_cli.generate.sampling:SamplingUnits.do"
    doomed = zygote.start((*command, "--shard", "1/2"), folder, slowed=slowed, blank_figures=True)
    _when(lambda: (runs / "norm-s3" / "iter-001").is_dir())
    assert not (runs / "random-s3").exists(), "it begins with the run of the other one"
    said = {"stdout": tmp_path / "page", "stderr": tmp_path / "said"}
    other = zygote.start((*command, "--shard", "0/2"), folder, **said, blank_figures=True)
    _when(lambda: (runs / "random-s3").is_dir())
    os.kill(doomed, signal.SIGKILL)
    assert zygote.wait(doomed) == -signal.SIGKILL
    assert not (runs / "norm-s3" / "iter-001" / "evaluate" / "manifest.json").exists(), "it was killed too late"
    assert zygote.wait(other) == 0, (tmp_path / "said").read_text()
    assert "2 of 2 runs are done" in (tmp_path / "said").read_text()
    assert (folder / (tmp_path / "page").read_text().splitlines()[-1]).is_file()
    for path in runs.iterdir():
        assert all_outputs(path).items() <= all_outputs(made / "runs/small/runs" / path.name).items()


@pytest.mark.whole
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path: Path, made: Path, number: int) -> None:
    """However it ends: asked, when it has them finish, or killed, when they see that it is gone."""
    folder = Path(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    command = [sys.executable, "-m", "activedpo_cli", "experiment", "small.yaml", "--jobs", "2", "--quiet"]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": os.environ["PYTHONPATH"]}
    experiment = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c
    )
    found = _when(lambda: len(_children(experiment.pid)) == 2 and _children(experiment.pid))
    os.kill(experiment.pid, number)
    _, told = experiment.communicate(timeout=60)
    assert experiment.returncode == (130 if number == signal.SIGINT else -number)
    assert number == signal.SIGKILL or told.startswith("interrupted: ")
    assert "Traceback" not in told
    _when(lambda: not any(map(_is_running, found)))
    for log in folder.glob("runs/small/logs/*"):
        assert "Traceback" not in log.read_text()


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _when(find: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def _children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.whole
def test_workers_do_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "empty", ignore=shutil.ignore_patterns("runs")))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    told = done("experiment", "small.yaml", "--jobs", 2, "--iterations", 1, "--seeds", "3")
    assert "2 of 2 runs are done" in told.stderr
    for path in Path("runs/small/runs").iterdir():
        assert all_outputs(path).items() <= all_outputs(made / "runs/small/runs" / path.name).items()
