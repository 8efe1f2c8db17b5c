"""What two choices from the same candidates have in common, and what chance alone would give; needs no torch."""

from collections.abc import Set


def shared_share(first: Set[str], second: Set[str]) -> float:
    """Candidates that both chose, as a share of the smaller choice. Raises ValueError for an empty choice."""
    return len(first & second) / _smaller(len(first), len(second))


def chance_share(first: int, second: int, candidates: int) -> float:
    """The expected share where one of the choices, of `first` and `second` candidates, is made at random.

    The number in common is hypergeometric with mean first · second / candidates. Raises ValueError for an empty choice,
    or one larger than the candidates.
    """
    if max(first, second) > candidates:
        raise ValueError(f"{max(first, second)} can't be chosen from {candidates} candidates")
    return first * second / candidates / _smaller(first, second)


def _smaller(first: int, second: int) -> int:
    if not min(first, second) > 0:
        raise ValueError("an empty choice shares nothing")
    return min(first, second)
