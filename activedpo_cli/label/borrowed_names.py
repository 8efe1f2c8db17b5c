"""Names under which gold pairs go out to files, so that nobody tells them by the number of their prompt.

A gold pair's own id has the number of a prompt that the run does not have. In a file it has that of a pair of the run about
which nobody is asked; when the file comes back, its texts say that it is the gold pair.
"""

import random
from collections.abc import Collection, Sequence

from activedpo_cli.base.records import pair_id, sides_of


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


def _number(response: str) -> int:
    return int(response.rpartition("/r")[2])
