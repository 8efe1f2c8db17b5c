"""`--executor ray`: the same bytes on two workers of Ray, whoever of them is killed, and nothing said to anybody else."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import RULE, STAGES, all_outputs, done, manifest, on, outputs, refused
from fault_loop import check_nothing_half_visible
from small_runs import SMALL, small_run

from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.engine.runner import StageOrder
from activedpo_cli.engine.step import Execution
from activedpo_cli.run import on_ray
from activedpo_cli.run.command import load_stage
from activedpo_cli.store.run import Run

pytestmark = pytest.mark.whole

TWO_WORKERS = ("--executor", "ray", "--workers", 2)
MARK = "ACTIVEDPO_TEST_PLACE"
"""The variable by which a test knows its processes again."""
SECRET = "not for anybody else"
WAITING = """
import os, time
from letter_rule import score as by_rule

def score(prompts, responses):
    with open("asked", "a") as asked:
        environment = [os.environ.get(name, "") for name in ("ACTIVEDPO_TEST_SECRET", "RAY_USAGE_STATS_ENABLED")]
        asked.write(":".join([str(os.getpid()), *environment]) + "\\n")
    while os.path.exists(f"hang-{os.getpid()}") or (os.path.exists("hang") and not os.path.exists("killed")):
        time.sleep(0.05)
    return by_rule(prompts, responses)
