"""The collector of garbage comes seldom while a command imports, and as usual once it has a model."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from activedpo_cli.base.garbage import look_as_usual, look_seldom
from activedpo_cli.models.loading import load_base_model

USUAL = (701, 11, 12)


@pytest.fixture
def usual() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield USUAL
    look_as_usual()
    gc.set_threshold(*before)


def load(path: Path) -> None:
    load_base_model(str(path), dtype="float32", device=torch.device("cpu"), attn_implementation="sdpa")


def test_it_comes_as_usual_once_there_is_a_model(usual: tuple[int, int, int], small_model: Path) -> None:
    look_seldom()
    look_seldom()
    assert gc.get_threshold()[0] > 10_000
    kept = gc.get_freeze_count()
    load(small_model)
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > kept


def test_who_imports_the_package_keeps_the_own_collector(usual: tuple[int, int, int], small_model: Path) -> None:
    kept = gc.get_freeze_count()
    load(small_model)
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() <= kept


def test_a_command_begins_so() -> None:
    code = (
        "import gc, sys, activedpo_cli.__main__ as command; sys.argv[1:] = ['--version']\n"
        "try: command.main()\nfinally: print(gc.get_threshold()[0])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=100
    )
    assert int(ended.stdout.split()[-1]) > 10_000
