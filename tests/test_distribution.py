"""What is built to be installed elsewhere: all of the package, nothing else, the commit, and no more than 8 MB."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole
ROOT = Path(__file__).parents[1]
LARGEST = 8_000_000
ADDED = "activedpo_cli/base/built_from.txt"
BESIDE = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def built(checkout: Path, what: str, place: Path) -> Path:
    """A wheel or an sdist, made as pip makes it."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(place)], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return place / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of what is committed here."""
    place = tmp_path_factory.mktemp("clone") / "activedpo"
    done = subprocess.run(["git", "clone", "-q", str(ROOT), str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs a checkout, and git")
    return place


@pytest.fixture(scope="module")
def sdist(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(clone, "build_sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module", params=["a checkout", "an sdist"])
def wheel(
    request: pytest.FixtureRequest, clone: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[zipfile.ZipFile]:
    source = clone
    if request.param == "an sdist":
        with tarfile.open(sdist) as archive:
            archive.extractall(place := tmp_path_factory.mktemp("unpacked"), filter="data")
        (source,) = place.iterdir()
    path = built(source, "build_wheel", tmp_path_factory.mktemp("wheel"))
    assert path.stat().st_size < LARGEST
    with zipfile.ZipFile(path) as archive:
        yield archive


def tracked(clone: Path) -> set[str]:
    """The files of the package."""
    listed = subprocess.run(["git", "ls-files", "activedpo_cli"], cwd=clone, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def head(clone: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True).stdout[
        :10
    ]


def test_a_wheel_holds_the_package_and_the_commit(wheel: zipfile.ZipFile, clone: Path) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == tracked(clone) | {ADDED}
    assert wheel.read(ADDED).decode() == f"{head(clone)}\n"


def test_an_sdist_holds_what_a_wheel_is_built_of(sdist: Path, clone: Path) -> None:
    assert sdist.stat().st_size < LARGEST
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name for name in names if not name.startswith("activedpo_cli.egg-info/")} == (
        tracked(clone) | {ADDED} | BESIDE
    )


def test_nothing_of_it_is_left_in_the_checkout(wheel: zipfile.ZipFile, clone: Path) -> None:
    left = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True)
    assert left.stdout == ""
    assert not (clone / ADDED).exists()
