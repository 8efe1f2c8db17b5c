"""`Features`: what is known about responses, a row each, and the pairs that they form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.settings import Column
from activedpo_cli.base.shapes import Float, Int
from activedpo_cli.python.explaining import explained

COLUMNS: tuple[str, ...] = get_args(Column)
WIDE = frozenset({"features", "hidden", "mean_hidden"})
Pairs = Int[Tensor, "pairs 2"] | Sequence[Sequence[int]]
Numbers = Int[Tensor, " count"] | Sequence[int]


@dataclass(frozen=True, init=False)
class Features:
    """Columns that have a row for each response, and pairs of these rows.

    `featurize` makes them; anybody's own numbers serve as well. Lists and arrays become tensors.

    Attributes:
        columns: By name: `features` (projected gradients, [responses, proj_dim]), `logps` and `ref_logps` (summed over a
            response's tokens, nats, [responses]), `hidden` and `mean_hidden` (states of π_ref, [responses, hidden_size]),
            `scores` (what whoever answers would say, higher is better, [responses]).
        pairs: Two rows for each pair.
        preferred: For each pair 1 where its first response was preferred, −1 for the second, 0 for neither; None where
            nobody has said.
        prompt_index: A number for each response, equal for responses to one prompt; None where that is not known.
        texts: The responses themselves; None where no method is to read them.
        times_sampled: How often each response was sampled for its prompt; None for once each.
        excluded: Rows that are not finite, of which no pair is chosen.
        made_with: Projection and seed of `features`, by name; None where nobody says. Others compare with none of these.

    Raises:
        UsageError: a column has no known name, or lengths, rows or values do not fit.

    >>> import torch
    >>> from activedpo_cli import Features
    >>> known = Features(columns={"features": torch.eye(4)}, pairs=[(0, 1), (2, 3)])
    >>> len(known), known.pairs.tolist()
    (4, [[0, 1], [2, 3]])

    """

    columns: Mapping[str, Float[Tensor, "responses ..."]]
    pairs: Int[Tensor, "pairs 2"]
    preferred: Int[Tensor, " pairs"] | None
    prompt_index: Int[Tensor, " responses"] | None
    texts: tuple[str, ...] | None
    times_sampled: Int[Tensor, " responses"] | None
    excluded: tuple[int, ...]
    made_with: Mapping[str, Any] | None

    @explained
    def __init__(
        self,
        *,
        columns: Mapping[str, Any],
        pairs: Pairs,
        preferred: Numbers | None = None,
        prompt_index: Numbers | None = None,
        texts: Sequence[str] | None = None,
        times_sampled: Numbers | None = None,
        excluded: Sequence[int] = (),
        made_with: Mapping[str, Any] | None = None,
    ) -> None:
        tensors = {name: _column(name, column) for name, column in columns.items()}
        count = _responses(tensors, texts)
        found = as_pairs(pairs, count)
        made = {
            "columns": tensors,
            "pairs": found,
            "preferred": _numbers(preferred, "preferred", len(found), "pairs"),
            "prompt_index": _numbers(prompt_index, "prompt_index", count, "responses"),
            "texts": None if texts is None else tuple(texts),
            "times_sampled": _numbers(times_sampled, "times_sampled", count, "responses"),
            "excluded": tuple(excluded),
            "made_with": made_with,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        if self.preferred is not None and not self.preferred.abs().le(1).all():
            raise UsageError("`preferred` is 1, −1 or 0 for each pair")
        if self.prompt_index is not None:
            _require_one_prompt(self.pairs, self.prompt_index)

    def __len__(self) -> int:
        """Number of responses."""
        return _responses(self.columns, self.texts)

    @explained
    def with_columns(self, **columns: Any) -> "Features":
        """The same with further columns, such as `scores`, or with others in their place."""
        return replace(self, columns={**self.columns, **columns})

    @explained
    def with_pairs(self, pairs: Pairs, preferred: Numbers | None = None) -> "Features":
        """The same responses in other pairs: those that were labelled, for instance, with what was preferred."""
        return replace(self, pairs=pairs, preferred=preferred)  # type: ignore[arg-type]


def as_pairs(pairs: Pairs, responses: int) -> Int[Tensor, "pairs 2"]:
    """Pairs as a tensor; raises UsageError where one is no two different rows of so many responses."""
    found = _integers(pairs, "pairs")
    found = found.reshape(0, 2) if not found.numel() else found
    if found.ndim != 2 or found.shape[1] != 2:
        raise UsageError(f"`pairs` are two rows each, and have the shape {list(found.shape)}")
    outside = ((found < 0) | (found >= responses)).any(dim=1) | (found[:, 0] == found[:, 1])
    if outside.any():
        place = int(outside.nonzero()[0])
        raise UsageError(
            f"pair {place} is {tuple(found[place].tolist())}, and a pair is two different rows of {responses} responses"
        )
    return found


def _column(name: str, values: Any) -> Float[Tensor, "responses ..."]:
    """A column as a tensor of floats; raises UsageError where it is called as none is, or is of another shape."""
    if name not in COLUMNS:
        raise UsageError(
            f"`{name}` is no column" + did_you_mean(name, COLUMNS), details=[f"known: {', '.join(COLUMNS)}"]
        )
    found = torch.as_tensor(values)
    found = found if found.is_floating_point() else found.to(torch.get_default_dtype())
    if found.ndim != (2 if name in WIDE else 1):
        what = "a row of numbers" if name in WIDE else "one number"
        raise UsageError(f"`{name}` has {what} for each response, and not the shape {list(found.shape)}")
    return found


def _responses(columns: Mapping[str, Tensor], texts: Sequence[str] | None) -> int:
    """How many there are; raises UsageError where columns do not agree."""
    lengths = {name: len(column) for name, column in columns.items()} | ({} if texts is None else {"texts": len(texts)})
    if len(set(lengths.values())) > 1:
        raise UsageError(
            "columns have a row for each response, and these differ in length",
            details=[f"{name}: {length}" for name, length in lengths.items()],
        )
    return next(iter(lengths.values()), 0)


def _integers(values: Any, name: str) -> Int[Tensor, "..."]:
    """Whole numbers as int64; raises UsageError for anything else."""
    found = torch.as_tensor(values).cpu()
    if found.numel() and (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool):
        raise UsageError(f"`{name}` are whole numbers, not {str(found.dtype).removeprefix('torch.')}")
    return found.to(torch.int64)


def _numbers(values: Any, name: str, count: int, what: str) -> Int[Tensor, " count"] | None:
    if values is None:
        return None
    found = _integers(values, name)
    if found.shape != (count,):
        raise UsageError(f"`{name}` has the shape {list(found.shape)}, and there are {count} {what}")
    return found


def _require_one_prompt(pairs: Int[Tensor, "pairs 2"], prompt_index: Int[Tensor, " responses"]) -> None:
    prompts = prompt_index[pairs]
    mixed = (prompts[:, 0] != prompts[:, 1]).nonzero()
    if len(mixed):
        place = int(mixed[0])
        raise UsageError(
            f"pair {place}, {tuple(pairs[place].tolist())}, holds responses to different prompts, which nobody compares"
        )
