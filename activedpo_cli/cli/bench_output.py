"""What `bench featurize` and `bench select` print: a table and its conditions, or all numbers as JSON."""

from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from activedpo_cli.bench.featurize import FeaturizeCost, FeaturizePlan
from activedpo_cli.bench.policy import PolicyRequest
from activedpo_cli.bench.select import SelectCost, SelectPlan
from activedpo_cli.bench.select_streamed import TIMED, StreamedCost, StreamedPlan
from activedpo_cli.cli.render import print_json, print_result, print_table


def print_featurize(request: PolicyRequest, plan: FeaturizePlan, cost: FeaturizeCost, *, json: bool) -> None:
    """The measurement, on stdout."""
    if json:
        print_json(featurize_as_json(request, plan, cost))
        return
    print_result(_setting(request, plan, cost) + "\n")
    print_table(["", "seconds", "tokens/s", "peak memory"], _featurize_rows(cost))
    print_result("")
    for sentence in (_speed(cost), _one_at_a_time(cost), _projection(plan, cost), verdict(cost)):
        if sentence:
            print_result(sentence)


def featurize_as_json(request: PolicyRequest, plan: FeaturizePlan, cost: FeaturizeCost) -> dict[str, Any]:
    """Seconds are of one pass over all responses; what was not measured is null."""
    quality, loop = cost.quality, cost.one_at_a_time
    return {
        "ratio_to_plain": cost.ratio_to_plain,
        "tokens_per_second": cost.tokens_per_second,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "peak_memory_bytes_plain": cost.peak_memory_bytes_plain,
        "cosine_rmse": quality and quality.cosine_rmse,
        "cosine_rmse_floor": plan.proj_dim**-0.5,
        "cosine_pairs": quality.pairs if quality else 0,
        "ratio_to_one_at_a_time": cost.ratio_to_one_at_a_time,
        "one_at_a_time": loop and asdict(loop) | {"seconds": loop.seconds_for(cost.responses)},
        "plain_seconds": median(cost.plain_seconds),
        "features_seconds": median(cost.features_seconds),
        "all_plain_seconds": cost.plain_seconds,
        "all_features_seconds": cost.features_seconds,
        "tflops_plain": _tflops(cost),
        "model": request.model,
        "parameters": cost.parameters,
        "lora_parameters": cost.lora_parameters,
        "lora_r": request.lora_r,
        "lora_alpha": request.lora_alpha,
        "lora_modules": request.lora_modules,
        "adapter": "random A and B",
        "proj_dim": plan.proj_dim,
        "projection": plan.projection,
        "projection_width": plan.projection_width,
        "responses": plan.workload.responses,
        "prompt_tokens": plan.workload.prompt_tokens,
        "response_tokens": plan.workload.response_tokens,
        "tokens": cost.tokens,
        "tokens_per_batch": plan.workload.tokens_per_batch,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "attn_implementation": request.attn_implementation,
        "seed": plan.seed,
        "dtype": cost.dtype,
        "device": cost.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def verdict(cost: FeaturizeCost) -> str:
    """What follows, in one sentence."""
    said = f"Features cost {cost.ratio_to_plain:.2f} × the plain pass"
    if cost.ratio_to_one_at_a_time:
        said += f", {_times(cost.ratio_to_one_at_a_time)} less than one response at a time with a dense projection"
    if cost.quality is None:
        return f"{said}."
    if cost.quality.is_good:
        return f"{said}; the projection is as good as a dense one."
    return f"{said}; the projection is not as good as a dense one: {cost.advice} brings its error down."


def _setting(request: PolicyRequest, plan: FeaturizePlan, cost: FeaturizeCost) -> str:
    modules = request.lora_modules if isinstance(request.lora_modules, str) else ", ".join(request.lora_modules)
    workload = plan.workload
    return "\n".join(
        [
            f"{request.model}, {_count(cost.parameters)} parameters in {cost.dtype}; LoRA with random A and B: "
            f"r {request.lora_r}, alpha {request.lora_alpha:g}, {modules}, {_count(cost.lora_parameters)} parameters",
            f"{workload.responses} responses of {workload.prompt_tokens} + {workload.response_tokens} random tokens, "
            f"{workload.tokens_per_batch} tokens a batch; {cost.device}, {_threads()}",
        ]
    )


def _featurize_rows(cost: FeaturizeCost) -> list[list[str]]:
    plain, features = median(cost.plain_seconds), median(cost.features_seconds)
    rows = [
        ["plain pass", _seconds(plain), f"{cost.tokens / plain:.0f}", _bytes(cost.peak_memory_bytes_plain)],
        ["features", _seconds(features), f"{cost.tokens_per_second:.0f}", _bytes(cost.peak_memory_bytes)],
    ]
    if cost.one_at_a_time:
        taken = cost.one_at_a_time.seconds_for(cost.responses)
        rows.append(["one at a time", _seconds(taken), f"{cost.tokens / taken:.0f}", ""])
    return rows


def _speed(cost: FeaturizeCost) -> str:
    return f"The plain pass ran at {_tflops(cost):.0f} TFLOP/s." if cost.device.startswith("cuda") else ""


def _one_at_a_time(cost: FeaturizeCost) -> str:
    loop = cost.one_at_a_time
    if loop is None:
        return ""
    text = f"One at a time, with a dense projection, was timed on {loop.responses} of {cost.responses} responses"
    if loop.projected_share < 1:
        text += f", the projection on {loop.projected_share:.2%} of the coordinates"
    is_scaled = loop.responses < cost.responses or loop.projected_share < 1
    return f"{text}, and scaled up." if is_scaled else f"{text}."


def _projection(plan: FeaturizePlan, cost: FeaturizeCost) -> str:
    name = f"{plan.projection}, width {plan.projection_width}" if plan.projection == "factored" else plan.projection
    if cost.quality is None:
        return f"Projection ({name}) to {plan.proj_dim}: no two responses share a batch, so its error is not known."
    return (
        f"Projection ({name}) to {plan.proj_dim}: cosines of {cost.quality.pairs} pairs are off by "
        f"{cost.quality.cosine_rmse:.4f}, a dense one's by {cost.quality.floor:.4f}."
    )


def _tflops(cost: FeaturizeCost) -> float:
    return cost.plain_flops / median(cost.plain_seconds) / 1e12


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} threads" if count > 1 else "1 thread"


