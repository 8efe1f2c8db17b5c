"""What the commands print that only look: `status`, `show`, `compare` and `report`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.numbers import shown
from activedpo_cli.cli.evaluation_output import print_evaluations
from activedpo_cli.cli.render import fits, print_json, print_message, print_result, print_table
from activedpo_cli.statistics.wrong_answers import in_words

if TYPE_CHECKING:
    from activedpo_cli.reports.build import ReportResult
    from activedpo_cli.run.listing import ListedRun

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
    print_result(title + "\n")
    if found["sft"]:
        print_result(_sft_line(found["sft"]) + "\n")
    _print_stages(iterations, names)
    if found["evaluations"]:
        print_result("")
        print_evaluations(found["evaluations"])
    estimates = [row["stages"]["train"].get("summary", {}).get("wrong_answers") for row in iterations]
    if any(estimates):
        newest = max(place for place, estimate in enumerate(estimates) if estimate)
        print_result(f"iteration {newest + 1}: {in_words(estimates[newest])}")
    before = [{"iteration": 0, "stages": {"sft": found["sft"]}}] if found["sft"] else []
    for row in before + iterations:
        for name, status in row["stages"].items():
            where = f"{name} iter-{row['iteration']:03d}" if row["iteration"] else name
            for reason in status["reasons"]:
                print_result(f"! {where} is {status['state']}: {reason}")
            for note in status["notes"]:
                print_result(f"  {where}: {note}")
    for name, reasons in found["damaged"].items():
        print_result(f"! {name} is damaged: {'; '.join(reasons)}")
    if found["damaged"]:
        print_result(f"activedpo verify --run {shlex.quote(found['run'])}   names what repairs it")
    print_result(f"next: {found['next']}")


def _print_stages(iterations: list[dict[str, Any]], names: list[str]) -> None:
    """Iterations side by side, below each other where there are more than fit."""
    headings = [f"iter-{row['iteration']:03d}" for row in iterations]
    cells = [[_cell(row["stages"][name]) for name in names] for row in iterations]
    beside = [[name, *column] for name, *column in zip(names, *cells, strict=True)]
    if len(iterations) <= len(names) or fits(["stage", *headings], beside):
        print_table(["stage", *headings], beside)
    else:
        print_table(["iteration", *names], [[heading, *row] for heading, row in zip(headings, cells, strict=True)])


def print_selection(found: list[dict[str, Any]], design: dict[str, Any] | None, judge: str | None) -> None:
    """The selected pairs, best first, what V was with them, and what the judge was like where one answered."""
    print_table(
        ["rank", "score", "pair", "label", "prompt"],
        [[str(r["rank"]), f"{r['score']:.4g}", r["pair_id"], _short_label(r), _short(r["prompt"])] for r in found],
    )
    if design is not None:
        print_result(f"\n{_design_text(design)}")
    if judge is not None:
        print_result(f"\n{judge}")


def _short_label(row: dict[str, Any]) -> str:
    """The label beside its pair: `r0 preferred`, without the prompt and iteration that the pair's name begins with."""
    return str(row["label"]).removeprefix(f"{row['pair_id'].rpartition('/')[0]}/")


def print_pair(details: dict[str, Any]) -> None:
    """Everything about one pair."""
    print_result(f"pair {details['pair_id']}  iteration {details['iteration']}")
    print_result(f"rank {details['rank'] or 'not selected'}  score {details['score']}  label {details['label']}")
    for answer in details["answers"]:
        took = None if answer["seconds"] is None else f"{answer['seconds']:.1f} s"
        how = ", ".join(mark for mark in (answer["role"], took) if mark)
        print_result(indented(f"{answer['annotator']}: {answer['answer']}" + (f"  ({how})" if how else "")))
        if answer["note"]:
            print_result(indented(indented(answer["note"])))
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


