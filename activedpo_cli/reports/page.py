"""The page: one HTML file that needs nothing else, asks nothing of the network and runs no script.

Every text passes through autoescaping and through `display_text`, so that what models wrote stays text.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from activedpo_cli.base.display import display_text
from activedpo_cli.reports.section import Section

MOST_OPEN = 8
"""Panels of a figure, or sentences about one run each; more of them are folded away."""


def render_page(title: str, summaries: Sequence[str], sections: Sequence[Section], figures: Mapping[str, bytes]) -> str:
    """The page with its figures, given as SVG by name, inside."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("activedpo_cli", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    images = {name: "data:image/svg+xml;base64," + base64.b64encode(svg).decode() for name, svg in figures.items()}
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, summaries=summaries, sections=sections, images=images, most_open=MOST_OPEN)


def _harmless(value: Any) -> Any:
    return display_text(value) if isinstance(value, str) else value
