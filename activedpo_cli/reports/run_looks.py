"""How each run is drawn where several share a pair of axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from activedpo_cli.reports.run_data import RunData
from activedpo_cli.reports.seed_groups import SeedGroup, seed_groups

MANY_RUNS = 8
"""With more runs than this those of a group of seeds look alike, since nobody tells so many lines apart."""


@dataclass(frozen=True, kw_only=True)
class RunLook:
    """A run's place in the palette, and the name that it shares with the runs of its group where it looks like them."""

    colour: int
    group: str | None = None

    def group_with(self, ending: str) -> str | None:
        """The shared name with an ending, for a second line of each run."""
        return None if self.group is None else self.group + ending


def run_looks(runs: Sequence[RunData]) -> list[RunLook]:
    """A look for each run: its own, or its group's where the runs are many."""
    groups = seed_groups(runs) if len(runs) > MANY_RUNS else []
    shared = {run.name: _group_look(group) for group in groups for run in group.runs.values()}
    free = count(len(groups))
    return [shared[run.name] if run.name in shared else RunLook(colour=next(free)) for run in runs]


def look_note(looks: Sequence[RunLook]) -> str:
    """A sentence for the caption where runs look alike."""
    if not any(look.group for look in looks):
        return ""
    return " Runs that differ in the seed alone are thin lines of one colour, without markers and bands."


def _group_look(group: SeedGroup) -> RunLook:
    return RunLook(colour=group.place, group=f"{group.label} ({len(group.runs)} seeds)")
