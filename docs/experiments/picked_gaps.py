"""Does the score of a pair know how far apart its two responses are in reward?

    python docs/experiments/picked_gaps.py RUN [RUN…]     writes docs/results/picked-gaps/tables.json

For runs of the built-in task with features in iteration 1. Picks 50 pairs again under several settings, without training.
The table has a row for each run and setting: the mean |difference in reward| of the picked pairs, of all candidates, and of
the 50 pairs where it is largest.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from result_table import write_table

from activedpo_cli.base.records import FeatureRow
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles import reward_model
from activedpo_cli.pairs.pair_features import pair_features
from activedpo_cli.reports.wording import number
from activedpo_cli.select.design.greedy import greedy_uncertainty
from activedpo_cli.store.feature_files import read_columns
from activedpo_cli.store.run import Run

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


def row_of(
    features: torch.Tensor,
    gaps: np.ndarray,
    couples: np.ndarray,
    *,
    ridge: float = 0.1,
    budget: int = BUDGET,
    normalise: str = "response",
) -> list[str]:
    """Pick, and the cells of a row; `ridge` is in units of the mean squared norm of a response's features."""
    rows = torch.as_tensor(couples)
    phi = pair_features(features, rows[:, 0], rows[:, 1], normalise)
    scale = float(features.square().sum(dim=1).mean()) if normalise == "none" else 1.0
    priority = torch.randperm(len(couples), generator=torch.Generator().manual_seed(0))
    picked, _ = greedy_uncertainty(phi, phi[:0], ridge * scale, budget, priority=priority)
    norms = phi.norm(dim=1).numpy()
    correlation = number(float(np.corrcoef(norms, gaps)[0, 1]), 2) if norms.std() > 1e-9 else ""
    means = (gaps[picked.numpy()].mean(), gaps.mean(), np.sort(gaps)[-budget:].mean())
    return [f"{norms.mean():.2f} ± {norms.std():.2f}", correlation, *(number(float(mean), 2) for mean in means)]


def main(paths: list[str]) -> None:
    """Write the table."""
    rows = []
    for path in paths:
        features, rewards, couples = read_pool(Run.open(Path(path)))
        gaps = np.abs(rewards[couples[:, 0]] - rewards[couples[:, 1]])
        third = len(gaps) // 3
        found = {
            "as shipped": row_of(features, gaps, couples),
            "first third of the pool": row_of(features, gaps[:third], couples[:third]),
            "budget 10": row_of(features, gaps, couples, budget=10),
            "λ 0.001": row_of(features, gaps, couples, ridge=0.001),
            "λ 10": row_of(features, gaps, couples, ridge=10.0),
            "pair normalised": row_of(features, gaps, couples, normalise="pair"),
            "not normalised, λ 0.1 of the mean squared norm": row_of(features, gaps, couples, normalise="none"),
        }
        rows += [[Path(path).name, label, *cells] for label, cells in found.items()]
    columns = ["run", "setting", "‖φ‖ of candidates", "its correlation with the difference", "picked", "all", "largest"]
    write_table("picked-gaps", "Mean difference in reward within pairs", columns, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