"""
"""A rule that notes who asks it, and does not answer before somebody has been killed."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, as the command starts it; later commands of this process find it there."""
    ray: Any = pytest.importorskip("ray", reason="ray, an extra, is not there")
    before = dict(os.environ)
    on_ray._reach(on_ray.RayOptions(2))
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def labels_to_come(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose second iteration waits for labels; this process stands where the rule is."""
    for stage in ("label", "train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / stage)
    (tmp_path / "waiting.py").write_text(WAITING)
    monkeypatch.chdir(tmp_path)
    return finished


def ask(run: Path, *words: object) -> None:
    done(*on(run, "label", iteration=2), "--oracle", "python:waiting:score", "--quiet", *words)


@pytest.mark.usefixtures("cluster")
def test_two_workers_make_what_one_process_makes(
    finished_original: Path, tmp_path: Path, small_model: Path, prompts_file: Path
) -> None:
    run = small_run(tmp_path / "run", small_model, prompts_file)
    told = done(*on(run, "run"), "--iterations", 1, "--no-report", *TWO_WORKERS).stderr
    made, expected = all_outputs(run), all_outputs(finished_original)
    assert made == {name: files for name, files in expected.items() if not name.startswith("iter-002")}
    for stage in STAGES:
        number = {"select": None, "train": "1 worker of Ray"}.get(stage, "2 workers of Ray")
        assert (f"`{stage}` of iteration 1 on {number}" in told) == (number is not None)
        assert manifest(run, 1, stage)["execution"]["attempts"] == 1


@pytest.mark.usefixtures("cluster")
def test_the_unit_of_a_killed_worker_is_done_by_another(
    labels_to_come: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Path(shutil.copytree(labels_to_come, tmp_path / "alone"))
    ask(alone)
    (tmp_path / "asked").unlink()
    (tmp_path / "hang").touch()
    monkeypatch.setenv("ACTIVEDPO_TEST_SECRET", SECRET)

    def kill_who_asks() -> None:
        while not (tmp_path / "asked").exists() or not (said := (tmp_path / "asked").read_text()).endswith("\n"):
            time.sleep(0.02)
        os.kill(int(said.partition(":")[0]), signal.SIGKILL)
        (tmp_path / "killed").touch()

    killer = threading.Thread(target=kill_who_asks)
    killer.start()
    ask(labels_to_come, *TWO_WORKERS)
    killer.join()
    assert outputs(labels_to_come, 2, "label") == outputs(alone, 2, "label")
    asked = [line.split(":") for line in (tmp_path / "asked").read_text().splitlines()]
    assert len({pid for pid, _, _ in asked}) >= 2
    assert {secret for _, secret, _ in asked} == {""}, "a worker knows the environment of the command"
    assert {statistics for _, _, statistics in asked} == {"0"}, "a worker would send statistics"


@pytest.mark.usefixtures("cluster")
def test_ray_sends_no_statistics() -> None:
    """Its processes on this machine, which would send them, were started with the variable that keeps them from it."""
    processes = [path.parent for path in Path("/proc").glob("[0-9]*/stat")]
    started = [path for path in processes if parent(path) == os.getpid() and b"ray" in (path / "cmdline").read_bytes()]
    assert started
    for path in started:
        assert b"RAY_USAGE_STATS_ENABLED=0" in (path / "environ").read_bytes().split(b"\0")


def parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.usefixtures("cluster")
def test_made_again_by_one_worker(finished: Path) -> None:
    before = manifest(finished, 2, "generate")
    told = done(*on(finished, "generate", iteration=2), "--force", *TWO_WORKERS).stderr
    assert "`generate` of iteration 2 on 1 worker of Ray" in told
    after = manifest(finished, 2, "generate")
    assert after["outputs"] == before["outputs"]
    assert after["execution"]["started"] != before["execution"]["started"] or after["execution"] != before["execution"]
    assert list((finished / ".stale").glob("iter-002-generate-*"))


@pytest.mark.usefixtures("cluster")
def test_what_a_worker_refuses_is_said_with_its_code(finished: Path) -> None:
    """Here its model has gone."""
    shutil.rmtree(finished / "iter-001" / "train" / "adapter")
    shutil.rmtree(finished / "iter-002" / "generate")
    told = refused(4, *on(finished, "generate", iteration=2), *TWO_WORKERS)
    assert "iter-001/train" in told
    assert not (finished / "iter-002" / "generate").exists()


@pytest.mark.slow
def test_a_node_that_disappears(labels_to_come: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of one worker each, as Ray starts them on one machine; that of who asks first is taken away."""
    ray: Any = pytest.importorskip("ray", reason="ray, an extra, is not there")
    from ray.cluster_utils import Cluster

    for name, value in on_ray.SILENT.items():
        monkeypatch.setenv(name, value)
    alone = Path(shutil.copytree(labels_to_come, tmp_path / "alone"))
    ask(alone)
    (tmp_path / "asked").unlink()
    (tmp_path / "hang").touch()
    small = {"num_cpus": 1, "object_store_memory": on_ray.STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(**small), cluster.add_node(**small)]

    def take_away() -> None:
        until(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text().endswith("\n"), 120)
        asking = int((tmp_path / "asked").read_text().partition(":")[0])
        for node in nodes:
            raylet = next(info.process.pid for info in node.all_processes["raylet"])
            if parent(Path("/proc") / str(asking)) == raylet:
                cluster.remove_node(node, allow_graceful=False)
        (tmp_path / "killed").touch()

    taker = threading.Thread(target=take_away)
    taker.start()
    try:
        ask(labels_to_come, *TWO_WORKERS, "--ray-address", cluster.address)
        taker.join()
        until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, 120)  # it is declared dead after a while
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert outputs(labels_to_come, 2, "label") == outputs(alone, 2, "label")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_experiment_on_two_workers(
    finished_original: Path, tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"model.name": str(small_model), "prompts.source": str(prompts_file), "prompts.eval_prompts": 4}
    spec = {"title": "One run", "settings": SMALL | settings | {"label.oracle": RULE}, "arms": {"alone": {}}}
    Path("spec.yaml").write_text(json.dumps(spec | {"seeds": [0], "iterations": 1, "baseline": "alone"}))
    assert "leave one out" in refused(2, "experiment", "spec.yaml", "--jobs", 2, *TWO_WORKERS)
    done("experiment", "spec.yaml", "--no-report", *TWO_WORKERS)
    made, expected = all_outputs(tmp_path / "runs/spec/runs/alone-s0"), all_outputs(finished_original)
    assert made.items() <= expected.items()
    assert "iter-001/evaluate" in made


def test_a_worker_that_does_not_see_the_folder_says_so(new_run: Path, tmp_path: Path) -> None:
    job = replace(on_ray._job(order_of(new_run, "generate"), None), folder=str(tmp_path / "elsewhere"))
    failure = on_ray.work(job).failure
    assert failure is not None
    assert f"does not see `{tmp_path / 'elsewhere'}`" in failure["message"]
    assert failure["code"] == 4
    assert not (new_run / "iter-001").exists()


@pytest.mark.usefixtures("cluster")
def test_what_a_worker_warns_of_is_passed_on_once(finished: Path) -> None:
    """Here of held-out preferences that it leaves out, which both workers read."""
    shutil.rmtree(finished / "iter-002" / "evaluate")
    file = finished.parent / "held-out.jsonl"
    pairs = [{"prompt": "A?", "chosen": "yes", "rejected": "no"}, {"prompt": "A?", "chosen": "no", "rejected": "no"}]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    told = done(*on(finished, "evaluate", iteration=2), "--preferences", file, *TWO_WORKERS).stderr
    assert told.count("left out") == 1, told


