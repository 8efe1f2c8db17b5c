"""A comparison of methods as tables."""

from typing import Any

from activedpo_cli.cli.render import print_message, print_result, print_table


def print_comparison(found: dict[str, Any]) -> None:
    """What each method's batch is like, what every two have in common, and who was left out."""
    pool = found["candidates"]
    print_result(
        f"{found['budget']} of {pool['pairs']} candidates of iteration {found['iteration']}, seed {found['seed']}\n"
    )
    rows = [[str(place), name, *_cells(row)] for place, (name, row) in enumerate(found["methods"].items(), start=1)]
    rows.append(["", "all candidates", f"{pool['mean_tokens']:.1f}", "", "", str(pool["prompts"]), ""])
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


def _cells(row: dict[str, Any]) -> list[str]:
    cosine, rank = row["mean_abs_cosine"], row["effective_rank"]
    return [
        f"{row['mean_tokens']:.1f}",
        "–" if cosine is None else f"{cosine:.3f}",
        "–" if rank is None else f"{rank:.2f}",
        str(row["prompts"]),
        f"{row['seconds']:.2f}",
    ]
