"""The shape of the code: layers, who may write files, and what a command loads before it has anything to compute."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "activedpo_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "textual")
LIGHT_COMMANDS = [
    ["--help"],
    ["--version"],
    ["label", "--help"],
    ["run", "--help"],
    ["ls", "methods"],
    ["ls", "oracles"],
    ["ls", "runs", "RUN/.."],
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


COUNTING_PROBE = """
import importlib.metadata
import sys
looks = []
read = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **names: looks.append(names) or read(**names)
from activedpo_cli.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    print(looks)
    raise
"""


def test_an_up_to_date_answer_looks_at_no_other_package(finished_original: Path) -> None:
    """Every look reads what all installed packages offer; a choice of our own needs none, pydantic takes one."""
    words = ["generate", "--run", str(finished_original), "--iteration", "2"]
    done = subprocess.run([sys.executable, "-c", COUNTING_PROBE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stderr
    assert done.stdout.splitlines()[-1] == "[{'group': 'pydantic'}]"


WRITING = {
    *("write_text", "write_bytes", "unlink", "rename", "mkdir", "touch", "rmdir", "symlink_to", "hardlink_to", "chmod"),
    *(
        "replace",
        "renames",
        "remove",
        "removedirs",
        "makedirs",
        "link",
        "symlink",
        "truncate",
        "ftruncate",
        "write",
        "fsync",
    ),
    *("rmtree", "copy", "copyfile", "copytree", "copy2", "move", "NamedTemporaryFile", "TemporaryDirectory", "mkstemp"),
    *(
        "mkdtemp",
        "save",
        "savez",
        "tofile",
        "save_file",
        "save_pretrained",
        "save_model",
        "savefig",
        "to_json",
        "to_csv",
    ),
}
OF_MODULES = {"os", "shutil", "tempfile", "torch", "np", "numpy"}
"""`replace`, `copy`, `write`, `save` and their like mean files only as functions of these."""
AMBIGUOUS = {"replace", "remove", "copy", "move", "write", "link", "save", "truncate"}
WRITERS = {
    "store/operations.py": "the only calls",
    "store/file_system.py": "tries out the file system, in a folder of its own",
    "store/files.py": "the mode and length of its own temporary files",
    "store/tensors.py": "fills what `files.write_with` shows",
    "models/adapters.py": "fills a folder that `files.write_folder_with` shows",
    "models/gguf_files.py": "a link in a temporary folder, in no run",
    "models/merging.py": "fills a folder that `files.write_folder_with` shows",
    "train/sft_trainer.py": "fills a checkpoint in the scratch folder, which `files.take_in` shows",
    "generate/backends/_engine.py": "a temporary folder with the log of an engine, in no run",
    "generate/backends/_engine_guard.py": "takes that folder away",
    "bench/select_streamed.py": "a temporary folder, in no run",
    "health/model_checks.py": "temporary folders, in no run",
    "cli/signals.py": "last words, to a terminal",
    "label/tui/session.py": "the end of the full screen, to a terminal",
}


def test_only_files_changes_files() -> None:
    """All writing of a run passes through one place, where tests can let it fail; the exceptions say why."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(_writes(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == set(WRITERS)


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("path.write_text(text)", True),
        ("open(path, 'ab')", True),
        ("open(path, mode='w')", True),
        ("path.open('r+b')", True),
        ("os.open(path, os.O_RDWR | os.O_CREAT)", True),
        ("os.replace(a, b)", True),
        ("shutil.move(a, b)", True),
        ("np.save(path, rows)", True),
        ("model.save_pretrained(folder)", True),
        ("open(path, 'rb')", False),
        ("path.open()", False),
        ("text.replace(a, b)", False),
        ("files.write_bytes(path, data)", False),
        ("stream.write(text)", False),
    ],
)
def test_writing_is_recognised(code: str, is_found: bool) -> None:
    assert any(_writes(node) for node in ast.walk(ast.parse(code))) is is_found


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    owner = function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else None
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if owner == "files" or (isinstance(function, ast.Name) and name != "open" and name != "save_file"):
        return False
    if name == "open" and owner == "os":
        return any(isinstance(part, ast.Attribute) and part.attr == "O_CREAT" for part in ast.walk(node))
    if name == "open":
        modes = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg in (None, "mode"))]
        return any(
            isinstance(mode, ast.Constant)
            and isinstance(mode.value, str)
            and set(mode.value) & set("wax+")
            and set(mode.value) <= set("rwaxbt+")
            for mode in modes
        )
    return name in WRITING and (owner in OF_MODULES if name in AMBIGUOUS else True)


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
