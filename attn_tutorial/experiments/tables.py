"""Tables of a report, as Markdown that reads well in a terminal too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["table"]


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
