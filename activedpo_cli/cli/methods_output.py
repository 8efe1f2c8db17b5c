"""What `ls methods` prints: each method with what is known of it, in short or with all numbers."""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from activedpo_cli.cli.render import print_result, print_table, text_width
from activedpo_cli.run.evidence import MARK, NOTHING, ONE_A_PROMPT, Finding, findings, in_short, tasks

HOW_TO_READ = (
    "better: above random over seeds by the scorer that answers, p by Holm below 0.05; perhaps: by the 95 % interval alone; "
    f"100 %: as good as reading the answers first; {MARK} with --max-per-prompt 1, {2 * MARK} with other settings, which "
    "`--evidence` names; small models only, as docs/results.md of the repository has it"
)
INDENT = "    "


def print_methods(methods: Mapping[str, dict[str, Any]]) -> None:
    """Name and needs of each, below them what it is and what is known of it; at the end how that is read."""
    for name, row in methods.items():
        print_result(f"{name}  needs {', '.join(row['needs']) or 'nothing'}")
        for text in (row["help"], in_short(name)):
            print_result(_filled(text, INDENT))
    print_result("\n" + _filled(f"{HOW_TO_READ}; all numbers: `activedpo ls methods --evidence`"))


def print_evidence(methods: Mapping[str, dict[str, Any]]) -> None:
    """A line for each method and task, the methods of which nothing is known, and what the tasks are."""
    head = ["method", "task", "seeds", "better than random?", "share, %", "by the second scorer"]
    print_table(head, [_cells(finding) for name in methods for finding in findings(name)])
    if unknown := [name for name in methods if in_short(name) == NOTHING]:
        print_result("\n" + _filled(f"{NOTHING}: {', '.join(unknown)}"))
    print_result("")
    print_table(["task", "what is learnt", "who answers"], [[name, *about.values()] for name, about in tasks().items()])
    print_result("\n" + _filled(HOW_TO_READ))


def _cells(finding: Finding) -> list[str]:
    others = "".join(f", {key.split('.')[-1]} {json.dumps(value)}" for key, value in finding.settings.items())
    return [
        f"{finding.method}{MARK if finding.settings == ONE_A_PROMPT else others}",
        finding.task,
        str(finding.seeds),
        finding.verdict,
        _share(*finding.share) if finding.share else "",
        finding.second_scorer or "",
    ]


def _share(mean: float | None, *ends: float | None) -> str:
    if None in ends:
        return _per_cent(mean)
    return f"{_per_cent(mean)} [{', '.join(map(_per_cent, ends))}]"


def _per_cent(value: float | None) -> str:
    return "" if value is None else str(round(100 * value)).replace("-", "−")


def _filled(text: str, indent: str = "") -> str:
    """In lines, with every per cent sign beside its number."""
    held = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.fill(held, text_width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")
