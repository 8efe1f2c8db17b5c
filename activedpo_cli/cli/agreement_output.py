"""Prints how far people agree."""

from activedpo_cli.cli.render import print_result, print_table
from activedpo_cli.label.agreement import FEWEST_PAIRS, WHY_SELECTED_DIFFER, Agreement
from activedpo_cli.reports.agreement import BETWEEN, PEOPLE, rows_between, rows_of_people


def print_agreement(found: Agreement) -> None:
    """People against each other, pairs at random first, then each person by themselves."""
    if not found.people:
        print_result("No person has answered here; machines have no agreement to measure.")
        return
    between = [one for one in (found.control, found.selected) if one]
    if between:
        print_table(BETWEEN, rows_between(found))
        if any(one.pairs < FEWEST_PAIRS for one in between):
            print_result(f"Below {FEWEST_PAIRS} pairs a share says too little, so there are only counts.")
        if found.selected:
            print_result(WHY_SELECTED_DIFFER)
    else:
        print_result(
            "No pair has two people's answers yet; with `label --overlap N` a second person is asked about N pairs."
        )
    print_result("")
    print_table(PEOPLE, rows_of_people(found))
