"""Draws a plot with matplotlib's objects alone: no global state, no window, the same bytes for the same numbers.

Texts are drawn as they are: dollar signs begin no formula, and what could steer a reader's screen is written out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import display_text
from activedpo_cli.reports.end_labels import in_few_lines, spread
from activedpo_cli.reports.plot import Panel, Plot, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path

# Okabe and Ito's colours, which people with any colour vision can tell apart; yellow is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 3)),
    (0, (3, 3)),
    (0, (2, 3)),
)
BACKGROUND = "#8a8a8a"
COLUMNS = 2
BOX_WIDTH = 0.7
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.0
"""Inches of a panel with all that is written beside it.

Pages show all panels equally wide, so one that were wider, for the names at its lines, would have smaller letters.
"""
NAME_HEIGHT = 0.068
"""What a line of text takes of the height of a panel's axes."""
FEW_BANDS = 4
"""Bands that can be told apart where they lie on each other; those of more lines are paler."""
FEW_PLACES = 9
DENSE_POINTS = 40
GROUP_WIDTH = 1.0
CELL_WIDTH, CELL_HEIGHT = 0.62, 0.42
DARK_SHARE = 0.55
DOTS_PER_INCH = 150
SMALLEST_PLAIN, LARGEST_PLAIN, LEAST_SPREAD = 1e-3, 1e5, 0.01
"""Numbers well within the range that the library labels in full, without a power of ten or a part that all share."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#6b7079",
    "axes.labelcolor": "#5b6068",
    "axes.linewidth": 0.8,
    "text.color": "#1c1e21",
    "xtick.color": "#6b7079",
    "ytick.color": "#6b7079",
    "xtick.labelcolor": "#5b6068",
    "ytick.labelcolor": "#5b6068",
    "axes.formatter.use_mathtext": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "activedpo",
    "text.parse_math": False,
}


def draw(
    plot: Plot, kinds: Sequence[str] = ("png", "svg"), limits: tuple[float, float] | None = None
) -> dict[str, bytes]:
    """The plot as a `png` and an `svg` file, or as one of them alone, which takes less time.

    `limits` are the ends of the axis of values, where others than those that the values themselves have are wanted.
    """
    import io

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = _defaults() | STYLE
    with matplotlib.rc_context(settings):
        rows = -(-len(plot.panels) // COLUMNS)
        columns = min(COLUMNS, len(plot.panels))
        figure = Figure(figsize=_size(plot, rows, columns), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
        ends = [
            _draw_panel(figure.add_subplot(rows, columns, place), panel)
            for place, panel in enumerate(plot.panels, start=1)
        ]
        if plot.has_one_scale:
            _set_one_scale(figure)
        for axes in figure.axes:
            if limits is not None:
                axes.set_ylim(*limits)
            _place_title(axes)
        if all(_have_room(found) for found in ends):
            for axes, found in zip(figure.axes, ends, strict=True):
                _name_ends(axes, found)
        else:
            _draw_legend(figure)
        made = {kind: io.BytesIO() for kind in kinds}
        # `savefig` would lay out and draw each file twice, to the same bytes.
        if "svg" in made:
            FigureCanvasSVG(figure).print_svg(made["svg"], metadata={"Date": None, "Creator": None})
            figure.set_layout_engine("none")  # the second file keeps the layout of the first
            figure.set_dpi(DOTS_PER_INCH)
        if "png" in made:
            FigureCanvasAgg(figure).print_png(made["png"], metadata={"Software": None})
    return {kind: file.getvalue() for kind, file in made.items()}


def draw_panels(plot: Plot, whole: bytes) -> list[bytes]:
    """Each panel as an SVG of its own, which a page can put beside or under the others as there is room.

    `whole` is the SVG of the plot: that of its panel where it has only one.
    """
    if len(plot.panels) == 1:
        return [whole]
    limits = _shared_limits(plot) if plot.has_one_scale else None
    return [draw(replace(plot, panels=[panel]), ["svg"], limits)["svg"] for panel in plot.panels]


def _shared_limits(plot: Plot) -> tuple[float, float]:
    """The range of values of all panels; nothing is laid out or painted for it."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = _defaults() | STYLE
    with matplotlib.rc_context(settings):
        figure = Figure()
        for place, panel in enumerate(plot.panels, start=1):
            _draw_panel(figure.add_subplot(len(plot.panels), 1, place), panel)
        limits = [axes.get_ylim() for axes in figure.axes]
    return min(low for low, _ in limits), max(high for _, high in limits)


def _size(plot: Plot, rows: int, columns: int) -> tuple[float, float]:
    """Width and height in inches; a matrix grows with its rows."""
    if any(panel.kind == "matrix" for panel in plot.panels):
        most = max(len(panel.series) for panel in plot.panels)
        return columns * (2.6 + CELL_WIDTH * most), rows * (2.2 + CELL_HEIGHT * most)
    return columns * PANEL_WIDTH, rows * PANEL_HEIGHT


