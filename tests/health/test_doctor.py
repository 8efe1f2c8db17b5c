"""`doctor` says what is there, notices what is not, and asks nobody unless told to."""

import builtins
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, done, refused

from activedpo_cli.health import doctor
from activedpo_cli.health.doctor import package_checks
from activedpo_cli.store.file_system import try_file_system


def checks(folder: Path, *words: object, code: int = 0) -> dict[str, dict[str, Any]]:
    """What it finds, by the real command, which leaves nothing behind."""
    before = sorted(path.name for path in folder.iterdir())
    result = activedpo("doctor", "--folder", folder, "--json", *words)
    assert result.exit_code == code, result.output
    found = json.loads(result.stdout)
    assert found["fit"] == (code == 0)
    assert sorted(path.name for path in folder.iterdir()) == before
    return {check["name"]: check for check in found["checks"]}


def test_a_machine_that_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    found = checks(tmp_path)
    for name in ("torch", "transformers", "peft", "trl", "safetensors", "filelock", "numpy"):
        assert found[name]["says"].startswith(metadata.version(name)), name
    assert found["trl"]["says"].endswith(">=1.16,<1.17")
    assert "cpu" in found["devices"]["says"]
    assert all(found[name]["state"] == "ok" for name in ("rename", "lock", "sync", "umask"))
    assert "--network asks" in found["hub"]["says"]
    text = done("doctor", "--folder", tmp_path / "not" / "there").stdout
    assert f"GB are free at {tmp_path}" in text


def test_runs_can_not_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        assert f"`{tmp_path / 'file'}` is a file" in refused(2, "doctor", "--folder", tmp_path / place)


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda model: model.rename(model.with_name("gone")), 4, "there is no model folder"),
        (lambda model: (model / "config.json").unlink(), 4, "holds no config.json"),
        (lambda model: (model / "config.json").write_text("{"), 4, "cannot be loaded"),
        (lambda model: (model / "tokenizer.json").write_text("{"), 4, "the tokenizer of"),
        (lambda model: set_in(model, quantization_config={"quant_method": "gptq", "bits": 4}), 1, "requires optimum"),
    ],
)
def test_exit_codes_of_a_look_at_a_model(
    small_model: Path, tmp_path: Path, change: Callable[[Path], object], code: int, says: str
) -> None:
    """4 where its files are not what they should be, 1 where the machine lacks a package."""
    model = Path(shutil.copytree(small_model, tmp_path / "model"))
    change(model)
    assert says in refused(code, "doctor", "--model", model)


def set_in(model: Path, **fields: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))


def test_exit_codes_of_a_look_at_no_run(tmp_path: Path) -> None:
    for words in (("verify",), ("status",), ("show",)):
        assert "there is no run in" in refused(4, *words, "--run", tmp_path)


def test_the_hub_is_asked_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(self: object, name: str, **_: object) -> None:
        asked.append(name)
        raise ConnectionError("no route")

    for name in doctor.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    assert checks(tmp_path, "--network")["hub"]["state"] == "warning"
    assert len(asked) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE set" in checks(tmp_path, "--network")["hub"]["says"]
    assert len(asked) == 1


def test_packages_that_are_missing_or_of_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def installed(name: str) -> str:
        if name in ("trl", "torch"):
            raise metadata.PackageNotFoundError(name)
        return "0.1.2" if name == "peft" else version(name)

    monkeypatch.setattr(metadata, "version", installed)
    found = {check.name: check for check in package_checks()}
    assert (found["trl"].state, found["torch"].state, found["peft"].state) == ("warning", "failure", "warning")
    assert "train and sft" in found["trl"].says
    assert "0.1.2 is not within >=0.21,<0.22" in found["peft"].says
    assert found["peft"].do == "pip install 'peft>=0.21,<0.22'"
    assert found["numpy"].state == "ok"


@pytest.mark.parametrize("package", ["torch", "packaging", "huggingface_hub"])
def test_a_package_that_can_not_be_imported_crashes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)
    words = ("--network",) if package == "huggingface_hub" else ()
    found = checks(tmp_path, *words, code=1 if package == "torch" else 0)
    assert package != "torch" or found["devices"]["state"] == "failure"
    assert package != "packaging" or "can't be compared" in found["torch"]["says"]


def test_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda path: 1e9)
    assert checks(tmp_path)["disk"]["state"] == "warning"
    monkeypatch.setattr(doctor, "free_bytes", lambda path: 1e6)
    assert "not fit for runs: disk" in refused(1, "doctor", "--folder", tmp_path)


def broken_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    def copying(source: Any, destination: Any, **_: Any) -> None:
        if Path(source).is_dir():
            raise OSError(18, "Invalid cross-device link")
        Path(destination).write_bytes(Path(source).read_bytes())
        Path(source).unlink()

    monkeypatch.setattr(os, "replace", copying)
    monkeypatch.setattr(os, "rename", copying)


def broken_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


def broken_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)


def broken_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda _: 0)


@pytest.mark.parametrize(
    ("name", "break_it"),
    [("rename", broken_rename), ("lock", broken_lock), ("sync", broken_sync), ("umask", broken_umask)],
)
def test_a_file_system_that_lacks_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, break_it: Any
) -> None:
    with monkeypatch.context() as patch:
        break_it(patch)
        failed = {trial.name: trial.failure for trial in try_file_system(tmp_path) if trial.failure}
    assert name in failed
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    found = checks(tmp_path, code=1)
    assert found["write"]["state"] == "failure"
    assert "Read-only file system" in found["write"]["says"]
    assert "--run PATH" in found["write"]["do"]
