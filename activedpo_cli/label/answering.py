"""Ask what answers by itself, a reward model, a function or a record: in units, by one process or by several.

The log of answers has one order, that of the questions. A process alone appends to it unit by unit. Several leave a file for
each unit, and whoever finishes the stage appends what is in them, and takes them away.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from activedpo_cli.base.launchers import Shard
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.base.records import Asked, Label
from activedpo_cli.engine.step import Context
from activedpo_cli.engine.units import Unit, UnitWork, do_units
from activedpo_cli.label import judging
from activedpo_cli.label.questions import Question
from activedpo_cli.oracles.base import Comparison, Oracle, Verdict, label_from_verdict, open_oracle
from activedpo_cli.store.label_log import LabelLog

FIRST_DRAW, SECOND_DRAW = "first draw", "second draw"
"""Whose answers two draws of one machine are."""


@dataclass(frozen=True)
class _Draw:
    """A turn in which each of some pairs is answered once.

    Attributes:
        stem: Of the names of its units' files.
        pairs: Those that were not taken over, which belong to no unit.
        is_second: Whether it comes after a first one, and so has seeds of its own.

    """

    stem: str
    pairs: Sequence[Comparison]
    is_second: bool = False

    def asked(self, pair: Comparison) -> "str | Asked":
        """By what an answer to a pair is known: anybody's counts as the first."""
        return Asked(pair.pair_id, SECOND_DRAW) if self.is_second else pair.pair_id


class Answering(UnitWork):
    """Every pair's answer by an oracle that can be called.

    Args:
        prepare: Says what is asked, and takes over what was answered before; the stage's lock is held meanwhile.
        close: Writes down what stands when everything is answered, and returns the summary.

    """

    def __init__(
        self,
        context: Context,
        prepare: Callable[[LabelLog], list[Question]],
        close: Callable[[list[Question], LabelLog], dict[str, Any]],
    ) -> None:
        self.folder, self._context, self._close = context.folder, context, close
        self._log = context.folder.label_log()
        self._seen: tuple[int, dict[str | Asked, Label]] = (-1, {})
        with nullcontext() if context.lock.is_held else context.lock.for_a_moment():
            is_open = context.folder.started is not None  # else another of several processes has finished it
            self._questions = prepare(self._log) if is_open else []
            self._work = {unit.name: (unit, draw, pairs) for unit, draw, pairs in self._planned()}

    def counted(self) -> tuple[str, str]:
        """Answers to pairs."""
        return "answers", "pairs"

    def units(self) -> list[Unit]:
        """Of `label.unit_size` pairs each; a reward model scores one as a batch."""
        return [unit for unit, _, _ in self._work.values()]

    def is_there(self, unit: Unit) -> bool:
        """Whether its answers are in its file, or in the log."""
        _, draw, pairs = self._work[unit.name]
        return self.folder.has(unit.name) or all(draw.asked(pair) in self._answered() for pair in pairs)

    def do(self, unit: Unit) -> None:
        """Leave its answers in a file."""
        _, draw, pairs = self._work[unit.name]
        self.folder.write_rows(unit.name, self._verdicts(draw, pairs))

    def do_what_is_missing(self, claims: Path, progress: Progress, shard: Shard | None = None) -> bool:
        """Do units beside others; alone nothing, since the answers then go to the log at once."""
        return do_units(self, claims, progress, shard) if shard else True

    def finish(self) -> dict[str, Any]:
        """Bring the log to its end; a unit that was interrupted is asked as a whole, and only missing answers are added."""
        known = self._answered()
        total = sum(unit.size for unit in self.units())
        done = sum(draw.asked(pair) in known for _, draw, pairs in self._work.values() for pair in pairs)
        with shown(self._context.progress, "answers", total, "pairs", done) as advance:
            for unit, draw, pairs in self._work.values():
                missing = {pair.pair_id for pair in pairs if draw.asked(pair) not in known}
                if not missing:
                    continue
                is_made = self.folder.has(unit.name)
                found = self.folder.read_rows(unit.name, Verdict) if is_made else self._verdicts(draw, pairs)
                labels = [self._label(draw, *said) for said in zip(pairs, found, strict=True)]
                self._log.append(*(label for label in labels if label.pair_id in missing))
                advance(len(missing))
        summary = self._close(self._questions, self._log)
        for unit in self.units():
            if self.folder.has(unit.name):
                self.folder.remove(unit.name)
        return summary

    def _planned(self) -> Iterator[tuple[Unit, _Draw, Sequence[Comparison]]]:
        size = self._context.settings.label.unit_size
        for draw in self._draws():
            for number, start in enumerate(range(0, len(draw.pairs), size)):
                pairs = draw.pairs[start : start + size]
                yield Unit(f"{draw.stem}-{number:05d}.jsonl", len(pairs)), draw, pairs

    def _draws(self) -> list[_Draw]:
        """The first answers, and of pairs that are to be answered twice the second ones, independent of the first."""
        taken = {asked for asked, label in self._answered().items() if label.taken_from}
        once = [question.comparison for question in self._questions]
        twice = [question.comparison for question in self._questions if question.people > 1]
        draws = _Draw("answers", once), _Draw("second-answers", twice, is_second=True)
        return [replace(draw, pairs=[pair for pair in draw.pairs if draw.asked(pair) not in taken]) for draw in draws]

    def _answered(self) -> "dict[str | Asked, Label]":
        """What has an answer in the log, which is looked through again where it has grown."""
        events = len(self._log.history())
        if events != self._seen[0]:
            standing: list[tuple[str | Asked, Label]] = [(label.asked, label) for label in self._log.answers()]
            self._seen = events, dict([*standing, *self._log.labels().items()])
        return self._seen[1]

    def _verdicts(self, draw: _Draw, pairs: Sequence[Comparison]) -> list[Verdict]:
        return judging.verdicts(self._context, self._oracle, pairs, *((SECOND_DRAW,) if draw.is_second else ()))

    def _label(self, draw: _Draw, pair: Comparison, verdict: Verdict) -> Label:
        label = label_from_verdict(pair, verdict, self._context.settings.label.oracle)
        if draw.is_second:
            return replace(label, role="overlap", annotator=SECOND_DRAW)
        draws_twice = self._context.settings.label.overlap
        return replace(label, role="selected", annotator=FIRST_DRAW) if draws_twice else label

    @cached_property
    def _oracle(self) -> Oracle:
        context, label = self._context, self._context.settings.label
        return open_oracle(label.oracle, label, context.execution.device, preferences=context.run.pool_preferences())
