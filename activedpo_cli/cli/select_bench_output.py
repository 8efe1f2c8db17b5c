"""What `bench select` prints: a table and its conditions, or all numbers as JSON."""

from typing import Any

import torch

from activedpo_cli.bench.select import SelectCost, SelectPlan
from activedpo_cli.bench.select_streamed import TIMED, StreamedCost, StreamedPlan
from activedpo_cli.cli.render import print_json, print_result, print_table


def print_select(
    plan: SelectPlan, cost: SelectCost, larger: StreamedPlan, streamed: StreamedCost | None, *, json: bool
) -> None:
    """The measurement, on stdout."""
    if json:
        print_json(select_as_json(plan, cost, larger, streamed))
        return
    rows = [_row("in memory", plan, cost, f"{cost.peak_memory_bytes / 1e6:.0f} MB")]
    if streamed:
        rows.append(_row("streamed", larger, streamed, f"{streamed.peak_memory_bytes / 1e6:.0f} MB"))
    columns = ["", "n", "d", "seconds", "V⁻¹ in place", "as written", "same picks", "memory"]
    print_table(columns, rows)
    print_result(
        f"\n{plan.budget} picks, {plan.labelled} labelled, λ = {plan.ridge:g}; V⁻¹ in place: Sherman–Morrison; as written: "
        f"φᵀV⁻¹φ of all pairs at each pick, {plan.textbook_steps} timed, V⁻¹ not counted."
    )
    print_result(f"Memory in memory: tensors beside the features. Picks compared with: {cost.compared_with}.")
    if streamed:
        print_result(
            f"Streamed: {streamed.passes} passes over {larger.file_bytes / 1e9:.2f} GB; memory of the whole process; the "
            f"others timed on {min(TIMED, larger.pairs)} pairs and scaled, one pass for each pick."
        )


def select_as_json(
    plan: SelectPlan, cost: SelectCost, larger: StreamedPlan, streamed: StreamedCost | None
) -> dict[str, Any]:
    """Ratios are how many times as long the other way takes."""
    return {
        "n": plan.pairs,
        "d": plan.proj_dim,
        "budget": plan.budget,
        "seconds": cost.seconds,
        "ratio_to_sherman_morrison": cost.ratio_to_sherman_morrison,
        "ratio_to_textbook": cost.ratio_to_textbook,
        "same_picks": cost.same_picks,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "labelled": plan.labelled,
        "ridge": plan.ridge,
        "dtype": "float32",
        "all_seconds": cost.all_seconds,
        "all_sherman_morrison_seconds": cost.sherman_morrison_seconds,
        "textbook_seconds": cost.textbook_seconds,
        "textbook_steps_timed": plan.textbook_steps,
        "textbook_is": f"float32 scores from V⁻¹, timed on {plan.textbook_steps} picks and scaled to {plan.budget}; "
        "V⁻¹ itself is not counted",
        "picks_compared_with": cost.compared_with,
        "seed": plan.seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "streamed": None if streamed is None else _streamed_as_json(larger, streamed),
    }


def _streamed_as_json(plan: StreamedPlan, cost: StreamedCost) -> dict[str, Any]:
    return {
        "n": plan.pairs,
        "d": plan.proj_dim,
        "budget": plan.budget,
        "seconds": cost.seconds,
        "passes": cost.passes,
        "ratio_to_sherman_morrison": cost.ratio_to_sherman_morrison,
        "ratio_to_textbook": cost.ratio_to_textbook,
        "same_picks": cost.same_picks,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "labelled": plan.labelled,
        "ridge": plan.ridge,
        "dtype": "float16",
        "file_bytes": plan.file_bytes,
        "memory_setting_bytes": plan.memory,
        "sherman_morrison_seconds": cost.sherman_morrison_seconds,
        "textbook_seconds": cost.textbook_seconds,
        "others_are": f"one pass for each pick, timed on {min(TIMED, plan.pairs)} pairs and scaled",
        "picks_compared_with": "scores by V from scratch for each pick, float64, over all pairs",
    }


def _row(name: str, plan: SelectPlan | StreamedPlan, cost: SelectCost | StreamedCost, memory: str) -> list[str]:
    return [
        name,
        f"{plan.pairs:,}",
        f"{plan.proj_dim:,}",
        f"{cost.seconds:.2f}",
        f"{cost.ratio_to_sherman_morrison:.1f} ×",
        f"{cost.ratio_to_textbook:.0f} ×",
        "yes" if cost.same_picks else "no",
        memory,
    ]
