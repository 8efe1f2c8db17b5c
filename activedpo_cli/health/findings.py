"""`Problem` and `Findings`: what `verify` found wrong in a run, and what repairs it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from activedpo_cli.store.audit import FileFault


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong in a run.

    Attributes:
        file: The file, by its path in the run.
        kind: `missing`, `truncated`, `longer`, `changed`, `torn`, `damaged`, `unreadable`, `unknown` (nothing says who made
            it), `stale` (what it was made from has been made again) or `foreign` (of another run or another place).
        what: The same in words.
        repair: The command that repairs it, or what else to do.

    """

    file: str
    kind: str
    what: str
    repair: str


@dataclass
class Findings:
    """Problems and notes about one run, in the order in which they should be dealt with.

    `files` and `bytes` say how much was hashed, `on_bytes` is told as it advances.
    """

    run: Path
    on_bytes: Callable[[int], None] = lambda amount: None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def add(self, path: Path, kind: str, what: str, repair: str) -> None:
        """Take up a problem with a file, which is named by its path in the run."""
        name = path.relative_to(self.run).as_posix() if path.is_relative_to(self.run) else str(path)
        self.problems.append(Problem(file=name, kind=kind, what=what, repair=repair))

    def add_fault(self, folder: Path, fault: FileFault, repair: str) -> None:
        """Take up what is wrong with a file of a folder."""
        self.add(folder / fault.name, fault.kind, fault.what, repair)

    def advance(self, amount: int) -> None:
        """Count hashed bytes."""
        self.bytes += amount
        self.on_bytes(amount)
