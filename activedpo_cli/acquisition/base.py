"""What every acquisition method receives and returns, and the few steps that several share.

A method is a module with a docstring (its first line is the help), `NEEDS`, `Settings` and `choose`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from activedpo_cli.core.pair_features import difference_features
from activedpo_cli.settings import Section
from activedpo_cli.shapes import Float, Int


@dataclass(frozen=True)
class Candidates:
    """Pairs that could be labelled now, and what is known about them.

    Attributes:
        row_a: Row of the pair's first response in the per-response columns.
        row_b: Row of its second response.
        prompt_index: Candidates of one prompt share a value.
        features: Projected gradients, normalised per response if `select.normalise` says so.
        labelled_pair_features: φ of the pairs labelled earlier, under the current policy, normalised as the candidates.
        logps: Summed log π of each response under the current policy.
        normalise_pairs: Whether φ is brought to unit norm.

    """

    row_a: Int[Tensor, " pairs"]
    row_b: Int[Tensor, " pairs"]
    prompt_index: Int[Tensor, " pairs"]
    features: Float[Tensor, "responses proj_dim"] | None = None
    labelled_pair_features: Float[Tensor, "labelled proj_dim"] | None = None
    logps: Float[Tensor, " responses"] | None = None
    normalise_pairs: bool = False

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.row_a)

    def pair_features(self) -> Float[Tensor, "pairs proj_dim"]:
        """φ = features of a − features of b, in float64 so that equal norms stay equal after normalisation.

        Raises ValueError where there are no features.
        """
        if self.features is None:
            raise ValueError("these candidates have no features")
        return difference_features(self.features, self.row_a, self.row_b, normalise=self.normalise_pairs)

    def history(self) -> Float[Tensor, "labelled proj_dim"]:
        """φ of the pairs labelled earlier; no rows where there are none."""
        if self.labelled_pair_features is not None:
            return self.labelled_pair_features
        if self.features is None:
            raise ValueError("these candidates have no features")
        return self.features.new_zeros(0, self.features.shape[1])


@dataclass(frozen=True)
class Selection:
    """The pairs chosen, best first: rows of the candidates, and the method's value of each when it was picked."""

    rows: Int[Tensor, " chosen"]
    scores: Float[Tensor, " chosen"]


class Method(Protocol):
    """What a module in this folder offers."""

    NEEDS: tuple[str, ...]
    Settings: type[Section]

    def choose(
        self,
        candidates: Candidates,
        budget: int,
        settings: Section,
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
