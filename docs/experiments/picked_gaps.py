"""Does the score of a pair know how far apart its two responses are in reward?

    python docs/experiments/picked_gaps.py RUN [RUN…]

For runs of the built-in task with features in iteration 1. Picks 50 pairs again under several settings, without training,
and prints the mean |difference in reward| of the picked pairs, of all candidates, and of the 50 pairs where it is largest.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from activedpo_cli.artifacts.feature_files import read_columns
from activedpo_cli.artifacts.run import Run
from activedpo_cli.core.greedy import greedy_uncertainty
from activedpo_cli.core.normalisation import unit_rows
from activedpo_cli.core.pair_features import difference_features
from activedpo_cli.oracles import reward_model
from activedpo_cli.records import FeatureRow
from activedpo_cli.settings import LabelSettings

BUDGET = 50


def read_pool(run: Run) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Features and rewards of the responses of iteration 1, and the candidate pairs as couples of rows."""
    texts = {row.prompt_id: row.prompt for row in run.prompts()}
    responses = {row.response_id: row for row in run.responses(1)}
    folder = run.stage("featurize", 1)
    rows = folder.read_rows("rows.jsonl", FeatureRow)
    oracle = reward_model.build("tiny", LabelSettings(), "cpu")
    rewards = oracle.score([texts[row.prompt_id] for row in rows], [responses[row.response_id].text for row in rows])
    of_prompt: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_prompt.setdefault(row.prompt_id, []).append(place)
    couples = [couple for places in of_prompt.values() for couple in combinations(places, 2)]
    return read_columns(folder)["features"].double(), np.array(rewards), np.array(couples)


def print_row(
    label: str,
    features: torch.Tensor,
    gaps: np.ndarray,
    couples: np.ndarray,
    *,
    ridge: float = 0.1,
    budget: int = BUDGET,
    normalise: str = "response",
) -> None:
    """Pick and print one line; `ridge` is in units of the mean squared norm of a response's features."""
    used = unit_rows(features) if normalise == "response" else features
    rows = torch.as_tensor(couples)
    phi = difference_features(used, rows[:, 0], rows[:, 1], normalise=normalise == "pair")
    scale = float(used.square().sum(dim=1).mean()) if normalise == "none" else 1.0
    priority = torch.randperm(len(couples), generator=torch.Generator().manual_seed(0))
    picked, _ = greedy_uncertainty(phi, phi[:0], ridge * scale, budget, priority=priority)
    norms = phi.norm(dim=1).numpy()
    correlation = np.corrcoef(norms, gaps)[0, 1] if norms.std() > 1e-9 else float("nan")
    print(
        f"  {label:24} norm {norms.mean():6.2f} ± {norms.std():5.2f}   correlation {correlation:+.2f}   picked "
        f"{gaps[picked.numpy()].mean():.2f}   all {gaps.mean():.2f}   largest {np.sort(gaps)[-budget:].mean():.2f}"
    )


def main(paths: list[str]) -> None:
    """Print a block for each run."""
    for path in paths:
        features, rewards, couples = read_pool(Run.open(Path(path)))
        gaps = np.abs(rewards[couples[:, 0]] - rewards[couples[:, 1]])
        print(f"{Path(path).name}: {len(couples)} candidates")
        print_row("as shipped", features, gaps, couples)
        print_row("first third of the pool", features, gaps[: len(gaps) // 3], couples[: len(gaps) // 3])
        print_row("budget 10", features, gaps, couples, budget=10)
        print_row("ridge 0.001", features, gaps, couples, ridge=0.001)
        print_row("ridge 10", features, gaps, couples, ridge=10.0)
        print_row("normalise pair", features, gaps, couples, normalise="pair")
        print_row("normalise none", features, gaps, couples, normalise="none")


if __name__ == "__main__":
    main(sys.argv[1:])
