"""What sittings tell each other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from activedpo_cli.base.records import Asked
from activedpo_cli.label.sittings import SharedAnswers
from activedpo_cli.store.lock import exclusive


@pytest.mark.parametrize(
    ("told", "held"),
    [
        (b'[["p000001/i001/r0-r1", "ann", false]]', {Asked("p000001/i001/r0-r1", "ann")}),
        (b"", set()),
        (b'[["p0', set()),
    ],
)
def test_a_list_that_the_disk_took_half_of_ends_no_other_sitting(tmp_path: Path, told: bytes, held: set[Asked]) -> None:
    run: Any = SimpleNamespace(lock_path=lambda name: tmp_path / f"{name}.lock")
    folder: Any = SimpleNamespace(started=None, label_log=lambda: None)
    context: Any = SimpleNamespace(run=run, iteration=1, folder=folder)
    own, other = (tmp_path / f"iter-001-label-sitting-{number}.lock" for number in (1, 2))
    with exclusive(own, "here"), exclusive(other, "there"):
        other.with_suffix(".pairs").write_bytes(told)
        assert SharedAnswers(context, own).held_elsewhere() == held
