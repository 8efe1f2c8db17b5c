"""`choose`: which pairs are worth a label, by any method, from features in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import Column
from activedpo_cli.base.shapes import Bool, Float, Int
from activedpo_cli.python.explaining import explained
from activedpo_cli.python.features import COLUMNS, Features, Pairs, as_pairs
from activedpo_cli.select.from_files.candidate_files import first_unusable
from activedpo_cli.select.method_settings import checked_settings
from activedpo_cli.select.methods.base import Candidates, Labelled, capacity


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The pairs that a method chose, best first.

    Attributes:
        method: Its name.
        indices: Places among the pairs that there were to choose from.
        pairs: The two rows of the features of each.
        scores: The method's value of each when it was picked; `activedpo ls methods` says what that is.

    """

    method: str
    indices: Int[Tensor, " chosen"]
    pairs: Int[Tensor, "chosen 2"]
    scores: Float[Tensor, " chosen"]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.indices)


@explained
def choose(
    features: Features,
    pairs: Pairs | None = None,
    *,
    budget: int,
    method: str = "activedpo",
    labelled: Features | None = None,
    max_per_prompt: int | None = None,
    normalise: Literal["response", "pair", "none"] = "response",
    beta: float = 0.1,
    settings: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Choice:
    """Choose pairs to label; needs no model. `activedpo select` chooses by the same code.

    Args:
        features: What is known about the responses.
        pairs: The candidates, two rows each; None for those of `features`. Pairs labelled before should not be among them.
        budget: How many to choose.
        method: By its name; `activedpo ls methods` lists them, also yours.
        labelled: Pairs labelled before, with `preferred` and the columns that the method needs, under the same model; in a
            loop `features.with_pairs(…)`, or `featurize` of what was labelled.
        max_per_prompt: The most pairs of one prompt.
        normalise: Bring to unit norm each response's features, each pair's difference, or nothing.
        beta: β of the implicit reward β log π/π_ref.
        settings: The method's own, such as `{"ridge": 0.1}`.
        generator: Decides ties and random draws; None for one with seed 0, so that the same call chooses the same.

    Raises:
        UsageError: the method is unknown, its settings are wrong, or what it needs is not there; names what is lacking.
        InvalidDataError: fewer pairs can be chosen than the budget asks for, or a number that is needed is not finite.

    >>> import torch
    >>> from activedpo_cli import Features, choose
    >>> rows = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.9, 0.0], [0.0, 0.0]])
    >>> known = Features(columns={"features": rows}, pairs=[(0, 1), (2, 3), (4, 5)])
    >>> choose(known, budget=2, normalise="none").indices.tolist()
    [0, 1]

    """
    name = discovery.resolve("acquisition", method)
    found: Any = discovery.load("acquisition", name)
    own = checked_settings(name, settings or {})
    if normalise not in ("response", "pair", "none"):
        raise UsageError(f"`normalise` is response, pair or none, not {normalise!r}")
    _require_needs(name, found.NEEDS, features, "these features")
    asked = features.pairs if pairs is None else as_pairs(pairs, len(features))
    places = _not_excluded(asked, features).nonzero().flatten()
    candidates = Candidates(
        **_table(asked[places], features, found.NEEDS, normalise),
        prompt_index=_prompts(asked[places], features, max_per_prompt),
        texts=features.texts,
        times_sampled=features.times_sampled,
        labelled=None if labelled is None else _labelled(name, found.NEEDS, features, labelled, normalise),
        beta=beta,
    )
    _require_budget(candidates, budget, max_per_prompt)
    seeded = torch.Generator().manual_seed(0) if generator is None else generator
    try:
        chosen = found.choose(candidates, budget, own, seeded, max_per_prompt)
    except ValueError as error:
        raise InvalidDataError(f"method `{name}` can not choose among these pairs: {error}") from error
    indices = places[chosen.rows]
    return Choice(method=name, indices=indices, pairs=asked[indices], scores=chosen.scores)


def _require_needs(name: str, needs: tuple[str, ...], features: Features, whose: str) -> None:
    there = {*features.columns, *({"texts"} if features.texts is not None else ())}
    lacking = [need for need in needs if need not in there]
    if not lacking:
        return
    given = [need for need in lacking if need == "scores" or need not in COLUMNS]
    ways = [f'featurize(…, method="{name}") computes them'] if len(given) < len(lacking) else []
    ways += ["`scores` are your own: features.with_columns(scores=…)"] if "scores" in given else []
    ways += ["Features(…, texts=…)"] if "texts" in given else []
    raise UsageError(
        f"method `{name}` needs {', '.join(lacking)}, which {whose} lack",
        details=[f"they have: {', '.join(sorted(there)) or 'nothing'}"],
        hint="; ".join(ways) or None,
    )


def _not_excluded(pairs: Int[Tensor, "pairs 2"], features: Features) -> Bool[Tensor, " pairs"]:
    gone = torch.tensor(features.excluded, dtype=torch.int64)
    return ~torch.isin(pairs, gone).any(dim=1)


def _table(pairs: Int[Tensor, "pairs 2"], features: Features, needs: tuple[str, ...], normalise: str) -> dict[str, Any]:
    """Pairs with the columns that a method is given; raises InvalidDataError for one that it needs and can't use."""
    used = pairs.unique()
    for need in needs:
        column = features.columns.get(need)
        if column is None or not len(used):
            continue
        bad = first_unusable(column[used].reshape(len(used), -1), normalise == "none")
        if bad is not None:
            raise InvalidDataError(
                f"row {int(used[bad[0]])} of `{need}` {bad[1]}",
                hint="leave the pairs with that response out, or mend it",
            )
    columns = {name: features.columns.get(name) for name in get_args(Column)}
    return {"row_a": pairs[:, 0], "row_b": pairs[:, 1], "normalise": normalise, **columns}


def _prompts(pairs: Int[Tensor, "pairs 2"], features: Features, max_per_prompt: int | None) -> Int[Tensor, " pairs"]:
    """The prompt of each pair; where no prompts are known, each pair has one of its own."""
    if features.prompt_index is not None:
        return features.prompt_index[pairs[:, 0]]
    if max_per_prompt is not None:
        raise UsageError("max_per_prompt needs to know the prompts", hint="Features(…, prompt_index=…)")
    return torch.arange(len(pairs))


def _labelled(name: str, needs: tuple[str, ...], features: Features, labelled: Features, normalise: str) -> Labelled:
    _require_needs(name, tuple(need for need in needs if need != "texts"), labelled, "the labelled pairs")
    if labelled.preferred is None:
        raise UsageError(
            "of the labelled pairs nobody says which response was preferred",
            hint="with_pairs(pairs, preferred), or rows with `chosen` and `rejected`; zeros where the method reads none",
        )
    _require_alike(needs, features, labelled)
    kept = _not_excluded(labelled.pairs, labelled)
    return Labelled(**_table(labelled.pairs[kept], labelled, needs, normalise), preferred=labelled.preferred[kept])


def _require_alike(needs: tuple[str, ...], features: Features, labelled: Features) -> None:
    """Raise UsageError where columns of both are of different widths, or features of different projections."""
    for need in needs:
        shapes = [list(each.columns[need].shape[1:]) for each in (features, labelled) if need in each.columns]
        if len(shapes) == 2 and shapes[0] != shapes[1]:
            raise UsageError(
                f"a row of `{need}` has {shapes[0][0]} numbers, and one of the labelled pairs {shapes[1][0]}"
            )
    made = features.made_with, labelled.made_with
    if "features" in needs and None not in made and made[0] != made[1]:
        raise UsageError(
            "features of different projections do not compare",
            details=[f"these: {made[0]}", f"of the labelled pairs: {made[1]}"],
            hint="featurize both with the same projection, projection_width and seed",
        )


def _require_budget(candidates: Candidates, budget: int, max_per_prompt: int | None) -> None:
    if max_per_prompt is not None and max_per_prompt < 1:
        raise UsageError(f"max_per_prompt is a positive number, not {max_per_prompt}")
    possible = capacity(candidates.prompt_index, max_per_prompt)
    if not 1 <= budget <= possible:
        raise InvalidDataError(f"the budget is {budget} pairs, and {possible} can be chosen")
