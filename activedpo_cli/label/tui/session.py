"""Run the full screen from its first pair to its end, however that comes, and leave terminal and signals as they were."""

import os
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from activedpo_cli.base import interruption
from activedpo_cli.base.errors import Terminated
from activedpo_cli.label.queue import Queue
from activedpo_cli.label.tui.app import LabelApp, Sitting
from activedpo_cli.label.wording import progress_in_words, with_others_in_words

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAKEN_BY_THE_LIBRARY = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU)
LEAVE_FULL_SCREEN = b"\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h"
"""No bracketed paste, no reports of focus, ordinary keys, wrapped lines, the screen as it was before, a cursor."""


def full_screen_session(queue: Queue, *, annotator: str, guidelines: str | None = None) -> bool:
    """Ask about pair after pair until none is left for this person or they quit; says whether they quit.

    Args:
        queue: The pairs, which others may be working on too.
        annotator: Who answers.
        guidelines: Text to show on request.

    Raises:
        Terminated: SIGTERM, or the end of the terminal; everything that was said to be saved is.

    """
    ticket, has_quit = queue.next(annotator), False
    if ticket is not None:
        app = LabelApp(Sitting(queue=queue, annotator=annotator, guidelines=guidelines, clock=time.monotonic), ticket)
        _run(app)
        has_quit = not app.return_value
    queue.leave(annotator)
    progress = queue.progress(annotator)
    sys.stdout.write(f"saved   {progress_in_words(progress)}\n")
    if not has_quit and (with_others := with_others_in_words(progress)):
        sys.stdout.write(f"{with_others}\n")
    sys.stdout.flush()
    return has_quit


def _run(app: LabelApp) -> None:
    """Show the application until it ends, and raise what ended it if that was no wish of the person's."""
    with _terminal_restored(), _signals_heard(app) as heard:
        app.run(mouse=False)
    if heard and isinstance(heard[0], Terminated):
        raise heard[0]
    if heard:
        interruption.forget()
    elif app.failure is not None:
        raise app.failure


@contextmanager
def _signals_heard(app: LabelApp) -> Iterator[list[KeyboardInterrupt]]:
    """Let the application end in order where a signal would break into it, and give it no other for good.

    What is yielded lists what the signals raise elsewhere. The library puts handlers in place that outlive it.
    """
    before = {number: signal.getsignal(number) for number in (*ENDING, *TAKEN_BY_THE_LIBRARY)}
    heard: list[KeyboardInterrupt] = []

    def around(previous: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def hear(number: int, frame: FrameType | None) -> None:
            try:
                previous(number, frame)
            except KeyboardInterrupt as error:
                if not app.end_soon():
                    raise
                heard.append(error)

        return hear

    for number in ENDING:
        if callable(previous := before[number]):
            signal.signal(number, around(previous))
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def _terminal_restored() -> Iterator[None]:
    """Give the terminal back as it was, also where the application could not."""
    keyboard = sys.__stdin__.fileno() if sys.__stdin__ else 0
    before = termios.tcgetattr(keyboard)
    termios.tcflush(keyboard, termios.TCIFLUSH)  # nobody can have meant a pair that they had not seen

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSANOW, before)

    def leave() -> None:
        restore()
        with suppress(OSError):
            os.write(2, LEAVE_FULL_SCREEN)  # whoever has the stream locked may be stuck

    try:
        with interruption.last_step(leave):
            yield
    except BaseException:
        leave()
        raise
    finally:
        restore()
