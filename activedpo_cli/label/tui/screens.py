"""What is laid over the pair for a while: a text to read, and a line to write a note in."""

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from activedpo_cli.base.display import display_text
from activedpo_cli.label.tui.panes import TextPane

SCROLLS = {
    "up": "scroll_up",
    "down": "scroll_down",
    "pageup": "scroll_page_up",
    "pagedown": "scroll_page_down",
    "space": "scroll_page_down",
    "home": "scroll_home",
    "end": "scroll_end",
}
"""The keys that scroll, with what they call of a pane."""


class ReadingScreen(ModalScreen[None]):
    """A text over everything; the key that opened it, Enter or `q` takes it away."""

    def __init__(self, title: str, content: Content, key: str) -> None:
        super().__init__()
        self._pane = TextPane(title, id="reading")
        self._content = content
        self._key = key

    def compose(self) -> ComposeResult:
        """The text, and how to leave it."""
        yield self._pane
        yield Static(f"Enter, q or {self._key} goes back to the pair", markup=False, classes="keys")

    def on_mount(self) -> None:
        """Show the text."""
        self._pane.show(self._content)

    def on_key(self, event: events.Key) -> None:
        """Scroll, show more, or go back."""
        event.stop()
        if event.key in SCROLLS:
            getattr(self._pane, SCROLLS[event.key])(animate=False)
        elif event.character == "r":
            self._pane.show_more()
        elif event.key == "enter" or event.character in (self._key, "q"):
            self.dismiss()


class NoteInput(Input):
    """A line whose content can always be shown and stored: what is pasted is made harmless, as every text here."""

    def replace(self, text: str, start: int, end: int) -> None:
        """Put typed or pasted text in the place of some, or of nothing."""
        super().replace(_harmless(text), start, end)

    def on_paste(self, event: events.Paste) -> None:
        """Take all lines of what is pasted, as one line; the library would drop all but the first."""
        event.prevent_default()
        event.stop()
        self.replace(event.text, *self.selection)


class NoteScreen(ModalScreen[str]):
    """Asks for the note that goes with the answer to this pair; its result is the note, which may be empty."""

    def __init__(self, note: str) -> None:
        super().__init__()
        self._note = note

    def compose(self) -> ComposeResult:
        """A line to write in, and how to leave it."""
        with Vertical(id="note"):
            yield Static("A note that goes with your answer to this pair", markup=False)
            yield NoteInput(_harmless(self._note), select_on_focus=False)
            yield Static("Enter keeps it; an empty line takes it away", markup=False, classes="keys")

    def on_mount(self) -> None:
        """Write at once."""
        self.query_one(NoteInput).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back with the note."""
        event.stop()
        self.dismiss(event.value.strip())


def _harmless(text: str) -> str:
    return display_text(text).replace("\t", " ").replace("\n", " ")
