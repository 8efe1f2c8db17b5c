"""Errors whose message a user reads: what is wrong, the facts, and the way out.

Every error that can be foreseen is raised as one of these; the command line turns it into text and an exit code in
one place (`cli/app.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class ActiveDPOError(Exception):
    """Something failed in a way that can be explained.

    Args:
        message: One sentence, without a final period, naming the thing that is wrong.
        details: Further lines of facts, for instance a difference of settings.
        hint: A command or an action that helps, written so that it can be pasted.

    """

    exit_code = 1
    word = "error"

    def __init__(self, message: str, *, details: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.hint = hint

    @property
    def in_one_line(self) -> str:
        """What is wrong with its facts, for lists of problems."""
        return "; ".join([self.message, *self.details])

    def to_travel(self) -> dict[str, Any]:
        """What another process needs to raise it again, as `TravelledError`."""
        return {"message": self.message, "details": list(self.details), "hint": self.hint, "code": self.exit_code}


class TravelledError(ActiveDPOError):
    """What another process raised, by what `to_travel` gave there, with its exit code; details and hint may lack."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts["message"], details=facts.get("details", ()), hint=facts.get("hint"))
        self.exit_code = facts["code"]


class UsageError(ActiveDPOError):
    """A flag or a setting is wrong."""

    exit_code = 2


class OracleNotFoundError(UsageError):
    """The code of an oracle is not where this command looks."""


class RefusedError(ActiveDPOError):
    """Finished or begun work was made with other settings or inputs."""

    exit_code = 3


class NotReadyError(ActiveDPOError):
    """An earlier stage has to run first."""

    exit_code = 4


class InvalidDataError(ActiveDPOError):
    """A file or an artifact does not hold what it should."""

    exit_code = 4


class LabelsPendingError(ActiveDPOError):
    """Some pairs still wait for an answer, which is no fault: all that could be done was done.

    Args:
        message: As in every error.
        hint: The command that goes on.
        facts: The same for programs.

    """

    exit_code = 5
    word = "pending"

    def __init__(self, message: str, *, hint: str, facts: Mapping[str, Any]) -> None:
        super().__init__(message, hint=hint)
        self.facts = dict(facts)


class StorageError(ActiveDPOError):
    """The disk did not take a file: it is full, fails, or is read-only."""


class BusyError(ActiveDPOError):
    """Another process works on the same stage."""

    exit_code = 75


class InterruptedByUserError(ActiveDPOError):
    """A signal, or the person labelling, stopped the work; what was finished is kept."""

    exit_code = 130


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends the work as Ctrl-C does, and nobody may take it for a person who quits."""


@contextmanager
def naming(origin: str) -> Iterator[None]:
    """Let an InvalidDataError about a text say where it stands: in which row of a file, or which prompt it is."""
    try:
        yield
    except InvalidDataError as error:
        raise InvalidDataError(f"{origin}: {error.message}", details=error.details, hint=error.hint) from error
