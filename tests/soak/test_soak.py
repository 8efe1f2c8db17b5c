"""Many random kills over the whole loop, with two commands on one run. By name:

    ACTIVEDPO_SOAK_KILLS=200 ACTIVEDPO_SOAK_SEED=1 pytest -n0 -s -m slow tests/soak

and with three processes that share the loop's units, 60 times.

A few are in the normal suite, and a dozen by name. A kill of each stage at its worst moments is in tests/run/test_kill.py,
and a fault at each change of each command in tests/run/test_faults.py.
"""

import os
from pathlib import Path

import pytest
from random_kills import SharedSoak, Soak, check
from small_models import save_small_model
from zygote import Zygote


@pytest.fixture(scope="module")
def soak_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose responses to the few prompts of a soak differ in their score."""
    return save_small_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.mark.parametrize("kills", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_a_few_kills(zygote: Zygote, place_in_memory: Path, soak_model: Path, prompts_file: Path, kills: int) -> None:
    figures = Soak(zygote, place_in_memory, soak_model, prompts_file, seed=7).go(kills)
    assert figures.kills >= kills
    check(figures)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_hundreds_of_kills(zygote: Zygote, place_in_memory: Path, soak_model: Path, prompts_file: Path) -> None:
    kills, seed = int(os.environ.get("ACTIVEDPO_SOAK_KILLS", "200")), int(os.environ.get("ACTIVEDPO_SOAK_SEED", "1"))
    figures = Soak(zygote, place_in_memory, soak_model, prompts_file, seed).go(kills)
    assert figures.kills >= kills
    print(check(figures))


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_kills_of_processes_that_share(
    zygote: Zygote, place_in_memory: Path, soak_model: Path, prompts_file: Path
) -> None:
    kills, seed = int(os.environ.get("ACTIVEDPO_SOAK_KILLS", "60")), int(os.environ.get("ACTIVEDPO_SOAK_SEED", "1"))
    figures = SharedSoak(zygote, place_in_memory, soak_model, prompts_file, seed).go(kills)
    assert figures.kills >= kills
    print(check(figures))
