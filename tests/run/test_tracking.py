"""Trackers are told of each stage once, whatever ends a command, and no stage fails for one."""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, done, manifest, on, refused, rows, snapshot
from hub_server import TOKEN
from small_runs import small_run

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.run import tracking, tracking_worker
from activedpo_cli.store.operations import operations
from activedpo_cli.store.run import Run

FAKES = Path(__file__).parents[1] / "fake_trackers"
STAGES = ["generate", "featurize", "select", "label", "train", "evaluate"]


class Killed(BaseException):
    """As a signal that nobody can catch."""


class Tracker:
    """In the place of a tracker's process; `fails_at` counts rows, and `dies` ends the command there instead."""

    rows: dict[int, list[dict[str, float]]] = {}
    orders: list[dict[str, Any]] = []
    fails_at: int | None = None
    dies = False

    def __init__(self, order: dict[str, Any]) -> None:
        type(self).orders.append(order)
        self.id, self.where = order["id"] or "made-there", None
        if order["tracker"] == "tensorboard":
            for step in [step for step in self.rows if step >= order["step"]]:
                del self.rows[step]

    def tell(self, step: int, rows: list[dict[str, float]]) -> tuple[int, str | None]:
        for number, row in enumerate(rows):
            if step + number == self.fails_at:
                if self.dies:
                    raise Killed
                return number, "the service is down"
            if not (self.orders[-1]["tracker"] == "wandb" and step + number in self.rows):
                self.rows.setdefault(step + number, []).append(row)
        return len(rows), None

    def close(self) -> bool:
        return True

    def kill(self) -> None:
        pass


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> type[Tracker]:
    kind = type("Own", (Tracker,), {"rows": {}, "orders": []})
    monkeypatch.setattr(tracking, "_Tracker", kind)
    monkeypatch.setattr(tracking, "PACKAGES", dict.fromkeys(tracking.PACKAGES, "json"))
    return kind


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """An iteration with several updates; what was told of it is for a test to remove."""
    settings = {"train__include_ties": True, "train__num_train_epochs": 2}
    run = small_run(tmp_path_factory.mktemp("longer") / "run", small_model, prompts_file, **settings)
    done(*on(run, "run"), "--iterations", 1, "--no-report", "--quiet")
    return run


def told(run: Path, name: str = "wandb") -> dict[str, Any]:
    return json.loads((run / "tracking" / f"{name}.json").read_text())


def expected_rows(run: Path) -> list[dict[str, float]]:
    """Straight from the files of a run of two iterations."""
    found, labels, updates = [], 0, 0
    for t in (1, 2):
        for stage in STAGES:
            summary = manifest(run, t, stage)["summary"]
            labels += summary["labels_spent"] if stage == "label" else 0
            log = rows(run / f"iter-{t:03d}/train/metrics.jsonl") if stage == "train" else [summary]
            for row in log:
                updates += stage == "train"
                numbers = {f"{stage}/{k}": v for k, v in row.items() if type(v) in (int, float) and k != "step"}
                found.append(numbers | {"iteration": t, "labels_spent": labels, "updates": updates})
    return found


def without_nested(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.count("/") < 2 or key.startswith("train/")}


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_each_stage_is_told_once(finished: Path, tracker: type[Tracker], name: str) -> None:
    done(*on(finished, "evaluate", iteration=2), "--track", name)
    everything = expected_rows(finished)
    assert [[without_nested(row) for row in tracker.rows[step]] for step in range(len(everything))] == [
        [row] for row in everything
    ]
    first, before = dict(tracker.rows), snapshot(finished)
    done(*on(finished, "run"), "--iterations", 2, "--no-report", "--quiet")
    done(*on(finished, "train", iteration=1))
    assert (tracker.rows, snapshot(finished)) == (first, before), "nothing is told twice, and the choice stands"
    assert len(tracker.orders) == 1
    done(*on(finished, "evaluate", iteration=2), "--track", "none")
    done(*on(finished, "generate", iteration=3), "--quiet")
    assert len(tracker.orders) == 1
    done(*on(finished, "generate", iteration=3), "--track", name)
    assert tracker.orders[1] == tracker.orders[0] | {
        "step": len(everything),
        "is_new": False,
        "id": told(finished, name)["id"],
    }
    assert tracker.rows[len(everything)][0]["generate/responses"] == 18
    assert "is sound" in done("verify", "--run", finished).stdout


