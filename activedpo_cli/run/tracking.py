"""Tells trackers such as TensorBoard what finished stages measured: each stage once, whatever ends a command.

What was told stands in `tracking/` of the run. No stage fails for a tracker: the next command tells what could not be told.
Rows are counted over all stages, and their number is the step at which a tracker has them.
"""

import importlib.util
import json
import os
import queue
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from activedpo_cli.base.display import redacted_text
from activedpo_cli.base.errors import ActiveDPOError, BusyError, InvalidDataError, UsageError
from activedpo_cli.base.launchers import be_alone
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.progress import Progress
from activedpo_cli.run.policy_facts import public_name
from activedpo_cli.run.tracked_rows import FinishedStage, Row, finished
from activedpo_cli.store import files, jsonl
from activedpo_cli.store.lock import waiting
from activedpo_cli.store.run import Run

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
"""The trackers, and what each needs."""
NONE = "none"
FOLDER, CHOICE = "tracking", "trackers.json"
PROJECT = "activedpo"
PROJECT_VARIABLES = {"wandb": "WANDB_PROJECT", "trackio": "TRACKIO_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME"}
KNOWS_STEPS = ("tensorboard", "wandb")
"""Trackers that take a step once, however often they are told of it."""
TOLD_SETTINGS = ("seed", "select.method", "select.budget", "adapter.r", "train.beta", "train.learning_rate")
PATIENCE_SECONDS = 60.0
"""How long a tracker may take to open, or to take a stage in."""


def choose(run: Run, trackers: Sequence[str]) -> None:
    """Note which trackers are told of a run from now on; `none` alone tells nobody.

    Raises UsageError for a name that is no tracker's, and ActiveDPOError where its package is not installed.
    """
    check_trackers(trackers)
    wanted = [] if list(trackers) == [NONE] else list(dict.fromkeys(trackers))
    before: list[str] | None = None
    with suppress(InvalidDataError):
        before = chosen(run)
    if wanted != before:
        files.make_folder(run.path / FOLDER)
        jsonl.write_json(run.path / FOLDER / CHOICE, {"trackers": wanted})


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise as `choose` does."""
    for name in trackers if list(trackers) != [NONE] else ():
        if name not in PACKAGES:
            raise UsageError(
                f"`{name}` is no tracker" + did_you_mean(name, PACKAGES), hint=f"--track {', '.join(PACKAGES)}, or none"
            )
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ActiveDPOError(
                f"--track {name} needs the package `{PACKAGES[name]}`, which is not installed",
                hint=f"pip install {PACKAGES[name]}",
            )


def chosen(run: Run) -> list[str]:
    """The trackers that are told of a run; none where nobody asked for any."""
    path = run.path / FOLDER / CHOICE
    if not path.is_file():
        return []
    content = jsonl.read_json(path)
    names = content.get("trackers") if isinstance(content, dict) else None
    if not isinstance(names, list) or not set(names) <= set(PACKAGES):
        raise InvalidDataError(f"`{path}` is damaged: it names no trackers", hint="--track NAME, or --track none")
    return names


@contextmanager
def trackers_of(run: Run, asked: Sequence[str] | None, progress: Progress) -> "Iterator[Trackers]":
    """The trackers of a run, those that are asked for now or were before; they are closed at the end."""
    if asked is not None:
        choose(run, asked)
    trackers = Trackers(run, progress)
    try:
        yield trackers
    finally:
        trackers.close()


class Trackers:
    """Those of one command: each is opened when there is something to tell, and closed at the end."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run, self._progress = run, progress
        self._open: dict[str, _Tracker] = {}
        self._rows: dict[str, int] = {}
        self._failed: set[str] = set()

    def tell(self) -> None:
        """Tell every tracker what it was not told yet; what fails is said once, and tried again by the next command."""
        try:
            names = chosen(self._run)
        except ActiveDPOError as error:
            self._give_up("", error.message)
            return
        for name in names:
            if name not in self._failed:
                try:
                    self._tell(name)
                except BusyError:
                    continue  # another command tells what there is
                except Exception as error:  # whatever a tracker or a disk does, the stage is done
                    self._give_up(name, error.message if isinstance(error, ActiveDPOError) else f"{error!r}")

    def close(self) -> None:
        """Let each tracker send what it holds."""
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str) -> None:
        is_sent = False
        with suppress(OSError, ValueError):
            is_sent = self._open.pop(name).close()
        if not is_sent:
            self._progress.warn(f"{name} did not come to its end; what it was told last may be missing there")

    def _tell(self, name: str) -> None:
        place = self._run.path / FOLDER / f"{name}.json"
        with waiting(self._run.lock_path(f"tracking-{name}")):
            state = _read_state(place)
            if name in self._open and state["rows"] != self._rows[name]:
                # Another command told of stages since. What is told behind its rows by a tracker that was opened before
                # them would be taken for rows that it replaces.
                self._close(name)
            for untold in self._untold(state):
                stage, digest = untold.name, untold.record.digest
                rows, begun = untold.rows(), state["telling"]
                done = begun["rows"] if begun and (begun["stage"], begun["digest"]) == (stage, digest) else 0
                if done is None and name not in KNOWS_STEPS:
                    self._progress.warn(
                        f"{name} may have been told a part of {stage} before a command was interrupted; it is not told again"
                    )
                elif rows:
                    state["telling"] = {"stage": stage, "digest": digest, "rows": None}
                    self._tell_rows(name, place, state, rows, done or 0)
                state["told"][stage], state["telling"] = digest, None
                state["rows"] += len(rows)
                jsonl.write_json(place, state)
            self._rows[name] = state["rows"]

    def _untold(self, state: Mapping[str, Any]) -> list[FinishedStage]:
        return [stage for stage in finished(self._run) if state["told"].get(stage.name) != stage.record.digest]

    def _tell_rows(self, name: str, place: Path, state: dict[str, Any], rows: list[Row], done: int) -> None:
        """Tell the rows of a stage of which so many were told; raises ActiveDPOError where the tracker does not take all."""
        tracker = self._open.get(name)
        if tracker is None:
            tracker = self._open[name] = _Tracker(_order(self._run, name, state, done))
            state["id"] = tracker.id
            if name not in self._rows:
                self._progress.note(f"{name} is told what stages measure: {tracker.where or _where(self._run, name)}")
        jsonl.write_json(place, state)
        told, error = tracker.tell(state["rows"] + done, rows[done:])
        if error is not None:
            state["telling"]["rows"] = done + told
            jsonl.write_json(place, state)
            raise ActiveDPOError(error)

    def _give_up(self, name: str, reason: str) -> None:
        self._failed.add(name)
        tracker = self._open.pop(name, None)
        if tracker is not None:
            tracker.kill()
        self._progress.warn(
            f"{name or 'no tracker'} was not told: {redacted_text(reason)}; nothing else depends on it, and the next "
            "command tells what is missing (--track none: no more)"
        )


