"""Does a choice of pairs point where the reward grows, and what keeps it from doing so? Nothing is trained for an answer.

    activedpo experiment docs/experiments/stories/training-development.yaml --arms new
    python docs/experiments/stories/what_bounds.py runs/training-development     writes docs/results/what-bounds/tables.json

A run of random pairs has a pool of 750 pairs in each of five iterations. A criterion buys 30 of them, its answers are drawn,
and so on through the iterations, in which it learns from the answers it has bought. DPO's first step on a batch is
Σ ± (∇log π(a) − ∇log π(b)), signs being the answers. Its cosine with the policy gradient Σ (r − mean r) ∇log π of all
prompts that were not bought says whether it is the step that the scores ask for. Gradients are those of the adapter, in a
count sketch.

Everything but the answers is fixed: each seed's value is a mean over sixty-four draws. What takes minutes, the gradients, is
kept in `FOLDER/pools/`. Needs vaderSentiment and afinn.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from activedpo_cli import featurize
from activedpo_cli.base.yaml_text import read_yaml
from activedpo_cli.reports.wording import with_interval
from activedpo_cli.select.methods.base import take_in_order
from activedpo_cli.statistics.bradley_terry import PredictedGaps, predicted_gaps
from activedpo_cli.statistics.summaries import mean_interval
from docs.experiments.result_table import rows_of, write_table

SKETCH = 16384
BUDGET = 30
TEMPERATURE = 0.5
DRAWS = 64
SCORERS = ("vader", "afinn")
WEAK, STRONG = 1.0, 30.0
"""Precisions of the head's prior: the method's own, and one for answers of which a third is wrong."""


@dataclass(frozen=True)
class Pool:
    """The pairs of one iteration.

    Attributes:
        prompt: Pairs of one prompt share a number.
        gaps: Score of a less that of b, by each scorer.
        states: Mean last state of a less that of b under the initial model.
        gram: Inner products of the pairs' gradients.
        ascent: Inner product of each pair's gradient and each prompt's policy gradient, by scorer.
        ascent_gram: Inner products of the prompts' policy gradients, by scorer.

    """

    prompt: Tensor
    gaps: dict[str, Tensor]
    states: Tensor
    gram: Tensor
    ascent: dict[str, Tensor]
    ascent_gram: dict[str, Tensor]

    def cosine(self, rows: Tensor, answers: Tensor, scorer: str) -> float:
        """Of the step that these answers about these pairs make, and the policy gradient of the other prompts."""
        others = torch.ones(len(self.ascent_gram[scorer]), dtype=torch.bool)
        others[self.prompt[rows]] = False
        step = answers @ self.gram[rows][:, rows] @ answers
        wanted = self.ascent_gram[scorer][others][:, others].sum()
        return float(answers @ self.ascent[scorer][rows][:, others].sum(dim=1) / (step * wanted).sqrt())


@dataclass(frozen=True)
class Bought:
    """Pairs bought from a pool, and what was answered: 1 for a, −1 for b."""

    pool: Pool
    rows: Tensor
    answers: Tensor


Criterion = Callable[[Pool, Sequence[Bought], torch.Generator], Tensor]


def read_pool(run: Path, iteration: int, kept: Path) -> Pool:
    """The pool of a run's iteration, under the policy that wrote it."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file(_measured(run, iteration), kept)
    found = load_file(kept)
    named = {
        part: {scorer: found[f"{part}.{scorer}"] for scorer in SCORERS} for part in ("gaps", "ascent", "ascent_gram")
    }
    return Pool(found["prompt"], named["gaps"], found["states"], found["gram"], named["ascent"], named["ascent_gram"])


