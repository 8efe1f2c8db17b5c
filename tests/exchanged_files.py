"""Files of pairs as `label --export` writes them and `--import` reads them, without a run."""

from collections.abc import Sequence
from pathlib import Path

from activedpo_cli.base.records import Label
from activedpo_cli.label.exchange import Reading, filled_in, format_to_write, question_row
from activedpo_cli.oracles.base import Comparison


def export_pairs(comparisons: Sequence[Comparison], name: str, *, annotator: str = "", seed: int) -> bytes:
    """The content of the file `name` (`.jsonl` or `.csv`) that asks about `comparisons`."""
    rows = [question_row(comparison, annotator, seed) for comparison in comparisons]
    return format_to_write(name, None).render(rows, Path(name), "")[Path(name)]


def import_answers(
    data: bytes, name: str, comparisons: Sequence[Comparison], *, oracle: str = "human", annotator: str | None = None
) -> list[Label]:
    """The labels in a file whose rows tell its format."""
    return filled_in(data, name, comparisons, Reading(annotator=annotator), oracle=oracle).labels
