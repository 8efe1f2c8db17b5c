"""What are the pairs like that a method buys? How far apart in score and in states, and whether their answers say the same.

    python docs/experiments/bought_pairs.py runs/methods random activedpo …     writes docs/results/bought-pairs/tables.json

Reads the preferences of every run of the experiment. A pair's step z is the mean last hidden state of its preferred response
under the initial model, less that of the other. Agreement is ‖Σz‖ / Σ‖z‖ over the pairs of an iteration: 1 where all answers
point one way, about 1/√n where n of them have nothing in common. Writes one table, a row for each arm.
"""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

import torch
from result_table import rows_of, write_table
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from activedpo_cli.base.yaml_text import read_yaml
from activedpo_cli.reports.wording import with_interval
from activedpo_cli.statistics.summaries import mean_interval


def state_of(model: PreTrainedModel, response: dict) -> Tensor:
    """The mean last hidden state over the response's tokens."""
    prompt, own = response["prompt_token_ids"], response["token_ids"]
    with torch.no_grad():
        states = model(torch.tensor([[*prompt, *own]]), output_hidden_states=True).hidden_states[-1][0]
    return states[len(prompt) :].double().mean(dim=0)


def of_iteration(model: PreTrainedModel, iteration: Path) -> list[float]:
    """Mean score gap, mean ‖z‖ and agreement of the pairs bought."""
    responses = {
        row["response_id"]: row for path in iteration.glob("generate/responses-*.jsonl") for row in rows_of(path)
    }
    bought = rows_of(iteration / "label" / "preferences.jsonl")
    steps = torch.stack(
        [
            state_of(model, responses[row["chosen_id"]]) - state_of(model, responses[row["rejected_id"]])
            for row in bought
        ]
    )
    lengths = steps.norm(dim=1)
    gaps = [row["score_chosen"] - row["score_rejected"] for row in bought]
    return [fmean(gaps), float(lengths.mean()), float(steps.sum(dim=0).norm() / lengths.sum())]


def finished(folder: Path, arm: str) -> list[Path]:
    """The runs of an arm that got as far as its longest; raises ValueError where there is none."""
    found = {
        run: len(list(run.glob("iter-*/evaluate/manifest.json")))
        for run in sorted((folder / "runs").glob(f"{arm}-s[0-9]*"))
    }
    if not any(found.values()):
        raise ValueError(f"`{folder}` has no finished run of `{arm}`")
    return [run for run, iterations in found.items() if iterations == max(found.values())]


@cache
def initial_model(name: str) -> PreTrainedModel:
    """π_ref of the runs."""
    return AutoModelForCausalLM.from_pretrained(name).eval()


def main(folder: Path, arms: Sequence[str]) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    rows = []
    for arm in arms:
        runs = finished(folder, arm)
        model = initial_model(read_yaml((runs[0] / "config.yaml").read_text())["model"]["name"])
        found = [[of_iteration(model, at) for at in sorted(run.glob("iter-*"))] for run in runs]
        means = [[fmean(column) for column in zip(*iterations, strict=True)] for iterations in found]
        rows.append(
            [arm, str(len(runs)), *(with_interval(*mean_interval(column)) for column in zip(*means, strict=True))]
        )
    columns = ["arm", "seeds", "difference in score", "distance of states", "agreement of the answers"]
    write_table("bought-pairs", "The pairs bought, means over five iterations", columns, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
