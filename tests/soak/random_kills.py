"""Kills two commands on one run at random times, again and again, and counts what was lost, half made or other."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from command_line import all_outputs, done, on
from fault_loop import check_nothing_half_visible, labels_present
from small_runs import small_run
from zygote import Zygote

ITERATIONS = 2
LOOP: tuple[Any, ...] = ("--iterations", ITERATIONS, "--quiet", "--no-report")
BESIDE = (
    *(("run", *LOOP),) * 4,
    ("status", "--json"),
    ("report",),
    ("label", "--iteration", 1),
    ("evaluate", "--iteration", 1),
    ("generate", "--iteration", 2),
)
LEGAL = {0, 4, 75, -signal.SIGKILL}
"""Done, something else has to come first, busy, killed; nothing else may become of a command."""


@dataclass
class Figures:
    """What came of it."""

    seed: int
    kills: int = 0
    rounds: int = 0
    loops_finished: int = 0
    labels_acknowledged: int = 0
    labels_lost: int = 0
    half_visible: int = 0
    differing: int = 0
    left_behind: int = 0
    seconds: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One run that is worked on and killed until it is finished, then the next, in a folder that is emptied each time."""

    def __init__(self, zygote: Zygote, place: Path, model: Path, prompts: Path, seed: int) -> None:
        self.zygote, self.place = zygote, place
        self.random, self.figures = random.Random(seed), Figures(seed)
        self.new, self.run = place / "new", place / "work" / "run"
        small_run(self.new, model, prompts, generate__num_prompts=4, evaluate__num_responses=1)
        self._begin_again()
        done(*on(self.run, "run"), *LOOP)
        self.golden = all_outputs(self.run)
        self.span = 1.0
        self._begin_again()

    def go(self, kills: int) -> Figures:
        """So many kills, then everything to its end."""
        began = time.monotonic()
        while self.figures.kills < kills:
            self._round()
            if self._is_finished():
                self._compare()
                self._begin_again()
        self._end(self._start(("run", *LOOP), "last"), "last")
        self._compare()
        self.figures.seconds = round(time.monotonic() - began, 1)
        return self.figures

    def _round(self) -> None:
        """Several commands at once; some or all are killed, the others go on to their end."""
        self.figures.rounds += 1
        pids = [self._start(words, str(number)) for number, words in enumerate(self._commands())]
        victims = self.random.choice([pids, pids, pids[:1], pids[1:]])
        for pid in self.random.sample(victims, len(victims)):
            time.sleep(self.random.uniform(0, self.span / len(victims)))
            with suppress(ProcessLookupError):  # it has not been waited for, so the number is still its own
                os.kill(pid, signal.SIGKILL)
        ended = [self._end(pid, str(number)) for number, pid in enumerate(pids)]
        hit = any(status == -signal.SIGKILL for status in ended)
        self.span *= 1.3 if hit else 0.7  # so that about as many come too late as do not, however busy the machine is
        self._look()

    def _commands(self) -> list[tuple[Any, ...]]:
        return [("run", *LOOP), self.random.choice(BESIDE)]

    def _start(self, words: tuple[Any, ...], name: str) -> int:
        return self.zygote.start(
            (*words, self.run) if words[0] == "report" else on(self.run, *words),
            self.place,
            stderr=self.place / f"said-{name}",
            answers=self.place / "answers",
        )

    def _end(self, pid: int, name: str) -> int:
        status = self.zygote.wait(pid)
        said = (self.place / f"said-{name}").read_text()
        self.figures.ended[str(status)] += 1
        self.figures.kills += status == -signal.SIGKILL
        if status not in LEGAL or "Traceback" in said or "this is a bug" in said:
            self.figures.wrong.append(f"{status}: {said[-500:]}")
        return status

    def _look(self) -> None:
        acknowledged = (
            set((self.place / "answers").read_text().split()) if (self.place / "answers").is_file() else set()
        )
        self.figures.labels_lost += len(acknowledged - labels_present(self.run))
        try:
            check_nothing_half_visible(self.run)
        except (AssertionError, OSError) as error:
            self.figures.half_visible += 1
            self.figures.wrong.append(f"half visible: {error}")

    def _is_finished(self) -> bool:
        return (self.run / f"iter-{ITERATIONS:03d}" / "evaluate" / "manifest.json").is_file()

    def _compare(self) -> None:
        """A finished loop, beside one that nobody disturbed."""
        figures = self.figures
        self._look()
        figures.loops_finished += 1
        figures.labels_acknowledged += len((self.place / "answers").read_text().split())
        found = all_outputs(self.run)
        for stage in sorted({*found, *self.golden}):
            if found.get(stage) != self.golden.get(stage):
                figures.differing += 1
                figures.wrong.append(f"differs: {stage}")
        sweeps = (("report",),) if any(self.run.glob("*report*/**/.*.tmp")) or any(self.run.glob(".*.tmp")) else ()
        for words in (*sweeps, ("run", *LOOP), ("verify",)):
            self._end(self._start(words, "last"), "last")
        left = [str(path) for path in self.run.rglob(".*.tmp")]
        figures.left_behind += len(left)
        figures.wrong += [f"left behind: {path}" for path in left]

    def _begin_again(self) -> None:
        shutil.rmtree(self.run.parent, ignore_errors=True)
        shutil.copytree(self.new, self.run)
        (self.place / "answers").unlink(missing_ok=True)


class SharedSoak(Soak):
    """The same with three processes that share the units of one loop."""

    def _commands(self) -> list[tuple[Any, ...]]:
        return [("run", *LOOP, "--shard", f"{index}/3") for index in range(3)]


def check(figures: Figures) -> str:
    """The figures as JSON, where nothing was lost, half made, other or left behind."""
    shown = json.dumps(vars(figures))
    assert figures.labels_acknowledged > 0, shown
    assert not figures.wrong, shown
    assert (figures.labels_lost, figures.half_visible, figures.differing, figures.left_behind) == (0, 0, 0, 0), shown
    return shown
