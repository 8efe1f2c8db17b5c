"""Candidates in files of the user's own, checked, and the choice among them: in memory, or streamed where they are many."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.select.from_files.candidate_checks import (
    check_labelled,
    check_used_responses,
    warn_of_empty_picks,
    warn_of_repeated_pairs,
)
from activedpo_cli.select.from_files.pair_list import PairList, read_pairs
from activedpo_cli.select.from_files.pick_log import PickLog
from activedpo_cli.select.from_files.watched_rows import WatchedRows
from activedpo_cli.select.step import method_settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from activedpo_cli.pairs.pair_features import PairFeatures, Rows
    from activedpo_cli.select.design.greedy import Pick, PooledChoice, PoolSize
    from activedpo_cli.select.methods.base import Candidates

SECONDS_BETWEEN_WRITES = 1.0
"""Of picks in memory, which come faster than a disk can keep each; in passes each is worth keeping at once."""


@dataclass(frozen=True)
class CandidateFiles:
    """Features of responses, pairs of them, and φ of the pairs labelled earlier, in float64."""

    responses: TensorRows
    labelled: "Tensor"
    pairs: PairList

    def bytes_in_memory(self) -> int:
        """What a choice in memory takes: the features as they are stored, and φ in float64, for the pool once more."""
        count, proj_dim = self.responses.shape
        return proj_dim * (self.responses.bytes_per_number * count + 16 * len(self.pairs))


@dataclass(frozen=True)
class Choice:
    """Rows of the pairs with their scores, best first; where they were streamed, how often all pairs were read.

    `pairs_read` counts those passes and what was read beside them.
    """

    picks: list[tuple[int, float]]
    passes: int | None = None
    pairs_read: int | None = None


def read_candidate_files(
    features: Path, pairs: Path, labelled_pairs: Path | None, config: Config, progress: Progress
) -> CandidateFiles:
    """The three files; raises InvalidDataError, naming the file and what is wrong in it.

    Features are not looked at where the method does not need them.
    """
    import torch

    responses = TensorRows(features, "features")
    proj_dim = responses.shape[1]
    if not proj_dim or not responses.shape[0]:
        raise InvalidDataError(f"`features` of {features} is empty: its shape is {list(responses.shape)}")
    labelled = torch.zeros(0, proj_dim, dtype=torch.float64)
    if labelled_pairs is not None:
        rows = TensorRows(labelled_pairs, "pair_features")
        if rows.shape[1] != proj_dim:
            raise InvalidDataError(
                f"`pair_features` of {labelled_pairs} has {rows.shape[1]} columns, and `features` of "
                f"{features} has {proj_dim}"
            )
        labelled = rows.read(0, rows.shape[0]).double()
        check_labelled(labelled, labelled_pairs, config.select.normalise, progress)
    listed = read_pairs(pairs, responses.shape[0], progress)
    warn_of_repeated_pairs(listed, progress)
    if _needs_features(config):
        check_used_responses(responses, listed, config.select.normalise, progress)
    return CandidateFiles(responses, labelled, listed)


def check_budget(config: Config, table: CandidateFiles, path: Path) -> None:
    """Raise InvalidDataError where fewer pairs can be chosen than the budget asks for."""
    from activedpo_cli.select.methods.base import capacity

    pairs, budget, limit = table.pairs, config.select.budget, config.select.max_per_prompt
    if limit is not None and pairs.prompt_index is None:
        raise InvalidDataError(f"select.max_per_prompt needs a `prompt_id` in every line of {path}")
    available = len(pairs) if pairs.prompt_index is None else capacity(pairs.prompt_index, limit)
    if budget > available:
        raise InvalidDataError(
            f"the budget is {budget} pairs, but only {available} of {path} can be chosen", hint=f"--budget {available}"
        )


def choose(config: Config, table: CandidateFiles, memory: int, log: PickLog, progress: Progress) -> Choice:
    """The pairs that the configured method picks; where all take more than `memory` bytes, in passes if it knows how.

    Raises InvalidDataError with what the method says against the pairs.
    """
    try:
        if not _needs_features(config):
            return _choose_at_once(config, table, progress)
        size = table.bytes_in_memory()
        if hasattr(_method(config), "choose_streamed"):
            choice = _choose_resumably(config, table, None if size <= memory else memory, log, progress)
        else:
            if size > memory:
                said = f"method `{config.select.method}` holds all pairs in memory, whatever --memory says"
                progress.warn(f"{said}: about {size / 1e9:.2g} GB")
            choice = _choose_at_once(config, table, progress)
    except ValueError as error:
        raise InvalidDataError(f"method `{config.select.method}` can not choose among these pairs: {error}") from error
    warn_of_empty_picks(_pair_features(config, table), [row for row, _ in choice.picks], progress)
    return choice


def _method(config: Config) -> Any:
    return discovery.load("acquisition", config.select.method)


def _needs_features(config: Config) -> bool:
    return "features" in _method(config).NEEDS


def _pair_features(config: Config, table: CandidateFiles, responses: "Rows | None" = None) -> "PairFeatures":
    """φ of the pairs, from the files or from features that were read already."""
    from activedpo_cli.pairs.pair_features import PairFeatures

    pairs = table.pairs
    return PairFeatures(responses or table.responses, pairs.row_a, pairs.row_b, config.select.normalise)


def _choose_at_once(config: Config, table: CandidateFiles, progress: Progress) -> Choice:
    """By a method that has to see everything, and begins anew when it was interrupted."""
    candidates = _in_memory(config, table)
    how = config.select
    with shown(progress, f"choosing by {how.method}", how.budget, "picks") as advance:
        chosen = _method(config).choose(
            candidates, how.budget, method_settings(config), _generator(config), how.max_per_prompt
        )
        advance(how.budget)
    return Choice(list(zip(chosen.rows.tolist(), chosen.scores.tolist(), strict=True)))


def _in_memory(config: Config, table: CandidateFiles) -> "Candidates":
    import torch

    from activedpo_cli.select.methods.base import Candidates, Labelled

    pairs, labelled, count = table.pairs, table.labelled, len(table.labelled)
    history = Labelled(
        row_a=torch.arange(count),
        row_b=torch.full((count,), count),  # a row of zeros: φ itself is what is known
        preferred=torch.zeros(count, dtype=torch.int64),
        features=torch.cat([labelled, labelled.new_zeros(1, labelled.shape[1])]),
        normalise="pair" if config.select.normalise == "pair" else "none",
    )
    return Candidates(
        row_a=pairs.row_a,
        row_b=pairs.row_b,
        prompt_index=torch.arange(len(pairs)) if pairs.prompt_index is None else pairs.prompt_index,
        features=table.responses.read(0, table.responses.shape[0]) if _needs_features(config) else None,
        labelled=history if count else None,
        normalise=config.select.normalise,
    )


def _choose_resumably(
    config: Config, table: CandidateFiles, memory: int | None, log: PickLog, progress: Progress
) -> Choice:
    """By a method that can be interrupted; in `memory` bytes, or with all pairs held where that is None."""
    from activedpo_cli.select.design.greedy import UnrepeatableError

    log.seconds = SECONDS_BETWEEN_WRITES if memory is None else 0.0
    picked = log.picks()
    if picked:
        progress.note(f"goes on after {len(picked)} picks of an interrupted choice")
    choose_from = _choose_held if memory is None else _choose_streamed
    try:
        return choose_from(config, table, memory or 0, picked, log, progress)
    except UnrepeatableError as error:
        progress.warn(f"{log.path} does not fit these pairs, and the choice begins anew: {error}")
        log.remove()
    return choose_from(config, table, memory or 0, [], log, progress)


def _choose_held(
    config: Config, table: CandidateFiles, memory: int, picked: "list[Pick]", log: PickLog, progress: Progress
) -> Choice:
    from activedpo_cli.pairs.pair_features import RowsInMemory
    from activedpo_cli.select.design.greedy import PoolSize

    how, responses = config.select, RowsInMemory(table.responses.read(0, table.responses.shape[0]))
    features = _pair_features(config, table, responses).all()
    progress.start(f"choosing by {how.method}", how.budget, "picks", done=len(picked))
    try:

        def keep(pick: "Pick") -> None:
            log.add(pick)
            progress.advance()

        chosen = _call(config, table, RowsInMemory(features), PoolSize.in_memory(*features.shape), picked, keep)
    finally:
        progress.stop()
    return Choice(list(zip(chosen.rows, chosen.scores, strict=True)))


def _choose_streamed(
    config: Config, table: CandidateFiles, memory: int, picked: "list[Pick]", log: PickLog, progress: Progress
) -> Choice:
    from activedpo_cli.select.design.greedy import PoolSize

    rows = WatchedRows(_pair_features(config, table), config.select.budget, len(picked), progress)

    def keep(pick: "Pick") -> None:
        log.add(pick)
        rows.picked += 1

    try:
        chosen = _call(config, table, rows, PoolSize.within(memory, *rows.shape), picked, keep)
    finally:
        rows.end_pass()
    return Choice(list(zip(chosen.rows, chosen.scores, strict=True)), chosen.passes, rows.pairs_read)


def _call(
    config: Config,
    table: CandidateFiles,
    rows: "Rows",
    pool: "PoolSize",
    picked: "list[Pick]",
    keep: "Callable[[Pick], None]",
) -> "PooledChoice":
    from activedpo_cli.pairs.pair_features import unit_rows

    how = config.select
    found: PooledChoice = _method(config).choose_streamed(
        rows,
        unit_rows(table.labelled) if how.normalise == "pair" else table.labelled,
        how.budget,
        method_settings(config),
        _generator(config),
        pool,
        prompt_index=table.pairs.prompt_index,
        max_per_prompt=how.max_per_prompt,
        picked=picked,
        after_pick=keep,
    )
    return found


def _generator(config: Config) -> "torch.Generator":
    import torch

    return torch.Generator().manual_seed(derive_seed(config.seed, "select", "files"))
