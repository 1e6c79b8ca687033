"""Rows of dots: a row for each name, and in it all that was measured under it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from attn_tutorial.pictures.plots import COLORS, Picture, picture

__all__ = ["ROOM", "Dots", "mean_bar", "rows_of_dots"]

# Left, low, width, height: names of rows are wider on a phone than they are measured.
ROOM = (0.025, 0, 0.975, 1)


class Dots(NamedTuple):
    """Some numbers of a row that are drawn alike.

    Attributes:
        numbers: Where they lie.
        look: How they are drawn, in the words of matplotlib's ``plot``.
        lift: How far from the middle of the row, in heights of a row.
    """

    numbers: Sequence[float]
    look: Mapping[str, Any]
    lift: float = 0.0


def mean_bar(found: Sequence[float]) -> Dots:
    """A bar at the mean of some numbers."""
    look = {"marker": "|", "ls": "", "color": COLORS["black"], "markersize": 20}
    return Dots([sum(found) / len(found)], look)


def rows_of_dots(
    rows: Mapping[str, Iterable[Dots]],
    *,
    title: str,
    xlabel: str,
    alt: str,
    heights: tuple[float, float] = (1.2, 0.42),
    wide: bool = True,
) -> Picture:
    """Draw a row for each name, the first one on top.

    Args:
        rows: Name -> what the row shows, the last on top of the others.
        title: The finding.
        xlabel: Quantity and unit.
        alt: What a sighted reader concludes.
        heights: Inches of all that surrounds the rows, and of each row.
        wide: Whether the title stands above the names, too, and not only the dots.
    """
    figure, axes = picture(alt, height=heights[0] + heights[1] * len(rows))
    for row, several in enumerate(rows.values()):
        for numbers, look, lift in several:
            axes.plot(numbers, [row + lift] * len(numbers), **look)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    figure.get_layout_engine().set(rect=ROOM)
    (figure.suptitle if wide else axes.set_title)(title)
    axes.grid(axis="x", color=COLORS["pale"])
    return figure