def _defaults() -> dict[str, Any]:
    """The library's own settings, so that a person's `matplotlibrc` changes nothing."""
    import matplotlib

    return {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}


@dataclass(frozen=True)
class _End:
    """Where a line, row of boxes or layer of bars ends, and its name that is to stand there."""

    name: str
    x: float
    y: float
    look: dict[str, Any]


def _draw_panel(axes: "Axes", panel: Panel) -> list[_End]:
    """Paint a panel; returns where the names of its series belong, none for a matrix, which has them at its edges."""
    from matplotlib.ticker import FuncFormatter

    axes.set_title(display_text(panel.title))
    axes.set_xlabel(display_text(panel.x_label))
    axes.set_ylabel(display_text(panel.y_label))
    if panel.kind == "matrix":
        _draw_matrix(axes, panel.series)
        return []
    if panel.level is not None:
        axes.axhline(panel.level, color="#444444", linewidth=1, linestyle=":")
    ends = {"lines": _draw_lines, "boxes": _draw_boxes, "bars": _draw_bars}[panel.kind](axes, panel.series)
    _set_ticks(axes, panel)
    if panel.is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _share_at_tick(value)))
    if panel.x_from_zero:
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])  # room for half a marker
    if panel.y_from_zero:
        axes.set_ylim(bottom=0)
    return _one_for_each_name(ends)


def _share_at_tick(value: float) -> str:
    """`2.5 %`: no more digits than the ticks, which lie closely for differences, need to be told apart."""
    return f"{round(100 * value, 6) + 0.0:g} %".replace("-", "\N{MINUS SIGN}")


def _one_for_each_name(ends: Sequence[_End]) -> list[_End]:
    """The ends, and of lines that share a name one in the middle of theirs."""
    groups: dict[str, list[_End]] = {}
    for end in ends:
        groups.setdefault(end.name, []).append(end)
    return [replace(rows[0], x=max(row.x for row in rows), y=median(row.y for row in rows)) for rows in groups.values()]


def _have_room(ends: Sequence[_End]) -> bool:
    return NAME_HEIGHT * sum(in_few_lines(end.name).count("\n") + 1 for end in ends) <= 1


def _name_ends(axes: "Axes", ends: Sequence[_End]) -> None:
    """Write the names beside the axes, each at the height of its end or near, with a thread to it; one needs no name."""
    if len(ends) < 2:
        return
    low, high = axes.get_ylim()
    names = [in_few_lines(end.name) for end in ends]
    heights = [(end.y - low) / (high - low) for end in ends]
    places = spread(heights, [NAME_HEIGHT * (name.count("\n") + 1) for name in names])
    for end, name, height in zip(ends, names, places, strict=True):
        axes.annotate(
            name,
            (end.x, end.y),
            (1.05, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            linespacing=1.0,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": end.look["color"],
                "linewidth": 1.1,
                "linestyle": (0, (1, 1.5)),
                "alpha": 0.9,
                "connectionstyle": _thread,
                "patchA": None,
                "shrinkA": 4,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def _thread(start: tuple[float, float], end: tuple[float, float], **given: Any) -> "Path":
    """The straight line between two places that ends so far before them, or all of it where they are close.

    The library finds these ends of any curve by bisection, which takes a seventh of the time of a report.
    """
    from matplotlib.path import Path

    length, before, after = math.dist(start, end), given["shrinkA"], given["shrinkB"]
    if length <= before + after:
        return Path([start, end])
    parts = (before / length, 1 - after / length)
    return Path([tuple(a + part * (b - a) for a, b in zip(start, end, strict=True)) for part in parts])


def _place_title(axes: "Axes") -> None:
    """Fix the title above the axes where no power of ten will stand there, which it would have to avoid.

    Otherwise all labels of the axis are measured for it again and again, which takes a tenth of the time.
    """
    low, high = axes.get_ylim()
    largest = max(abs(low), abs(high))
    if SMALLEST_PLAIN < largest < LARGEST_PLAIN and high - low > LEAST_SPREAD * largest:
        axes.set_title(axes.get_title(loc="left"), y=1.0)


def _set_ticks(axes: "Axes", panel: Panel) -> None:
    """Ticks where the points are, if they are few whole numbers, as labels and iterations are."""
    from matplotlib.ticker import MaxNLocator

    places = sorted({x for series in panel.series for x in series.x} | ({0.0} if panel.x_from_zero else set()))
    are_whole = all(float(place).is_integer() for place in places)
    if are_whole and len(places) <= FEW_PLACES:
        axes.set_xticks(places, [f"{place:.0f}" for place in places])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=are_whole, nbins=8, min_n_ticks=1))


