"""A person at a terminal: runs a command there, watches the screen, types."""

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte
from zygote import Zygote

Screen = list[str]


class Terminal:
    """A terminal of a fixed size in memory, and everything that was written to it."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.raw = b""
        self.frames: list[Screen] = []
        self._screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def name(self) -> str:
        """The device to open."""
        return os.ttyname(self._slave)

    @property
    def screen(self) -> Screen:
        """The lines that are seen now."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def everything(self) -> Screen:
        """The lines that have scrolled away, and those that are seen, up to the cursor's."""
        gone = [
            "".join(line[column].data for column in range(self._screen.columns)) for line in self._screen.history.top
        ]
        return [line.rstrip() for line in gone] + self.screen[: self._screen.cursor.y]

    @property
    def is_cursor_shown(self) -> bool:
        """Whether the person sees where they type."""
        return not self._screen.cursor.hidden

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def run(
        self,
        zygote: Zygote,
        words: tuple[Any, ...],
        folder: Path,
        watch: Callable[["Terminal"], None] = lambda terminal: None,
        **more: Any,
    ) -> int:
        """Run a command to its end, calling `watch` again and again; returns the exit status."""
        pid = zygote.start(words, folder, terminal=self.name, **more)
        deadline = time.monotonic() + 60
        while _is_alive(pid) or self._is_readable(0):
            assert time.monotonic() < deadline, "\n".join(self.screen)
            self.look()
            watch(self)
        status = zygote.wait()
        self.close()
        return status

    def look(self) -> None:
        """Take in what was written, if there is anything within a moment."""
        if self._is_readable(0.02):
            data = os.read(self._master, 65536)
            self.raw += data
            self._stream.feed(data)
            self.frames.append(self.screen)

    def close(self) -> None:
        """Close the window."""
        for descriptor in (self._master, self._slave):
            os.close(descriptor)

    def _is_readable(self, seconds: float) -> bool:
        return bool(select.select([self._master], [], [], seconds)[0])


def _is_alive(pid: int) -> bool:
    """Whether the process still runs; its parent, which is not this process, has not necessarily been told."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
