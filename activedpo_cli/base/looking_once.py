"""For commands that only look: what many stages of a run have in common is looked up once.

Inside `looking_once` an answer of `once` is kept, though its files may change meanwhile; what such a command says is how
things stood at one moment. Elsewhere `once` asks each time.
"""

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from activedpo_cli.base.errors import ActiveDPOError

Answer = TypeVar("Answer")
_ANSWERS: ContextVar[dict[Hashable, Any] | None] = ContextVar("answers", default=None)

_NOT_ASKED: Any = object()


@contextmanager
def looking_once() -> Iterator[None]:
    """Keep the answers of `once` until the end of the block.

    The collector of garbage rests meanwhile: it took a third of the time, walking again and again through what is kept.
    """
    token, was_enabled = _ANSWERS.set({}), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        _ANSWERS.reset(token)
        if was_enabled:
            gc.enable()


def once(key: Hashable, ask: Callable[[], Answer]) -> Answer:
    """The answer to a question, which nobody may change, or the ActiveDPOError; `key` says which question it is."""
    answers = _ANSWERS.get()
    if answers is None:
        return ask()
    answer = answers.get(key, _NOT_ASKED)
    if answer is _NOT_ASKED:
        try:
            answer = ask()
        except ActiveDPOError as error:
            answer = error
        answers[key] = answer
    if isinstance(answer, ActiveDPOError):
        raise answer
    return answer
