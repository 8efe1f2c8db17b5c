"""Each file is either whole or absent, whatever happens while it is written."""

import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from activedpo_cli.base.errors import InvalidDataError, StorageError
from activedpo_cli.store import files, links, tensors
from activedpo_cli.store.manifest import digest_of
from activedpo_cli.store.operations import operations
from activedpo_cli.store.stage_folder import StageFolder, set_aside


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(StorageError, match="No space"):
            files.write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    files.sweep_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_move_that_fails_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    source, destination = tmp_path / "select", tmp_path / ".stale" / "select"
    source.mkdir()
    destination.parent.mkdir()
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(StorageError) as failed:
        files.move(source, destination)
    assert f"`{source}` can't be moved to `{destination}`: No space" in str(failed.value)


def test_a_library_that_fails_half_way_leaves_nothing_visible(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        files.write_folder_with(tmp_path / "folder", save)
    assert not (tmp_path / "folder").exists()
    files.write_folder_with(tmp_path / "folder", lambda folder: (folder / "whole").touch())
    with pytest.raises(RuntimeError):
        files.write_folder_with(tmp_path / "folder", save)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["whole"]


def test_everything_is_synced_before_it_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    files.write_bytes(tmp_path / "a", b"a")
    assert order == ["fsync", "rename", "fsync"]
    order.clear()
    files.write_with(tmp_path / "b", lambda path: path.write_bytes(b"b"))
    assert order == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_file_modes_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    old = os.umask(umask)
    try:
        tensors.write_tensors(tmp_path / "t.safetensors", {"x": torch.ones(2)}, {"a": "b"})
        files.append_line(tmp_path / "log", b"line\n")
    finally:
        os.umask(old)
    for name in ("t.safetensors", "log"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@settings(max_examples=25)
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), min_size=2, max_size=8))
def test_equal_tensors_are_equal_bytes(tmp_path_factory: pytest.TempPathFactory, header: dict[str, str]) -> None:
    """The library writes the header's own entries in another order each time."""
    folder = tmp_path_factory.mktemp("tensors")
    values = {"b": torch.arange(6.0).reshape(3, 2), "a": torch.tensor([1, 2, 3])}
    for number in range(4):
        tensors.write_tensors(folder / str(number), values, header)
    assert len({files.sha256_of(folder / str(number)) for number in range(4)}) == 1
    read = tensors.read_tensors(folder / "0")
    assert all(torch.equal(read[name], values[name]) for name in values)
    with safe_open(folder / "0", "pt") as stream:
        assert stream.metadata() == header
    assert tensors.count_tensor_rows(folder / "0") == 3


def test_damaged_tensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(InvalidDataError, match=r"t\.safetensors"):
        tensors.read_tensors(path)
    tensors.write_tensors(path, {"x": torch.ones(2)}, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidDataError, match=r"t\.safetensors"):
        tensors.read_tensors(path)


def test_what_is_set_aside_is_never_overwritten(tmp_path: Path) -> None:
    kept = set()
    for number in range(3):
        folder = StageFolder(tmp_path / "iter-001" / "label")
        folder.path.mkdir(parents=True)
        (folder.path / "labels.jsonl").write_text(str(number))
        kept.add(set_aside(folder, tmp_path / ".stale"))
    assert len(kept) == 3
    assert {(path / "labels.jsonl").read_text() for path in kept if path} == {"0", "1", "2"}


def test_digests_do_not_depend_on_order() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1, "b": [1, 2]}) != digest_of({"a": 1, "b": [2, 1]})


def test_no_pipe_or_device_is_replaced(tmp_path: Path) -> None:
    special = tmp_path / "pipe"
    os.mkfifo(special)
    for write in (
        lambda: files.write_bytes(special, b"x"),
        lambda: files.write_with(special, lambda path: path.touch()),
    ):
        with pytest.raises(StorageError, match="no regular file"):
            write()
    assert special.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_writer_that_is_interrupted_leaves_anothers_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the rename the temporary name may belong to the next writer."""
    path, temporary = tmp_path / "x", tmp_path / ".x.tmp"
    rename = operations.rename

    def renamed_then_interrupted(source: Path, destination: Path) -> None:
        rename(source, destination)
        temporary.write_bytes(b"of another")
        raise KeyboardInterrupt

    monkeypatch.setattr(operations, "rename", renamed_then_interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(path, b"mine")
    assert (path.read_bytes(), temporary.read_bytes()) == (b"mine", b"of another")


def test_an_interruption_between_the_renames_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    files.write_folder_with(path, lambda folder: (folder / "old").touch())
    rename = operations.rename

    def interrupted(source: Path, destination: Path) -> None:
        if source.name == ".folder.tmp":
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(operations, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_folder_with(path, lambda folder: (folder / "new").touch())
    assert [entry.name for entry in path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", 28),
        ('Os { code: 28, kind: StorageFull, message: "No space left on device" }', 28),
        ("NCCL error code: 5", None),
        ("CUDA driver error code: 28", None),
    ],
)
def test_only_the_disks_own_words_are_taken_for_it(tmp_path: Path, text: str, number: int | None) -> None:
    with pytest.raises(RuntimeError if number is None else StorageError), files.library_writes(tmp_path / "x"):
        raise RuntimeError(text)


def test_folders_that_vanish_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    scan = os.scandir

    def vanished(path: str) -> object:
        if path.endswith("a"):
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(links.os, "scandir", vanished)
    links.refuse_links(tmp_path)