def _times(ratio: float) -> str:
    return f"{ratio:.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×"


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _count(number: int) -> str:
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return str(number)


def _bytes(number: int) -> str:
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number} B"


def print_select(
    plan: SelectPlan, cost: SelectCost, larger: StreamedPlan, streamed: StreamedCost | None, *, json: bool
) -> None:
    """The measurement, on stdout."""
    if json:
        print_json(select_as_json(plan, cost, larger, streamed))
        return
    rows = [_select_row("in memory", plan, cost, f"{cost.peak_memory_bytes / 1e6:.0f} MB")]
    if streamed:
        rows.append(_select_row("streamed", larger, streamed, f"{streamed.peak_memory_bytes / 1e6:.0f} MB"))
    columns = ["", "n", "d", "seconds", "V⁻¹ in place", "as written", "same picks", "memory"]
    print_table(columns, rows)
    print_result(
        f"\n{plan.budget} picks, {plan.labelled} labelled, λ = {plan.ridge:g}; V⁻¹ in place: Sherman–Morrison; as written: "
        f"φᵀV⁻¹φ of all pairs at each pick, {plan.textbook_steps} timed, V⁻¹ not counted."
    )
    if plan.labelled:
        print_result(
            f"In memory a choice takes {cost.ratio_to_product:.2f} × one product of all pairs with the labelled ones in "
            f"float64, which took {_seconds(median(cost.product_seconds))} s: medians, in turns."
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
    """Ratios are how many times as long the other way takes; `ratio_to_product` is the choice's time over the product's."""
    return {
        "n": plan.pairs,
        "d": plan.proj_dim,
        "budget": plan.budget,
        "seconds": cost.seconds,
        "ratio_to_product": cost.ratio_to_product if plan.labelled else None,
        "ratio_to_sherman_morrison": cost.ratio_to_sherman_morrison,
        "ratio_to_textbook": cost.ratio_to_textbook,
        "same_picks": cost.same_picks,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "labelled": plan.labelled,
        "ridge": plan.ridge,
        "dtype": "float32",
        "all_seconds": cost.all_seconds,
        "all_product_seconds": cost.product_seconds,
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


def _select_row(name: str, plan: SelectPlan | StreamedPlan, cost: SelectCost | StreamedCost, memory: str) -> list[str]:
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
