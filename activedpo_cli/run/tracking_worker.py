"""The process that speaks with one tracker, by accelerate's integration of it, so that no stage notices the tracker.

A line of JSON on stdin is what to do, a line on stdout what came of it; all that libraries print goes nowhere. At the end of
stdin the tracker is told that it is the end.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

Values = dict[str, float]


class Telling:
    """One tracker that is open."""

    def __init__(self, order: dict[str, Any], classes: dict[str, Callable[..., Any]]) -> None:
        self.order, self.name = order, str(order["tracker"])
        self.tracker = self._open(classes[self.name])

    def opened(self) -> dict[str, Any]:
        """By what it knows the run, and where a person finds it; the settings go to it where it did not know the run."""
        run = getattr(self.tracker, "tracker", None)
        found, where = self.order.get("id"), None
        if self.name == "mlflow":
            found = getattr(getattr(run, "info", None), "run_id", None)
        elif self.name == "wandb":
            where = getattr(run, "url", None)
        if self.order["is_new"] and self.name != "tensorboard":  # to which settings would be a run of their own
            self.tracker.store_init_configuration(self.order["settings"])
        return {"id": found, "where": where if isinstance(where, str) else None}

    def tell(self, step: int, rows: list[Values]) -> dict[str, Any]:
        """Pass rows on, of which the first stands at this step; says how many were taken, and what stopped the others."""
        for number, values in enumerate(rows):
            try:
                self.tracker.log(values, step=step + number)
            except Exception as error:
                return {"told": number, "error": _reason(error)}
        return {"told": len(rows)}

    def _open(self, kind: Callable[..., Any]) -> Any:
        order = self.order
        project, name, known = order["project"], order["name"], order["id"]
        if self.name == "tensorboard":  # which forgets what stands at this step or behind it
            tracker = kind(name, order["folder"], purge_step=order["step"])
        elif self.name == "wandb":  # which passes over steps that it has
            tracker = kind(project, name=name, id=known, resume="allow")
        elif self.name == "trackio":
            tracker = kind(project, name=name, resume="allow")
        else:
            tracker = kind(experiment_name=project, run_name=name, run_id=known)
        tracker.start()
        return tracker


def serve(orders: TextIO, answers: TextIO) -> None:
    """Do what each line says until there is none; what fails is answered, and ends the work."""
    telling: Telling | None = None
    try:
        for line in orders:
            order = json.loads(line)
            if telling is None:
                telling = Telling(order, _classes())
                answer = telling.opened()
            else:
                answer = telling.tell(order["step"], order["rows"])
            _say(answers, answer)
    except BaseException as error:  # a tracker's library may even end the process
        if isinstance(error, KeyboardInterrupt):
            raise
        _say(answers, {"error": _reason(error)})
    finally:
        if telling is not None:
            telling.tracker.finish()


def _classes() -> dict[str, Callable[..., Any]]:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # accelerate's loggers want to know how many processes there are
    return dict(LOGGER_TYPE_TO_CLASS)


def _reason(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def main() -> None:
    """Serve whoever started this process."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
