"""What the trackers that are none note of all that they are told: a line of JSON each, in the file that a variable names."""

import json
import os
from typing import Any

VARIABLE = "FAKE_TRACKER_NOTES"
FAILING = "FAKE_TRACKER_FAILS_AT"


def note(**what: Any) -> None:
    if str(what.get("step")) == os.environ.get(FAILING):
        raise ConnectionError("the service is down; the key was hf_aTokenThatNobodyMaySeeAnywhere1234")
    with open(os.environ[VARIABLE], "a") as stream:
        stream.write(json.dumps(what) + "\n")


class Settings:
    """Stands for the module's `config`."""

    def update(self, values: dict[str, Any], allow_val_change: bool = False) -> None:
        note(settings=values)


class TrackedRun:
    """Stands for what `init` returns."""

    url = "https://tracker.example/run"

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        note(step=step, values=values)

    def finish(self) -> None:
        note(finished=True)
