"""Markdown as a tree of a few kinds of nodes, so that a page can build it without a parser and without HTML.

Whatever is not on the list stays text: HTML, images, which would be loaded from elsewhere, and links, which are shown as
they are written, so that one sees where they lead. Hidden are the marks themselves, the language of a block of code, and
cells beyond the columns of a table, as Markdown has it; the text as it was written is one key away.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import display_text

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

LONGEST = 20_000
"""Characters; some texts take the parser a time that grows with the square of their length."""
MOST_NODES = 20_000

KINDS = {
    **{name: name for name in ("blockquote", "em", "s", "strong", "table", "tbody", "td", "th", "thead", "tr")},
    "bullet_list": "ul",
    "heading": "h",
    "list_item": "li",
    "ordered_list": "ol",
    "paragraph": "p",
}
"""What a token of the parser becomes, by its name without `_open`."""
LEAVES = {"code_inline": "code", "code_block": "pre", "fence": "pre"}
BREAKS = {"hr": "hr", "hardbreak": "br"}

Node = str | list[Any]
"""A text, or a kind followed by the nodes within it; `ol:3` is a list that counts from three."""


def markdown_nodes(text: str) -> list[Node] | str:
    """The nodes of a text, or why it is shown as it was written."""
    if len(text) > LONGEST:
        return f"Markdown is shown up to {LONGEST:,} characters"
    tokens = _parser().parse(display_text(text))
    if sum(1 + len(token.children or ()) for token in tokens) > MOST_NODES:
        return "this text is too involved to be shown as Markdown"
    return _nodes(tokens)


def _nodes(tokens: "list[Token]") -> list[Node]:
    root: list[Node] = []
    open_nodes: list[list[Any]] = [root]
    for token in tokens:
        name = token.type.removesuffix("_open").removesuffix("_close")
        if token.nesting > 0:
            start = token.attrs.get("start")
            node: list[Any] = [KINDS.get(name, "p") + (f":{start}" if start is not None else "")]
            open_nodes[-1].append(node)
            open_nodes.append(node)
        elif token.nesting < 0:
            open_nodes.pop()
        elif token.type == "inline":
            open_nodes[-1].extend(_nodes(token.children or []))
        elif token.type in LEAVES:
            open_nodes[-1].append([LEAVES[token.type], display_text(token.content)])
        elif token.type in BREAKS:
            open_nodes[-1].append([BREAKS[token.type]])
        elif token.type == "softbreak" or token.content:
            text = "\n" if token.type == "softbreak" else token.content
            open_nodes[-1].append(display_text(text))  # again: the parser has made characters of `&#x1b;` and the like
    return root


@cache
def _parser() -> "MarkdownIt":
    """One without HTML, links and images, which all others but `js-default` would read as such."""
    from markdown_it import MarkdownIt

    return MarkdownIt("js-default").disable(["link", "image", "autolink", "reference"])
