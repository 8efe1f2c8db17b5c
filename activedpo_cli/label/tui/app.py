"""The full screen: the prompt above two responses, a line that says what was saved, and a line of keys.

Nothing here decides anything: which pair comes next, and what an answer amounts to, is for `label/queue.py`. An answer is
stored before the screen says so. Scores and sources are never shown, and sides are shuffled.
"""

import asyncio
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from activedpo_cli.base.display import display_text
from activedpo_cli.base.errors import BusyError
from activedpo_cli.label.queue import Answer, Choice, PairAnsweredError, Queue, Ticket
from activedpo_cli.label.tui.panes import TextPane, prompt_content, safe
from activedpo_cli.label.tui.screens import SCROLLS, NoteScreen, ReadingScreen
from activedpo_cli.label.word_differences import Spans, differing_words
from activedpo_cli.label.wording import (
    CHOICES,
    KEYS,
    QUESTION,
    Key,
    help_lines,
    progress_in_words,
    shown_text,
    with_others_in_words,
)

OWN_KEYS = (
    Key(key="d", short="differences", meaning="mark the words in which the responses differ, or do not"),
    Key(key="r", short="more", meaning="show more of texts that are too long to be shown at once"),
)
MOVING = {
    "Arrows": "scroll both responses, as Page Up and Down, Space, Home, End do",
    "Tab": "scroll one response alone, the other, the prompt, both again",
    "Ctrl-C": "quit; everything answered is kept",
}
HELP = help_lines({key.key: key.meaning for key in (*KEYS, *OWN_KEYS)} | MOVING)
KEY_LINE = " · ".join(f"{key.key} {key.short}".replace(" ", "\N{NO-BREAK SPACE}") for key in KEYS)
KEY_LINES = 2
"""Lines at the bottom for the keys."""
SCROLLED = ("Both responses", "Response 1", "Response 2", "The prompt")
ASKS_AGAIN_SECONDS = 1.0
HELD_KEY_SECONDS = 0.2
"""Events of a key that is held follow each other faster than this, and nobody types one key so fast."""
FIRST_REPETITION_SECONDS = 0.7
"""Within this time a key that is held begins to repeat itself, and nobody reads two responses so fast."""


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """Who is asked about what; `clock` counts seconds, and tells a key that is held from one that is pressed again."""

    queue: Queue
    annotator: str
    guidelines: str | None
    clock: Callable[[], float]


