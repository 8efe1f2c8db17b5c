"""Why a pair was picked or not, in words."""

from typing import Any

from activedpo_cli.cli.look_output import indented
from activedpo_cli.cli.render import print_result


def print_why(explained: dict[str, Any]) -> None:
    """Score and what is left of it, then the pair's texts and those of the pairs most like it."""
    print_result(f"pair {explained['pair_id']}  iteration {explained['iteration']}")
    print_result(_verdict(explained))
    print_result(f"\n‖φ‖ in V⁻¹, λ {explained['ridge']:g}; ‖φ‖ itself is {explained['norm']:.4g}")
    steps = [("with what was labelled earlier in V", "at_start")]
    if explained["when_picked"] is not None:
        steps.append(("when it was picked", "when_picked"))
    if explained["method"] is not None:
        steps.append(("with the whole batch in V", "after_batch"))
    for words, name in steps:
        print_result(f"  {explained[name]:<10.4g} {words}{_share(explained, name)}")
    _print_texts("the pair", explained)
    for kind in ("labelled", "chosen"):
        rows = explained[f"nearest_{kind}"]
        print_result(f"\nnearest {kind} pairs, by |cos| of φ" + ("" if rows else ": none"))
        for row in rows:
            known = f"label: {row['label']}" if kind == "labelled" else f"rank {row['rank']}"
            _print_texts(f"|cos| {row['abs_cosine']:.4f}  {row['pair_id']}  ({known})", row)


def _verdict(explained: dict[str, Any]) -> str:
    if explained["method"] is None:
        return "nothing is selected in this iteration yet"
    if explained["rank"] is None:
        return f"not among the pairs that `{explained['method']}` picked"
    return (
        f"picked by `{explained['method']}`: rank {explained['rank']} among {explained['candidates']} candidates, "
        f"score {explained['score']:.4g}"
    )


def _share(explained: dict[str, Any], name: str) -> str:
    start = explained["at_start"]
    return "" if name == "at_start" or not start else f": {100 * explained[name] / start:.4g} %"


def _print_texts(heading: str, row: dict[str, Any]) -> None:
    print_result(f"\n{heading}")
    for name in ("prompt", "response_a", "response_b"):
        print_result(f"  {name.replace('_', ' ')}\n{indented(indented(row[name]))}")
