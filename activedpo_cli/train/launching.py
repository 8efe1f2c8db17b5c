"""Train in several processes under `accelerate launch`, each with a part of every update; they end with this one.

This process holds the stage's lock, and what they make lies in a folder of the job until all of them have ended well.
"""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import ActiveDPOError, TravelledError, UsageError
from activedpo_cli.base.interruption import PARENT_PIPE, ends_with_this_process, has_ended
from activedpo_cli.base.launchers import be_alone
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.settings import SftSettings, TrainSettings
from activedpo_cli.base.threads import CORES
from activedpo_cli.base.yaml_text import read_yaml
from activedpo_cli.engine.step import Context, Execution
from activedpo_cli.store import files, jsonl
from activedpo_cli.train.division import divided
from activedpo_cli.train.worker import ERROR, JOB, ROWS

ONE_MACHINE = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",
    "num_machines": 1,
    "machine_rank": 0,
    "gpu_ids": "all",
}
"""In place of the configuration in the user's home, which would be taken unseen; on CPUs processes start in the same way."""
ALIKE = ("MULTI_GPU", "MULTI_CPU", "NO")
"""Types of a configuration under which every process holds all of the model."""
LOG, CONFIGURATION, RESULT = "launcher.log", "accelerate.json", "result.json"
"""What the launcher says, how it starts processes, and, beside weights, what the first of them leaves of the training."""
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 20.0
LAST_LINES = 3
ENDED = re.compile(r"\brank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
"""What torch's launcher says of each process that failed: its number, and its exit code or signal."""


def check_processes(execution: Execution, settings: SftSettings | TrainSettings) -> None:
    """Raise UsageError where the processes that were asked for can't train together."""
    processes = execution.processes
    if processes is None:
        return
    divided(settings.per_device_train_batch_size, settings.gradient_accumulation_steps, processes.number)
    _check_config(processes.config)
    _check_device(execution.device, processes.number)


def facts_of(execution: Execution) -> dict[str, int]:
    """What a record's summary says of the processes that trained; nothing of one alone."""
    return {"processes": execution.processes.number} if execution.processes else {}


def train_together(
    context: Context,
    module: str,
    folder: Path,
    on_log: Callable[[dict[str, float]], None],
    look: Callable[[], None] = lambda: None,
) -> None:
    """Have `train_together` of a step's module called in each process, with `folder` for what they make.

    `on_log` gets the metrics of each update, and `look` is called again and again, the last time when all have ended. Raises
    what one of them raised, and ActiveDPOError where one died; the others have ended then.
    """
    processes = context.execution.processes
    assert processes is not None
    _leave_device(context.execution)
    device = "cpu" if _is_cpu(context.execution.device) else "cuda"
    job = {
        "run": str(context.run.path.absolute()),
        "iteration": context.iteration,
        "folder": str(context.folder.path.absolute()),
        "module": module,
        "device": device,
    }
    jsonl.write_json(folder / JOB, job)
    jsonl.write_json(folder / CONFIGURATION, ONE_MACHINE)
    logged = _Rows(folder / ROWS, on_log)
    with files.open_log(folder / LOG) as log, _launched(context, folder, device, log) as launcher:
        while launcher.poll() is None:
            time.sleep(POLL_SECONDS)
            logged.hand_on()
            look()
    logged.hand_on()
    look()
    if launcher.returncode != 0:
        raise _told(folder, processes.number)


def _leave_device(execution: Execution) -> None:
    """Give memory back that a process on the same device needs."""
    if execution.kept is not None:
        execution.kept.forget()
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _check_config(path: Path | None) -> None:
    if path is None:
        return
    if not path.is_file():
        raise UsageError(f"--accelerate-config: there is no file `{path}`")
    values = read_yaml(read_limited(path).decode(errors="replace"))  # JSON is YAML
    if not isinstance(values, Mapping):
        raise UsageError(f"--accelerate-config: `{path}` is no configuration of accelerate", hint="accelerate config")
    kind = str(values.get("distributed_type", "NO"))
    if kind not in ALIKE:
        raise UsageError(
            f"--accelerate-config: `{path}` says `distributed_type: {kind}`, by which a model is cut into pieces",
            details=[
                "what each update learnt is looked at before it is made, which needs whole gradients in each process"
            ],
            hint="a configuration with `distributed_type: MULTI_GPU`, or none",
        )
    if values.get("num_machines") not in (None, 1):
        raise UsageError(
            f"--accelerate-config: `{path}` is for {values['num_machines']} machines, and training uses one",
            hint="`num_machines: 1`",
        )


def _check_device(device: str, number: int) -> None:
    if _is_cpu(device):
        return
    import torch

    if device not in ("auto", "cuda"):
        raise UsageError(
            f"--device {device} is one device, and --num-processes {number} takes as many",
            hint="leave --device out, and choose among GPUs with CUDA_VISIBLE_DEVICES",
        )
    if torch.cuda.device_count() < number:
        raise UsageError(
            f"--num-processes {number}: torch sees {torch.cuda.device_count()} GPUs, and each process takes one",
            hint=f"--num-processes {torch.cuda.device_count()}, or --device cpu",
        )


def _is_cpu(device: str) -> bool:
    if device.startswith("auto"):
        import torch

        return not torch.cuda.is_available()
    return device == "cpu"


@contextmanager
def _launched(context: Context, folder: Path, device: str, log: Any) -> "Iterator[subprocess.Popen[bytes]]":
    """The launcher, which is gone afterwards with all that it started."""
    processes, temporary = context.execution.processes, folder / "temporary"
    assert processes is not None
    files.make_folder(temporary)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(processes.config or folder / CONFIGURATION), "--mixed_precision", "no"]
    command += ["--multi_gpu", "--num_machines", "1", "--num_processes", str(processes.number)]
    command += ["--dynamo_backend", "no", "--main_process_port", "0"]  # any that is free
    command += ["--module", "activedpo_cli.train.worker", str(folder.absolute())]
    launcher = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # never written to: it ends with this process, and so do the workers
        stdout=log,
        stderr=log,
        env=_environment(context, processes.number, device, temporary),
        start_new_session=True,
    )
    ends_with_this_process(launcher.pid)
    try:
        yield launcher
    finally:
        assert launcher.stdin is not None
        launcher.stdin.close()
        if launcher.poll() is None:
            launcher.terminate()
        try:
            launcher.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
        has_ended(launcher.pid)


