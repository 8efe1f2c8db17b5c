"""The figures of an experiment's report: curves over labels, and their differences to the baseline."""

from collections.abc import Sequence

from activedpo_cli.experiments.analysis import ArmCurve
from activedpo_cli.reports.plot import Panel, Plot, Series
from activedpo_cli.statistics.summaries import MeanInterval

Measured = Sequence[tuple[str, Sequence[ArmCurve]]]
"""The title of each measure with the curves of the arms in it."""


def curve_plot(measured: Measured) -> Plot:
    """Mean over seeds against labels spent, one panel a measure."""
    return Plot(
        name="reward",
        title="Reward against labels",
        caption="Mean over seeds; the band is a 95 % interval (Student's t) over seeds.",
        alternative="Mean reward against labels spent, a line for each arm.",
        panels=[
            Panel(
                title=title,
                x_label="labels spent",
                x_from_zero=True,
                y_label="mean over held-out prompts",
                series=[_series(row, row.mean, place) for place, row in enumerate(curves)],
            )
            for title, curves in measured
        ],
    )


def difference_plot(measured: Measured, baseline: str) -> Plot:
    """The same minus the baseline at equal seeds."""
    panels = [
        Panel(
            title=title,
            x_label="labels spent",
            x_from_zero=True,
            y_label=f"minus {baseline}",
            level=0.0,
            series=[
                _series(row, row.differences, place) for place, row in enumerate(curves) if row.differences is not None
            ],
        )
        for title, curves in measured
    ]
    return Plot(
        name="differences",
        title=f"Difference to {baseline}",
        caption=f"Mean difference to {baseline} at equal seeds; the band is its 95 % interval. Where it holds the dotted "
        "line at 0, the seeds do not tell the two apart.",
        alternative=f"Difference in mean reward to {baseline} against labels spent.",
        panels=[panel for panel in panels if panel.series],
    )


def _series(row: ArmCurve, points: Sequence[MeanInterval], place: int) -> Series:
    return Series(
        label=f"{row.arm} ({len(row.seeds)})",
        x=row.labels,
        y=[point.mean for point in points],
        low=[point.low for point in points],
        high=[point.high for point in points],
        sources=["results.jsonl"],
        colour=place,
    )
