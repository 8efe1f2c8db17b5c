"""Reading large files of the user's own shows movement, and a bar that ends whatever happens."""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.select.from_files import candidate_files, command, pair_list
from activedpo_cli.select.from_files.command import FilesRequest, do_files_choice


class Recorded(SilentProgress):
    """Every piece of work with its steps."""

    def __init__(self) -> None:
        self.bars: dict[str, tuple[int, str, list[int]]] = {}
        self.running: list[str] = []

    def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
        assert not self.running
        self.running.append(label)
        self.bars[label] = (total, unit, [])

    def advance(self, amount: int = 1) -> None:
        self.bars[self.running[-1]][2].append(amount)

    def stop(self) -> None:
        self.running.clear()  # whoever carries work out ends what its work may have left running


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(candidate_files, "NUMBERS_READ_AT_ONCE", 100)
    monkeypatch.setattr(pair_list, "LINES_SAID_AT_ONCE", 10)
    monkeypatch.setattr(command, "MEGABYTE", 100)
    monkeypatch.setattr("activedpo_cli.base.digests.BYTES_AT_ONCE", 250)
    save_file({"features": torch.randn(300, 8, generator=torch.Generator().manual_seed(0))}, "F.safetensors")
    lines = [json.dumps({"pair_id": n, "response_a": n, "response_b": n + 1}) for n in range(45)]
    Path("P.jsonl").write_text("\n".join(lines))
    return tmp_path


def request(pairs: str = "P.jsonl") -> FilesRequest:
    given = {"select.budget": 3}
    return FilesRequest(Path("F.safetensors"), Path(pairs), None, Path("O.jsonl"), given, 10**9, False)


def test_identifying_checking_and_reading_are_shown(files: Path) -> None:
    progress = Recorded()
    do_files_choice(request(), progress)
    assert not progress.running
    assert {label: (total, unit) for label, (total, unit, _) in progress.bars.items()} == {
        "identifying F.safetensors": (-(-Path("F.safetensors").stat().st_size // 100), "MB"),
        "identifying P.jsonl": (-(-Path("P.jsonl").stat().st_size // 100), "MB"),
        "checking F.safetensors": (46, "responses"),
        "reading P.jsonl": (45, "lines"),
        "choosing by activedpo": (3, "picks"),
    }
    for total, _, steps in progress.bars.values():
        assert len(steps) > 2
        assert sum(steps) == total


def test_a_bar_ends_where_its_work_fails(files: Path) -> None:
    Path("P.jsonl").write_text('{"pair_id": 1, "response_a": 0, "response_b": 999}\n')
    progress = Recorded()
    with pytest.raises(InvalidDataError, match="999"):
        do_files_choice(request(), progress)
    assert "reading P.jsonl" in progress.bars
    assert not progress.running


def test_packed_pairs_are_read_without_a_bar(files: Path) -> None:
    Path("P.jsonl.gz").write_bytes(gzip.compress(Path("P.jsonl").read_bytes()))
    progress = Recorded()
    assert do_files_choice(request("P.jsonl.gz"), progress).summary["candidates"] == 45
    assert "reading P.jsonl.gz" not in progress.bars


@pytest.mark.parametrize("size", [0, 249, 250, 1000])
def test_a_digest_told_in_parts_is_that_of_the_whole(files: Path, size: int) -> None:
    Path("data").write_bytes(b"x" * size)
    told: list[int] = []
    assert sha256_of(Path("data"), told.append) == sha256_of(Path("data")) == hashlib.sha256(b"x" * size).hexdigest()
    assert sum(told) == size
