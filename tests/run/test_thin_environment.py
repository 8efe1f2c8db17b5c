"""Features and selections on a machine that has torch, transformers, peft and what they bring, and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import done, is_told, on, outputs, snapshot

from activedpo_cli.base.config import parse_config

pytestmark = pytest.mark.whole

MISSING = ("trl", "datasets", "jaxtyping", "ruamel", "matplotlib")
THIN = """
import sys

class Thin:
    '''Finds what the others find, except some packages: neither their modules nor that they are installed.'''

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {missing!r}:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *context):
        for finder in self.finders:
            for distribution in getattr(finder, 'find_distributions', lambda *_: ())(*context):
                if distribution.name.partition('.')[0] not in {missing!r}:
                    yield distribution

assert not any(name in sys.modules for name in {missing!r})
sys.meta_path[:] = [Thin(list(sys.meta_path))]
"""
RUN = """
from activedpo_cli.cli.app import app

for words, code in {commands!r}:
    try:
        app(words)
    except SystemExit as end:
        if end.code != code:
            raise
"""


def thin_python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that can't see the missing packages."""
    return subprocess.run(
        [sys.executable, "-c", THIN.format(missing=MISSING) + program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", MISSING)
def test_the_process_of_this_test_is_thin(name: str) -> None:
    assert "ModuleNotFoundError" in thin_python(f"import {name}").stderr


def test_libraries_that_look_for_more_see_that_it_is_not_there() -> None:
    looks = (
        "import importlib.metadata, importlib.util\n"
        "assert importlib.util.find_spec('datasets') is None and importlib.util.find_spec('torch')\n"
        "importlib.metadata.version('torch')\n"
        "try:\n    importlib.metadata.version('datasets')\n"
        "except importlib.metadata.PackageNotFoundError:\n    print('neither')"
    )
    assert thin_python(looks).stdout == "neither\n", thin_python(looks).stderr


def test_features_and_selection_are_the_same_there(finished: Path, tmp_path: Path) -> None:
    """Under a trained adapter, with labelled pairs, and with a setting that changes on the way.

    What trains is named as missing there: `datasets`, which other packages do without when they are imported.
    """
    expected = outputs(finished, 2, "featurize")
    trained = Path(shutil.copytree(finished, tmp_path / "trained"))
    before = snapshot(trained)
    for stage in ("select", "label", "train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / stage)
    usual = Path(shutil.copytree(finished, tmp_path / "usual"))
    shutil.rmtree(finished / "iter-002" / "featurize")
    commands = [
        ((*on(finished, "featurize", iteration=2), "--quiet"), 0),
        ((*on(finished, "select", iteration=2), "--budget", 3, "--quiet"), 0),
        ((*on(trained, "train", iteration=2), "--force"), 1),
    ]
    ended = thin_python(RUN.format(commands=[([str(word) for word in words], code) for words, code in commands]))
    assert ended.returncode == 0, ended.stderr
    is_told(ended.stderr, "datasets")
    assert snapshot(trained) == before
    assert outputs(finished, 2, "featurize") == expected
    done(*on(usual, "select", iteration=2), "--budget", 3, "--quiet")
    assert outputs(finished, 2, "select") == outputs(usual, 2, "select")
    texts = [(run / "config.yaml").read_text() for run in (finished, usual)]
    assert parse_config(texts[0]) == parse_config(texts[1])
    assert parse_config(texts[0]).select.budget == 3
