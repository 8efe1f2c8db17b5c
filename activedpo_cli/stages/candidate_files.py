"""Candidates in files of the user's own, checked, and the choice among them: in memory, or streamed where they are many."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli import discovery
from activedpo_cli.errors import InvalidDataError
from activedpo_cli.progress import Progress, shown
from activedpo_cli.seeds import derive_seed
from activedpo_cli.settings import Config
from activedpo_cli.stages.method_settings import method_settings
from activedpo_cli.stages.pair_list import PairList, read_pairs
from activedpo_cli.stages.pick_log import PickLog
from activedpo_cli.stages.watched_rows import WatchedRows
from activedpo_cli.tensor_rows import TensorRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from activedpo_cli.acquisition.base import Candidates

NUMBERS_READ_AT_ONCE = 2**22


@dataclass(frozen=True)
class CandidateFiles:
    """Features of responses, pairs of them, and φ of the pairs labelled earlier, in float64."""

    responses: TensorRows
    labelled: "Tensor"
    pairs: PairList

    @property
    def bytes_in_memory(self) -> int:
        """What features and φ of all pairs would take."""
        count, proj_dim = self.responses.shape
        return proj_dim * (self.responses.bytes_per_number * count + 8 * len(self.pairs))


@dataclass(frozen=True)
class Choice:
    """Rows of the pairs with their scores, best first; how often all pairs were read, where they were streamed."""

    picks: list[tuple[int, float]]
    passes: int | None = None


def read_candidate_files(
    features: Path, pairs: Path, labelled_pairs: Path | None, progress: Progress
) -> CandidateFiles:
    """The three files; raises InvalidDataError, naming the file and what is wrong in it."""
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
        _check_finite(labelled, 0, f"`pair_features` of {labelled_pairs}")
    _check_all_finite(responses, progress)
    return CandidateFiles(responses, labelled, read_pairs(pairs, responses.shape[0], progress))


def check_budget(config: Config, table: CandidateFiles, path: Path) -> None:
    """Raise InvalidDataError where fewer pairs can be chosen than the budget asks for."""
    from activedpo_cli.acquisition.base import capacity

    pairs, budget, limit = table.pairs, config.select.budget, config.select.max_per_prompt
    if limit is not None and pairs.prompt_index is None:
        raise InvalidDataError(f"select.max_per_prompt needs a `prompt_id` in every line of {path}")
    available = len(pairs) if pairs.prompt_index is None else capacity(pairs.prompt_index, limit)
    if budget > available:
        raise InvalidDataError(
            f"the budget is {budget} pairs, but only {available} of {path} can be chosen", hint=f"--budget {available}"
        )


def choose(config: Config, table: CandidateFiles, memory: int, log: PickLog, progress: Progress) -> Choice:
    """The pairs that the configured method picks; more than `memory` bytes are streamed by methods that know how.

    Raises InvalidDataError with what the method says against the pairs.
    """
    method = discovery.load("acquisition", config.select.method)
    try:
        if table.bytes_in_memory > memory and hasattr(method, "choose_streamed"):
            return _choose_streamed(method, config, table, memory, log, progress)
        chosen = method.choose(
            _in_memory(config, table),
            config.select.budget,
            method_settings(config),
            _generator(config),
            config.select.max_per_prompt,
        )
    except ValueError as error:
        raise InvalidDataError(f"method `{config.select.method}` can not choose among these pairs: {error}") from error
    return Choice(list(zip(chosen.rows.tolist(), chosen.scores.tolist(), strict=True)))


def _in_memory(config: Config, table: CandidateFiles) -> "Candidates":
    import torch

    from activedpo_cli.acquisition.base import Candidates, Labelled
    from activedpo_cli.core.pair_rows import normalised_responses

    pairs, labelled, count = table.pairs, table.labelled, len(table.labelled)
    history = Labelled(
        row_a=torch.arange(count),
        row_b=torch.full((count,), count),  # a row of zeros: φ itself is what is known
        preferred=torch.zeros(count, dtype=torch.int64),
        features=torch.cat([labelled, labelled.new_zeros(1, labelled.shape[1])]),
    )
    features = table.responses.read(0, table.responses.shape[0])
    return Candidates(
        row_a=pairs.row_a,
        row_b=pairs.row_b,
        prompt_index=torch.arange(len(pairs)) if pairs.prompt_index is None else pairs.prompt_index,
        features=normalised_responses(features, config.select.normalise),
        labelled=history if count else None,
        normalise_pairs=config.select.normalise == "pair",
    )


def _choose_streamed(
    method: Any, config: Config, table: CandidateFiles, memory: int, log: PickLog, progress: Progress
) -> Choice:
    from activedpo_cli.core.normalisation import unit_rows
    from activedpo_cli.core.pair_rows import DifferenceRows
    from activedpo_cli.core.pooled_greedy import PoolSize

    how, pairs = config.select, table.pairs
    differences = DifferenceRows(table.responses, pairs.row_a, pairs.row_b, how.normalise)
    picked = log.picks()
    rows = WatchedRows(differences, how.budget, len(picked), progress)
    if picked:
        progress.note(f"goes on after {len(picked)} picks of an interrupted choice")

    def keep(row: int, score: float) -> None:
        log.add(row, score)
        rows.picked += 1

    chosen = method.choose_streamed(
        rows,
        unit_rows(table.labelled) if how.normalise == "pair" else table.labelled,
        how.budget,
        method_settings(config),
        _generator(config),
        PoolSize.within(memory, *rows.shape),
        prompt_index=pairs.prompt_index,
        max_per_prompt=how.max_per_prompt,
        picked=picked,
        after_pick=keep,
    )
    return Choice(list(zip(chosen.rows, chosen.scores, strict=True)), chosen.passes)


def _generator(config: Config) -> "torch.Generator":
    import torch

    return torch.Generator().manual_seed(derive_seed(config.seed, "select", "files"))


def _check_all_finite(responses: TensorRows, progress: Progress) -> None:
    count, proj_dim = responses.shape
    step = max(1, NUMBERS_READ_AT_ONCE // proj_dim)
    with shown(progress, f"checking {responses.path.name}", count, "responses") as advance:
        for start in range(0, count, step):
            part = responses.read(start, min(start + step, count))
            _check_finite(part, start, f"`features` of {responses.path}")
            advance(len(part))


def _check_finite(features: "Tensor", first: int, name: str) -> None:
    bad = (~features.isfinite()).any(dim=1).nonzero().flatten()
    if len(bad):
        raise InvalidDataError(
            f"row {first + int(bad[0])} of {name} is not finite", hint="leave that response's pairs out, or mend it"
        )
