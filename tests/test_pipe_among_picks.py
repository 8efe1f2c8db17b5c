"""A pipe in the place of the picks of an unfinished choice is refused; reading it would wait for ever."""

import os
from pathlib import Path

import pytest

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.select.from_files.choice import PickLog


@pytest.mark.parametrize("ask", ["picks", "kept"])
def test_a_pipe_is_refused(tmp_path: Path, ask: str) -> None:
    os.mkfifo(tmp_path / "picks")
    with pytest.raises(InvalidDataError, match="is a pipe"):
        getattr(PickLog(tmp_path / "picks"), ask)()
