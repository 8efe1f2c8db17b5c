"""Two machines that share a folder and nothing else, by namespaces: no common network, names, processes or clock."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import all_outputs, done, on
from small_runs import small_run

OWN_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long apart(void) { const char *text = getenv("SECONDS_APART"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, now);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += apart();
    return failed;
}

time_t time(time_t *there) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there) *there = now.tv_sec;
    return now.tv_sec;
}
"""
MACHINE = 'hostname "$1" && mount --bind "$2" "$3" && cd "$3" && shift 3 && exec "$@"'
NAMESPACES = ("unshare", "--mount", "--uts", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
HOURS_APART = {"alpha": 3, "beta": -3}


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A library by which a process has the clock of another machine; files keep the times of the file system."""
    if shutil.which("unshare") is None or subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode:
        pytest.skip("namespaces, which stand for machines, need privileges")
    if shutil.which("cc") is None:
        pytest.skip("there is no compiler for a clock of a machine's own")
    (tmp_path / "clock.c").write_text(OWN_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"], cwd=tmp_path, check=True)
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "clock.so"), "SECONDS_APART": "36000"}
    ask = [sys.executable, "-c", "import datetime; print(datetime.datetime.now().timestamp())"]
    told = subprocess.run(ask, env=environment, capture_output=True, text=True, check=True).stdout
    assert 35_000 < float(told) - time.time() < 37_000
    return tmp_path / "clock.so"


def on_machine(name: str, shared: Path, clock: Path, *words: object) -> "subprocess.Popen[str]":
    """Start a command where the shared folder is mounted at a place of its own, in which the command stands."""
    place = shared.parent / name
    place.mkdir(exist_ok=True)
    environment = {**os.environ, "LD_PRELOAD": str(clock), "SECONDS_APART": str(3600 * HOURS_APART[name])}
    command = [
        *NAMESPACES,
        "sh",
        "-c",
        MACHINE,
        "machine",
        name,
        shared,
        place,
        sys.executable,
        "-m",
        "activedpo_cli",
        *words,
    ]
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_two_machines_with_clocks_apart_make_what_one_process_makes(
    finished_original: Path, tmp_path: Path, small_model: Path, prompts_file: Path, clock: Path
) -> None:
    shared = tmp_path / "shared"
    run = small_run(shared / "run", small_model, prompts_file)
    words = ("run", "--run", "./run", "--iterations", 2, "--quiet", "--no-report")
    lost = on_machine("alpha", shared, clock, *words, "--shard", "0/2")
    left = on_machine("beta", shared, clock, *words, "--shard", "1/2")
    deadline = time.monotonic() + 120
    while not list((run / "iter-001").glob("featurize/features-*")):
        assert time.monotonic() < deadline
        assert (lost.poll(), left.poll()) == (None, None), lost.communicate()
        time.sleep(0.01)
    lost.send_signal(signal.SIGKILL)  # and with it the whole machine, which runs in its namespace
    lost.wait(timeout=60)
    back = on_machine("alpha", shared, clock, *words, "--shard", "0/2")
    said = [machine.communicate(timeout=300)[0] for machine in (left, back)]
    assert [left.returncode, back.returncode] == [0, 0], said
    assert all_outputs(run) == all_outputs(finished_original)
    records = [json.loads(path.read_bytes())["execution"] for path in run.rglob("manifest.json")]
    assert {record["host"] for record in records} <= set(HOURS_APART)
    assert all(record["seconds"] < 600 for record in records), "a difference of clocks was taken for work"
    done(*on(run, "verify"))
