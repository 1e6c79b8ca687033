"""What every diagram is drawn with: one page, words, arrows, boxes, cells, a legend.

Ink is ``currentColor``, which follows the page from light to dark, or a colour of
``style.COLORS``. No part has a name of its own in the page, so that several diagrams,
or one of them twice, can stand on it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

from attn_tutorial.pictures.style import COLORS
from attn_tutorial.pictures.svg import (
    CHARACTER,
    FONT,
    Frame,
    draw_heading,
    draw_label,
    num,
    runs,
    svg,
)

__all__ = [
    "INK",
    "PAGE",
    "SMALL",
    "arrow",
    "box",
    "cells",
    "circle",
    "finish",
    "ink_on",
    "legend",
    "line",
    "matrix",
    "paragraph",
    "quantity",
    "rounded",
    "sentence",
    "width_of",
    "word",
]

PAGE = 360.0  # on a phone's column of 340 px, small text is still 12.3 px
SMALL = 13
SCALE = 1.25
INK = "currentColor"

Ink = tuple[str, float]  # a colour and how opaque it is
Place = tuple[float, float]


def finish(
    title: str, body: str, height: float, alt: str, width: float = PAGE
) -> Frame:
    """Put a drawing of the given height under its title."""
    heading, top = draw_heading(title, width / 2, width)
    moved = f'<g transform="translate(0 {num(top)})">{body}</g>'
    return svg(heading + moved, width, top + height, alt, SCALE)


def width_of(text: str, size: float = SMALL) -> float:
    """Width of a text, by the mean width of a character."""
    return len(text) * CHARACTER * size / FONT


def word(
    x: float,
    y: float,
    text: str,
    anchor: str = "middle",
    *,
    size: float = SMALL,
    bold: bool = False,
    ink: str = INK,
    turned: bool = False,
) -> str:
    """Write a word; ``turned`` reads from bottom to top."""
    more = f' font-size="{num(size)}"' if size != FONT else ""
    more += ' font-weight="600"' if bold else ""
    more += f' fill="{ink}"' if ink != INK else ""
    more += f' transform="rotate(-90 {num(x)} {num(y)})"' if turned else ""
    return draw_label(x, y, text, anchor, more)


def paragraph(
    x: float, y: float, text: str, width: float, anchor: str = "start"
) -> tuple[str, float]:
    """Write small text in lines of a width; return it and its height."""
    wrapped = textwrap.wrap(text, max(8, int(width / width_of("x"))))
    written = [word(x, y + 13 + 18 * k, s, anchor) for k, s in enumerate(wrapped)]
    return "".join(written), 18.0 * len(wrapped)


def line(
    path: str, ink: str = INK, *, width: float = 1.5, faint: float = 1, dash: str = ""
) -> str:
    """Draw a path without filling it."""
    more = f' stroke-opacity="{faint:g}"' if faint != 1 else ""
    more += f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<path d="{path}" fill="none" stroke="{ink}" stroke-width="{num(width)}"'
        f"{more}/>"
    )


def arrow(
    start: Place,
    end: Place,
    ink: str = INK,
    *,
    width: float = 1.5,
    head: float = 7,
    faint: float = 1,
) -> str:
    """Draw a straight arrow; its head is a part of it and needs no marker."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    x, y, half = x1 - head * dx, y1 - head * dy, head * 0.55
    shaft = f"M{num(x0)} {num(y0)}L{num(x)} {num(y)}"
    corners = ((x1, y1), (x - half * dy, y + half * dx), (x + half * dy, y - half * dx))
    tip = "L".join(f"{num(a)} {num(b)}" for a, b in corners)
    more = f' fill-opacity="{faint:g}"' if faint != 1 else ""
    return (
        line(shaft, ink, width=width, faint=faint)
        + f'<path d="M{tip}z" fill="{ink}"{more}/>'
    )


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: Ink = (INK, 0.0),
    *,
    edge: Ink = (INK, 0.45),
    dash: str = "",
    thick: float = 1.2,
) -> str:
    """Draw a rectangle with rounded corners."""
    more = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{num(x)}" y="{num(y)}" width="{num(width)}" height="{num(height)}" '
        f'rx="3" fill="{fill[0]}" fill-opacity="{fill[1]:g}" stroke="{edge[0]}" '
        f'stroke-opacity="{edge[1]:g}" stroke-width="{num(thick)}"{more}/>'
    )


