"""`read_run`: what a run has made, as rows that `datasets` and pandas take; nothing of the run is changed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import flat
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.step import require
from activedpo_cli.policy.policy import model_location
from activedpo_cli.python.explaining import explained
from activedpo_cli.run import records
from activedpo_cli.store import run as stored

if TYPE_CHECKING:
    import datasets
    import pandas


class Records(list[dict[str, Any]]):
    """Rows, each with the same columns; a list of dictionaries."""

    def to_dataset(self) -> "datasets.Dataset":
        """The rows as a data set of `datasets`, which TRL's trainers take."""
        from datasets import Dataset

        return Dataset.from_list(list(self))

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a table of pandas."""
        from pandas import DataFrame

        return DataFrame(list(self))


class Run:
    """A run that exists, to be read; see `read_run`."""

    def __init__(self, run: stored.Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        """Where it is."""
        return f"read_run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self._run.path

    @property
    def iterations(self) -> tuple[int, ...]:
        """Those that have begun, from 1."""
        return tuple(self._run.iterations())

    @property
    @explained
    def settings(self) -> dict[str, Any]:
        """`config.yaml`, with dotted keys, such as `select.method`: settings of stages to come."""
        config = self._run.config
        return {"seed": config.seed, **flat(config, *(name for name in Config.model_fields if name != "seed"))}

    @explained
    def responses(self, iteration: int | None = None) -> Records:
        """Responses with `prompt`, `completion` and the tokens of both, of one iteration or of all that have some.

        `featurize` takes them as they are.
        """
        return self._of(iteration, "generate", records.response_records)

    @explained
    def choices(self, iteration: int | None = None) -> Records:
        """The pairs that were selected, best first: `rank`, `score`, `prompt`, `response_a`, `response_b` and ids."""
        return self._of(iteration, "select", records.choice_records)

    @explained
    def preferences(self, iteration: int | None = None) -> Records:
        """What was preferred: `prompt`, `chosen` and `rejected` as TRL reads them, of one or of all labelled iterations."""

        def of_iteration(run: stored.Run, number: int) -> records.Records:
            return [{"iteration": number, **row} for row in records.preference_records(run, number)[0]]

        return self._of(iteration, "label", of_iteration)

    @explained
    def evaluations(self) -> Records:
        """What was measured of the initial model, iteration 0, and of each later one; docs/artifacts.md has the names."""
        return Records(records.alike(records.evaluation_records(self._run)))

    @explained
    def adapter(self, iteration: int | None = None) -> Path:
        """The folder of the adapter that an iteration trained, the newest without one, for `PeftModel.from_pretrained`."""
        self._run.forget_digests()
        number = records.finished_iterations(self._run, "train")[-1] if iteration is None else iteration
        require(self._run, "train", number)
        return self._run.adapter_path(number)

    @explained
    def reference(self) -> dict[str, str]:
        """Which weights π_SFT is, as in `AutoModelForCausalLM.from_pretrained(**run.reference())`."""
        location, revision = model_location(self._run)
        return {"pretrained_model_name_or_path": location} | ({} if revision is None else {"revision": revision})

    def _of(self, iteration: int | None, stage: str, read: Callable[[stored.Run, int], records.Records]) -> Records:
        """The rows of one iteration, or of all in which a stage is finished; looked at anew each time."""
        self._run.forget_digests()
        numbers = records.finished_iterations(self._run, stage) if iteration is None else [iteration]
        return Records(records.alike(row for number in numbers for row in read(self._run, number)))


@explained
def read_run(path: str | os.PathLike[str] | None = None) -> Run:
    """A run to be read.

    Its methods raise NotReadyError, naming the command that is next, where what is asked for is not there or not up to
    date, and InvalidDataError where files of the run were changed.

    Args:
        path: What `--run` takes: a folder, or a name below `runs/`; without it `$ACTIVEDPO_RUN`, else `runs/default`.

    Raises:
        NotReadyError: there is no run.
        InvalidDataError: the folder holds something else than a run does.

    """
    return Run(stored.Run.open(stored.run_path(None if path is None else os.fspath(path))))