class HeldKeys:
    """Tells whether a key is held: a terminal sends its character again and again, and no word that it is the same press."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last, self._last_time, self._pair_since = "", float("-inf"), float("-inf")

    def pair_is_shown(self) -> None:
        """Note that another pair is on the screen from now on."""
        self._pair_since = self._clock()

    def is_held(self, key: str) -> bool:
        """Whether this character belongs to the press that gave the one before."""
        now, before, last = self._clock(), self._last_time, self._last
        self._last, self._last_time = key, now
        return key == last and (now - before < HELD_KEY_SECONDS or now - self._pair_since < FIRST_REPETITION_SECONDS)


class PairScreen(Screen[None]):
    """One pair after another."""

    HORIZONTAL_BREAKPOINTS = [(0, "-stacked"), (100, "-beside")]  # noqa: RUF012

    def __init__(self, sitting: Sitting, ticket: Ticket) -> None:
        super().__init__()
        self._sitting = sitting
        self._queue = sitting.queue
        self._ticket: Ticket | None = ticket
        self._held = HeldKeys(sitting.clock)
        self._is_drawn = False
        self._note = ""
        self._shows_differences = False
        self._differences: tuple[Spans, Spans] | None = None
        self._scrolled = 0
        self._panes = [
            TextPane("Prompt", id="prompt"),
            TextPane("Response 1", id="first"),
            TextPane("Response 2", id="second"),
        ]
        self._others: dict[str, Callable[[], None]] = {
            "n": self._ask_for_note,
            "u": self._undo,
            "g": self._show_guidelines,
            "q": self._end,
            "?": self._show_help,
            "d": self._switch_differences,
            "r": self._show_more,
        }

    def compose(self) -> ComposeResult:
        """Prompt, responses, what was saved, keys."""
        prompt, first, second = self._panes
        yield prompt
        with Container(id="responses"):
            yield first
            yield second
        yield Static(markup=False, id="status")
        yield Static(markup=False, id="keys", classes="keys")

    def on_mount(self) -> None:
        """Show the first pair."""
        self._say(f"answered   {progress_in_words(self._queue.progress(self._sitting.annotator))}")
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        """Keep each key in one line with what it does, behind the question where there is room for that too."""
        wrapped = [
            textwrap.wrap(line, max(event.size.width - 2, 1), break_on_hyphens=False)
            for line in (f"{QUESTION} {KEY_LINE}", KEY_LINE)
        ]
        lines = wrapped[0] if len(wrapped[0]) <= KEY_LINES else wrapped[1]
        self.query_one("#keys", Static).update("\n".join(lines))

    def on_key(self, event: events.Key) -> None:
        """Answer, scroll, or do one of the other things."""
        key = (event.character or "").lower()
        if event.key in SCROLLS:
            self._scroll(SCROLLS[event.key])
        elif event.key in ("tab", "shift+tab"):
            self._scroll_others(1 if event.key == "tab" else -1)
        elif event.key == "enter" and self._ticket is None:
            self._end()
        elif key in CHOICES:
            if not self._is_too_soon(key):
                self._answer(CHOICES[key])
        elif key in self._others:
            if key != "u" or not self._is_too_soon(key):
                self._others[key]()
        elif event.is_printable:
            self._say(f"{display_text(key)} is none of the keys; ? shows them")
        else:
            return
        event.stop()
        event.prevent_default()

    def _end(self) -> None:
        self.app.exit(self._ticket is None)

    def _is_too_soon(self, key: str) -> bool:
        """Whether a key was not meant for the pair that is shown now."""
        if self._held.is_held(key):
            self._say(f"{key} was not taken again: it seems to be held, or the pair has just come; press it once more")
            return True
        if self._ticket is not None and not self._is_drawn:
            self._say(f"{key} was not taken: it came before this pair was on the screen")
            return True
        return False

    def _answer(self, choice: Choice) -> None:
        if self._ticket is None:
            self._say(self._what_is_left())
            return
        view = "differences" if self._differences else "text"
        try:
            self._queue.answer(self._ticket, Answer(choice=choice, note=self._note or None, view=view))
        except PairAnsweredError as error:
            self._next(f"not needed: {error.message}")
        except BusyError as error:
            self._say(f"NOT saved, answer again: {error.message}")
        else:
            self._next(f"saved   {progress_in_words(self._queue.progress(self._sitting.annotator))}")

    def _undo(self) -> None:
        try:
            label = self._queue.undo(self._sitting.annotator)
        except BusyError as error:
            self._say(f"NOT undone, try again: {error.message}")
            return
        if label is None:
            self._say("There is nothing of yours to undo: no answer was given in this sitting.")
            return
        self._next(f"undone   {progress_in_words(self._queue.progress(self._sitting.annotator))}")
        if label.note and self._ticket is not None and self._ticket.asked == label.asked:
            self._note = label.note
            self._name_panes()

    def _next(self, said: str) -> None:
        """Show the pair that comes next, or that there is none; `said` is what became of the one before."""
        self._note, self._is_drawn = "", False
        self._say(said)
        try:
            self._ticket = self._queue.next(self._sitting.annotator)
        except BusyError as error:
            self._ticket = None
            self._say(f"{said}; waiting for the next pair: {error.message}")
            self.set_timer(ASKS_AGAIN_SECONDS, lambda: self._next(said))
            return
        self._show()

    def _show(self) -> None:
        self._differences = self._differing() if self._shows_differences else None
        self._name_panes()
        for pane, content in zip(self._panes, self._contents(), strict=True):
            pane.show(content)
        self._held.pair_is_shown()
        self.call_after_refresh(self._note_that_it_is_drawn, self._ticket)

    def _note_that_it_is_drawn(self, ticket: Ticket | None) -> None:
        self._is_drawn = self._is_drawn or ticket is self._ticket

    def was_drawn(self) -> None:
        """Note that what stands here now is on the screen."""
        self._is_drawn = True

    def _contents(self) -> list[Content]:
        """What stands in the panes."""
        if self._ticket is None:
            return [safe(self._what_is_left()), Content(), Content()]
        contents = [safe(response.text) for response in self._ticket.sides]
        for place, of_one in enumerate(self._differences or ()):
            for start, end in of_one:
                contents[place] = contents[place].stylize("bold underline", start, end)
        return [prompt_content(self._ticket.comparison.prompt), *contents]

    def _differing(self) -> tuple[Spans, Spans] | None:
        """Which words differ of the texts as they are shown; None where marks would say nothing."""
        return differing_words(*(shown_text(side.text) for side in self._ticket.sides)) if self._ticket else None

    def _name_panes(self) -> None:
        progress = self._queue.progress(self._sitting.annotator)
        title = "Prompt" if self._ticket is None else f"Prompt of pair {progress.given + 1} of {progress.most}"
        self._panes[0].border_title = f"{title}, with a note" if self._note else title

    def _what_is_left(self) -> str:
        what = with_others_in_words(self._queue.progress(self._sitting.annotator)) or "All pairs are answered."
        return f"{what} Enter ends the sitting; u takes your last answer back."

    def _say(self, text: str) -> None:
        self.query_one("#status", Static).update(safe(text))

    def _ask_for_note(self) -> None:
        if self._ticket is not None:
            self.app.push_screen(NoteScreen(self._note), self._keep_note)

    def _keep_note(self, note: str | None) -> None:
        self._note = note or ""
        self._name_panes()

    def _show_guidelines(self) -> None:
        if self._sitting.guidelines:
            self.app.push_screen(ReadingScreen("Guidelines", safe(self._sitting.guidelines), "g"))
        else:
            self._say("There are no guidelines.")

    def _show_help(self) -> None:
        who = f"You answer as {self._sitting.annotator}. An answer counts when `saved` is said; the numbers are everybody's."
        self.app.push_screen(ReadingScreen("Help", safe(f"{who}\n\n{HELP}"), "?"))

    def _show_more(self) -> None:
        if not any(pane.has_more for pane in self._panes):
            self._say("All of these texts is shown.")
        for pane in self._panes:
            pane.show_more()

    def _switch_differences(self) -> None:
        if self._ticket is None:
            return
        if self._differences is None:
            self._differences = self._differing()
            if self._differences is None:
                self._shows_differences = False
                self._say("These responses are too different, or too long, for marks to say anything.")
                return
        else:
            self._differences = None
        self._shows_differences = self._differences is not None
        for pane, content in zip(self._panes, self._contents(), strict=True):
            pane.mark(content)
        self._say("words that differ are underlined" if self._shows_differences else "no words are underlined")

    def _scroll(self, how: str) -> None:
        prompt, first, second = self._panes
        for pane in ([first, second], [first], [second], [prompt])[self._scrolled]:
            getattr(pane, how)(animate=False)

    def _scroll_others(self, step: int) -> None:
        self._scrolled = (self._scrolled + step) % len(SCROLLED)
        alone = self._scrolled and (self._scrolled % len(self._panes))
        for place, pane in enumerate(self._panes):
            pane.set_class(bool(self._scrolled) and place == alone, "scrolled")
        self._say(f"{SCROLLED[self._scrolled]} scroll{'s' if self._scrolled else ''}; Tab changes that")


class LabelApp(App[bool]):
    """The application around the pairs, whose result is whether no pair was left.

    What goes wrong in it is raised by whoever runs it, in words of ours.
    """

    ENABLE_COMMAND_PALETTE = False
    ESCAPE_TO_MINIMIZE = False
    BINDINGS = [Binding("ctrl+c,ctrl+q", "quit", show=False, priority=True)]  # noqa: RUF012
    CSS = """
    TextPane { border-top: solid $primary; border-title-style: bold; padding: 0 1; scrollbar-size-vertical: 1; }
    TextPane.scrolled { border-top: thick $accent; }
    TextPane .more { color: $text-muted; }
    #prompt { height: auto; max-height: 30%; min-height: 3; }
    #responses { height: 1fr; }
    #responses TextPane { height: 1fr; width: 1fr; }
    .-stacked #responses { layout: vertical; }
    .-beside #responses { layout: horizontal; }
    .-beside #first { margin-right: 1; }
    #status { height: auto; max-height: 2; padding: 0 1; background: $surface; text-style: bold; }
    .keys { height: auto; max-height: 2; padding: 0 1; color: $text-muted; }
    ReadingScreen, NoteScreen { background: $background; }
    #reading { height: 1fr; }
    #note { height: auto; padding: 1; }
    """

    def __init__(self, sitting: Sitting, ticket: Ticket) -> None:
        super().__init__()
        self.animation_level = "none"  # over slow lines every step of one would be sent
        self._sitting = sitting
        self._first_ticket = ticket
        self._own_loop: asyncio.AbstractEventLoop | None = None

    @property
    def failure(self) -> Exception | None:
        """What ended the application, if anything did."""
        return self._exception

    def get_default_screen(self) -> Screen[None]:
        """The pairs."""
        return PairScreen(self._sitting, self._first_ticket)

    def on_mount(self) -> None:
        """Be ready to be ended from outside."""
        self._own_loop = asyncio.get_running_loop()

    def end_soon(self) -> bool:
        """End, called from a signal's handler; says whether there is anything to end in order."""
        if self._own_loop is None or not self._own_loop.is_running():
            return False
        self._own_loop.call_soon_threadsafe(self.exit)
        return True

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Draw, and say so to the pairs: a key that comes even later was pressed by somebody who could see the pair."""
        super()._display(screen, renderable)
        if isinstance(screen, PairScreen) and renderable is not None and not self._batch_count:
            screen.was_drawn()

    def _fatal_error(self) -> None:
        """Close without a word: the library would print the values of variables, which are people's texts."""
        self._close_messages_no_wait()

    def _print_error_renderables(self) -> None:
        """Print nothing, for the same reason."""
        self._exit_renderables.clear()
