"""Commands that write the rows of a file in another shape, for messages that refuse the one it has."""

import json
import shlex

READ = "import json; from itertools import combinations; from pathlib import Path; "
READ += "from activedpo_cli.generate.backends._recorded import read_preferences, read_recorded; "


def to_pairs(path: str) -> str:
    """Every two responses to one prompt, as rows with `response_a` and `response_b`."""
    row = '{"prompt": p.prompt, "response_a": a.text, "response_b": b.text}'
    return _command(row, f"for p in read_recorded({_path(path)}) for a, b in combinations(p.responses, 2)")


def to_preferences(path: str, score: str) -> str:
    """Every two responses to one prompt whose scores differ, as `chosen` and `rejected`."""
    row = '{"prompt": p.prompt, "chosen": b.text, "rejected": a.text}'
    pairs = f"for a, b in combinations(sorted({_scored(score)}, key=lambda r: {_of(score)}), 2)"
    differing = f"if {_of(score, 'a')} < {_of(score, 'b')}"
    return _command(row, f"for p in read_recorded({_path(path)}) {pairs} {differing}")


def to_best(path: str, score: str) -> str:
    """The response to each prompt that has the largest score, as its `completion`."""
    row = '{"prompt": p.prompt, "completion": r.text}'
    best = f"for r in sorted({_scored(score)}, key=lambda r: {_of(score)})[-1:]"
    return _command(row, f"for p in read_recorded({_path(path)}) {best}")


def to_chosen(path: str) -> str:
    """The preferred response of each row, as a `completion`."""
    row = '{"prompt": p.prompt, "completion": p.chosen}'
    return _command(row, f"for p in read_preferences({_path(path)})[0]")


def to_single_rejected(path: str) -> str:
    """A row for each of several rejected responses."""
    each = 'for v in [r.values["rejected"]] for x in ([v] if isinstance(v, str) else v)'
    return _rows_command(path, '{"rejected": x}', each)


def to_one_prompt(path: str) -> str:
    """The rows with `instruction` and `input` as one prompt, a blank line between the two."""
    parts = '(r.values[n] for n in ("instruction", "input") if r.values[n])'
    return _rows_command(path, f'{{"prompt": "\\n\\n".join({parts}), "instruction": None, "input": None}}', "")


def _rows_command(path: str, changed: str, loops: str) -> str:
    code = "import json; from pathlib import Path; from activedpo_cli.base.columns import KNOWN; "
    code += "from activedpo_cli.base.tables import read_table; "
    code += f"[print(json.dumps(r.values | {changed})) for r in read_table({_path(path)}, KNOWN) {loops}]"
    return f"python -c {shlex.quote(code)} > converted.jsonl"


def _command(row: str, loops: str) -> str:
    return f"python -c {shlex.quote(f'{READ}[print(json.dumps({row})) {loops}]')} > converted.jsonl"


def _path(path: str) -> str:
    return f"Path({json.dumps(path)})"


def _scored(score: str) -> str:
    return f"(r for r in p.responses if {json.dumps(score)} in r.scores)"


def _of(score: str, name: str = "r") -> str:
    return f"{name}.scores[{json.dumps(score)}]"
