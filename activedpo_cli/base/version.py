"""The version of this package, and the commit that it is: of the checkout that it lies in, or was built from."""

from contextlib import suppress
from pathlib import Path

__version__ = "0.1.0"

BUILT_FROM = "built_from.txt"
"""Beside this file where the package was built from a checkout, by `setup.py`: the commit, as `commit_of` gives it."""
GIT_SECONDS = 5


def described(here: Path = Path(__file__).parent) -> str:
    """`0.1.0 (commit 1a2b3c4d5e)`; without the commit where nobody knows it."""
    with suppress(OSError, ValueError):
        return f"{__version__} (commit {(here / BUILT_FROM).read_text(encoding='utf-8').strip()})"
    commit = commit_of(here.parents[1])
    return f"{__version__} (commit {commit})" if commit else __version__


def commit_of(checkout: Path) -> str | None:
    """The newest commit of a checkout, `…, changed since` where tracked files differ from it; None where it is none.

    A folder within the checkout of something else, such as a virtual environment, is none.
    """
    if not (checkout / ".git").exists():
        return None
    import subprocess

    asked = ["git", "--no-optional-locks", "-C", str(checkout)]
    asked += ["describe", "--always", "--dirty=, changed since", "--abbrev=10", "--exclude=*"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
