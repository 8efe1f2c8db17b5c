"""Rows of safetensors against the library's own reading."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.pairs.pair_features import PairFeatures


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.sets(st.integers(0, 39)), start=st.integers(0, 39), length=st.integers(0, 40))
def test_rows_are_those_of_the_library(
    dtype: torch.dtype, rows: set[int], start: int, length: int, tmp_path: Path
) -> None:
    """Neighbours, gaps and single rows, beside another tensor that comes first in the file."""
    path = tmp_path / "f.safetensors"
    if not path.exists():
        save_file({"a": torch.ones(3), "features": torch.randn(40, 5).to(dtype)}, path)
    expected = load_file(path)["features"]
    found = TensorRows(path, "features")
    assert found.shape == (40, 5)
    assert found.bytes_per_number == dtype.itemsize
    wanted = torch.tensor(sorted(rows), dtype=torch.int64)
    assert torch.equal(found.take(wanted), expected[wanted].to(found.take(wanted).dtype))
    stop = min(start + length, 40)
    assert torch.equal(found.read(start, stop).double(), expected[start:stop].double())


def test_shards_follow_each_other_by_name(tmp_path: Path) -> None:
    parts = [torch.randn(4, 3), torch.randn(0, 3), torch.randn(5, 3).half()]
    for number, part in enumerate(parts):
        save_file({"features": part}, tmp_path / f"{number}.safetensors")
    found = TensorRows(tmp_path, "features")
    whole = torch.cat([part.double() for part in parts])
    assert torch.equal(found.read(2, 9).double(), whole[2:9])
    wanted = torch.tensor([0, 3, 4, 8])
    assert torch.equal(found.take(wanted).double(), whole[wanted])
    save_file({"features": torch.randn(4, 2)}, tmp_path / "3.safetensors")
    with pytest.raises(InvalidDataError, match="different lengths"):
        TensorRows(tmp_path, "features")


def test_an_empty_folder_and_a_file_that_shrinks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match="no safetensors files"):
        TensorRows(tmp_path, "features")
    path = tmp_path / "f.safetensors"
    save_file({"features": torch.randn(40, 5)}, path)
    found = TensorRows(path, "features")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InvalidDataError, match="became shorter"):
        found.read(0, 40)


@pytest.mark.parametrize("normalise", ["none", "response", "pair"])
def test_differences_of_rows_in_a_file(tmp_path: Path, normalise: str) -> None:
    save_file({"features": torch.randn(40, 5).half()}, tmp_path / "f.safetensors")
    features = load_file(tmp_path / "f.safetensors")["features"].double()
    row_a, row_b = torch.randint(40, (30,)), torch.randint(40, (30,))
    rows = PairFeatures(TensorRows(tmp_path / "f.safetensors", "features"), row_a, row_b, normalise)
    if normalise == "response":
        features = torch.nn.functional.normalize(features)
    expected = features[row_a] - features[row_b]
    if normalise == "pair":
        expected = torch.nn.functional.normalize(expected)
    assert rows.shape == (30, 5)
    torch.testing.assert_close(rows.read(3, 20), expected[3:20], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(rows.take(torch.tensor([2, 9])), expected[[2, 9]], atol=1e-6, rtol=1e-6)
