"""Tables of a report, as Markdown that reads well in a terminal too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["table", "with_deviation"]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write rows under a header, each column as wide as its widest cell.

    None is an empty cell. A bar inside a cell is escaped, as Markdown wants it.

    Example:
        >>> print(table(["w", "right"], [[8, "99 %"], [16, "100 %"]]))
        | w  | right |
        |----|-------|
        | 8  | 99 %  |
        | 16 | 100 % |
    """
    cells = [[_cell(content) for content in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(content: object) -> str:
    return "" if content is None else str(content).replace("|", r"\|")


def with_deviation(mean: float, deviation: float) -> str:
    """Write a mean and its deviation, both rounded to the size of the deviation.

    The deviation keeps one digit, and two where it begins with a 1.

    Example:
        >>> with_deviation(1.76923, 0.01611), with_deviation(0.5871, 0.00508)
        ('1.769 ± 0.016', '0.587 ± 0.005')
    """
    if not 0 < deviation < math.inf:
        return f"{mean:.3g} ± {deviation:.3g}"
    exponent = math.floor(math.log10(deviation))
    places = (f"{deviation:e}"[0] == "1") - exponent
    shown, digits = max(0, places), (round(x, places) for x in (mean, deviation))
    return " ± ".join(f"{x:.{shown}f}" for x in digits)
