"""A run whose pairs are selected, for those who answer about them."""

import shutil
from pathlib import Path

import pytest
from command_line import done, on
from small_runs import small_run

PAIRS = 24


@pytest.fixture(scope="session")
def many_selected_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """24 selected pairs that nobody has answered; read it, never change it."""
    run = small_run(
        tmp_path_factory.mktemp("runs") / "many",
        small_model,
        prompts_file,
        generate__num_prompts=12,
        generate__max_new_tokens=8,
        select__budget=PAIRS,
        select__method="random",
        label__unit_size=4,
    )
    for stage in ("generate", "featurize", "select"):
        done(*on(run, stage), "--quiet")
    return run


@pytest.fixture
def many_selected(many_selected_original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(many_selected_original, tmp_path / "many"))


@pytest.fixture(scope="session")
def few_selected_original(many_selected_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight selected pairs of the same responses, for what a batch shows; read it, never change it."""
    run = Path(shutil.copytree(many_selected_original, tmp_path_factory.mktemp("runs") / "few"))
    done(*on(run, "select"), "--budget", 8, "--force", "--quiet")
    shutil.rmtree(run / ".stale", ignore_errors=True)
    return run


@pytest.fixture
def few_selected(few_selected_original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(few_selected_original, tmp_path / "few"))
