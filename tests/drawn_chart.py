"""Read a chart that was drawn in text."""

from decimal import Decimal

from activedpo_cli.cli.symbols import Symbols


class Drawn:
    """What somebody reads off a chart who knows nothing of how it was made."""

    def __init__(self, lines: list[str], mark: str, symbols: Symbols) -> None:
        *plot, base, numbers = lines
        axis = len(base) - len(base.lstrip())
        ticks = {row: Decimal(label) for row, line in enumerate(plot) if (label := line[:axis].strip())}
        (self.top, highest), *_, (bottom, lowest) = ticks.items()
        self.cell = (highest - lowest) / (bottom - self.top)
        self.highest = highest
        assert all(
            abs(highest - self.cell * (row - self.top) - tick) < self.cell / 10**9 for row, tick in ticks.items()
        )
        self.filled = {
            (column, row): cell
            for row, line in enumerate(plot)
            for column, cell in enumerate(line)
            if column > axis and cell != " "
        }
        self.marks = {where for where, cell in self.filled.items() if cell == mark}
        places = [column for column, cell in enumerate(base) if column > axis and cell == symbols.base_tick]
        self.named = dict(zip(map(int, numbers.split()), places, strict=True))

    def row(self, value: float) -> Decimal:
        return self.top + (self.highest - Decimal(value)) / self.cell

    def column(self, labels: int) -> Decimal:
        (first, left), (last, right) = min(self.named.items()), max(self.named.items())
        share = Decimal(labels - first) / (last - first) if last > first else Decimal(0)
        return left + share * (right - left)
