"""What a figure shows, as plain numbers: the same that are drawn stand in `report.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from activedpo_cli.reports.wording import number, share
from activedpo_cli.statistics.summaries import FiveNumbers, MeanInterval

Kind = Literal["lines", "boxes", "bars", "matrix"]
MOST_IN_WORDS = 12
"""Series of a panel that its description names."""
CANDIDATES = "candidates"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, row of boxes, layer of bars or row of a matrix.

    Attributes:
        label: Its name in the legend.
        x: Where its points stand.
        y: Their values, the median for boxes; None leaves a gap.
        sources: The finished stage, as `RUN/iter-001/evaluate`, that each point comes from; a single one goes for all.
        low: Lower end of the band around each point, or of a box's whisker.
        high: Upper end.
        lower_quartile: Lower end of each box.
        upper_quartile: Upper end of each box.
        colour: Place in the palette; every place has its own marker and dashes too.
        shade: Place between the first (0) and the last (1) of an ordered sequence, in place of a colour.
        is_background: Drawn in grey, as what the others are compared with.
        is_faint: Drawn thin in its colour, as what the series of that colour is compared with.
        marked: Places of the points that get a marker; None marks all.
        group: The name that it shares in the legend with others, all drawn thin in one colour and without bands.

    """

    label: str
    x: list[float]
    y: list[float | None]
    sources: list[str]
    low: list[float | None] | None = None
    high: list[float | None] | None = None
    lower_quartile: list[float | None] | None = None
    upper_quartile: list[float | None] | None = None
    colour: int = 0
    shade: float | None = None
    is_background: bool = False
    is_faint: bool = False
    marked: list[int] | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes; `level` is a horizontal line to compare with, `is_share` writes the values as per cent.

    `x_from_zero` and `y_from_zero` begin the axis there. A matrix holds shares; its columns have the labels of its rows.
    """

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    kind: Kind = "lines"
    level: float | None = None
    is_share: bool = False
    x_from_zero: bool = False
    y_from_zero: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure: `name` is that of its files, `caption` says how to read it, `alternative` what it shows in words.

    `message` is what its numbers say in a sentence, the heading above it; `title` says what it is about.

    With `has_one_scale` all panels have the same range of values, so that they can be compared.
    """

    name: str
    title: str
    caption: str
    alternative: str
    panels: list[Panel] = field(default_factory=list)
    has_one_scale: bool = False
    message: str = ""


def panel_in_words(panel: Panel) -> str:
    """What a panel shows, for those who do not see it: where each of its series begins and ends."""
    shown = [words for series in panel.series[:MOST_IN_WORDS] if (words := _series_in_words(series, panel))]
    more = len(panel.series) - MOST_IN_WORDS
    return " ".join([f"{panel.title}:" if panel.title else "", *shown, f"And {more} more." if more > 0 else ""]).strip()


def _series_in_words(series: Series, panel: Panel) -> str:
    points = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
    if not points or panel.kind == "matrix":
        return ""
    wording = share if panel.is_share else number
    ends = [f"{wording(y)} at {number(x, 0)}" for x, y in dict.fromkeys((points[0], points[-1]))]
    kind = "median " if panel.kind == "boxes" else ""
    over = f" ({panel.x_label})" if panel.x_label else ""
    return f"{series.label}, {kind}{' to '.join(ends)}{over}."


def boxes_by_iteration(
    title: str, y_label: str, boxes: Mapping[str, Sequence[tuple[int, FiveNumbers, str]]], *, y_from_zero: bool = False
) -> Panel:
    """A row of boxes for each name that has any, from iteration, distribution and source; `candidates` are background.

    Whiskers go from 5 % to 95 %, a box from quartile to quartile, its bar is the median.
    """
    series = [
        Series(
            label=label,
            x=[float(iteration) for iteration, _, _ in rows],
            y=[found.median for _, found, _ in rows],
            low=[found.low for _, found, _ in rows],
            high=[found.high for _, found, _ in rows],
            lower_quartile=[found.lower_quartile for _, found, _ in rows],
            upper_quartile=[found.upper_quartile for _, found, _ in rows],
            sources=[source for _, _, source in rows],
            is_background=label == CANDIDATES,
        )
        for label, rows in boxes.items()
        if rows
    ]
    return Panel(
        title=title, x_label="iteration", y_label=y_label, kind="boxes", series=series, y_from_zero=y_from_zero
    )


def interval_series(
    label: str,
    x: Sequence[float],
    points: Sequence[MeanInterval],
    sources: Sequence[str],
    *,
    colour: int = 0,
    group: str | None = None,
) -> Series:
    """A line through means, with their intervals as its band."""
    return Series(
        label=label,
        x=list(x),
        y=[point.mean for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        sources=list(sources),
        colour=colour,
        group=group,
    )


def against_labels(
    title: str, y_label: str, series: list[Series], *, level: float | None = None, is_share: bool = False
) -> Panel:
    """A panel whose lines go over the labels spent."""
    return Panel(
        title=title,
        x_label="labels spent",
        x_from_zero=True,
        y_label=y_label,
        series=series,
        level=level,
        is_share=is_share,
    )
