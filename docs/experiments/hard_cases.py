"""Does a method starve the hard cases? What became of the prompts that began lowest, and of the worst answers.

    python docs/experiments/hard_cases.py runs/methods random activedpo …     writes docs/results/hard-cases/tables.json

Reads the last evaluation of every run of the experiment and writes one table, a row for each arm.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from result_table import rows_of, write_table

from activedpo_cli.reports.wording import with_interval
from activedpo_cli.statistics.summaries import mean_interval

SHARE = 0.2


def by_prompt(rows: Sequence[dict]) -> dict[str, float]:
    """Mean reward of each prompt's responses."""
    found = defaultdict(list)
    for row in rows:
        found[row["response_id"].partition("/")[0]].append(row["reward"])
    return {prompt: fmean(values) for prompt, values in found.items()}


def initial_rewards(run: Path, scorer: str) -> dict[str, float]:
    """The same of the model that the run began with, by the scorer that answers."""
    files = (rows_of(path) for path in (run / "reference" / "evaluate").glob("rewards-*.jsonl"))
    return by_prompt(next(rows for rows in files if rows[0]["scorer"] == scorer))


def measures(run: Path, scorer: str) -> list[float]:
    """Last mean reward of the fifth of prompts that began lowest, of that which began highest, and of the worst answers."""
    last = sorted(run.glob("iter-*/evaluate/samples.jsonl"))[-1]
    samples = rows_of(last)
    final, first = by_prompt(samples), initial_rewards(run, scorer)
    order = sorted(first, key=first.__getitem__)
    count = round(SHARE * len(order))
    rewards = sorted(row["reward"] for row in samples)
    worst = rewards[: round(SHARE * len(rewards))]
    return [fmean(final[p] for p in order[:count]), fmean(final[p] for p in order[-count:]), fmean(worst)]


def main(folder: Path, arms: Sequence[str]) -> None:
    """Write the table."""
    rows = []
    for arm in arms:
        runs = sorted((folder / "runs").glob(f"{arm}-s[0-9]*"))
        oracle = json.loads((runs[0] / "iter-001" / "label" / "manifest.json").read_text())["settings"]["label.oracle"]
        columns = zip(*(measures(run, oracle) for run in runs), strict=True)
        rows.append([arm, str(len(runs)), *(with_interval(*mean_interval(column)) for column in columns)])
    columns = [
        "arm",
        "seeds",
        "prompts that began lowest (a fifth)",
        "prompts that began highest (a fifth)",
        "worst fifth of the answers",
    ]
    write_table("hard-cases", "After the last iteration, by how the initial model did", columns, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
