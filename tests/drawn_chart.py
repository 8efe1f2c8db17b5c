"""Read a chart that was drawn in text."""

from fractions import Fraction

from activedpo_cli.cli.drawing import Symbols


class Drawn:
    """What somebody reads off a chart who knows nothing of how it was made: numbers by column, and a row for each point."""

    def __init__(self, lines: list[str], mark: str, symbols: Symbols, width: int = 80) -> None:
        *rows, ends = lines
        margin = max(len(row.split()[0]) for row in rows) + 2
        self.labels = [int(row[:margin]) for row in rows]
        self.marks = [row.index(mark, margin) - margin for row in rows]
        self.intervals = [(len(row) - len(row[margin:].lstrip()) - margin, len(row) - 1 - margin) for row in rows]
        self.signs = set("".join(row[margin:] for row in rows)) - {" ", mark}
        self.columns = width - margin
        self.least, *more = (Fraction(word) for word in ends.split())
        self.greatest = more[0] if more else self.least

    def column(self, value: float) -> Fraction:
        """Where a number belongs."""
        if self.greatest == self.least:
            return Fraction(self.columns - 1, 2)
        return (Fraction(value) - self.least) / (self.greatest - self.least) * (self.columns - 1)