def print_comparison(found: dict[str, Any]) -> None:
    """What each method's batch is like, what every two have in common, and who was left out."""
    pool = found["candidates"]
    print_result(
        f"{found['budget']} of {pool['pairs']} candidates of iteration {found['iteration']}, seed {found['seed']}\n"
    )
    rows = [
        [str(place), name, *_comparison_cells(row)]
        for place, (name, row) in enumerate(found["methods"].items(), start=1)
    ]
    rows.append(["", "all candidates", shown(pool["mean_tokens"], 1), "", "", str(pool["prompts"]), ""])
    print_table(["", "method", "tokens", "mean |cos|", "effective rank", "prompts", "seconds"], rows)
    names = list(found["overlaps"])
    print_result(f"\npairs in common, % of the batch; chance alone: {100 * found['chance_overlap']:.0f}\n")
    print_table(
        ["", "", *(str(place) for place in range(1, len(names) + 1))],
        [
            [str(place), name, *(f"{100 * found['overlaps'][name][other]:.0f}" for other in names)]
            for place, name in enumerate(names, start=1)
        ],
    )
    print_result(f"\n{found['picture']}")
    for note in found["notes"]:
        print_message(f"note: {note}")
    for name, lacking in found["left_out"].items():
        print_message(f"left out: {name} needs {', '.join(lacking)}")
    if found["left_out"]:
        print_message(f"to have them too: {found['command_for_left_out']}")


def print_report(result: "ReportResult", *, json: bool, quiet: bool) -> None:
    """The path of the page, or with `json` all paths; messages go to stderr."""
    if json:
        figures = {name: str(path) for name, path in result.figures.items()}
        state = "done" if result.made else "up to date"
        print_json({"page": str(result.page), "figures": figures, "state": state, "summaries": result.summaries})
    elif not quiet:
        for sentence in result.summaries:
            print_message(sentence)
        print_message("✓ report made" if result.made else "✓ report is up to date", style="ok")
        print_result(str(result.page))


def print_runs(folder: Path, found: Sequence["ListedRun"]) -> None:
    """A line for each run, those of an experiment under its name; what is wrong with a damaged one on stderr."""
    groups = list(dict.fromkeys(run.experiment for run in found))
    header = ["run", "model", "iterations", "next", "labels", "changed (UTC)"]
    for group in groups:
        if group is not None:
            print_result(f"\nexperiment {group}")
        print_table(header, [_run_cells(run) for run in found if run.experiment == group])
    for run in found:
        if run.problem:
            print_message(f"✗ {run.path}: {run.problem}", style="warning")
    if not found:
        print_message(f"there is no run in `{folder}`")


def _run_cells(run: "ListedRun") -> list[str]:
    if run.problem:
        return [run.name, "", "", "damaged", "", ""]
    planned = "" if run.iterations_planned is None else f" of {run.iterations_planned}"
    following = run.next or "done"
    return [
        run.name,
        run.model or "",
        f"{run.iterations_done}{planned}",
        f"{following}, begun" if run.is_begun else following,
        str(run.labels_spent),
        (run.changed or "").removesuffix("+00:00").replace("T", " "),
    ]


def _sft_line(status: dict[str, Any]) -> str:
    headline = f"  {status['headline']}" if status["state"] in ("complete", "stale") else ""
    return f"sft  {_cell(status)}{headline}"


def _cell(status: dict[str, Any]) -> str:
    text = f"{SIGNS[status['state']]} {status['state']}"
    if status["state"] in ("complete", "stale", "partial"):
        text += f", {status['headline']}" if status["state"] == "partial" else f"  {shown(status['seconds'], 1)} s"
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


def _comparison_cells(row: dict[str, Any]) -> list[str]:
    cosine, rank = row["mean_abs_cosine"], row["effective_rank"]
    return [
        shown(row["mean_tokens"], 1),
        "–" if cosine is None else shown(cosine),
        "–" if rank is None else shown(rank, 2),
        str(row["prompts"]),
        shown(row["seconds"], 2),
    ]


def indented(text: str) -> str:
    """A text as a block of its own."""
    return "\n".join(f"  {line}" for line in text.split("\n"))
