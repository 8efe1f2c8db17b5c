"""What every acquisition method receives and returns, and the few steps that several share.

A method is a module with a docstring (its first line is the help), `NEEDS` (columns of *featurize*, and `texts`), `Settings`
and `choose`, which `best_by` makes from a score where no pick changes the score of another pair. It may offer more of what
follows, so that nobody has to know which method it is:

- `choose_streamed(…)`: what `choose` chooses, where the candidates do not fit into memory; see `activedpo`.
- `describe(candidates, chosen, settings)`: facts about a choice for people, which *select* adds to its summary.
- `note(candidates, budget, settings)`: a sentence, without its subject, on what the numbers of a comparison do not show.
- `design(labelled_pair_features, settings)`: the V of pairs' projected gradients by which it chooses; `show --why` asks it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.models.implicit_reward import implicit_reward
from activedpo_cli.pairs.pair_features import PairFeatures, RowsInMemory, pair_features
from activedpo_cli.select.scores.entropy import prompt_entropies
from activedpo_cli.select.scores.ranking import ranked
from activedpo_cli.statistics.bradley_terry import PredictedGaps, predicted_gaps


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """Pairs, each as two rows of columns that have a row for each response; a column is None where nobody computed it.

    Attributes:
        row_a: Row of the pair's first response in the columns.
        row_b: Row of its second response.
        features: Projected gradients, as they were computed.
        logps: Summed log π of each response under the current policy.
        ref_logps: The same under π_ref.
        hidden: Last hidden state of π_ref at the response's last token.
        mean_hidden: Last hidden states of π_ref averaged over the response's tokens.
        scores: What the oracle would say of each response; only a ceiling reads the answers before it buys them.
        normalise: What φ is normalised by, `select.normalise`: response, pair or none.

    """

    row_a: Int[Tensor, " pairs"]
    row_b: Int[Tensor, " pairs"]
    features: Float[Tensor, "responses proj_dim"] | None = None
    logps: Float[Tensor, " responses"] | None = None
    ref_logps: Float[Tensor, " responses"] | None = None
    hidden: Float[Tensor, "responses hidden_size"] | None = None
    mean_hidden: Float[Tensor, "responses hidden_size"] | None = None
    scores: Float[Tensor, " responses"] | None = None
    normalise: str = "none"

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.row_a)

    def column(self, name: str) -> Tensor:
        """A column that a method needs; raises ValueError where it was not computed."""
        found: Tensor | None = getattr(self, name)
        if found is None:
            raise ValueError(f"these {type(self).__name__.lower()} have no {name}")
        return found

    def pair_features(self, rows: Int[Tensor, " rows"] | None = None) -> Float[Tensor, "rows proj_dim"]:
        """φ = features of a − features of b, normalised, in float64 so that norms made equal stay equal; of all, or some."""
        pairs = PairFeatures(RowsInMemory(self.column("features")), self.row_a, self.row_b, self.normalise)
        return pairs.all() if rows is None else pairs.take(rows)

    def differences(self, name: str) -> Float[Tensor, "pairs hidden_size"]:
        """Differences of another column, such as `hidden` or `mean_hidden`, in float64, whose lengths are kept."""
        return pair_features(self.column(name), self.row_a, self.row_b)

    def _margins(self, beta: float) -> Float[Tensor, " pairs"]:
        rewards = implicit_reward(self.column("logps").double(), self.column("ref_logps").double(), beta)
        return rewards[self.row_a] - rewards[self.row_b]


@dataclass(frozen=True, kw_only=True)
class Labelled(PairTable):
    """Pairs labelled earlier, with columns of their own, computed under the current policy.

    `preferred` is +1 where response a was preferred, −1 for b, 0 for a tie or both bad.
    """

    preferred: Int[Tensor, " pairs"]


@dataclass(frozen=True, kw_only=True)
class Candidates(PairTable):
    """Pairs that could be labelled now, and what is known about them.

    Attributes:
        prompt_index: Candidates of one prompt share a value.
        texts: The responses themselves.
        times_sampled: How often each response's text was sampled for its prompt; None: once each.
        labelled: Pairs labelled earlier, with the columns that the candidates have.
        beta: β of the implicit reward, `train.beta`.

    """

    prompt_index: Int[Tensor, " pairs"]
    texts: tuple[str, ...] | None = None
    times_sampled: Int[Tensor, " responses"] | None = None
    labelled: Labelled | None = None
    beta: float = 0.1

    def history(self) -> Float[Tensor, "labelled proj_dim"]:
        """φ of the pairs labelled earlier, normalised as the candidates; no rows where there are none."""
        return self._no_differences("features") if self.labelled is None else self.labelled.pair_features()

    def labelled_differences(self, name: str) -> Float[Tensor, "labelled hidden_size"]:
        """Differences of a column over the pairs labelled earlier; no rows where there are none."""
        return self._no_differences(name) if self.labelled is None else self.labelled.differences(name)

    def margins(self) -> Float[Tensor, " pairs"]:
        """Δr̂ = β (log π/π_ref of a − log π/π_ref of b), in float64; zero for a policy that is π_ref."""
        return self._margins(self.beta)

    def labelled_margins(self) -> Float[Tensor, " labelled"]:
        """Δr̂ of the pairs labelled earlier, under the current policy too; none where there are none."""
        return torch.zeros(0, dtype=torch.float64) if self.labelled is None else self.labelled._margins(self.beta)

    def prompt_entropies(self) -> Float[Tensor, " pairs"]:
        """Ĥ(x) of each pair's prompt, from the log-probabilities of its responses; see `select.scores.entropy`."""
        return prompt_entropies(
            self.column("logps"), self.row_a, self.row_b, self.prompt_index, self.times_sampled
        ).cpu()

    def _no_differences(self, name: str) -> Float[Tensor, "0 width"]:
        return self.column(name).new_zeros(0, self.column(name).shape[1], dtype=torch.float64)