def _read_state(place: Path) -> dict[str, Any]:
    """What one tracker was told: the id by which it knows the run, how many rows, and each stage's digest.

    `telling` is the stage that was begun and not confirmed, with the rows that are known to be told, null where none knows.
    """
    if not place.is_file():
        return {"id": None, "rows": 0, "told": {}, "telling": None}
    state = jsonl.read_json(place)
    kinds = {"rows": int, "told": dict, "telling": dict | None, "id": str | None}
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in kinds.items()):
        raise InvalidDataError(f"`{place}` is damaged; without it everything is told anew")
    return state


def _order(run: Run, name: str, state: dict[str, Any], done: int) -> dict[str, Any]:
    """What opens a tracker, which has so many rows of the stage that is told next."""
    is_new = state["id"] is None
    if is_new and name != "mlflow":  # which makes the id itself
        state["id"] = secrets.token_hex(8)
    config = run.config
    settings: dict[str, Any] = {"model": public_name(config.model.name), "oracle": public_name(config.label.oracle)}
    for key in TOLD_SETTINGS:
        section, _, leaf = key.partition(".")
        settings[key] = getattr(getattr(config, section), leaf) if leaf else config.seed
    return {
        "tracker": name,
        "project": _project(name),
        "name": run.path.absolute().name,
        "folder": str(run.path.absolute() / FOLDER / "tensorboard"),
        "id": state["id"],
        "is_new": is_new,
        "step": state["rows"] + done,
        "settings": settings,
    }


def _where(run: Run, name: str) -> str:
    ways = {
        "tensorboard": f"`tensorboard --logdir {run.path / FOLDER / 'tensorboard'}`",
        "trackio": f"`trackio show --project {_project(name)}`",
        "mlflow": f"`mlflow ui`, experiment {_project(name)}",
    }
    return ways.get(name, f"project {_project(name)}")


def _project(name: str) -> str:
    return os.environ.get(PROJECT_VARIABLES.get(name, ""), PROJECT)


class _Tracker:
    """One tracker's process; raises ActiveDPOError where it can't be told."""

    def __init__(self, order: dict[str, Any]) -> None:
        environment = dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}
        be_alone(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "activedpo_cli.run.tracking_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the command, which then ends this process in good order
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            found = self._asked(order)
        except BaseException:
            self.kill()
            raise
        self.id: str | None = found.get("id")
        self.where: str | None = found.get("where")

    def tell(self, step: int, rows: list[Row]) -> tuple[int, str | None]:
        """Pass rows on, of which the first stands at this step; returns how many were taken, and why not all."""
        answer = self._asked({"step": step, "rows": rows})
        return int(answer["told"]), answer.get("error")

    def close(self) -> bool:
        """Say that it is the end; says whether the process came to it by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return self._process.wait(PATIENCE_SECONDS) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _asked(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=PATIENCE_SECONDS)
            answer = json.loads(line) if line else {"error": "its process ended"}
        except queue.Empty:
            answer = {"error": f"it did not answer within {PATIENCE_SECONDS:.0f} s"}
        except (OSError, ValueError) as error:
            answer = {"error": str(error)}
        if "error" in answer and "told" not in answer:
            raise ActiveDPOError(str(answer["error"]))
        return dict(answer)
