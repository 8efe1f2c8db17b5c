"""A small pool of random candidates with every column, for tests of single methods."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from activedpo_cli.select.methods.base import Candidates, Labelled

RESPONSES = 4


def random_pool(prompts: int = 7, labelled: int = 5, seed: int = 0, **given: Any) -> Candidates:
    """Four responses a prompt and all six pairs of them, in a shuffled order; `given` columns replace random ones."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.combinations(torch.arange(RESPONSES))
    rows = (RESPONSES * torch.arange(prompts)[:, None, None] + pairs).flatten(0, 1)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    columns = random_columns(RESPONSES * prompts, generator)
    return Candidates(
        row_a=rows[:, 0],
        row_b=rows[:, 1],
        prompt_index=rows[:, 0].div(RESPONSES, rounding_mode="floor"),
        **(columns | {"labelled": _labelled_alike(labelled, generator, given)} | given),
    )


def _labelled_alike(pairs: int, generator: torch.Generator, given: dict[str, Any]) -> Labelled | None:
    if not pairs:
        return None
    return replace(random_labelled(pairs, generator), normalise=given.get("normalise", "none"))


def random_labelled(pairs: int, generator: torch.Generator) -> Labelled:
    """Pairs of responses of their own, answered at random."""
    rows = torch.arange(pairs)
    preferred = torch.randint(-1, 2, (pairs,), generator=generator)
    return Labelled(row_a=rows, row_b=rows + pairs, preferred=preferred, **random_columns(2 * pairs, generator))


def random_columns(responses: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Features in nine dimensions, hidden states in eight, log-probabilities of a policy near its reference."""
    ref_logps = -40 * torch.rand(responses, generator=generator)
    return {
        "features": torch.randn(responses, 9, generator=generator),
        "hidden": torch.randn(responses, 8, generator=generator),
        "mean_hidden": torch.randn(responses, 8, generator=generator),
        "scores": torch.randn(responses, generator=generator),
        "logps": ref_logps + 10 * torch.randn(responses, generator=generator),
        "ref_logps": ref_logps,
    }


def seeded(seed: int = 0) -> torch.Generator:
    """A generator as a stage passes it in."""
    return torch.Generator().manual_seed(seed)
