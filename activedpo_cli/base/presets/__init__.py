"""Ready-made settings: a YAML file each, holding what differs from the defaults; the first comment line is the help."""

from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.yaml_text import read_yaml

FOLDER = Path(__file__).parent


def available_presets() -> dict[str, str]:
    """Name → one line of help, sorted by name."""
    return {path.stem: _help(path) for path in sorted(FOLDER.glob("*.yaml"))}


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, nested by section; empty where every default holds.

    Raises:
        UsageError: there is no such preset; names the nearest.
        InvalidDataError: its file does not hold settings by name.

    """
    known = available_presets()
    if name not in known:
        raise UsageError(
            f"`{name}` is not a preset" + did_you_mean(name, known),
            details=[f"known: {', '.join(known)}"],
            hint="activedpo ls presets",
        )
    path = FOLDER / f"{name}.yaml"
    settings = read_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(settings, dict | None):
        raise InvalidDataError(f"{path} does not hold settings by name")
    return settings or {}


def _help(path: Path) -> str:
    first_line = path.read_text(encoding="utf-8").partition("\n")[0]
    return first_line.removeprefix("#").strip().rstrip(".")
