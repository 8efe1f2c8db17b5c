"""What features cost on the shapes of Gemma 2B, Qwen3 4B and Llama 2 7B, with random weights, on one GPU.

bfloat16; LoRA with r = 128 and alpha = 512 on all linear layers, A and B random; responses of 256 random tokens to
prompts of 256; d = 8192. It needs torch, transformers and peft, and the source tree it lies in:

    python tests/benchmarks/architectures.py --output architectures.json     # about 20 GiB of GPU memory, minutes
    python tests/benchmarks/architectures.py --small                         # two thin layers each, on any machine

The share of the peak is that of the operations which the plain pass needs (`bench/workload.py`) in the time that features
take, of --peak-tflops, by default what a product of two bfloat16 matrices of 8192 × 8192 reaches on that device. Memory
is the most that tensors took at once above model and adapter. Seconds for 3000 responses are scaled up.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from peft import PeftModel

from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.bench.featurize import FeaturizeCost, FeaturizePlan, measure_featurize
from activedpo_cli.bench.measuring import seconds_in_turns
from activedpo_cli.bench.workload import Workload
from activedpo_cli.models.loading import DTYPES, pick_device
from activedpo_cli.models.random_models import random_base_model, random_policy

NAMES = ("random-gemma-2b", "random-qwen3-4b", "random-llama-2-7b")
RESPONSES_OF_A_RUN = 3000
SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "ratio_to_plain": "× plain",
    "tokens_per_second": "tokens/s",
    "share_of_peak": "share of peak",
    "seconds_for_3000": "s for 3000",
    "peak_gib_plain": "GiB plain",
    "peak_gib": "GiB features",
    "cosine_rmse": "cosine error",
    "cosine_rmse_floor": "dense",
}


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure one architecture after another, print the table, write the JSON."""
    options = parse_options(words)
    device = pick_device(options.device)
    peak = options.peak_tflops or measured_peak_tflops(device, 1024 if options.small else 8192)
    rows = []
    for name in options.models:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows.append(measured_row(name, options, device, peak))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print(f"{rows[0]['device']}, peak {peak:.3g} TFLOP/s in bfloat16, torch {torch.__version__}\n")
    print(table(rows))
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return rows


def parse_options(words: list[str] | None) -> argparse.Namespace:
    """The command line; `--small` changes the defaults of what stands below it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="cut every architecture down, to try the script itself")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--responses", type=int)
    parser.add_argument("--prompt-tokens", type=int)
    parser.add_argument("--response-tokens", type=int)
    parser.add_argument("--tokens-per-batch", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--lora-r", type=int)
    parser.add_argument("--proj-dim", type=int)
    parser.add_argument("--projection", default="factored")
    parser.add_argument("--projection-width", type=int, default=1)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    options = parser.parse_args(words)
    usual: dict[str, tuple[int, int]] = {
        "responses": (64, 4),
        "prompt_tokens": (256, 8),
        "response_tokens": (256, 8),
        "tokens_per_batch": (4096, 64),
        "repeats": (5, 1),
        "lora_r": (128, 32),
        "proj_dim": (8192, 256),
    }
    for name, (full, small) in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else full)
    return options


def measured_row(name: str, options: argparse.Namespace, device: torch.device, peak_tflops: float) -> dict[str, Any]:
    """One architecture; its weights are gone afterwards."""
    plan = FeaturizePlan(
        workload=Workload(
            options.responses, options.prompt_tokens, options.response_tokens, options.tokens_per_batch, seed=0
        ),
        projection=options.projection,
        proj_dim=options.proj_dim,
        projection_width=options.projection_width,
        repeats=options.repeats,
        seed=0,
        gradient_checkpointing=options.gradient_checkpointing,
        one_at_a_time=False,
    )
    policy = random_architecture(name, options, device)
    return as_row(name, options, measure_featurize(policy, plan, SilentProgress()), peak_tflops)


def random_architecture(name: str, options: argparse.Namespace, device: torch.device) -> PeftModel:
    """The policy, on the device."""
    base_model = random_base_model(
        name, seed=0, dtype=DTYPES[options.dtype], device=device, **SMALL if options.small else {}
    )
    return random_policy(
        base_model, r=options.lora_r, lora_alpha=4 * options.lora_r, target_modules="all-linear", seed=0
    )


def as_row(name: str, options: argparse.Namespace, cost: FeaturizeCost, peak_tflops: float) -> dict[str, Any]:
    """The measurement as JSON: what the table shows, and what it was measured with."""
    plain, features = median(cost.plain_seconds), median(cost.features_seconds)
    return {
        "model": name,
        "parameters": cost.parameters,
        "lora_parameters": cost.lora_parameters,
        "ratio_to_plain": cost.ratio_to_plain,
        "tokens_per_second": cost.tokens_per_second,
        "share_of_peak": cost.plain_flops / features / 1e12 / peak_tflops,
        "share_of_peak_plain": cost.plain_flops / plain / 1e12 / peak_tflops,
        "peak_tflops": peak_tflops,
        "seconds_for_3000": features / cost.responses * RESPONSES_OF_A_RUN,
        "peak_gib": cost.peak_memory_bytes / 2**30,
        "peak_gib_plain": cost.peak_memory_bytes_plain / 2**30,
        "cosine_rmse": cost.quality and cost.quality.cosine_rmse,
        "cosine_rmse_floor": options.proj_dim**-0.5,
        "all_plain_seconds": cost.plain_seconds,
        "all_features_seconds": cost.features_seconds,
        "device": cost.device,
        "torch": torch.__version__,
        "options": {key: value for key, value in vars(options).items() if key not in ("models", "output")},
    }


def measured_peak_tflops(device: torch.device, size: int) -> float:
    """What a product of two square bfloat16 matrices reaches, the median of ten."""
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    taken = seconds_in_turns({"product": lambda: a @ b}, 10, device, lambda: None)["product"]
    return 2 * size**3 / median(taken) / 1e12


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[cell(row[key]) for key in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """A number in three digits, large ones in full."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
