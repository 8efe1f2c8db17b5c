"""The shape of the code: layers, sizes, and what a command loads before it has anything to compute."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "activedpo_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "peft", "trl", "datasets")
LIGHT_COMMANDS = [
    ["--help"],
    ["--version"],
    ["label", "--help"],
    ["run", "--help"],
    ["ls", "methods"],
    ["ls", "oracles"],
    ["status", "--run", "RUN"],
    ["status", "--run", "RUN", "--json"],
    ["verify", "--run", "RUN"],
    ["init", "--run", "RUN"],
    *(
        [stage, "--run", "RUN", "--iteration", "2"]
        for stage in ("generate", "featurize", "select", "label", "train", "evaluate")
    ),
]
PROBE = """
import sys
from activedpo_cli.cli.app import app
code = 0
for words in {commands!r}:
    try:
        app(words)
    except SystemExit as end:
        code = code or end.code or 0
    loaded = [name for name in {heavy!r} if name in sys.modules]
    if loaded:
        raise SystemExit(f"{{words}} loads {{loaded}}")
raise SystemExit(code)
"""


def test_imports_go_down_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_looking_loads_no_model_library(finished_original: Path) -> None:
    """Help, status, lists and up-to-date stages answer at once."""
    commands = [[word.replace("RUN", str(finished_original)) for word in words] for words in LIGHT_COMMANDS]
    probe = PROBE.format(commands=commands, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("up to date") == 7


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


def test_every_public_thing_says_what_it_is() -> None:
    silent = [
        f"{path.relative_to(PACKAGE)}: {getattr(node, 'name', 'module')}"
        for path in MODULES
        for node in _public(ast.parse(path.read_text(encoding="utf-8")))
        if not ast.get_docstring(node)
    ]
    assert not [name for name in silent if not name.startswith("__main__")]


def _public(tree: ast.Module) -> list[ast.Module | ast.ClassDef | ast.FunctionDef]:
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [tree, *(node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_"))]
