"""A finished run to be damaged and made whole again, once for all tests of a module."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def whole(finished_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of two finished iterations; who damages it puts it right again."""
    return Path(shutil.copytree(finished_original, tmp_path_factory.mktemp("health") / "finished"))
