"""Would a pilot of random pairs tell whether choosing pays? Nothing is trained.

    activedpo experiment docs/experiments/stories/training-development.yaml --arms new
    python docs/experiments/stories/what_bounds.py runs/training-development     keeps the pools
    python docs/experiments/stories/pilot.py runs/training-development           writes docs/results/pilot/tables.json

Of the first pool of a run a pilot has random pairs answered. What it can say of `reward-gap` is how often the method's head
foretells answers that it has not seen: accuracy in ten folds, no prompt in two of them, with Wilson's 95 % interval. It says
"yes" where that interval is above one half. Answers are always right, or drawn at three temperatures. What the head is worth
is seen in the next pool: the mean true gap of the thirty pairs that it would buy, from that of random ones (0) to that of
the largest ones (1).
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from activedpo_cli.reports.wording import with_interval
from activedpo_cli.statistics.bradley_terry import fit_bradley_terry
from activedpo_cli.statistics.summaries import mean_interval, win_rate_interval
from docs.experiments.result_table import write_table
from docs.experiments.stories.what_bounds import Pool, best, drawn, finished_pools

SIZES = (30, 60, 150)
PRECISIONS = (1.0, 30.0)
DRAWS = 32
FOLDS = 10

Answers = Callable[[Tensor, torch.Generator], Tensor]


def right(gaps: Tensor, generator: torch.Generator) -> Tensor:
    """The higher score, and a coin where scores are equal."""
    coins = 2 * torch.randint(2, gaps.shape, generator=generator).double() - 1
    return torch.where(gaps == 0, coins, gaps.sign())


ANSWERS: dict[str, Answers] = {"always right": right} | {
    f"drawn at {temperature}": partial(drawn, temperature=temperature) for temperature in (0.1, 0.24, 0.5)
}


def foretold(states: Tensor, answers: Tensor, prompts: Tensor, l2: float, generator: torch.Generator) -> list[bool]:
    """Whether each answer is foretold by a head that was fitted to those about other prompts."""
    numbers = prompts.unique(return_inverse=True)[1]
    fold = torch.randperm(int(numbers.max()) + 1, generator=generator)[numbers] % FOLDS
    hits: list[bool] = []
    for number in fold.unique():
        held_out = fold == number
        head = fit_bradley_terry(states[~held_out], answers[~held_out], l2)
        hits += ((states[held_out] @ head) * answers[held_out] > 0).tolist()
    return hits


def pilot(
    pools: list[Pool], answer: Answers, size: int, l2: float, generator: torch.Generator
) -> tuple[float, float, float]:
    """One pilot: the accuracy, whether it says yes, and how far its choice goes toward the largest gaps."""
    first, after = pools[0], pools[1]
    rows = torch.randperm(len(first.prompt), generator=generator)[:size]
    states, answers = first.states[rows], answer(first.gaps["vader"][rows], generator)
    accuracy = win_rate_interval(foretold(states, answers, first.prompt[rows], l2, generator))
    gaps = after.gaps["vader"].abs()
    bought = best(after, (after.states @ fit_bradley_terry(states, answers, l2)).abs())
    most = gaps[best(after, gaps)].mean()
    way = (gaps[bought].mean() - gaps.mean()) / (most - gaps.mean())
    return accuracy.mean, float(accuracy.low > 0.5), float(way)


def main(folder: Path) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    pools = finished_pools(folder)
    rows = []
    for l2 in PRECISIONS:
        for name, answer in ANSWERS.items():
            for size in SIZES:
                by_seed = []
                for seed, one in pools.items():
                    generator = torch.Generator().manual_seed(int(seed))
                    found = [pilot(one, answer, size, l2, generator) for _ in range(DRAWS)]
                    by_seed.append([fmean(column) for column in zip(*found, strict=True)])
                accuracy, says_yes, way = zip(*by_seed, strict=True)
                rows.append(
                    [
                        name,
                        f"{l2:g}",
                        str(size),
                        with_interval(*mean_interval(list(accuracy))),
                        f"{100 * fmean(says_yes):.0f} %",
                        with_interval(*mean_interval(list(way))),
                    ]
                )
                print(rows[-1], flush=True)
    columns = ["answers", "l2", "labels of the pilot", "answers foretold", "pilots that say yes", "gap of its choice"]
    write_table("pilot", "What a pilot of random pairs says", columns, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
