"""Markdown as nodes of a few kinds: what is there is seen, and nothing acts."""

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_text import HOSTILE, steering

from activedpo_cli.label.web.tokens import LONGEST, markdown_nodes

KINDS = {
    *("p", "h", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "hr", "br"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def kinds_of(nodes: Any) -> Iterator[str]:
    for node in nodes:
        if not isinstance(node, str):
            yield node[0].partition(":")[0]
            yield from kinds_of(node[1:])


def text_of(nodes: Any) -> str:
    return "".join(node if isinstance(node, str) else text_of(node[1:]) for node in nodes)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("a *b* **c**", [["p", "a ", ["em", "b"], " ", ["strong", "c"]]]),
        ("# A\n\nb\nc", [["h", "A"], ["p", "b", "\n", "c"]]),
        ("1. a\n2. b", [["ol", ["li", ["p", "a"]], ["li", ["p", "b"]]]]),
        ("3. a\n4. b", [["ol:3", ["li", ["p", "a"]], ["li", ["p", "b"]]]]),
        ("```sh\nls\n```", [["pre", "ls\n"]]),
        ("`x` ~~y~~", [["p", ["code", "x"], " ", ["s", "y"]]]),
        ("> a\n\n---", [["blockquote", ["p", "a"]], ["hr"]]),
        ("a  \nb", [["p", "a", ["br"], "b"]]),
        ("|a|\n|-|\n|b|", [["table", ["thead", ["tr", ["th", "a"]]], ["tbody", ["tr", ["td", "b"]]]]]),
        ("", []),
    ],
)
def test_what_markdown_becomes(text: str, nodes: Any) -> None:
    assert markdown_nodes(text) == nodes


@pytest.mark.parametrize(
    "text",
    [
        "[click](https://evil.example/a)",
        "[click](javascript:alert(1))",
        "![seen](https://evil.example/seen.png)",
        "<https://evil.example>",
        "https://evil.example",
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "[a]: https://evil.example 'hidden'",
        "[a][b]\n\n[b]: https://evil.example",
    ],
)
def test_links_images_and_html_are_shown_as_they_are_written(text: str) -> None:
    nodes = markdown_nodes(text)
    assert set(kinds_of(nodes)) == {"p"}
    assert text_of(nodes) == text.replace("\n\n", "")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_makes_another_node_or_keeps_what_steers(text: str) -> None:
    nodes = markdown_nodes(text)
    assert set(kinds_of(nodes)) <= KINDS
    assert not steering(text_of(nodes))


@pytest.mark.parametrize("entity", ["&#x202e;", "&#8238;", "&rlm;", "&#27;", "&#x9b;"])
def test_a_character_that_is_spelled_out_steers_nothing_either(entity: str) -> None:
    for text in (f"a{entity}b", f"`a{entity}b`", f"**{entity}**", f"    {entity}"):
        assert not steering(text_of(markdown_nodes(text)))


def test_random_markup_keeps_to_the_kinds() -> None:
    chance = random.Random(0)
    parts = [
        "*",
        "_",
        "`",
        "~~",
        "[",
        "](",
        ")",
        "!",
        "<b>",
        "&lt;",
        "\n",
        "\n\n",
        "> ",
        "- ",
        "1. ",
        "|",
        "|-|",
        "# ",
        "a",
        "  ",
    ]
    for _ in range(300):
        nodes = markdown_nodes("".join(chance.choices(parts, k=60)))
        assert set(kinds_of(nodes)) <= KINDS


@pytest.mark.parametrize("part", ["[", "![", "*_", "<", "`a``", ">", "- ", "\n- a", "|", "\n|a|"])
def test_no_text_takes_long(part: str) -> None:
    text = (part * LONGEST)[:LONGEST]
    began = time.process_time()
    markdown_nodes(text)
    assert time.process_time() - began < 3, "with links the brackets alone take more than that"


def test_long_texts_are_shown_as_they_are() -> None:
    assert "20,000 characters" in str(markdown_nodes("a" * (LONGEST + 1)))
    assert isinstance(markdown_nodes(("|a" * 100 + "\n" + "|-" * 100 + "\n") + "|\n" * 9000), str)
