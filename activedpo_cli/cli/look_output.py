"""Tables and texts of the commands that only look."""

from typing import Any

from activedpo_cli.cli.evaluation_output import print_evaluations
from activedpo_cli.cli.render import print_result, print_table

SIGNS = {
    "complete": "✓",
    "partial": "◐",
    "stale": "!",
    "damaged": "✗",
    "missing": "·",
    "not part of this run": "–",
    "deleted to save space": "–",
}


def print_status(found: dict[str, Any]) -> None:
    """Stage by iteration, then the evaluations, what is wrong or has changed, and the next command."""
    iterations = found["iterations"]
    title = f"{found['run']}   {found['method']}, {found['model']}   {found['labels_spent']} labels spent"
    names = list(iterations[0]["stages"])
    rows = [[name, *(_cell(row["stages"][name]) for row in iterations)] for name in names]
    print_result(title + "\n")
    if found["sft"]:
        print_result(_sft_line(found["sft"]) + "\n")
    print_table(["stage", *(f"iter-{row['iteration']:03d}" for row in iterations)], rows)
    if found["evaluations"]:
        print_result("")
        print_evaluations(found["evaluations"])
    before = [{"iteration": 0, "stages": {"sft": found["sft"]}}] if found["sft"] else []
    for row in before + iterations:
        for name, status in row["stages"].items():
            where = f"{name} iter-{row['iteration']:03d}" if row["iteration"] else name
            for reason in status["reasons"]:
                print_result(f"! {where} is {status['state']}: {reason}")
            for note in status["notes"]:
                print_result(f"  {where}: {note}")
    print_result(f"next: {found['next']}")


def print_selection(found: list[dict[str, Any]], design: dict[str, Any] | None) -> None:
    """The selected pairs, best first, and what V was with them."""
    print_table(
        ["rank", "score", "pair", "label", "prompt"],
        [[str(r["rank"]), f"{r['score']:.4g}", r["pair_id"], r["label"], _short(r["prompt"])] for r in found],
    )
    if design is not None:
        print_result(f"\n{_design_text(design)}")


def print_pair(details: dict[str, Any]) -> None:
    """Everything about one pair."""
    print_result(f"pair {details['pair_id']}  iteration {details['iteration']}")
    print_result(f"rank {details['rank'] or 'not selected'}  score {details['score']}  label {details['label']}")
    print_result(f"\nprompt\n{indented(details['prompt'])}")
    for side in ("a", "b"):
        response = details[f"response_{side}"]
        marks = [response["finish_reason"], f"{response['num_tokens']} tokens"]
        marks += [f"{name} {value:.4g}" for name, value in (response["scores"] or {}).items()]
        marks += ["preferred"] if response["preferred"] else []
        print_result(
            f"\nresponse {side}  {response['response_id']}  ({', '.join(marks)})\n{indented(response['text'])}"
        )
        if "tokens" in response:
            print_result("\n  tokens (● counts for log π, · does not)")
            print_result(
                "  " + " ".join(f"{'●' if t['mask'] else '·'}{t['id']}:{t['piece']!r}" for t in response["tokens"])
            )


def print_features(made: dict[str, Any]) -> None:
    """How features were made, and how good they are."""
    width = f", width {made['projection_width']}" if made["projection"] == "factored" else ""
    print_result(
        f"features of iteration {made['iteration']}: {made['responses']} responses"
        + (f", and {made['labelled']} pairs labelled before" if made["labelled"] else "")
    )
    print_result(f"columns     {', '.join(made['columns']) or 'none'}")
    print_result(f"projection  {made['projection']}, d {made['proj_dim']}{width}")
    quality = made["quality"]
    if quality is not None:
        print_result(
            f"its error   {quality['cosine_rmse']:.4f} root mean square, of cosines in {quality['pairs']} pairs; "
            f"1/√d is {quality['floor']:.4f}"
        )
    if made["design"] is not None:
        print_result(f"selection   {_design_text(made['design'])}")
    for row in made["excluded"]:
        print_result(f"left out    {row['response_id']}: {', '.join(row['columns'])} not finite")


def _sft_line(status: dict[str, Any]) -> str:
    headline = f"  {status['headline']}" if status["state"] in ("complete", "stale") else ""
    return f"sft  {_cell(status)}{headline}"


def _cell(status: dict[str, Any]) -> str:
    text = f"{SIGNS[status['state']]} {status['state']}"
    if status["state"] in ("complete", "stale", "partial"):
        text += f", {status['headline']}" if status["state"] == "partial" else f"  {status['seconds']:.1f} s"
    return text


def _design_text(design: dict[str, Any]) -> str:
    text = (
        f"V of {design['pairs']} pairs, λ {design['ridge']:g}: condition {design['condition']:.4g}, "
        f"effective dimension {design['effective_dimension']:.4g}"
    )
    if design["last_to_first"] is not None:
        text += f"; the last pick scored {100 * design['last_to_first']:.4g} % of the first"
    return text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def indented(text: str) -> str:
    """A text as a block of its own."""
    return "\n".join(f"  {line}" for line in text.split("\n"))
