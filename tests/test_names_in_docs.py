"""Pages that say where something is in the code name what is there."""

import importlib
import re
from pathlib import Path

import pytest

import activedpo_cli
from activedpo_cli.base.settings import Config

ROOT = Path(activedpo_cli.__file__).parent
NAME = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]+)+)(?:\(\))?`")
FILES = (".json", ".jsonl", ".py")


def is_there(name: str) -> bool:
    """Whether it is a module of the package, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.is_dir() or path.with_suffix(".py").is_file():
            found = importlib.import_module(".".join(["activedpo_cli", *parts[:count]]))
            for attribute in parts[count:]:
                found = getattr(found, attribute, None)
            return found is not None
    return False


def is_setting(name: str) -> bool:
    section, _, field = name.partition(".")
    kind = Config.model_fields.get(section)
    return kind is not None and field in getattr(kind.annotation, "model_fields", {})


@pytest.mark.parametrize("page", ["architecture", "artifacts", "method"])
def test_what_a_page_names_is_there(page: str) -> None:
    names = set(NAME.findall((ROOT.parent / "docs" / f"{page}.md").read_text(encoding="utf-8")))
    of_package = {name for name in names if (ROOT / name.split(".")[0]).is_dir() and not name.endswith(FILES)}
    assert of_package
    assert [name for name in sorted(of_package) if not is_there(name) and not is_setting(name)] == []
