"""Figures in the colours of a dark page: a style within the SVG, which a browser follows where its reader wants one."""

from activedpo_cli.reports.drawing import PALETTE, STYLE

_ON_DARK = ("#4da3e8", "#f58140", "#2fc79b", "#e29ec2", "#f0b32e", "#9ad6fa", "#eceef1")
"""For each colour of the palette one of its hue that can be seen on a dark ground."""
INK = "#e4e6ea"
COLOURS = {
    **dict(zip(PALETTE, _ON_DARK, strict=True)),
    "#ffffff": "#1d2026",
    str(STYLE["text.color"]): INK,
    str(STYLE["axes.labelcolor"]): "#b4bac4",
    str(STYLE["xtick.color"]): "#8e95a1",
    str(STYLE["grid.color"]): "#343941",
    "#444444": "#c9ced6",
    "#8a8a8a": "#9aa0aa",
}
"""What each colour of a figure becomes on a dark page."""
_STYLE = (
    "<style>@media (prefers-color-scheme: dark) {"
    f"svg {{ fill: {INK}; }} "
    + " ".join(
        f'[style*="{part}: {light.lower()}"] {{ {part}: {dark} !important; }}'
        for light, dark in COLOURS.items()
        for part in ("fill", "stroke")
    )
    + "}</style>"
)


def with_dark_colours(svg: bytes) -> bytes:
    """The same figure, which a reader who prefers dark pages sees in light colours on a dark ground."""
    opening, end, rest = svg.partition(b"<svg")
    attributes, bracket, body = rest.partition(b">")
    if not end or attributes.endswith(b"/"):
        return svg
    return opening + end + attributes + bracket + _STYLE.encode() + body
