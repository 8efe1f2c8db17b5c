"""Names under which gold pairs go out to files, so that nobody tells them by the number of their prompt.

A gold pair's own id has the number of a prompt that the run does not have. In a file it has that of a pair of the run about
which nobody is asked; when the file comes back, its texts say that it is the gold pair.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from activedpo_cli.base.records import pair_id, sides_of
from activedpo_cli.oracles.base import Comparison

RESPONSE_IDS = ("response_a_id", "response_b_id")


def borrowed_names(
    gold: Sequence[str], asked: Collection[str], prompt_ids: Sequence[str], chance: random.Random
) -> dict[str, str]:
    """By the id of each gold pair the one that it goes by; its own where the run has fewer prompts than gold pairs.

    Args:
        gold: The ids of the gold pairs.
        asked: The ids of all other pairs that people are asked about, whose prompts are taken last.
        prompt_ids: The prompts of the run.
        chance: Draws.

    """
    used: dict[str, set[int]] = {}
    for asked_id in asked:
        for side in sides_of(asked_id):
            used.setdefault(side.partition("/")[0], set()).add(_number(side))
    most = max((number for numbers in used.values() for number in numbers), default=0)
    drawn = sorted(chance.sample(prompt_ids, len(prompt_ids)), key=lambda prompt: prompt in used)
    names = {}
    for own, prompt in zip(gold, drawn, strict=False):
        free = [number for number in range(most + 3) if number not in used.get(prompt, ())]
        usual = [number for number in free if number <= most]
        origin = own.split("/")[1]
        sides = (f"{prompt}/{origin}/r{n}" for n in sorted(chance.sample(usual if len(usual) > 1 else free[:2], 2)))
        names[own] = pair_id(*sides)
    return {own: names.get(own, own) for own in gold}


def under_borrowed_name(row: Mapping[str, Any], comparison: Comparison, name: str | None) -> dict[str, Any]:
    """The row of a pair as it goes out under this id, or under its own."""
    if name is None:
        return dict(row)
    shown = dict(zip(_sides(comparison), sides_of(name), strict=True))
    return {**row, "pair_id": name, **{column: shown[row[column]] for column in RESPONSE_IDS}}


def under_own_name(row: Mapping[str, Any], names: Mapping[str, Comparison]) -> Mapping[str, Any]:
    """The row of a pair that came back under a borrowed id, of those in `names`, under its own.

    Raises ValueError where the row lacks its texts, by which alone the pair is told from one whose id it borrowed and that
    may have been exported before other pairs were selected.
    """
    name = row.get("pair_id")
    comparison = names.get(name) if isinstance(name, str) else None
    if comparison is None or name == comparison.pair_id:
        return row
    if any(column not in row for column in ("prompt", "response_a", "response_b")):
        raise ValueError(f"pair `{name}` is not to be known without its prompt, response_a and response_b")
    meant = dict(zip(sides_of(str(name)), _sides(comparison), strict=True))
    given = {column: row.get(column) for column in RESPONSE_IDS}
    ids = {column: meant.get(value, value) if isinstance(value, str) else value for column, value in given.items()}
    return {**row, "pair_id": comparison.pair_id, **ids}


def _sides(comparison: Comparison) -> tuple[str, str]:
    return comparison.response_a.response_id, comparison.response_b.response_id


def _number(response: str) -> int:
    return int(response.rpartition("/r")[2])
