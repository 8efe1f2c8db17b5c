"""A text of any length and any content, in a part of the screen that scrolls."""

from collections.abc import Iterable, Iterator

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from activedpo_cli.base.records import PromptText
from activedpo_cli.label.wording import shown_text

CHARACTERS_AT_ONCE = 20_000
"""How much of a text is laid out before somebody asks for the rest; all of a long one would keep them waiting."""
_SEARCHED_FOR_A_BREAK = 1000


def safe(text: str, style: str = "") -> Content:
    """Foreign text as it may be shown: what could steer the terminal is written out, and nothing in it is markup."""
    return Content.styled(shown_text(text), style) if style else Content(shown_text(text))


def prompt_content(prompt: PromptText) -> Content:
    """A prompt; where it is more than one message of a user, with the role above each message."""
    if isinstance(prompt, str):
        return safe(prompt)
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return safe(prompt[0]["content"])
    messages = [
        Content.assemble(safe(f"[{message['role']}]", "bold reverse"), "\n", safe(message["content"]))
        for message in prompt
    ]
    return Content("\n\n").join(messages)


class TextPane(VerticalScroll, can_focus=False):
    """A title and a text, of which a long one is shown part by part."""

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = title
        self._rest: list[Content] = []

    def compose(self) -> ComposeResult:
        """Begin with no text."""
        yield Static(markup=False, classes="text")
        yield Static(markup=False, classes="more")

    @property
    def has_more(self) -> bool:
        """Whether a part of the text is not laid out yet."""
        return bool(self._rest)

    def show(self, content: Content) -> None:
        """Show a text from its beginning."""
        first, *self._rest = parts(content)
        self.query(".rest").remove()
        self.query_one(".text", Static).update(first)
        self._say_what_is_left()
        self.scroll_home(animate=False)

    def mark(self, content: Content) -> None:
        """Show the same text in other colours, and leave all as it is otherwise."""
        shown = [*self.query(".text, .rest").results(Static)]
        several = list(parts(content))
        for widget, part in zip(shown, several, strict=False):
            widget.update(part, layout=False)
        self._rest = several[len(shown) :]

    def show_more(self) -> None:
        """Lay out the next part."""
        if self._rest:
            self.mount(Static(self._rest.pop(0), markup=False, classes="rest"), before=self.query_one(".more"))
            self._say_what_is_left()

    def _say_what_is_left(self) -> None:
        left = sum(map(len, self._rest))
        note = self.query_one(".more", Static)
        note.display = left > 0
        note.update(f"… {left:,} more characters: r shows more")


def parts(content: Content) -> Iterator[Content]:
    """The text in parts of which each is laid out in a moment; they end at a line or a word where one ends near."""
    start, text = 0, content.plain
    while len(text) - start > CHARACTERS_AT_ONCE:
        end = start + CHARACTERS_AT_ONCE
        breaks: Iterable[int] = (text.rfind(sign, end - _SEARCHED_FOR_A_BREAK, end) for sign in "\n ")
        end = next((place + 1 for place in breaks if place >= 0), end)
        yield content[start:end]
        start = end
    yield content[start:]
