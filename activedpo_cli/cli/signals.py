"""What signals do: the first ends the work as soon as nothing is lost by it, a second one ends the process at once.

Ctrl-C, SIGTERM and the end of the terminal mean the same. Imports nothing that takes time, so that it can come first.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from activedpo_cli.base import interruption
from activedpo_cli.base.errors import InterruptedByUserError, Terminated

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAME_WISH_SECONDS = 0.3
"""Wrappers often pass on a signal that the command has already got itself; within this time it is the same wish."""
LOST_AND_RAISED_AGAIN_SECONDS = 0.05
SHOW_CURSOR = b"\x1b[?25h"
LAST_WORDS = b"\nstopped at once; what was finished is kept, and the same command goes on from there\n"

_is_watching = False
_is_raising_again = False
"""Whether the next signal is one that this process sends itself, and so no second wish of the person."""


@contextmanager
def stoppable(*, for_good: bool = False) -> Iterator[None]:
    """Let signals end the work inside; a signal that is ignored, as SIGHUP under `nohup`, stays so.

    Args:
        for_good: The process ends behind it: a signal that comes even later ends it without a word.

    """
    if _is_watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _watched(), _no_lost_exceptions():
        previous = {number: signal.getsignal(number) for number in STOPPING}
        heard = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
        for number in heard:
            signal.signal(number, _raise_once)
        _end_with_parent()
        try:
            yield
        finally:
            for number, handler in heard.items():
                signal.signal(number, signal.SIG_DFL if for_good else handler)
            interruption.forget()


def _raise_once(number: int, frame: FrameType | None) -> None:
    if not interruption.is_requested():  # a second one is dealt with by the watcher, which hears it sooner
        kind = KeyboardInterrupt if number == signal.SIGINT else Terminated
        interruption.request(kind)
        raise kind


@contextmanager
def _watched() -> Iterator[None]:
    """Have a thread hear every signal at once: handlers wait until the main thread comes back from a library."""
    global _is_watching
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    _is_watching = True
    try:
        yield
    finally:
        _is_watching = False
        signal.set_wakeup_fd(previous)
        os.close(writer)  # the watcher reads its end, and ends
        watcher.join()
        os.close(reader)


def _watch(reader: int) -> None:
    global _is_raising_again
    first: float | None = None
    while numbers := os.read(reader, 64):
        now = time.monotonic()
        if not set(numbers).intersection(STOPPING):
            continue
        if _is_raising_again:
            _is_raising_again, first = False, now
            continue
        if first is not None and now - first >= SAME_WISH_SECONDS:
            _stop_at_once()
        first = now if first is None else first


def _stop_at_once() -> None:
    for pid in interruption.children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    interruption.take_last_steps()
    with suppress(OSError):
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + LAST_WORDS)
    os._exit(InterruptedByUserError.exit_code)


@contextmanager
def _no_lost_exceptions() -> Iterator[None]:
    """Send the signal again where its exception was raised in a finalizer or the like, where Python swallows exceptions."""
    before = sys.unraisablehook

    def again(unraisable: Any) -> None:
        global _is_raising_again
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            before(unraisable)
            return
        kind = type(unraisable.exc_value)
        number = signal.SIGINT if kind is KeyboardInterrupt else signal.SIGTERM
        interruption.forget()
        _is_raising_again = True
        timer = threading.Timer(LOST_AND_RAISED_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _end_with_parent() -> None:
    if os.environ.pop(interruption.PARENT_PIPE, None):
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
