"""Prints how far people agree."""

from collections.abc import Sequence

from activedpo_cli.base.numbers import shown
from activedpo_cli.cli.render import print_result, print_table
from activedpo_cli.label.agreement import FEWEST_PAIRS, WHY_SELECTED_DIFFER, Agreement, Between, Person, Share
from activedpo_cli.statistics.agreement import Interval


def print_agreement(found: Agreement) -> None:
    """People against each other, pairs at random first, then each person by themselves."""
    if not found.people:
        print_result("No person has answered here; machines have no agreement to measure.")
        return
    kinds = [("pairs at random (control)", found.control), ("selected pairs", found.selected)]
    if found.control or found.selected:
        print_table(
            ["two answers about", "pairs", "agree", "agree on who is better", "kappa", "alpha"],
            [[name, *_between_cells(between)] for name, between in kinds if between],
        )
        if any(between and between.pairs < FEWEST_PAIRS for _, between in kinds):
            print_result(f"Below {FEWEST_PAIRS} pairs a share says too little, so there are only counts.")
        if found.selected:
            print_result(WHY_SELECTED_DIFFER)
    else:
        print_result("No pair has two people's answers yet; `label --overlap N` asks a second person about N of them.")
    print_result("")
    print_table(
        ["person", "answers", "median seconds", "under 2 s", "took the first", "p", "gold right", "same again"],
        [_person_cells(person) for person in found.people],
    )


def _between_cells(between: Between) -> list[str]:
    return [
        str(between.pairs),
        _share(between.agreed),
        _share(between.decided),
        _coefficient(between.kappa, between.kappa_interval),
        _coefficient(between.alpha, between.alpha_interval),
    ]


def _person_cells(person: Person) -> list[str]:
    return [
        person.annotator,
        str(person.answers),
        "" if person.median_seconds is None else shown(person.median_seconds, 1),
        _share(person.quick),
        _share(person.left),
        "" if person.left_p is None else shown(person.left_p, 3),
        _share(person.gold),
        _share(person.repeated),
    ]


def _share(share: Share) -> str:
    """`21 of 30, 70.0 % [52.1, 83.3]`; the counts alone where there are few, nothing where there are none."""
    if share.of == 0:
        return ""
    counts = f"{share.number} of {share.of}"
    if share.share is None or share.interval is None:
        return counts
    return f"{counts}, {shown(100 * share.share, 1)} % {_interval([100 * end for end in share.interval], 1)}"


def _coefficient(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return ""
    return f"{shown(value, 2)} {_interval(interval, 2)}" if interval else shown(value, 2)


def _interval(ends: Sequence[float], digits: int) -> str:
    return f"[{', '.join(shown(end, digits) for end in ends)}]"
