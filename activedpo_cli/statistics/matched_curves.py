"""Compare two paths of (distance, value) where they have gone equally far, not after equally many steps."""

from collections.abc import Sequence

from activedpo_cli.statistics.statistics import Number


def differences_at_equal(
    distances: Sequence[Number],
    values: Sequence[Number],
    base_distances: Sequence[Number],
    base_values: Sequence[Number],
) -> list[float]:
    """Each value minus the base's at the same distance, for the points that lie within the base's distances.

    The base is read as straight lines between its points in the order of their distances; points of one distance count by
    their mean. Raises ValueError where a path has no points or not a value for each distance.
    """
    base = _by_distance(base_distances, base_values)
    _by_distance(distances, values)
    return [
        value - _read(base, distance)
        for distance, value in zip(distances, values, strict=True)
        if base[0][0] <= distance <= base[-1][0]
    ]


def _by_distance(distances: Sequence[Number], values: Sequence[Number]) -> list[tuple[float, float]]:
    if len(distances) != len(values) or not distances:
        raise ValueError(f"{len(distances)} distances and {len(values)} values make no path")
    at: dict[float, list[float]] = {}
    for distance, value in zip(distances, values, strict=True):
        at.setdefault(float(distance), []).append(float(value))
    return [(distance, sum(found) / len(found)) for distance, found in sorted(at.items())]


def _read(path: Sequence[tuple[float, float]], distance: Number) -> float:
    """The value at a distance within the path."""
    before = max((point for point in path if point[0] <= distance), key=lambda point: point[0])
    after = min((point for point in path if point[0] >= distance), key=lambda point: point[0])
    if after[0] == before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (distance - before[0]) / (after[0] - before[0])
