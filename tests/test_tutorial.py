"""Every command of the tutorials on the built-in task works as it is written, from the wheel on, without the network.

What the wheel depends on is linked from here as soon as the environment is made, and pip finds it there.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.whole, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs/tutorial"
BLOCK = re.compile(r"^```(bash|text|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OWN = re.compile(r"(?i)(activedpo|__editable__|pip$|pip-|_virtualenv)")
"""Names in a folder of packages that are this project's own, or pip's."""
PENDING = 5


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((TUTORIAL / page).read_text(encoding="utf-8"))


def alike(line: str) -> str:
    """A line of output whatever its numbers and spaces are."""
    return re.sub(r"-?\d[\d.,]*", "#", " ".join(line.split()))


class Shell:
    """A folder with the wheel, in which blocks are typed one after another, in the environment that the first one makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ACTIVEDPO", "PYTHON", "VIRTUAL"))
        }
        self.environment = kept | {
            "PATH": f"{sys.base_prefix}/bin:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder),
        }

    def type(self, text: str, *, keys: str | None = None, code: int = 0) -> str:
        """What the commands print; the last of them, or the first that fails, has to end with this exit code."""
        script = f"set -e; if [ -f tutorial/bin/activate ]; then source tutorial/bin/activate; fi\n{text}"
        ran = subprocess.run(
            ["bash", "-c", script],
            input=keys,
            stdin=None if keys is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        assert ran.returncode == code, f"{text}\n{ran.stdout}"
        return ran.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder that holds the wheel alone."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("tried")
    shutil.copytree(ROOT / "activedpo_cli", source / "activedpo_cli", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"import setuptools.build_meta as build; build.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    return Shell(folder)


def link_dependencies(environment: Path) -> None:
    """Put what is installed here into another environment, but for the project itself."""
    (packages,) = environment.glob("lib/python*/site-packages")
    for place in (path for path in map(Path, sys.path) if path.name == "site-packages"):
        for found in place.iterdir():
            if not OWN.match(found.name) and not (packages / found.name).exists():
                (packages / found.name).symlink_to(found)


def test_a_first_run(shell: Shell) -> None:
    (_, install), *rest = blocks("first-run.md")
    make, *others = install.splitlines()
    shell.type(make)
    link_dependencies(shell.folder / "tutorial")  # so that pip has nothing to fetch
    printed = shell.type("\n".join(others))
    for language, text in rest:
        if language == "bash":
            printed = shell.type(text)
        elif language == "text":
            assert {alike(line) for line in text.splitlines()} <= {alike(line) for line in printed.splitlines()}
        else:
            (shell.folder / "try.py").write_text(text, encoding="utf-8")
            assert shell.type("python try.py").strip().splitlines()[-1].startswith("Once there was a little duck")
    where = shell.type("python -c 'import activedpo_cli; print(activedpo_cli.__file__)'")
    assert str(shell.folder) in where
    assert (shell.folder / "runs/first/report-chance/index.html").is_file()


def test_your_people(shell: Shell) -> None:
    """All but what starts a server."""
    lines = [line for language, text in blocks("your-people.md") if language == "bash" for line in text.splitlines()]
    for line in lines:
        if line.startswith("pip ") or "--web" in line:
            continue
        if "--import" in line:
            fill_in(shell.folder / "pairs.csv")
        is_asked = line.startswith("activedpo label") and "--import" not in line
        shell.type(line, keys="1\n2\nq\n" if "--annotator" in line else None, code=PENDING if is_asked else 0)
    assert (shell.folder / "runs/asked/iter-001/evaluate/metrics.json").is_file()


def fill_in(path: Path) -> None:
    """Prefer the first response of every pair."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"preference": "a"} for row in rows)


def test_your_cluster(shell: Shell) -> None:
    for _, text in (block for block in blocks("your-cluster.md") if block[0] == "bash"):
        shell.type(text)
    assert (shell.folder / "runs/shared/iter-001/generate/manifest.json").is_file()
