"""Find the extension points: one file in a folder is one option value.

`select/methods/aplp_certainty.py` is the method `aplp-certainty`; the first line of its docstring is its help. Nothing is
imported to list what there is, and only the module asked for is imported on use. Other packages add a module by an
entry point in the group `activedpo.<folder>`.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.looking_once import once
from activedpo_cli.base.nearest import asking, did_you_mean

PACKAGE = "activedpo_cli"
ROOT = Path(__file__).parents[1]
FOLDERS = {"acquisition": "select/methods", "generation": "generate/backends", "formats": "label/formats"}
"""Where the modules of a kind lie, where that is not a folder of the kind's name."""
WORDS = {
    "acquisition": "a method",
    "oracles": "an oracle",
    "prompts": "a prompt source",
    "generation": "a generation backend",
    "formats": "a format",
    "exporters": "a format of trainers",
}
LISTED = {
    "acquisition": "methods",
    "oracles": "oracles",
    "prompts": "prompts",
    "formats": "formats",
    "exporters": "exporters",
}
"""What `activedpo ls` calls a kind."""
OTHER_NAMES = {
    "acquisition": {
        "coreset": "k-center",
        "core-set": "k-center",
        "uncertainty": "entropy",
        "uniform": "random",
        "passive": "random",
        "d-optimal": "activedpo",
    },
    "oracles": {
        **dict.fromkeys(("people", "person", "terminal", "manual"), "human"),
        **dict.fromkeys(("rm", "reward", "classifier"), "reward-model"),
        **dict.fromkeys(("function", "callable", "code"), "python"),
        **dict.fromkeys(("file", "dataset", "replay", "offline"), "recorded"),
    },
    "generation": {
        **dict.fromkeys(("hf", "huggingface", "local"), "transformers"),
        **dict.fromkeys(("openai", "sglang", "http"), "server"),
    },
    "formats": {
        **dict.fromkeys(("labelstudio", "ls"), "label-studio"),
        **dict.fromkeys(("json", "ndjson"), "jsonl"),
    },
    "exporters": {**dict.fromkeys(("llamafactory", "llama_factory", "sharegpt"), "llama-factory")},
}
"""What others call some of the choices."""


def option_value(module_name: str) -> str:
    """The spelling of a module as an option value: hyphens for underscores."""
    return module_name.replace("_", "-").removesuffix("-backend")


def available(folder: str) -> dict[str, str]:
    """Option value → one line of help, for everything in `folder` and its entry points, sorted by name."""
    return dict(once(("available", folder), lambda: _available(folder)))


def _available(folder: str) -> dict[str, str]:
    found = {option_value(path.stem): _first_docstring_line(path) for path in _module_files(folder)}
    for entry in _entry_points(folder):
        found.setdefault(option_value(entry.name), f"from the package of {entry.value}")
    return dict(sorted(found.items()))


def resolve(folder: str, name: str) -> str:
    """The option value meant by `name`; raises UsageError with the nearest names when there is none.

    Nothing else of the folder is read for a module of its own, and no other package is looked at.
    """
    value = option_value(name)
    if _own_module(folder, value):
        return value
    known = available(folder)
    if value in known:
        return value
    meant = asking(OTHER_NAMES.get(folder, {}).get(value)) or did_you_mean(value, known)
    listed = LISTED.get(folder)
    raise UsageError(
        f"`{name}` is not {WORDS.get(folder, folder)}{meant}",
        details=[f"known: {', '.join(known)}"],
        hint=f"`activedpo ls {listed}` says what each is" if listed else None,
    )


def _own_module(folder: str, value: str) -> Path | None:
    """The file of the folder behind an option value; None for what another package offers, or nobody."""
    return next((path for path in _module_files(folder) if option_value(path.stem) == value), None)


def load(folder: str, name: str) -> ModuleType:
    """Import the module behind an option value."""
    value = resolve(folder, name)
    if path := _own_module(folder, value):
        return importlib.import_module(f"{PACKAGE}.{_folder(folder).replace('/', '.')}.{path.stem}")
    for entry in _entry_points(folder):
        if option_value(entry.name) == value:
            return entry.load()
    raise AssertionError(f"{value} was listed but has no module")


def setting_names(folder: str, name: str) -> list[str]:
    """The fields of a module's `Settings`, read from its source without importing it."""
    value = resolve(folder, name)
    if path := _own_module(folder, value):
        return list(_annotated_fields(path, "Settings"))
    return list(load(folder, value).Settings.model_fields)


def declared_needs(folder: str, name: str) -> tuple[str, ...]:
    """The `NEEDS` of a module, read from its source without importing it."""
    value = resolve(folder, name)
    if path := _own_module(folder, value):
        return _literal(path, "NEEDS")
    return tuple(load(folder, value).NEEDS)


@cache
def _entry_points(folder: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=f"activedpo.{folder}"))


def _folder(kind: str) -> str:
    return FOLDERS.get(kind, kind)


@cache  # the package's own files, which a process that has begun with them may read once
def _module_files(folder: str) -> tuple[Path, ...]:
    here = ROOT / _folder(folder)
    return tuple(sorted(p for p in here.glob("*.py") if p.stem != "base" and not p.stem.startswith("_")))


@cache
def _first_docstring_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].rstrip(".")


@cache
def _literal(path: Path, name: str) -> tuple[str, ...]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return tuple(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return ()


@cache
def _annotated_fields(path: Path, class_name: str) -> tuple[str, ...]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return tuple(
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            )
    return ()
