"""Versions of Python and of the packages that are needed, against the bounds that this package names."""

import platform
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from activedpo_cli.health.doctor_types import Check

DISTRIBUTION = "activedpo-cli"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
NEEDED_BY = {
    "trl": "train and sft",
    "accelerate": "train and sft",
    "datasets": "train, sft, and prompts from the hub",
    "matplotlib": "report and compare",
    "jinja2": "report",
    "jaxtyping": "checks of shapes",
}
"""Packages without which the rest works, and what does not."""
INSTALL = "pip install activedpo-cli"


def package_checks() -> Iterator[Check]:
    """A check for Python and for each dependency; the bounds are those of the installed package, else of the source tree."""
    python, requirements = _bounds()
    yield _check("python", platform.python_version(), python, "use another Python")
    for text in requirements:
        name, bounds = _parted(text)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield _missing(name)
            continue
        yield _check(name, version, bounds, f"pip install '{name}{bounds}'")


def _missing(name: str) -> Check:
    if name in NEEDED_BY:
        return Check(name, "warning", f"not installed; needed for {NEEDED_BY[name]}", INSTALL)
    return Check(name, "failure", "not installed", INSTALL)


def _check(name: str, version: str, bounds: str, advice: str) -> Check:
    if not bounds:
        return Check(name, "ok", version, "")
    is_inside = _is_inside(version, bounds)
    if is_inside is None:
        return Check(name, "ok", f"{version}; {bounds} can't be compared without the package `packaging`", "")
    if is_inside:
        return Check(name, "ok", f"{version}, within {bounds}", "")
    return Check(name, "warning", f"{version} is not within {bounds}, which is what was tested", advice)


def _is_inside(version: str, bounds: str) -> bool | None:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return None
    return SpecifierSet(bounds).contains(version, prereleases=True)


def _bounds() -> tuple[str, list[str]]:
    """The bounds of Python, and the requirements without extras."""
    if PROJECT.is_file():  # goes before what was recorded at the installation, which may be older than the tree
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        return project["requires-python"], list(project["dependencies"])
    try:
        facts = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "", []
    required = [text for text in metadata.requires(DISTRIBUTION) or [] if "extra ==" not in text]
    return facts["Requires-Python"] or "", required


def _parted(requirement: str) -> tuple[str, str]:
    """`torch` and `>=2.8,<2.14`."""
    match = re.fullmatch(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*([^;]*?)\s*(?:;.*)?", requirement)
    return (match[1], match[2].strip("() ")) if match else (requirement.strip(), "")
