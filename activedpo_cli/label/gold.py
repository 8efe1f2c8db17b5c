"""Gold pairs: questions whose right answer is known, mixed in unmarked, by which one sees how carefully people read."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from activedpo_cli.base.columns import KNOWN
from activedpo_cli.base.conversations import parse_messages, parse_prompt
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.foreign_rows import known_row
from activedpo_cli.base.records import PromptText, Response, pair_id, response_id
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.tables import Row, read_table
from activedpo_cli.oracles.base import Comparison

NEEDS = "a gold pair has `prompt`, `chosen` (the better response) and `rejected`"


def gold_pairs(
    path: Path, iteration: int, *, number: int, first_number: int, seed: int, of_pool: bool = False
) -> Iterator[tuple[Comparison, str]]:
    """The gold pairs of one iteration, each with the id of the better response.

    They are dealt out in a shuffled order, `number` an iteration, and from the beginning again when all were asked. Their
    ids look like those of the run's own pairs, so that nobody knows them by the name.

    Args:
        path: The file, whose rows have `prompt`, `chosen` and `rejected`.
        iteration: Which part is taken.
        number: How many.
        first_number: The number of the first prompt that is none of the run's.
        seed: The run's seed.
        of_pool: Whether the run's own pairs are of recorded responses, as the ids of such pairs show.

    Raises:
        InvalidDataError: The file can't be read, a row lacks something, or two responses are equal; names the row.

    """
    rows = [known_row(row) for row in read_table(path, KNOWN)]
    known = [_known(row) for row in rows]
    order = list(range(len(known)))
    random.Random(derive_seed(seed, "gold")).shuffle(order)
    start = (iteration - 1) * number
    for place in range(start, start + min(number, len(order))):
        index = order[place % len(order)]
        yield _comparison(*known[index], f"p{first_number + index:06d}", None if of_pool else iteration)


def _known(row: Row) -> tuple[PromptText, str, str]:
    missing = [name for name in ("prompt", "chosen", "rejected") if row.values.get(name) is None]
    if missing:
        raise InvalidDataError(
            f"{row.origin} lacks {', '.join(f'`{name}`' for name in missing)}",
            details=[NEEDS, f"columns there: {', '.join(row.values)}"],
        )
    chosen, rejected = (_text(row.values[name], row.origin) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise InvalidDataError(f"{row.origin}: the two responses of a gold pair are equal", details=[NEEDS])
    return parse_prompt(row.values["prompt"], row.origin), chosen, rejected


def _text(value: Any, origin: str) -> str:
    """The text of a response: as it is, or the content of the last message."""
    text = parse_messages(value, origin)[-1]["content"] if isinstance(value, list) and value else value
    if not isinstance(text, str) or not text.strip():
        raise InvalidDataError(f"{origin}: {excerpt(value)} is no response with text", details=[NEEDS])
    return text


def _comparison(
    prompt: PromptText, chosen: str, rejected: str, prompt_id: str, iteration: int | None
) -> tuple[Comparison, str]:
    """The pair in the order of its texts, so that the order does not tell which is better."""
    sides = [
        Response(
            response_id=response_id(prompt_id, iteration, index),
            prompt_id=prompt_id,
            prompt_token_ids=[],
            token_ids=[],
            text=text,
            finish_reason="recorded",
        )
        for index, text in enumerate(sorted((chosen, rejected)))
    ]
    better = next(side for side in sides if side.text == chosen)
    return Comparison(pair_id(sides[0].response_id, sides[1].response_id), prompt, *sides), better.response_id
