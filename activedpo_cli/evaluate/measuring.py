"""What is measured about each of some responses: rewards and log-probabilities, in units that several processes share.

Their files go again once what they were made for is written. A process alone makes none, and measures all at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, SilentProgress
from activedpo_cli.base.records import Response
from activedpo_cli.engine.company import waits
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import Unit, UnitWork, do_units
from activedpo_cli.store.stage_folder import StageFolder

MOST_UNITS = 64
"""Of a column: few files, and enough for as many processes."""


@dataclass(frozen=True)
class Column:
    """A number about each response.

    Attributes:
        name: Of its units' files.
        responses: The responses, in order.
        batch: How many are measured at once, on which their last digits may depend; a unit is some whole batches.
        measure: The numbers of responses that begin with a batch, in order; it says how far it is.

    """

    name: str
    responses: Sequence[Response]
    batch: int
    measure: Callable[[Sequence[Response], Progress], list[float]]

    def parts(self) -> dict[str, Sequence[Response]]:
        """The responses of each unit by the name of its file."""
        batches = -(-len(self.responses) // self.batch)
        size = max(1, -(-batches // MOST_UNITS)) * self.batch
        starts = range(0, len(self.responses), size)
        return {
            f"measured-{self.name}-{number:05d}.jsonl": self.responses[start : start + size]
            for number, start in enumerate(starts)
        }


@dataclass(frozen=True)
class Measured:
    """A row of a unit's file."""

    response_id: str
    value: float


class Measuring(UnitWork):
    """Columns in a folder.

    Args:
        columns: What is measured.
        written: The file for which it is: where that is there, nothing is missing.

    """

    def __init__(self, folder: StageFolder, columns: Sequence[Column], written: str) -> None:
        self.folder, self._columns, self._written = folder, {column.name: column for column in columns}, written
        self._parts = {name: (column, part) for column in columns for name, part in column.parts().items()}

    def counted(self) -> tuple[str, str]:
        """Numbers, each about one response."""
        return "measurements of responses", "numbers"

    def units(self) -> list[Unit]:
        """A column after the other."""
        return [Unit(name, len(part)) for name, (_, part) in self._parts.items()]

    def is_there(self, unit: Unit) -> bool:
        """Whether its numbers are in its file, or where they were needed."""
        return self.folder.has(unit.name) or self.folder.has(self._written)

    def do(self, unit: Unit) -> None:
        """Leave its numbers in a file."""
        column, part = self._parts[unit.name]
        values = column.measure(part, SilentProgress())
        rows = [Measured(row.response_id, value) for row, value in zip(part, values, strict=True)]
        self.folder.write_rows(unit.name, rows)

    def finish(self) -> dict[str, Any]:
        """Take the files away, when what they were for is written."""
        for name in self._parts:
            if self.folder.has(name):
                self.folder.remove(name)
        return {}

    def values(self, name: str, progress: Progress) -> list[float]:
        """A column, from its files where they are there; the rest is measured now."""
        column, found = self._columns[name], []
        for is_there, names in groupby(column.parts(), self.folder.has):
            parts = [(name, self._parts[name][1]) for name in names]
            if is_there:
                found += [value for name, part in parts for value in self._read(name, part)]
            else:
                found += column.measure([row for _, part in parts for row in part], progress)
        return found

    def do_with_others(self, claims: Path, execution: Execution, progress: Progress) -> None:
        """As one of several processes, do what is missing until all is there; alone nothing."""
        pauses = waits()
        while execution.shard and not do_units(self, claims, progress, execution.shard):
            next(pauses)

    def _read(self, name: str, part: Sequence[Response]) -> list[float]:
        rows = self.folder.read_rows(name, Measured)
        if [row.response_id for row in rows] != [row.response_id for row in part]:
            raise InvalidDataError(
                f"`{self.folder.path / name}` is not about the responses that it should be about",
                hint=f"rm {self.folder.path / name}  # they are then measured again",
            )
        return [row.value for row in rows]
