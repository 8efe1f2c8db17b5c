"""The signs that output is drawn with, and plain ones for encodings that lack them."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Symbols:
    """One set of signs; each but the levels, the range and the dashes is a single cell wide."""

    done: str = "✓"
    running: str = "▸"
    waiting: str = "·"
    filled: str = "━"
    unfilled: str = "─"
    levels: str = "▁▂▃▄▅▆▇█"
    nothing: str = "–"
    to: str = "…"
    between: str = "·"
    point: str = "●"
    second_point: str = "◆"
    bar: str = "│"
    bar_top: str = "┬"
    bar_bottom: str = "┴"
    axis: str = "│"
    axis_tick: str = "┤"
    corner: str = "└"
    base: str = "─"
    base_tick: str = "┬"


UNICODE = Symbols()
ASCII = Symbols(
    done="+",
    running=">",
    waiting=".",
    filled="#",
    unfilled="-",
    levels="_.-~=+*#",
    nothing="-",
    to="..",
    between="|",
    point="o",
    second_point="x",
    bar="|",
    bar_top="-",
    bar_bottom="-",
    axis="|",
    axis_tick="+",
    corner="+",
    base="-",
    base_tick="+",
)


def symbols_for(stream: Any) -> Symbols:
    """The signs that a stream can carry."""
    signs = "".join(getattr(UNICODE, field.name) for field in fields(UNICODE))
    return UNICODE if encodable(signs, stream) == signs else ASCII


def encodable(text: str, stream: Any) -> str:
    r"""`text` with what the stream's encoding lacks written out, such as `\u03bb`."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
