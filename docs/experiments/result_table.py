"""What the scripts beside this one share: they read records of runs, and leave one table that `collect.py` shows."""

import json
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"


def rows_of(path: Path) -> list[dict]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_table(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Leave a table in `docs/results/NAME`."""
    path = RESULTS / name / "tables.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"title": title, "columns": columns, "rows": rows}
    path.write_text(json.dumps([table], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
