"""Errors whose facts and way out a notebook shows too: they stand as notes below the message."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from activedpo_cli.base.errors import ActiveDPOError

Given = ParamSpec("Given")
Result = TypeVar("Result")


def explained(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The same function, whose errors carry their details and hints as notes, which tracebacks show."""

    @wraps(function)
    def wrapped(*arguments: Given.args, **options: Given.kwargs) -> Result:
        try:
            return function(*arguments, **options)
        except ActiveDPOError as error:
            hints = [f"hint: {error.hint}"] if error.hint else []
            for note in [*error.details, *hints]:
                if note not in getattr(error, "__notes__", ()):
                    error.add_note(note)
            raise

    return wrapped