def _measured(run: Path, iteration: int) -> dict[str, Tensor]:
    from docs.experiments.stories import scorers

    name = read_yaml((run / "config.yaml").read_text())["model"]["name"]
    before = f"iter-{iteration - 1:03d}/train/adapter" if iteration > 1 else "reference/initial-adapter/adapter"
    base = AutoModelForCausalLM.from_pretrained(name)
    policy = PeftModel.from_pretrained(base, run / before, is_trainable=True)
    responses = [
        row
        for path in sorted((run / f"iter-{iteration:03d}/generate").glob("responses-*.jsonl"))
        for row in rows_of(path)
    ]
    rows = [row | {"prompt": row["prompt_id"], "completion": row["text"]} for row in responses]
    columns = ("features", "mean_hidden")
    read = featurize(
        policy, AutoTokenizer.from_pretrained(name), rows, columns=columns, proj_dim=SKETCH, projection="count-sketch"
    ).columns
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(row["prompt_id"] for row in responses))}
    prompt = torch.tensor([numbers[row["prompt_id"]] for row in responses])
    a, b = torch.triu_indices(len(prompt), len(prompt), 1)
    a, b = (side[prompt[a] == prompt[b]] for side in (a, b))
    steps = read["features"][a] - read["features"][b]
    found = {"prompt": prompt[a], "states": (read["mean_hidden"][a] - read["mean_hidden"][b]).double()}
    found["gram"] = (steps @ steps.T).double()
    texts = [row["text"] for row in responses]
    for scorer in SCORERS:
        scores = torch.tensor(getattr(scorers, scorer)(texts, texts), dtype=torch.float64)
        mean = torch.zeros(len(numbers), dtype=torch.float64).index_add(0, prompt, scores) / prompt.bincount()
        weighted = (scores - mean[prompt]).float()[:, None] * read["features"]
        ascent = torch.zeros(len(numbers), SKETCH).index_add(0, prompt, weighted)
        found[f"gaps.{scorer}"] = scores[a] - scores[b]
        found[f"ascent.{scorer}"] = (steps @ ascent.T).double()
        found[f"ascent_gram.{scorer}"] = (ascent @ ascent.T).double()
    return found


def best(pool: Pool, worth: Tensor) -> Tensor:
    """The pairs of most worth, one a prompt."""
    return take_in_order(worth.argsort(descending=True), pool.prompt, BUDGET, max_per_prompt=1)


def at_random(pool: Pool, before: Sequence[Bought], generator: torch.Generator) -> Tensor:
    """Any pairs, of one prompt too."""
    return torch.randperm(len(pool.prompt), generator=generator)[:BUDGET]


def by_distance(pool: Pool, before: Sequence[Bought], generator: torch.Generator) -> Tensor:
    """`state-norm`."""
    return best(pool, pool.states.norm(dim=1))


def by_head(worth: Callable[[PredictedGaps], Tensor], l2: float) -> Criterion:
    """What a head says that the answers bought so far give; the distance of states before the first."""

    def choose(pool: Pool, before: Sequence[Bought], generator: torch.Generator) -> Tensor:
        if not before:
            return by_distance(pool, before, generator)
        known = torch.cat([one.pool.states[one.rows] for one in before])
        return best(pool, worth(predicted_gaps(pool.states, known, torch.cat([one.answers for one in before]), l2)))

    return choose


def by_everybody(scorer_knows: str) -> Criterion:
    """What a head would say that had an answer, or the very gap, for all 750 pairs of every earlier pool."""

    def choose(pool: Pool, before: Sequence[Bought], generator: torch.Generator) -> Tensor:
        if not before:
            return by_distance(pool, before, generator)
        known = torch.cat([one.pool.states for one in before])
        gaps = torch.cat([one.pool.gaps["vader"] for one in before])
        if scorer_knows == "answers":
            return best(pool, predicted_gaps(pool.states, known, drawn(gaps, generator), STRONG).mean.abs())
        ridge = 10 * known.square().sum(dim=1).mean() * torch.eye(known.shape[1], dtype=torch.float64)
        return best(pool, (pool.states @ torch.linalg.solve(known.T @ known + ridge, known.T @ gaps)).abs())

    return choose


def by_scores(scorer: str) -> Criterion:
    """The largest true gap by a scorer; by the one that answers it is `true-gap`."""
    return lambda pool, before, generator: best(pool, pool.gaps[scorer].abs())


def by_ascent(pool: Pool, before: Sequence[Bought], generator: torch.Generator) -> Tensor:
    """The pairs whose expected answer goes farthest along the very policy gradient, for their length."""
    certainty = 2 * (pool.gaps["vader"] / TEMPERATURE).sigmoid() - 1
    return best(pool, certainty * pool.ascent["vader"].sum(dim=1) / pool.gram.diagonal().sqrt())


