import pytest

from activedpo_cli.models.quick_digest import SAMPLE_BYTES, quick_digest
from activedpo_cli.models.resolve import SMALL_FILE_BYTES


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(SMALL_FILE_BYTES + 12345))
    return tmp_path


def changed(folder, name, offset):
    data = bytearray((folder / name).read_bytes())
    data[offset] ^= 1
    (folder / name).write_bytes(data)
    return quick_digest(folder)


def test_first_last_and_sampled_bytes_of_a_large_file_count(folder):
    size = (folder / "model.safetensors").stat().st_size
    seen = {quick_digest(folder)}
    for offset in (0, size - 1, (size - SAMPLE_BYTES) * 7 // 15):
        seen.add(changed(folder, "model.safetensors", offset))
    assert len(seen) == 4


def test_every_byte_of_a_small_file_and_every_size_counts(folder):
    before = quick_digest(folder)
    assert changed(folder, "config.json", 1) != before
    before = quick_digest(folder)
    with open(folder / "model.safetensors", "ab") as stream:
        stream.write(b"\0")
    assert quick_digest(folder) != before


def test_files_that_are_not_the_model_do_not_count(folder):
    before = quick_digest(folder)
    (folder / "README.md").write_text("changed")
    assert quick_digest(folder) == before
