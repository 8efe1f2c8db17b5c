"""Finished runs to be reported on."""

import shutil
from pathlib import Path

import pytest
from command_line import done, on
from report_page import draw_quickly


@pytest.fixture(scope="session")
def random_original(finished_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One iteration of the same run by the method `random`; read it, never change it."""
    run = tmp_path_factory.mktemp("runs") / "by-chance"
    shutil.copytree(finished_original, run, ignore=shutil.ignore_patterns("iter-*", "evaluate", "report*"))
    done(*on(run, "run"), "--iterations", 1, "--method", "random", "--no-report", "--quiet")
    return run


@pytest.fixture(scope="session")
def report_original(finished_original: Path, random_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about both runs, with blank figures; read it, never change it."""
    folder = tmp_path_factory.mktemp("reports") / "both"
    with pytest.MonkeyPatch.context() as patch:
        draw_quickly(patch)
        done("report", finished_original, random_original, "--output", folder)
    return folder


@pytest.fixture(scope="session")
def drawn_report(finished_original: Path, random_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its figures, which take nearly all of the time; read it, never change it."""
    folder = tmp_path_factory.mktemp("reports") / "drawn"
    done("report", finished_original, random_original, "--output", folder)
    return folder
