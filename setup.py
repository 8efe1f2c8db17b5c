"""What pyproject.toml can't say: a package built from a checkout holds the commit, which `activedpo --version` says."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from activedpo_cli.base.version import BUILT_FROM, commit_of  # noqa: E402 - needs no dependency


def note_commit(package: Path) -> None:
    """Write the commit into a built package; one that is built from an sdist has it already."""
    commit = commit_of(HERE)
    if commit and package.is_dir():
        (package / "base" / BUILT_FROM).write_text(commit + "\n", encoding="utf-8")


class BuildWithCommit(build_py):
    """Builds the package; an editable one is the checkout itself, which can say where it stands."""

    def run(self) -> None:
        """Build, and note the commit."""
        super().run()
        if not self.editable_mode:
            note_commit(Path(self.build_lib) / "activedpo_cli")


class SourceWithCommit(sdist):
    """Packs the sources."""

    def make_release_tree(self, base_dir, files) -> None:
        """Lay out what is packed, and note the commit."""
        super().make_release_tree(base_dir, files)
        note_commit(Path(base_dir) / "activedpo_cli")


setup(cmdclass={"build_py": BuildWithCommit, "sdist": SourceWithCommit})