@dataclass(frozen=True)
class Selection:
    """The pairs chosen, best first: rows of the candidates, and the method's value of each when it was picked."""

    rows: Int[Tensor, " chosen"]
    scores: Float[Tensor, " chosen"]


@runtime_checkable
class Choose(Protocol):
    """The function that makes a module in this folder a method."""

    def __call__(
        self,
        candidates: Candidates,
        budget: int,
        settings: Any,
        generator: torch.Generator,
        max_per_prompt: int | None = None,
    ) -> Selection:
        """Choose exactly `budget` pairs; raises ValueError where so many can not be taken."""


def capacity(prompt_index: Int[Tensor, " pairs"], max_per_prompt: int | None = None) -> int:
    """The most pairs that can be chosen: all, or at most `max_per_prompt` of each prompt."""
    if max_per_prompt is None:
        return len(prompt_index)
    return int(prompt_index.unique(return_counts=True)[1].clamp(max=max_per_prompt).sum())


def check_budget(candidates: Candidates, budget: int, max_per_prompt: int | None = None) -> None:
    """Raise ValueError unless `budget` pairs can be chosen; a method calls it first."""
    possible = capacity(candidates.prompt_index, max_per_prompt)
    if not 1 <= budget <= possible:
        raise ValueError(f"the budget is {budget} pairs, and between 1 and {possible} can be chosen")


def seeded_order(count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """A random order of `count` rows, on the CPU, that depends on the generator's seed only."""
    return torch.randperm(count, generator=generator, device=generator.device).cpu()


def take_best(
    candidates: Candidates,
    scores: Float[Tensor, " pairs"],
    budget: int,
    generator: torch.Generator,
    max_per_prompt: int | None = None,
    *,
    largest_first: bool = True,
) -> Selection:
    """The `budget` best-scored pairs at once, ties in a seeded order; for methods whose scores no pick changes."""
    found = scores.cpu()
    order = ranked(found, seeded_order(len(candidates), generator), largest_first=largest_first)
    rows = take_in_order(order, candidates.prompt_index, budget, max_per_prompt)
    return Selection(rows=rows, scores=found[rows])


def best_by(score: Callable[[Candidates, Any], Float[Tensor, " pairs"]], *, largest_first: bool = True) -> Choose:
    """The `choose` of a method that takes the pairs with the best scores at once, ties in a seeded order."""

    def choose(
        candidates: Candidates,
        budget: int,
        settings: Any,
        generator: torch.Generator,
        max_per_prompt: int | None = None,
    ) -> Selection:
        check_budget(candidates, budget, max_per_prompt)
        found = score(candidates, settings)
        return take_best(candidates, found, budget, generator, max_per_prompt, largest_first=largest_first)

    return choose


def gaps_by_labels(candidates: Candidates, l2: float) -> PredictedGaps | None:
    """The candidates' reward gaps on mean states, by a Bradley–Terry head fitted to the labels; None before the first."""
    if candidates.labelled is None or len(candidates.labelled) == 0:
        return None
    known, labelled = candidates.labelled_differences("mean_hidden"), candidates.labelled.preferred
    return predicted_gaps(candidates.differences("mean_hidden"), known, labelled, l2)


def take_in_order(
    order: Int[Tensor, " pairs"],
    prompt_index: Int[Tensor, " pairs"],
    budget: int,
    max_per_prompt: int | None = None,
) -> Int[Tensor, " chosen"]:
    """The first `budget` rows of `order`, passing over pairs of prompts that already have `max_per_prompt`."""
    prompts = prompt_index.tolist()
    taken_of_prompt: dict[int, int] = {}
    rows: list[int] = []
    for row in order.tolist():
        if len(rows) == budget:
            break
        taken = taken_of_prompt.get(prompts[row], 0)
        if max_per_prompt is None or taken < max_per_prompt:
            taken_of_prompt[prompts[row]] = taken + 1
            rows.append(row)
    return torch.tensor(rows, dtype=torch.int64)