def optimistic(found: PredictedGaps) -> Tensor:
    """The gap that the head expects, and one standard deviation."""
    return found.mean.abs() + found.deviation


CRITERIA: dict[str, Criterion] = {
    "random": at_random,
    "state-norm": by_distance,
    "reward-gap, l2 1": by_head(lambda found: found.mean.abs(), WEAK),
    "reward-gap, l2 30": by_head(lambda found: found.mean.abs(), STRONG),
    "expected gap, l2 1": by_head(PredictedGaps.expected_size, WEAK),
    "expected gap, l2 30": by_head(PredictedGaps.expected_size, STRONG),
    "optimistic gap, l2 1": by_head(optimistic, WEAK),
    "optimistic gap, l2 30": by_head(optimistic, STRONG),
    "what is known least, l2 1": by_head(lambda found: found.deviation, WEAK),
    "gap of a head with all answers": by_everybody("answers"),
    "gap of a head with all gaps": by_everybody("gaps"),
    "largest gap by AFINN": by_scores("afinn"),
    "true-gap": by_scores("vader"),
    "along the policy gradient": by_ascent,
}


def drawn(gaps: Tensor, generator: torch.Generator, temperature: float = TEMPERATURE) -> Tensor:
    """Answers from the Bradley–Terry model: 1 for a, −1 for b."""
    says_a = torch.rand(len(gaps), generator=generator, dtype=torch.float64) < (gaps / temperature).sigmoid()
    return 2 * says_a.double() - 1


def gone_through(criterion: Criterion, pools: Sequence[Pool], generator: torch.Generator) -> list[float]:
    """Means over the iterations: cosine by each scorer, share of right answers, true gap."""
    before: list[Bought] = []
    found = []
    for pool in pools:
        rows = criterion(pool, before, generator)
        gaps = pool.gaps["vader"][rows]
        bought = Bought(pool, rows, drawn(gaps, generator))
        before.append(bought)
        right = (bought.answers * gaps > 0).double() + (gaps == 0).double() / 2
        cosines = [pool.cosine(rows, bought.answers, scorer) for scorer in SCORERS]
        found.append([*cosines, float(right.mean()), float(gaps.abs().mean())])
    return [fmean(column) for column in zip(*found, strict=True)]


def finished_pools(folder: Path) -> dict[str, list[Pool]]:
    """The five pools of each finished run with random pairs and new labels, by its seed."""
    runs = sorted((folder / "runs").glob("new-s[0-9]*"))
    seeds = {run.name.rpartition("-s")[2]: run for run in runs if (run / "iter-005/evaluate/manifest.json").exists()}
    return {
        seed: [read_pool(run, at, folder / "pools" / f"s{seed}-{at}.safetensors") for at in range(1, 6)]
        for seed, run in seeds.items()
    }


def main(folder: Path) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    pools = finished_pools(folder)
    found = {}
    for name, criterion in CRITERIA.items():
        by_seed = []
        for seed, one in pools.items():
            generator = torch.Generator().manual_seed(int(seed))
            draws = [gone_through(criterion, one, generator) for _ in range(DRAWS)]
            by_seed.append([fmean(column) for column in zip(*draws, strict=True)])
        found[name] = [list(column) for column in zip(*by_seed, strict=True)]
        print(json.dumps({name: [round(fmean(column), 3) for column in found[name]]}), flush=True)
    low, high = found["random"][0], found["true-gap"][0]
    rows = []
    for name, (cosine, second, right, gap) in found.items():
        way = [(one - least) / (most - least) for one, least, most in zip(cosine, low, high, strict=True)]
        rows.append(
            [
                name,
                str(len(cosine)),
                with_interval(*mean_interval(cosine)),
                f"{100 * fmean(way):.0f} %",
                with_interval(*mean_interval(second)),
                f"{100 * fmean(right):.0f} %",
                f"{fmean(gap):.2f}",
            ]
        )
    columns = ["criterion", "seeds", "cosine by VADER", "of the way", "cosine by AFINN", "answers right", "gap"]
    write_table("what-bounds", "The first step on thirty drawn answers", columns, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