def test_a_stage_made_again_is_told_again(finished: Path, tracker: type[Tracker]) -> None:
    done(*on(finished, "evaluate", iteration=2), "--track", "wandb")
    before = len(tracker.rows)
    done(*on(finished, "train", iteration=2), "--force", "--learning-rate", 0.02, "--quiet")
    assert len(tracker.rows) == before + manifest(finished, 2, "train")["summary"]["steps"]
    assert tracker.rows[before][0]["train/loss"] == rows(finished / "iter-002/train/metrics.jsonl")[0]["loss"]


def test_commands_that_tell_in_turn_lose_nothing(
    finished: Path, tracker: type[Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard forgets what an earlier file has at the step where a later one was opened, or behind it."""
    opened: list[int] = []

    class Own(tracker):  # type: ignore[valid-type, misc]
        def __init__(self, order: dict[str, Any]) -> None:
            super().__init__(order)
            self.number = len(opened)
            opened.append(order["step"])

        def tell(self, step: int, rows: list[dict[str, float]]) -> tuple[int, str | None]:
            assert all(step < later for later in opened[self.number + 1 :]), "it would be forgotten"
            return super().tell(step, rows)

    monkeypatch.setattr(tracking, "_Tracker", Own)
    run = Run.open(finished)
    tracking.choose(run, ["tensorboard"])
    every, shown = list(tracking.finished(run)), 0
    monkeypatch.setattr(tracking, "finished", lambda _: iter(every[:shown]))
    one, other = (tracking.Trackers(run, SilentProgress()) for _ in range(2))
    for command in (one, one, other, other, one, other):
        shown += 2
        command.tell()
    assert len(opened) == 4, "and stays open while it is alone"
    assert [len(tracker.rows[step]) for step in range(len(expected_rows(finished)))] == [1] * len(
        expected_rows(finished)
    )


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_what_ends_in_the_middle_goes_on_without_doubles(
    longer: Path, tracker: type[Tracker], name: str, dies: bool
) -> None:
    """At every row; where a command is killed while one is told, nobody knows if it arrived: trackio is not told again."""
    run, opened = longer, Run.open(longer)
    shutil.rmtree(run / "tracking", ignore_errors=True)
    tracking.choose(opened, [name])
    tracking.Trackers(opened, SilentProgress()).tell()
    whole = dict(tracker.rows)
    assert len(whole) > 8
    for step in whole:
        (run / "tracking" / f"{name}.json").unlink()
        tracker.rows.clear()
        tracker.fails_at, tracker.dies = step, dies
        if dies:
            with pytest.raises(Killed):
                tracking.Trackers(opened, SilentProgress()).tell()
        else:
            tracking.Trackers(opened, SilentProgress()).tell()
        tracker.fails_at = None
        tracking.Trackers(opened, SilentProgress()).tell()
        if dies and name == "trackio":
            assert all(row == whole[number] for number, row in tracker.rows.items()), "no doubles"
            assert step not in tracker.rows
        else:
            assert tracker.rows == whole
        assert told(run, name)["telling"] is None


def test_no_stage_fails_for_a_tracker(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        name: f"{'0123456789abcdef' * 2}{number}"
        for number, name in enumerate(("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"))
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    def fails(order: dict[str, Any]) -> None:
        raise ActiveDPOError(f"no login, and {TOKEN} is no key, nor is {' or '.join(secrets.values())}")

    monkeypatch.setattr(tracking, "_Tracker", fails)
    monkeypatch.setattr(tracking, "PACKAGES", dict.fromkeys(tracking.PACKAGES, "json"))
    result = done(*on(finished, "run"), "--iterations", 2, "--no-report", "--track", "wandb,mlflow")
    assert result.stderr.count("wandb was not told: no login") == 1
    assert result.stderr.count("mlflow was not told") == 1
    assert TOKEN not in result.output
    assert not any(value in result.output for value in secrets.values())
    assert not (finished / "tracking/wandb.json").exists()
    (finished / "tracking/trackers.json").write_text("[]")
    assert "is damaged" in done(*on(finished, "evaluate", iteration=2)).stderr
    done(*on(finished, "evaluate", iteration=2), "--track", "none")
    assert done(*on(finished, "evaluate", iteration=2)).stderr.count("was not told") == 0


def test_a_full_disk_ends_no_stage(finished: Path, tracker: type[Tracker], monkeypatch: pytest.MonkeyPatch) -> None:
    done(*on(finished, "evaluate", iteration=1), "--track", "wandb")
    (finished / "tracking/wandb.json").unlink()
    plain = operations.write

    def write(path: Path, descriptor: int, data: memoryview) -> int:
        if "wandb" in path.name:
            raise OSError(28, "No space left on device")
        return plain(path, descriptor, data)

    monkeypatch.setattr(operations, "write", write)
    assert "No space left" in done(*on(finished, "evaluate", iteration=1)).stderr


def test_what_is_no_tracker_or_not_installed_is_refused_before_any_work(new_run: Path) -> None:
    before = snapshot(new_run)
    assert "did you mean `wandb`" in refused(2, *on(new_run, "generate"), "--track", "wandbb")
    for name in ("wandb", "trackio", "mlflow"):
        if name not in sys.modules and not tracking.importlib.util.find_spec(name):
            said = refused(1, *on(new_run, "run"), "--track", f"{name}")
            assert f"needs the package `{name}`" in said
            assert f"pip install {name}" in said
    assert snapshot(new_run) == before
    assert "stages of a run" in refused(
        2, "select", "--features", "f", "--pairs", "p", "--output", "o", "--track", "wandb"
    )
    assert "tensorboard" in activedpo("run", "--help").stdout


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules that stand for the trackers', here and in processes that are started."""
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FAKE_TRACKER_NOTES", str(tmp_path / "notes.jsonl"))
    yield tmp_path / "notes.jsonl"
    for name in ("wandb", "trackio", "mlflow", "notes"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_accelerates_trackers_are_spoken_to_as_they_want(fakes: Path, name: str) -> None:
    from accelerate import PartialState

    order = {"tracker": name, "project": "p", "name": "run-1", "folder": "", "id": None, "is_new": True, "step": 0}
    order |= {"settings": {"seed": 1}, "id": None if name == "mlflow" else "abc"}
    lines = [order, {"step": 0, "rows": [{"a": 1.0}, {"a": 2.0}]}, {"step": 2, "rows": [{"a": 3.0}]}]
    answers = io.StringIO()
    existed = bool(PartialState._shared_state)
    try:
        tracking_worker.serve(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), answers)
    finally:
        if not existed:
            PartialState._reset_state()
    opened, *said = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert said == [{"told": 2}, {"told": 1}]
    assert opened["id"] == ("made-there" if name == "mlflow" else "abc")
    notes = rows(fakes)
    assert [(note["step"], note["values"]["a"]) for note in notes if "step" in note] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert {"settings": {"seed": 1}} in notes
    assert notes[-1] == {"finished": True}
    if name == "wandb":
        assert notes[0]["opened"] == {"project": "p", "name": "run-1", "id": "abc", "resume": "allow"}


@pytest.mark.whole
def test_a_command_tells_a_tracker_in_a_process_of_its_own(
    finished: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in the middle of a stage, says so without the key, and goes on where it stopped."""
    monkeypatch.setenv("FAKE_TRACKER_FAILS_AT", "5")
    result = done(*on(finished, "evaluate", iteration=2), "--track", "wandb")
    assert "https://tracker.example/run" in result.stderr
    assert "the service is down" in result.stderr
    assert TOKEN not in result.output
    monkeypatch.delenv("FAKE_TRACKER_FAILS_AT")
    done(*on(finished, "evaluate", iteration=2))
    notes = rows(fakes)
    steps = [note["step"] for note in notes if "step" in note]
    assert steps == list(range(len(expected_rows(finished))))
    assert len({note["opened"]["id"] for note in notes if "opened" in note}) == 1
    assert notes[-1] == {"finished": True}


@pytest.mark.whole
def test_tensorboard_reads_back_what_stages_measured(finished: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done(*on(finished, "evaluate", iteration=2), "--track", "tensorboard")
    state = finished / "tracking/tensorboard.json"
    record = json.loads(state.read_text())
    last = record["told"].pop("iter-002/evaluate")  # as though a command had been killed before it was confirmed
    record |= {"rows": record["rows"] - 1, "telling": {"stage": "iter-002/evaluate", "digest": last, "rows": None}}
    state.write_text(json.dumps(record))
    done(*on(finished, "evaluate", iteration=2))
    (folder,) = (finished / "tracking/tensorboard").iterdir()
    assert len(list(folder.iterdir())) == 2
    events = EventAccumulator(str(folder)).Reload()
    everything = expected_rows(finished)
    for name in ("train/loss", "evaluate/reward_mean", "train/rewards/margins", "labels_spent"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = [(step, pytest.approx(row[name], rel=1e-6)) for step, row in enumerate(everything) if name in row]
        assert found == wanted
