"""What *select* hands to a method: the candidate pairs with every column that featurize computed."""

import shlex
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, get_args

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import FeatureRow, OutcomeRow
from activedpo_cli.base.settings import Column, Config
from activedpo_cli.engine.step import require
from activedpo_cli.features.columns import computed_columns
from activedpo_cli.pairs.candidates import (
    CandidatePair,
    LabelledPair,
    labelled_pairs,
    outcomes,
    truncated_were_dropped,
    with_times_sampled,
)
from activedpo_cli.store.feature_files import LabelledColumns, read_columns, read_labelled
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from activedpo_cli.select.methods.base import Candidates, Labelled

READ_BY_SELECT = frozenset({"texts"})
"""What a method may need that featurize does not compute."""


def stored_columns(run: Run, iteration: int) -> set[str]:
    """The columns that *featurize* left; raises where it is not finished or stale, or where its files are gone."""
    require(run, "featurize", iteration)
    folder = run.stage("featurize", iteration)
    assert folder.manifest is not None
    if missing := folder.missing_outputs():
        raise InvalidDataError(
            f"`{folder.path / missing[0]}` is gone or of another size",
            hint=f"{run.next_command('featurize', iteration)} --force",
        )
    return computed_columns(folder.manifest.settings["featurize.compute"])


def command_for_columns(run: Run, iteration: int, lacking: Iterable[str]) -> str:
    """The command that computes some columns besides those that are there."""
    manifest = run.stage("featurize", iteration).manifest
    assert manifest is not None
    wanted = sorted({*manifest.settings["featurize.compute"], *lacking})
    command = run.next_command("featurize", iteration)
    assignment = shlex.quote(f"featurize.compute=[{','.join(wanted)}]")  # brackets mean files to some shells
    return f"{command} --force --set {assignment}"


def candidate_table(
    run: Run, iteration: int, config: Config, pairs: list[CandidatePair], *, with_texts: bool
) -> "Candidates":
    """The pairs as a method sees them."""
    import torch

    from activedpo_cli.select.methods.base import Candidates

    columns = read_columns(run.stage("featurize", iteration))
    return Candidates(
        row_a=torch.tensor([pair.row_a for pair in pairs], dtype=torch.int64),
        row_b=torch.tensor([pair.row_b for pair in pairs], dtype=torch.int64),
        prompt_index=prompt_index(pairs),
        **_for_methods(columns),
        texts=_texts(run, iteration, len(next(iter(columns.values()), ()))) if with_texts else None,
        times_sampled=_times_sampled(run, iteration, len(columns["logps"])) if "logps" in columns else None,
        labelled=_labelled(run, iteration, config),
        normalise=config.select.normalise,
        beta=config.train.beta if hasattr(config, "train") else Candidates.beta,  # declared where a method needs it
    )


def prompt_index(pairs: list[CandidatePair]) -> "Tensor":
    """A number for each pair, equal for pairs of one prompt."""
    import torch

    numbers = {name: number for number, name in enumerate(dict.fromkeys(pair.prompt_id for pair in pairs))}
    return torch.tensor([numbers[pair.prompt_id] for pair in pairs], dtype=torch.int64)


def _for_methods(columns: "dict[str, Tensor]") -> "dict[str, Tensor | None]":
    return {name: columns.get(name) for name in get_args(Column)}


def _texts(run: Run, iteration: int, computed_rows: int) -> tuple[str, ...]:
    """A text for each row of the columns; excluded responses have no entry in the list of rows, and none is needed."""
    rows = run.stage("featurize", iteration).read_rows("rows.jsonl", FeatureRow)
    text_of = {response.response_id: response.text for response in run.responses(iteration)}
    texts = [""] * max([computed_rows, *(row.row + 1 for row in rows)])
    for row in rows:
        texts[row.row] = text_of[row.response_id]
    return tuple(texts)


def _times_sampled(run: Run, iteration: int, computed_rows: int) -> "Tensor":
    """For each row of the columns how often its text was sampled: copies were generated, but never featurized."""
    import torch

    drop_truncated = truncated_were_dropped(run, iteration)
    counts = {
        response.response_id: number
        for _, group in groupby(run.responses(iteration), key=lambda response: response.prompt_id)
        for response, number in with_times_sampled(list(group), drop_truncated=drop_truncated)
    }
    found = torch.ones(computed_rows, dtype=torch.int64)
    for row in run.stage("featurize", iteration).read_rows("rows.jsonl", FeatureRow):
        found[row.row] = counts[row.response_id]
    return found


def _labelled(run: Run, iteration: int, config: Config) -> "Labelled | None":
    """The pairs labelled earlier with what people or oracles said; None where nothing was computed for them."""
    import torch

    from activedpo_cli.select.methods.base import Labelled

    frozen = config.select.history == "frozen"
    found = frozen_labelled(run, iteration) if frozen else read_labelled(run.stage("featurize", iteration))
    if found is None:
        return None
    answers = {row.pair_id: row for earlier in range(1, iteration) for row in outcomes(run, earlier)}
    preferred = [_preferred(answers[name]) for name in found.pair_ids]
    return Labelled(
        row_a=found.row_a,
        row_b=found.row_b,
        preferred=torch.tensor(preferred, dtype=torch.int64),
        **_for_methods(found.columns),
        normalise=config.select.normalise,
    )


def _preferred(answer: OutcomeRow) -> int:
    if answer.preferred_id is None:
        return 0
    return 1 if answer.preferred_id == answer.response_a_id else -1


def frozen_labelled(run: Run, iteration: int) -> LabelledColumns | None:
    """Pairs labelled earlier with the columns by which they were chosen, each under the policy of its own iteration.

    None where nothing was labelled or computed.
    """
    import torch

    found = [_of_iteration(run, earlier) for earlier in range(1, iteration)]
    parts = [part for part in found if part is not None]
    if not parts:
        return None
    names = set.intersection(*(set(part.columns) for part in parts))
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + 2 * len(part.pair_ids))
    return LabelledColumns(
        {name: torch.cat([part.columns[name] for part in parts]) for name in sorted(names)},
        [pair for part in parts for pair in part.pair_ids],
        torch.cat([part.row_a + start for part, start in zip(parts, starts, strict=False)]),
        torch.cat([part.row_b + start for part, start in zip(parts, starts, strict=False)]),
    )


def _of_iteration(run: Run, iteration: int) -> LabelledColumns | None:
    """Two rows for each pair answered in one iteration: all responses a, then all responses b."""
    import torch

    columns = read_columns(run.stage("featurize", iteration))
    pairs = list(labelled_pairs(run, [iteration]))
    if not columns or not pairs:
        return None
    rows = {row.response_id: row.row for row in run.stage("featurize", iteration).read_rows("rows.jsonl", FeatureRow)}
    order = torch.tensor([rows[name] for side in zip(*map(_names, pairs), strict=True) for name in side])
    count = len(pairs)
    kept: dict[str, Tensor] = {name: values[order] for name, values in columns.items()}
    return LabelledColumns(
        kept, [pair.outcome.pair_id for pair in pairs], torch.arange(count), torch.arange(count, 2 * count)
    )


def _names(pair: LabelledPair) -> tuple[str, str]:
    return pair.outcome.response_a_id, pair.outcome.response_b_id
