"""How the cost of features grows with the number of responses, their length, LoRA's rank, d, and the number of layers.

One size at a time is changed from the set-up of `activedpo bench featurize`: a random Llama of 15 million parameters with
7 layers, r = 32, all linear layers, 64 responses of 64 + 64 tokens, d = 8192. Plain and features are timed in turns.

    python tests/benchmarks/growth.py            # some minutes on two cores
    python tests/benchmarks/growth.py --quick    # two sizes of each kind, one repetition, 8 responses
"""

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.bench.featurize import FeaturizeCost, FeaturizePlan, measure_featurize
from activedpo_cli.bench.workload import Workload
from activedpo_cli.models.random_models import random_base_model, random_policy

START = {"responses": 64, "tokens": 128, "r": 32, "d": 8192, "layers": 7}
SIZES = {
    "responses": [16, 64, 128],
    "tokens": [32, 128, 512],
    "r": [8, 32, 128],
    "d": [1024, 8192, 65536],
    "layers": [2, 7, 14],
}


def main() -> None:
    """Measure every size and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print("| changed | plain, s | features, s | × plain | MiB above plain | cosine error × √d |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, values in SIZES.items():
        for value in values[:2] if quick else values:
            chosen = START | ({"responses": 8} if quick else {}) | {name: value}
            print(row(f"{name} {value:,}", measured(chosen, repeats=1 if quick else 3)), flush=True)


def measured(sizes: dict[str, int], repeats: int) -> FeaturizeCost:
    """The cost at these sizes."""
    base = random_base_model(
        "tiny-llama-15m",
        seed=0,
        dtype=torch.float32,
        device=torch.device("cpu"),
        num_hidden_layers=sizes["layers"],
    )
    policy = random_policy(base, r=sizes["r"], lora_alpha=4 * sizes["r"], target_modules="all-linear", seed=0)
    workload = Workload(
        responses=sizes["responses"],
        prompt_tokens=sizes["tokens"] // 2,
        response_tokens=sizes["tokens"] // 2,
        tokens_per_batch=2048,
        seed=0,
    )
    plan = FeaturizePlan(
        workload=workload,
        projection="factored",
        proj_dim=sizes["d"],
        projection_width=1,
        repeats=repeats,
        seed=0,
        one_at_a_time=False,
    )
    return measure_featurize(policy, plan, SilentProgress())


def row(label: str, cost: FeaturizeCost) -> str:
    """One line of the table."""
    above = (cost.peak_memory_bytes - cost.peak_memory_bytes_plain) / 2**20
    error = "–" if cost.quality is None else f"{cost.quality.cosine_rmse / cost.quality.floor:.2f}"
    return (
        f"| {label} | {median(cost.plain_seconds):.2f} | {median(cost.features_seconds):.2f} | "
        f"{cost.ratio_to_plain:.2f} | {above:.0f} | {error} |"
    )


if __name__ == "__main__":
    main()
