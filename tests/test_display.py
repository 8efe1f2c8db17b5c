import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.display import display_text
from activedpo_cli.cli.render import rate_text

ANY_TEXT = st.text(st.characters(codec=None) | st.sampled_from("\x1b\x9b\x07\r\x7f\u202e\u2066\u200f\u2028\ud800"))
BIDI_CLASSES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = {"\u200e", "\u200f", "\u061c"}


def may_steer_a_terminal(character: str) -> bool:
    """By the Unicode database, not by ranges."""
    if character in "\t\n":
        return False
    control_or_separator = unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
    return control_or_separator or unicodedata.bidirectional(character) in BIDI_CLASSES or character in MARKS


@given(ANY_TEXT)
def test_nothing_that_steers_a_terminal_is_left(text):
    shown = display_text(text)
    assert not any(may_steer_a_terminal(character) for character in shown)
    shown.encode("utf-8")


@given(ANY_TEXT)
def test_everything_else_stays_in_place(text):
    shown = display_text(text)
    for character in text:
        if may_steer_a_terminal(character):
            written = f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
        else:
            written = character if shown.startswith(character) else f"\\u{ord(character):04x}"
        assert shown.startswith(written)
        shown = shown[len(written) :]
    assert shown == ""


def test_every_character_is_judged_as_the_unicode_database_does():
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    changed = {character for character in characters if display_text(character) != character}
    deprecated = {chr(code) for code in range(0x206A, 0x2070)}
    assert changed - deprecated == {character for character in characters if may_steer_a_terminal(character)}


def test_ordinary_text_is_unchanged():
    ordinary = "Größe\tof 漢字 in שלום, [bold]not markup[/bold] [/x] \\x1b 👩‍👩‍👧 naïve\nsecond line"
    assert display_text(ordinary) == ordinary


def test_escapes_are_visible():
    assert display_text("\x1b[31mred\x9b0m\u202edrowssap\r") == r"\x1b[31mred\x9b0m\u202edrowssap\x0d"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0.025, "40.0 s each"), (0.8, "1.2 s each"), (2.5, "2.5 /s"), (240.4, "240 /s"), (0.0, "0.0 /s")],
)
def test_a_rate_is_never_rounded_away(per_second: float, text: str) -> None:
    assert rate_text(per_second) == text
