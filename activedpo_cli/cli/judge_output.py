"""What is printed of a judge: what it would be asked, and how it agrees with people."""

from typing import TYPE_CHECKING, Any

from activedpo_cli.base.numbers import share_of, shown
from activedpo_cli.cli.render import print_json, print_message, print_result, print_table

if TYPE_CHECKING:
    from activedpo_cli.label.judge_check import CheckResult
    from activedpo_cli.label.judge_plan import JudgePlan

FEW = 30
"""Pairs below which a share says little."""


def print_plan(plan: "JudgePlan", *, json: bool) -> None:
    """Calls and tokens, the price where there is one, and limits that would be reached."""
    if json:
        print_json(plan.as_facts())
        return
    known = 2 * plan.pairs - plan.calls
    there = f" ({known} replies are there)" if known else ""
    print_result(
        f"{plan.calls} calls about {plan.pairs} pairs, each in both orders{there}; {plan.spent} were made before"
    )
    print_result(
        f"about {plan.prompt_tokens:,} tokens of prompts, at most {plan.completion_tokens:,} of replies; what can't be "
        f"read is asked again, at most {plan.tries} times in all"
    )
    if plan.price is not None:
        print_result(f"at most about {shown(plan.price, 2)} by the given prices, if every reply can be read")
    for limit in plan.limits:
        print_message(f"warning: it may stop before the end, since {limit}", style="warning")


def print_check(result: "CheckResult", *, json: bool, quiet: bool) -> None:
    """Agreement by role, beside it what going by length alone would reach; then what the judge is like, and the file."""
    record = result.record
    if json:
        print_json(record | {"file": str(result.path), "state": "up to date" if result.was_done else "done"})
        return
    if not quiet:
        groups = {name: found for name, found in record["agreement"].items() if found["pairs"]}
        if len(groups.keys() & {"control", "selected", "left"}) < 2:
            groups.pop("all", None)  # it would say the same
        print_table(
            ["pairs", "number", "agrees with people", "κ", "where both name a response", "the longer response"],
            [[name.replace("_", " "), *_cells(found)] for name, found in groups.items()],
        )
        judge = record["judge"]
        print_result("")
        if record["left_out"]:
            left_out = ", ".join(f"{number} {why}" for why, number in record["left_out"].items())
            print_result(f"left out of what people answered: {left_out}")
        print_result(f"both orders agree on {share_of(judge['consistent'], judge['pairs'])} pairs")
        if judge["decided"]:
            print_result(
                f"the first response won {share_of(judge['first_won'], judge['decided'])} verdicts "
                f"(p = {judge['first_share_p']:.2g})"
            )
        print_result(f"no verdict about {record['agreement']['all']['without_verdict']} pairs{_reasons(judge)}")
        for row in record["thresholds"]:
            print_result(
                f"mixed with label.judge.threshold {row['threshold']:g}: of {row['role']} pairs the judge answers "
                f"{share_of(row['answers'], row['of'])}, as people did in {share_of(row['agree'], row['answers'])}"
            )
        print_result(_spent(judge))
        for sentence in result.notes:
            print_message(sentence)
    print_result(str(result.path))


def _cells(found: dict[str, Any]) -> list[str]:
    kappa, ends = found["kappa"], found["kappa_interval"]
    between = "" if ends is None else f" ({shown(ends[0], 2)} to {shown(ends[1], 2)})"
    return [
        str(found["pairs"]),
        _interval(found["agree"], found["judged"], found["agree_interval"]),
        "" if kappa is None else f"{kappa:.2f}{between}",
        _interval(found["agree_named"], found["both_named"], found["named_interval"]),
        _interval(found["longer_agrees"], found["longer_of"], found["longer_interval"]),
    ]


def _interval(part: int, whole: int, interval: list[float] | None) -> str:
    if interval is None:
        return ""
    low, high = (shown(100 * end, 0) for end in interval)
    return f"{part} of {whole}" + (f": {shown(100 * part / whole, 0)} % ({low} to {high})" if whole >= FEW else "")


def _reasons(judge: dict[str, Any]) -> str:
    found = ", ".join(f"{number} × {reason}" for reason, number in judge["unreadable"].items())
    return f"; replies that were none: {found}" if found else ""


def _spent(judge: dict[str, Any]) -> str:
    price = f", {shown(judge['price'], 2)} by the given prices" if "price" in judge else ""
    tokens = f"{judge['prompt_tokens']:,} tokens of prompts and {judge['completion_tokens']:,} of replies"
    return f"all checks of this run: {judge['calls']} calls, {tokens}{price}"
