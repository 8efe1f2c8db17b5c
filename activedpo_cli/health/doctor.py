"""Whether this machine is fit for runs: versions, devices, memory, the disk and what its file system promises, the hub.

A check is `ok`, a `warning` (some of it works less well, or not) or a `failure` (runs are not safe, or not possible). Uses
the network only where that is asked for; packages that are missing are named and never needed.
"""

import os
import platform
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.threads import allotted_cores
from activedpo_cli.store.file_system import try_file_system
from activedpo_cli.store.files import free_bytes

LITTLE_DISK, NO_DISK = 5e9, 2e8
LITTLE_MEMORY = 2e9
HUB_SECONDS = 5.0
HUB_MODEL = "gpt2"
"""Some model that is there for everybody."""
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
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


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its `state` is ok, warning or failure; `do` is empty where nothing is to be done."""

    name: str
    state: str
    says: str
    do: str


def examine(folder: Path | None, *, network: bool) -> dict[str, Any]:
    """All checks, for runs in a folder; `fit` where none of them is a failure.

    Raises:
        UsageError: No folder can be made there, because a file is in its way.

    """
    if folder is not None and (file := next((path for path in (folder, *folder.parents) if path.is_file()), None)):
        raise UsageError(
            f"no run can be in `{folder}`: `{file}` is a file", hint="name a folder, which need not be there"
        )
    place = existing(folder if folder is not None else Path("runs"))
    checks = [*package_checks(), *_devices(), _memory(), *_disk(place), _hub(network=network)]
    return {
        "folder": str(place),
        "fit": all(check.state != "failure" for check in checks),
        "checks": [asdict(check) for check in checks],
    }


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
        yield Check("devices", "failure", f"torch can't be loaded: {error}", "pip install activedpo-cli")
        return
    found = [_cuda(torch, number) for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    yield Check("devices", "ok", ", ".join([*found, f"cpu ({allotted_cores()} cores)"]), "")


def _cuda(torch: Any, number: int) -> str:
    properties = torch.cuda.get_device_properties(number)
    return f"cuda:{number} {properties.name} ({properties.total_memory / 1e9:.0f} GB)"


def memory_of_machine() -> tuple[int, int] | None:
    """Bytes of memory that are free, and all there are; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024
    except (OSError, ValueError, LookupError):
        return None


def _memory() -> Check:
    known = memory_of_machine()
    if known is None:
        return Check("memory", "ok", "not known on this system", "")
    free, total = known
    says = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free"
    if free < LITTLE_MEMORY:
        return Check("memory", "warning", says, "close other programs, or use a smaller model")
    return Check("memory", "ok", says, "")


def _disk(place: Path) -> Iterator[Check]:
    free = free_bytes(place)
    state = "failure" if free < NO_DISK else "warning" if free < LITTLE_DISK else "ok"
    advice = "" if state == "ok" else "free some space, or put runs elsewhere with --run PATH"
    yield Check("disk", state, f"{free / 1e9:.1f} GB are free at {place}", advice)
    elsewhere = "put runs on another file system with --run PATH, one that is local to this machine"
    try:
        trials = try_file_system(place)
    except OSError as error:
        yield Check("write", "failure", f"nothing can be written in {place}: {error.strerror or error}", elsewhere)
        return
    for trial in trials:
        if trial.failure is None:
            yield Check(trial.name, "ok", trial.means, "")
        else:
            yield Check(trial.name, "failure", f"not so: {trial.means}: {trial.failure}", elsewhere)


def _hub(*, network: bool) -> Check:
    offline = [name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if offline:
        says = f"{', '.join(offline)} set: only models and datasets in the cache are found"
        return Check("hub", "warning" if network else "ok", says, f"unset {' '.join(offline)}" if network else "")
    if not network:
        return Check("hub", "ok", f"not asked; --network asks {endpoint}", "")
    reason = _reason(_ask_hub)
    if reason is None:
        return Check("hub", "ok", f"{endpoint} answers", "")
    advice = "download models where the network is (`hf download ID --local-dir FOLDER`), and name the folder"
    return Check("hub", "warning", f"{endpoint} does not answer: {reason}", advice)


def _ask_hub() -> None:
    from huggingface_hub import HfApi

    HfApi().model_info(HUB_MODEL, timeout=HUB_SECONDS)


def _reason(ask: Callable[[], None]) -> str | None:
    try:
        ask()
    except Exception as error:  # the hub's client raises its own, httpx's and OS errors alike
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


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
