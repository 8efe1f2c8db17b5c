"""Tables of an experiment with two grid settings: the last evaluation at each point, and their interaction.

The paper's Figure 2 is such a table: models in rows, subsets of the data in columns.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from activedpo_cli.experiments.curves import ArmCurve, measure_in_words
from activedpo_cli.experiments.spec import ExperimentSpec, points_of, short_value
from activedpo_cli.reports.page import Table, table
from activedpo_cli.reports.wording import number
from activedpo_cli.statistics.multiple_comparisons import joint_sign_flip_p_value
from activedpo_cli.statistics.summaries import mean_interval

Cells = Mapping[tuple[str, str], Mapping[int, float]]
"""By the values of both settings, spelled as in names of arms: each seed's measure at its last evaluation."""


def grid_tables(measured: Sequence[tuple[str, Sequence[ArmCurve]]], spec: ExperimentSpec) -> list[Table]:
    """A table for each measure where the grid has two settings and all its points have a seed in common, else none.

    There is a row for each arm and value of the first setting. Where that has two values, a further row shows the
    interaction: the difference of the two rows in each column, less its mean over the columns. It is 0 everywhere if each
    value of the second setting is worth the same to both. p tests that by flipping the signs of seeds.
    """
    if len(spec.grid) != 2:
        return []
    names = [key.rpartition(".")[2] for key in spec.grid]
    found = [
        table(
            f"{title}, at the end, by {names[0]} and {names[1]}",
            ["arm", names[0], *_values(spec, 1), "seeds", "p"],
            [row for arm in spec.arms for row in _rows(title, arm, _cells(arm, curves, spec), spec)],
        )
        for title, curves in measured
    ]
    return [entry for entry in found if entry.rows]


def _values(spec: ExperimentSpec, axis: int) -> list[str]:
    return [short_value(value) for value in list(spec.grid.values())[axis]]


def _cells(arm: str, curves: Sequence[ArmCurve], spec: ExperimentSpec) -> Cells:
    by_name = {curve.arm: curve for curve in curves}
    found = {}
    for suffix, point in points_of(spec):
        curve = by_name.get(arm + suffix)
        first, second = map(short_value, point.values())
        found[first, second] = (
            {} if curve is None else {seed: row[-1] for seed, row in zip(curve.seeds, curve.curves, strict=True)}
        )
    return found


def _rows(title: str, arm: str, cells: Cells, spec: ExperimentSpec) -> list[list[str]]:
    """Only seeds that every point has: means of unequal seeds would differ by these too."""
    first, second = _values(spec, 0), _values(spec, 1)
    seeds = sorted(set.intersection(*(set(values) for values in cells.values())))
    if not seeds:
        return []
    rows = [
        [
            arm,
            row,
            *(
                measure_in_words(title, mean_interval([cells[row, column][seed] for seed in seeds]))
                for column in second
            ),
            str(len(seeds)),
            "",
        ]
        for row in first
    ]
    if len(first) != 2:
        return rows
    contrasts = [_contrast(cells, first, second, seed) for seed in seeds]
    by_column = zip(*contrasts, strict=True)
    label = f"{first[0]} − {first[1]}, less the mean of that"
    p_value = number(joint_sign_flip_p_value(contrasts))
    return [
        *rows,
        [
            arm,
            label,
            *(measure_in_words(title, mean_interval(values)) for values in by_column),
            str(len(seeds)),
            p_value,
        ],
    ]


def _contrast(cells: Cells, first: Sequence[str], second: Sequence[str], seed: int) -> list[float]:
    differences = [cells[first[0], column][seed] - cells[first[1], column][seed] for column in second]
    return [difference - fmean(differences) for difference in differences]
