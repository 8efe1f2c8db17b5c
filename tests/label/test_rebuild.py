"""Any stage's folder can be deleted and is made again, the same, without touching anything else."""

import shutil
from pathlib import Path

import pytest
from command_line import STAGES, all_outputs, done, on, snapshot, without


@pytest.mark.parametrize("iteration", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_a_deleted_stage_is_rebuilt(finished: Path, stage: str, iteration: int) -> None:
    expected, before = all_outputs(finished), snapshot(finished)
    folder = f"iter-{iteration:03d}/{stage}/"
    shutil.rmtree(finished / folder)
    done(*on(finished, "run"), "--iterations", 2, "--quiet", "--no-report")
    assert all_outputs(finished) == expected
    assert without(snapshot(finished), folder) == without(before, folder)


def test_the_reference_is_rebuilt_with_what_needs_it(finished: Path) -> None:
    """The initial adapter is drawn again from its seed, and the responses of the initial model from theirs."""
    expected = all_outputs(finished)
    shutil.rmtree(finished / "reference" / "initial-adapter")
    shutil.rmtree(finished / "reference" / "evaluate")
    shutil.rmtree(finished / "iter-001")
    done(*on(finished, "run"), "--iterations", 2, "--quiet", "--no-report")
    assert all_outputs(finished) == expected