def interrupted(run: Path, place: Path) -> str:
    """What a command says that is interrupted at its second stage, of which no process is left."""
    process = started(run, place)
    until(lambda: (run / "iter-001" / "featurize").exists(), 120)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    until(lambda: not ours(place), 60)
    return (place / "said").read_text()


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_too(new_run: Path, tmp_path: Path) -> None:
    """Several times, since Ray came down with the command where a worker had just ended by itself."""
    pytest.importorskip("ray", reason="ray, an extra, is not there")
    for _ in range(4):
        told = interrupted(new_run, tmp_path)
        assert "interrupted: what was finished is kept" in told
        assert "Check failed" not in told
        shutil.rmtree(new_run / "iter-001")


def test_ray_starts_its_own_processes(new_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray, an extra, is not there")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one of 2 processes" in refused(2, *on(new_run, "generate"), *TWO_WORKERS)


def order_of(run: Path, stage: str, **given: Any) -> StageOrder:
    return StageOrder(
        run=Run.open(run),
        stage=load_stage(stage),
        iteration=1,
        given=given,
        execution=Execution(),
        progress=SilentProgress(),
    )


def test_a_job_holds_nothing_of_the_environment(new_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTIVEDPO_TEST_SECRET", SECRET)
    job = pickle.dumps(on_ray._job(order_of(new_run, "generate"), Shard(0, 2)))
    assert str(new_run).encode() in job
    assert SECRET.encode() not in job
    assert len(job) < 10_000, "more than a stage's name and its settings travels"


@pytest.mark.parametrize(
    ("stage", "oracle", "is_done_here"),
    [
        ("select", "recorded", True),
        ("label", "human", True),
        ("label", "judge:some-model", True),
        ("label", "recorded", True),
        ("label", "python:letter_rule:score", False),
        ("train", "human", False),
    ],
)
def test_what_needs_this_terminal_its_keys_or_no_model_stays_here(
    new_run: Path, stage: str, oracle: str, is_done_here: bool
) -> None:
    order = order_of(new_run, stage, **{"label.oracle": oracle})
    assert on_ray._is_done_here(order) == is_done_here


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_kills_of_workers_of_the_command_and_of_all(
    finished_original: Path, tmp_path: Path, small_model: Path, prompts_file: Path
) -> None:
    """`ACTIVEDPO_SOAK_KILLS=60 ACTIVEDPO_SOAK_SEED=1 pytest -n0 -s -m slow tests/cli/test_on_ray.py`."""
    pytest.importorskip("ray", reason="ray, an extra, is not there")
    kills = int(os.environ.get("ACTIVEDPO_SOAK_KILLS", "9"))
    chance = random.Random(int(os.environ.get("ACTIVEDPO_SOAK_SEED", "1")))
    new, run = small_run(tmp_path / "new", small_model, prompts_file), tmp_path / "run"
    expected, ended = all_outputs(finished_original), {"worker": 0, "command": 0, "all": 0}
    shutil.copytree(new, run)
    while sum(ended.values()) < kills:
        process = started(run, tmp_path)
        time.sleep(chance.uniform(4, 30))
        victim = chance.choice(list(ended))
        workers = [pid for pid in ours(tmp_path) if b"ray::work" in words_of(pid)]
        victims = {"worker": workers[:1], "command": [process.pid], "all": [process.pid, *ours(tmp_path)]}
        for pid in victims[victim]:
            kill(pid)
        ended[victim] += bool(victims[victim])
        while victim == "all" and (born_since := ours(tmp_path)):
            for pid in born_since:
                kill(pid)
        status = process.wait(timeout=600)
        assert status in (0, -signal.SIGKILL), (tmp_path / "said").read_text()
        until(lambda: not ours(tmp_path), 120)
        check_nothing_half_visible(run)
        assert all(files == expected[stage] for stage, files in all_outputs(run).items())
        if status == 0:
            assert all_outputs(run) == expected
            done(*on(run, "verify"))
            shutil.rmtree(run)
            shutil.copytree(new, run)
    assert started(run, tmp_path).wait(timeout=600) == 0
    assert all_outputs(run) == expected
    print(ended)


def started(run: Path, place: Path) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "activedpo_cli", *on(run, "run"), "--iterations", 2, "--quiet", "--no-report"]
    with (place / "said").open("wb") as said:
        environment = {**os.environ, MARK: str(place)}
        return subprocess.Popen([*map(str, words), *map(str, TWO_WORKERS)], stderr=said, cwd=place, env=environment)


def ours(place: Path) -> list[int]:
    """All that came from the command, whoever their parent is now, and that have not ended."""
    found, mark = [], f"{MARK}={place}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (path / "environ").read_bytes().split(b"\0"):  # one that has ended has none
                found.append(int(path.name))
    return found


def words_of(pid: int) -> bytes:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return b""


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
