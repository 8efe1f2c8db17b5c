"""How far people agree as cells of tables, in a terminal as on the page of a report."""

from activedpo_cli.label.agreement import QUICK_SECONDS, Agreement, Between, Person, Share
from activedpo_cli.reports.wording import number, share_with_interval, with_interval
from activedpo_cli.statistics.agreement import Interval

BETWEEN = ["two answers about", "pairs", "agree", "agree on who is better", "κ", "α"]
PEOPLE = [
    "person",
    "answers",
    "median seconds",
    f"under {QUICK_SECONDS:g} s",
    "took the first shown",
    "p",
    "gold right",
    "same answer again",
]


def rows_between(found: Agreement) -> list[list[str]]:
    """Two people against each other, pairs at random first; no row of a kind of which no pair has two answers."""
    kinds = (("pairs at random (control)", found.control), ("selected pairs", found.selected))
    return [[name, *_cells_between(between)] for name, between in kinds if between is not None]


def rows_of_people(found: Agreement) -> list[list[str]]:
    """Each person by themselves."""
    return [_cells_of(person) for person in found.people]


def _cells_between(between: Between) -> list[str]:
    return [
        str(between.pairs),
        _share(between.agreed),
        _share(between.decided),
        _coefficient(between.kappa, between.kappa_interval),
        _coefficient(between.alpha, between.alpha_interval),
    ]


def _cells_of(person: Person) -> list[str]:
    return [
        person.annotator,
        str(person.answers),
        number(person.median_seconds, 1),
        _share(person.quick),
        _share(person.left),
        number(person.left_p),
        _share(person.gold),
        _share(person.repeated),
    ]


def _share(found: Share) -> str:
    """`21 of 30: 70.0 % [52.1, 83.3]`; the counts alone where there are few, nothing where there are none."""
    if found.of == 0:
        return ""
    counts = f"{found.number} of {found.of}"
    if found.share is None or found.interval is None:
        return counts
    return f"{counts}: {share_with_interval(found.share, *found.interval)}"


def _coefficient(value: float | None, ends: Interval | None) -> str:
    low, high = ends or (None, None)
    return with_interval(value, low, high, 2)
