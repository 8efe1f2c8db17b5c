"""A lock keeps others out while its process lives and not a moment longer, whatever lies beside it."""

import errno
import fcntl
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

import pytest
from command_line import done, make_partial, on, refused

from activedpo_cli.base.errors import BusyError, StorageError
from activedpo_cli.store.lock import exclusive, waiting

HOLD = (
    "import sys; from pathlib import Path; from activedpo_cli.store.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds a lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_killed_holder_leaves_its_name_and_no_lock(tmp_path: Path) -> None:
    path, holder = tmp_path / "stage.lock", tmp_path / "stage.holder"
    with held(path) as process:
        with pytest.raises(BusyError) as caught, exclusive(path, "the stage"):
            pass
        assert f"process {process.pid} on {socket.gethostname()} since " in caught.value.message
        assert "`the stage`" in caught.value.message
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads(holder.read_text())["pid"] == process.pid
    with exclusive(path, "the stage"), pytest.raises(BusyError), waiting(path, 0.01):
        pass
    assert not holder.exists()
    with waiting(path, 0.01):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b'{"pid": 999999999, "host": "a-machine-that-is-off", "since": "09:00:00"}',
        b'{"pid": 1, "host": "' + socket.gethostname().encode() + b'", "since": "09:00:00"}',
        b"",
        b"[]",
        b"null",
        b"\xff\xfe{",
        b'{"pid": 1}',
    ],
)
def test_a_holder_file_that_nobody_holds_never_blocks(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activedpo_cli.store.lock.SECONDS_BETWEEN_LOOKS", 0.001)
    path, holder = tmp_path / "stage.lock", tmp_path / "stage.holder"
    path.touch()
    holder.write_bytes(content)
    with exclusive(path, "the stage"):
        assert json.loads(holder.read_bytes())["host"] == socket.gethostname()
    with held(path):
        holder.write_bytes(content)
        with pytest.raises(BusyError, match="another process is working on `the stage`"), exclusive(path, "the stage"):
            pass


def test_a_lent_lock_is_free_until_it_is_taken_back(tmp_path: Path) -> None:
    path, holder = tmp_path / "stage.lock", tmp_path / "stage.holder"
    with exclusive(path, "the stage") as lock:
        with suppress(ZeroDivisionError), lock.lent():
            assert not holder.exists()
            with lock.for_a_moment(), pytest.raises(BusyError), waiting(path, 0):
                pass
            with held(path):
                pass
            raise ZeroDivisionError
        assert holder.exists()
        with pytest.raises(BusyError), waiting(path, 0):
            pass
    with waiting(path, 0):
        assert not holder.exists()


def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "stage.lock"
    with held(path) as process:
        Timer(0.2, process.kill).start()
        with exclusive(path, "the stage", seconds=20):
            pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A file that merely exists would lock for ever once its maker is killed."""

    def without(*_: object) -> None:
        raise OSError(code, "not here")

    monkeypatch.setattr(fcntl, "flock", without)
    for lock in (exclusive(tmp_path / "stage.lock", "x"), waiting(tmp_path / "other.lock", 0.01)):
        with pytest.raises(StorageError, match="has no locks"), lock:
            pytest.fail("nothing is locked")


def test_temporaries_are_swept_by_the_holder_of_the_lock_alone(new_run: Path) -> None:
    done(*on(new_run, "generate"))
    done(*on(new_run, "featurize"))
    folder = make_partial(new_run, 1, "featurize", "rows.jsonl")
    left = [folder / ".features-00000.safetensors.tmp", folder / ".scratch.tmp", new_run / ".config.yaml.tmp"]
    left[0].write_bytes(b"half")
    left[1].mkdir()
    left[2].write_bytes(b"half")
    with held(new_run / ".locks" / "iter-001-featurize.lock") as process:
        assert f"process {process.pid} " in refused(75, *on(new_run, "featurize"))
        for command in ("status", "verify"):
            done(*on(new_run, command))
        assert all(path.exists() for path in left)
    done(*on(new_run, "featurize"))
    assert not any(path.exists() for path in left[:2])
    assert not (new_run / ".stale").exists()


def test_killed_before_anything_was_noted_a_stage_begins_without_a_word(new_run: Path) -> None:
    folder = new_run / "iter-001" / "generate"
    folder.mkdir(parents=True)
    (folder / ".started.json.tmp").write_bytes(b"{")
    assert json.loads(done(*on(new_run, "verify"), "--json").stdout)["sound"]
    assert "warning" not in done(*on(new_run, "generate")).stderr
    assert not (new_run / ".stale").exists()
