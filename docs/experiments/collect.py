"""Keep what an experiment found beside the docs, and write its tables into the pages that show them.

    python docs/experiments/collect.py runs/methods …     copies results, summary, tables and figures to docs/results/
    python docs/experiments/collect.py                    only writes the tables of docs/results/ into the pages

A page shows a table between `<!-- results NAME: TITLE -->` and `<!-- end of results -->`; what stands between is replaced.
`overview` has the tables of all tasks, which `against_random.py` lists; any other name is that of an experiment. What they
say goes into the package too, for `activedpo ls methods`.
"""

import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path

from against_random import RESULTS, evidence, methods, overview, results_of

from activedpo_cli.experiments.report import all_tables
from activedpo_cli.experiments.tables import markdown
from activedpo_cli.reports.page import Table

DOCS = RESULTS.parent
EVIDENCE = DOCS.parent / "activedpo_cli" / "run" / "evidence.json"
OVERVIEW = "overview"
FIGURES = ("reward", "differences", "distance")
KEPT = ("experiment.json", "results.jsonl", "summary.json", *(f"figures/{name}.svg" for name in FIGURES))
BLOCK = re.compile(r"(<!-- results (?P<name>[\w.-]+): (?P<title>[^\n]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


@cache
def tables_of(folder: Path) -> dict[str, Table]:
    """The tables of an experiment, or those that a script left, by title."""
    if folder.name == OVERVIEW:
        return {found.title: found for found in (overview(), methods())}
    if (left := folder / "tables.json").is_file():
        return {entry["title"]: Table(**entry) for entry in json.loads(left.read_text(encoding="utf-8"))}
    return {table.title: table for table in all_tables(results_of(folder))}


def filled(page: str) -> str:
    """A page with every block as the results have it; raises KeyError for a name or title that there is not."""

    def block(match: re.Match[str]) -> str:
        table = tables_of(RESULTS / match["name"])[match["title"]]
        body = markdown([table]).split("\n\n", 1)[1]
        return f"{match[1]}\n{body}\n{match[4]}"

    return BLOCK.sub(block, page)


def pages() -> list[Path]:
    """The pages that may show results."""
    return [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def collect(source: Path) -> None:
    """Copy what is kept of an experiment; its figures are there where it has them."""
    for name in KEPT:
        if (source / name).is_file():
            destination = RESULTS / source.name / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, destination)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        collect(Path(argument))
    made = {path: filled(path.read_text(encoding="utf-8")) for path in pages()} | {EVIDENCE: evidence()}
    for path, text in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