def circle(
    x: float, y: float, radius: float, fill: Ink, edge: Ink, dash: str = ""
) -> str:
    """Draw a circle, such as a token."""
    more = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<circle cx="{num(x)}" cy="{num(y)}" r="{num(radius)}" fill="{fill[0]}" '
        f'fill-opacity="{fill[1]:.3g}" stroke="{edge[0]}" stroke-opacity="{edge[1]:g}" '
        f'stroke-width="1.4"{more}/>'
    )


def ink_on(ink: str) -> str:
    """Ink of a text on a filled box: white on blue, black on brighter colours."""
    return COLORS["white" if ink == COLORS["blue"] else "black"]


def cells(
    states: Sequence[Sequence[int]],
    x: float,
    y: float,
    size: float,
    inks: Sequence[Ink],
) -> str:
    """Draw a matrix of states, one path for each state that there is."""
    gap = 1.0 if size >= 6 else 0.0
    paths: dict[int, list[str]] = {}
    for i, row in enumerate(states):
        for state, j, length in runs(row):
            start = f"M{num(x + j * size)} {num(y + (i + 0.5) * size)}"
            paths.setdefault(state, []).append(f"{start}h{num(length * size - gap)}")
    thick = size - gap
    dash = f"{num(thick)} {num(gap)}" if gap else ""
    return "".join(
        line("".join(paths[s]), inks[s][0], width=thick, faint=inks[s][1], dash=dash)
        for s in sorted(paths)
    )


def matrix(
    x: float,
    y: float,
    rows: Sequence[Sequence[str]],
    size: tuple[float, float],
    *,
    ink: str = INK,
    stressed: int | None = None,
) -> str:
    """Draw a matrix of short texts; one of its rows may be stressed."""
    width, height = size
    parts = []
    for i, row in enumerate(rows):
        fill = (ink, 0.32 if i == stressed else 0.09)
        for j, text in enumerate(row):
            left, top = x + j * width, y + i * height
            parts.append(box(left, top, width, height, fill, edge=(ink, 0.5)))
            middle = (left + width / 2, top + height / 2 + 4.5)
            parts.append(word(*middle, text, bold=i == stressed))
    return "".join(parts)


def legend(
    entries: Iterable[tuple[Ink, str]], y: float, width: float = PAGE
) -> tuple[str, float]:
    """Draw swatches with what they stand for, in centred lines; return the height."""
    lines: list[list[tuple[Ink, str]]] = [[]]
    for entry in entries:
        if lines[-1] and _length([*lines[-1], entry]) > width - 8:
            lines.append([])
        lines[-1].append(entry)
    parts = []
    for k, row in enumerate(lines):
        x = (width - _length(row)) / 2
        for ink, text in row:
            parts.append(box(x, y + 20 * k + 2, 13, 13, ink, edge=(ink[0], 0.5)))
            parts.append(word(x + 19, y + 20 * k + 13, text, "start"))
            x += _length([(ink, text)]) + 14
    return "".join(parts), 20.0 * len(lines)


def _length(row: Sequence[tuple[Ink, str]]) -> float:
    return sum(19 + width_of(text) for _, text in row) + 14 * (len(row) - 1)


def rounded(x: float, digits: int = 2, *, fixed: bool = False) -> str:
    """Write a number with at most so many decimals, or, if fixed, exactly so many.

    Example:
        >>> rounded(2.0), rounded(-0.706), rounded(2.0, fixed=True)
        ('2', '−0.71', '2.00')
    """
    text = f"{round(float(x), digits) + 0.0:.{digits}f}"
    if digits and not fixed:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def sentence(title: str) -> str:
    """End a title as a sentence of a description ends.

    Example:
        >>> sentence("Which pairs?"), sentence("A band")
        ('Which pairs?', 'A band.')
    """
    return title if title.endswith((".", "?", "!")) else f"{title}."


def quantity(x: float, unit: str) -> str:
    """Write a number of bytes, FLOPs or seconds with three digits and a prefix.

    Example:
        >>> quantity(67_108_864, "B"), quantity(12, "B"), quantity(0.00125, "s")
        ('67.1 MB', '12 B', '1.25 ms')
    """
    power, whole = 0, float(x).is_integer() and x < 999.5
    while x >= 999.5 and power < 5:
        x, power = x / 1000, power + 1
    while 0 < x < 0.9995 and power > -3:
        x, power = x * 1000, power - 1
    digits = 0 if whole or x >= 99.95 else 1 if x >= 9.995 else 2
    return f"{x:.{digits}f} {'nµm kMGTP'[power + 3].strip()}{unit}"
