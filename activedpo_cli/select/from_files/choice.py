"""Chooses among the candidates of `select --features`: in memory, or in passes with the picks so far on disk."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config
from activedpo_cli.select.from_files.candidate_files import CandidateFiles, needs_features
from activedpo_cli.select.method_settings import method_settings
from activedpo_cli.store.files import append_line, remove, write_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from activedpo_cli.pairs.pair_features import PairFeatures, Rows
    from activedpo_cli.select.design.greedy import Pick, PooledChoice
    from activedpo_cli.select.methods.base import Candidates

SECONDS_BETWEEN_WRITES = 1.0
"""Picks in memory come faster than a disk can keep each, so they are written together; in passes each is written at once."""


@dataclass(frozen=True)
class Choice:
    """Rows of the pairs with their scores, best first; where they were streamed, how often all pairs were read.

    `pairs_read` counts those passes and what was read beside them.
    """

    picks: list[tuple[int, float]]
    passes: int | None = None
    pairs_read: int | None = None


def choose(config: Config, table: CandidateFiles, memory: int, log: "PickLog", progress: Progress) -> Choice:
    """The pairs that the configured method picks; where all take more than `memory` bytes, in passes if it knows how.

    Raises InvalidDataError with what the method says against the pairs. Warns of picks whose responses have equal features.
    """
    name, size = config.select.method, table.bytes_in_memory()
    is_streamed = hasattr(_method(config), "choose_streamed") and needs_features(config)
    try:
        if is_streamed:
            choice = _choose_resumably(config, table, memory if size > memory else None, log, progress)
        else:
            if size > memory and needs_features(config):
                said = f"method `{name}` holds all pairs in memory, whatever --memory says"
                progress.warn(f"{said}: about {size / 1e9:.2g} GB")
            choice = _choose_at_once(config, table, progress)
    except ValueError as error:
        raise InvalidDataError(f"method `{name}` can not choose among these pairs: {error}") from error
    if needs_features(config):
        _warn_of_empty_picks(_pair_features(config, table), [row for row, _ in choice.picks], progress)
    return choice


def _choose_at_once(config: Config, table: CandidateFiles, progress: Progress) -> Choice:
    """By a method that has to see everything, and begins anew when it was interrupted."""
    how = config.select
    with shown(progress, f"choosing by {how.method}", how.budget, "picks") as advance:
        chosen = _method(config).choose(
            _candidates(config, table), how.budget, method_settings(config), _generator(config), how.max_per_prompt
        )
        advance(how.budget)
    return Choice(list(zip(chosen.rows.tolist(), chosen.scores.tolist(), strict=True)))


def _choose_resumably(
    config: Config, table: CandidateFiles, memory: int | None, log: "PickLog", progress: Progress
) -> Choice:
    """By a method that can be interrupted; in `memory` bytes, or with all pairs held where that is None."""
    from activedpo_cli.select.design.greedy import UnrepeatableError

    log.seconds = SECONDS_BETWEEN_WRITES if memory is None else 0.0
    picked = log.picks()
    if picked:
        progress.note(f"goes on after {len(picked)} picks of an interrupted choice")
    for begun in (picked, []):
        try:
            return _choose_from(begun, config, table, memory, log, progress)
        except UnrepeatableError as error:
            progress.warn(f"{log.path} does not fit these pairs, and the choice begins anew: {error}")
            log.remove()
    raise AssertionError("a choice that begins anew repeats nothing")


def _choose_from(
    picked: "list[Pick]",
    config: Config,
    table: CandidateFiles,
    memory: int | None,
    log: "PickLog",
    progress: Progress,
) -> Choice:
    from activedpo_cli.pairs.pair_features import RowsInMemory, unit_rows
    from activedpo_cli.select.design.greedy import PoolSize

    how, shape = config.select, (len(table.pairs), table.responses.shape[1])
    in_passes = (
        None if memory is None else WatchedRows(_pair_features(config, table), how.budget, len(picked), progress)
    )

    def keep(pick: "Pick") -> None:
        log.add(pick)
        if in_passes is None:
            progress.advance()
        else:
            in_passes.picked += 1

    held = None if in_passes is not None else RowsInMemory(_candidates(config, table).pair_features())
    if held is not None:
        progress.start(f"choosing by {how.method}", how.budget, "picks", done=len(picked))
    try:
        chosen: PooledChoice = _method(config).choose_streamed(
            held or in_passes,
            unit_rows(table.labelled) if how.normalise == "pair" else table.labelled,
            how.budget,
            method_settings(config),
            _generator(config),
            PoolSize.in_memory(*shape) if memory is None else PoolSize.within(memory, *shape),
            prompt_index=table.pairs.prompt_index,
            max_per_prompt=how.max_per_prompt,
            picked=picked,
            after_pick=keep,
        )
    finally:
        if in_passes is None:
            progress.stop()
        else:
            in_passes.end_pass()
    best_first = list(zip(chosen.rows, chosen.scores, strict=True))
    return Choice(best_first) if in_passes is None else Choice(best_first, chosen.passes, in_passes.pairs_read)


def _candidates(config: Config, table: CandidateFiles) -> "Candidates":
    """The pairs as a method sees them; of those labelled earlier φ is known, and neither responses nor answers."""
    import torch

    from activedpo_cli.select.methods.base import Candidates, Labelled

    pairs, labelled, count = table.pairs, table.labelled, len(table.labelled)
    history = Labelled(
        row_a=torch.arange(count),
        row_b=torch.full((count,), count),  # a row of zeros, from which φ is the difference
        preferred=torch.zeros(count, dtype=torch.int64),
        features=torch.cat([labelled, labelled.new_zeros(1, labelled.shape[1])]),
        normalise="pair" if config.select.normalise == "pair" else "none",
    )
    return Candidates(
        row_a=pairs.row_a,
        row_b=pairs.row_b,
        prompt_index=torch.arange(len(pairs)) if pairs.prompt_index is None else pairs.prompt_index,
        features=table.responses.read(0, table.responses.shape[0]) if needs_features(config) else None,
        labelled=history if count else None,
        normalise=config.select.normalise,
    )


def _pair_features(config: Config, table: CandidateFiles) -> "PairFeatures":
    from activedpo_cli.pairs.pair_features import PairFeatures

    return PairFeatures(table.responses, table.pairs.row_a, table.pairs.row_b, config.select.normalise)


def _warn_of_empty_picks(pairs: "PairFeatures", rows: list[int], progress: Progress) -> None:
    import torch

    empty = int((pairs.take(torch.tensor(sorted(rows))) == 0).all(dim=1).sum())
    if empty:
        progress.warn(
            f"{empty} of {len(rows)} picks have responses of equal features: their labels would bring no information"
        )


def _method(config: Config) -> Any:
    return discovery.load("acquisition", config.select.method)


def _generator(config: Config) -> "torch.Generator":
    import torch

    return torch.Generator().manual_seed(derive_seed(config.seed, "select", "files"))


class WatchedRows:
    """Pairs whose reading from the first to the last is shown as progress."""

    def __init__(self, pairs: "Rows", budget: int, picked: int, progress: Progress) -> None:
        self._pairs, self._budget, self._progress = pairs, budget, progress
        self.shape = pairs.shape
        self.passes = 0
        self.picked = picked
        self.pairs_read = 0
        """In passes and beside them, a pair as often as it was read."""
        self._is_shown = False

    def read(self, start: int, stop: int) -> "Tensor":
        """Consecutive pairs."""
        if start == 0:
            self.passes += 1
            label = f"pass {self.passes}, {self.picked} of {self._budget} picked"
            self._progress.start(label, self.shape[0], "pairs")
            self._is_shown = True
        features = self._pairs.read(start, stop)
        self.pairs_read += stop - start
        self._progress.advance(stop - start)
        if stop == self.shape[0]:
            self.end_pass()
        return features

    def take(self, rows: "Tensor") -> "Tensor":
        """Some pairs."""
        self.pairs_read += len(rows)
        return self._pairs.take(rows)

    def end_pass(self) -> None:
        """Take the bar away, if there is one."""
        if self._is_shown:
            self._is_shown = False
            self._progress.stop()


PICKS_NAME = "picks.jsonl"


class PickLog:
    """The picks of an unfinished choice, in a file of its folder; whoever writes it holds the lock of the output."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0
        """Picks are written no more often than this."""
        self._pending: list[bytes] = []
        self._written_at = 0.0

    def picks(self) -> "list[Pick]":
        """What was picked before an interruption; a damaged log is thrown away."""
        data = read_limited(self.path) if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]  # beyond it there is nothing, or a torn line
        found = picks_in(whole)
        if not found:
            self.remove()
        elif len(whole) < len(data):
            write_bytes(self.path, whole)
        return found

    def kept(self) -> int:
        """Picks on the disk."""
        return read_limited(self.path).count(b"\n") if self.path.exists() else 0

    def add(self, pick: "Pick") -> None:
        """Keep one more."""
        line = {"row": pick.row, "score": pick.score, "exactly": pick.exactly}
        self._pending.append(json.dumps(line).encode() + b"\n")
        if time.monotonic() - self._written_at >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written."""
        lines, self._pending = self._pending, []
        if lines:
            append_line(self.path, b"".join(lines))
            self._written_at = time.monotonic()

    def remove(self) -> None:
        """The choice is made, or begins anew."""
        remove(self.path)
        self._pending = []


def picks_in(text: bytes) -> "list[Pick]":
    """The picks in some lines; none at all where one is damaged, or a row is there twice."""
    from activedpo_cli.select.design.greedy import Pick

    try:
        found = [Pick(**json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError, RecursionError):
        return []
    is_sound = all(
        type(pick.row) is int and type(pick.score) is float and math.isfinite(pick.score) and type(pick.exactly) is bool
        for pick in found
    )
    return found if is_sound and len({pick.row for pick in found}) == len(found) else []