def _environment(context: Context, number: int, device: str, temporary: Path) -> dict[str, str]:
    """That of this process, without what others have told launchers, and with an equal part of the stage's threads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "FSDP_"))}
    be_alone(environment)
    package = str(Path(__file__).resolve().parents[2])
    environment |= {
        PARENT_PIPE: "1",
        "OMP_NUM_THREADS": str(_threads_of_each(context, number)),
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])]),
        "TMPDIR": str(temporary.absolute()),
    }
    if device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it listens where other machines could connect
    return environment


def _threads_of_each(context: Context, number: int) -> int:
    """What the stage's record says, which is for each where somebody has set it, and else for all together."""
    started = context.folder.started
    threads = started.execution.get("threads", {}) if started else {}
    of_all = int(threads.get("number", 1))
    return of_all if threads.get("decided_by") != CORES else max(1, of_all // number)


class _Rows:
    """Hands on the rows of a file that grows, each once it is whole."""

    def __init__(self, path: Path, on_row: Callable[[dict[str, float]], None]) -> None:
        self._path, self._on_row, self._read = path, on_row, 0

    def hand_on(self) -> None:
        """Those that are new."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._read)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._on_row(json.loads(line))


def _told(folder: Path, number: int) -> ActiveDPOError:
    """That a process was killed, else what the first one said that failed; others fail then because they lose it."""
    log = folder / LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    ended = [(int(rank), int(code)) for rank, code in ENDED.findall(text)]
    killed = next(((rank, code) for rank, code in ended if code < 0 and code != -signal.SIGTERM), None)
    found = [folder / ERROR.format(index) for index in range(number)]
    failures = sorted((jsonl.read_json(path) for path in found if path.is_file()), key=lambda facts: facts["time"])
    if failures and killed is None:
        return TravelledError(failures[0])
    which = f"process {killed[0] + 1} of {number} ended with code {killed[1]}" if killed else "the launcher ended"
    why = ", killed as the system does where memory is short" if killed and killed[1] == -signal.SIGKILL else ""
    return ActiveDPOError(
        f"training stopped: {which}{why}, and all others with it",
        details=[] if killed else [line for line in text.splitlines() if line.strip()][-LAST_LINES:],
        hint="what was finished is kept; the same command goes on from there",
    )