def _set_one_scale(figure: "Figure") -> None:
    limits = [axes.get_ylim() for axes in figure.axes]
    for axes in figure.axes:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _draw_lines(axes: "Axes", rows: list[Series]) -> list[_End]:
    shade, ends = 0.16 if len(rows) <= FEW_BANDS else 0.06, []
    for series in rows:
        look = _look(series)
        y = _numbers(series.y)
        name = display_text(series.group or series.label)
        axes.plot(series.x, y, label=name, markevery=series.marked, **look)
        points = [(x, value) for x, value in zip(series.x, series.y, strict=True) if value is not None]
        ends += [_End(name, *point, look) for point in points[-1:]]
        if series.low is not None and series.high is not None and series.group is None:
            axes.fill_between(
                series.x, _numbers(series.low), _numbers(series.high), color=look["color"], alpha=shade, linewidth=0
            )
    return ends


def _draw_boxes(axes: "Axes", rows: list[Series]) -> list[_End]:
    """Boxes from quartile to quartile with the median as a bar; whiskers from `low` to `high`."""
    width, ends = BOX_WIDTH / len(rows), []
    for place, series in enumerate(rows):
        shift = (place - (len(rows) - 1) / 2) * width
        look = _look(series)
        color, name = look["color"], display_text(series.label)
        parts = (series.low, series.lower_quartile, series.y, series.upper_quartile, series.high)
        names = ("whislo", "q1", "med", "q3", "whishi")
        columns = zip(*(part or [] for part in parts), strict=True)
        boxes = [dict(zip(names, column, strict=True)) for column in columns]
        axes.bxp(
            boxes,
            positions=[x + shift for x in series.x],
            widths=0.8 * width,
            showfliers=False,
            showcaps=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": color, "alpha": 0.3, "edgecolor": color, "linewidth": 1},
            medianprops={"color": color, "linewidth": 2.2},
            whiskerprops={"color": color, "linewidth": 1},
        )
        axes.plot([], [], color=color, linewidth=5, alpha=0.6, label=name)
        if series.x:
            top = (series.high or series.y)[-1]
            ends.append(_End(name, series.x[-1] + shift, top or 0.0, look))
    return ends


def _draw_bars(axes: "Axes", rows: list[Series]) -> list[_End]:
    """Bars on top of each other."""
    floors: dict[float, float] = {}
    ends = []
    for series in rows:
        look, name = _look(series), display_text(series.label)
        heights = [value or 0.0 for value in series.y]
        bottoms = [floors.get(x, 0.0) for x in series.x]
        axes.bar(
            series.x,
            heights,
            bottom=bottoms,
            width=0.7,
            color=look["color"],
            edgecolor="white",
            linewidth=0.6,
            label=name,
        )
        ends.append(_End(name, series.x[-1] + 0.35, bottoms[-1] + heights[-1] / 2, look))
        floors |= {x: bottom + height for x, bottom, height in zip(series.x, bottoms, heights, strict=True)}
    return ends


def _draw_matrix(axes: "Axes", rows: list[Series]) -> None:
    """A square for each share, darker for more, with the share written into it as per cent."""
    axes.imshow([_numbers(series.y) for series in rows], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    names = [display_text(series.label) for series in rows]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    for place, series in enumerate(rows):
        for x, value in zip(series.x, series.y, strict=True):
            if value is not None:
                color = "white" if value > DARK_SHARE else "#101214"
                axes.text(x, place, f"{100 * value:.0f}", ha="center", va="center", color=color)


def _look(series: Series) -> dict[str, Any]:
    turn, place = divmod(series.colour, len(PALETTE))
    # A colour that comes again has another marker and other dashes.
    marker, dashes = MARKERS[(place + turn) % len(MARKERS)], DASHES[(place + 3 * turn) % len(DASHES)]
    look: dict[str, Any] = {"color": PALETTE[place], "marker": marker, "linestyle": dashes}
    if series.is_faint:
        look |= {"alpha": 0.55, "linewidth": 1.1, "markerfacecolor": "white", "linestyle": DASHES[2]}
    if series.is_background:
        look = {"color": BACKGROUND, "marker": "x", "linestyle": DASHES[1]}
    if series.shade is not None:
        # One colour that grows stronger can be seen on a light ground and on a dark one.
        look = {"color": PALETTE[place], "alpha": 0.4 + 0.6 * series.shade, "marker": MARKERS[place], "linestyle": "-"}
    if series.group is not None:
        look |= {"linewidth": GROUP_WIDTH, "alpha": 0.4 if series.is_faint or len(series.x) > DENSE_POINTS else 0.75}
    if series.group is not None or series.marked == []:
        look["marker"] = ""
    return look


def _draw_legend(figure: "Figure") -> None:
    """One legend for all panels, each name once; a single name needs none."""
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if len(entries) > 1:
        entry_width = 0.75 + 0.075 * max(map(len, entries))  # inches of the handle and of the letters
        columns = max(1, min(len(entries), int(figure.get_figwidth() / entry_width)))
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
        for sign in legend.legend_handles:
            if isinstance(sign, Line2D) and sign.get_linewidth() == GROUP_WIDTH:
                sign.set(alpha=1, linewidth=1.5)  # in the legend a line as thin and pale would show no colour


def _numbers(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
