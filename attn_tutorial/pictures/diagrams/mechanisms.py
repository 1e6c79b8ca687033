"""Who hears whom in one layer: five mechanisms on the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    arrow,
    circle,
    finish,
    line,
    paragraph,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS
from attn_tutorial.pictures.svg import FONT, Frame, num

__all__ = ["connectivity"]

WIDTH, HEIGHT, GAP = 176.0, 156.0, 8.0  # of one panel
TOP, BOTTOM, RADIUS = 54.0, 118.0, 5.5


class _Mechanism(NamedTuple):
    """One panel: which pairs meet, and whether outputs pass on what they heard."""

    name: str
    note: str
    ink: str
    meets: Callable[[int, int], bool]
    chained: bool = False


def connectivity(
    n: int = 8,
    *,
    window: int = 2,
    block_size: int = 2,
    kernel: int = 3,
    query: int = 5,
    columns: int = 2,
) -> Frame:
    """Draw which inputs an output hears: recurrence, convolution, three attentions.

    Args:
        n: Tokens, 3 to 12.
        window: w of local attention: |i - j| <= w.
        block_size: b of block attention: own block and the two beside it.
        kernel: Inputs of a convolution, an odd number.
        query: The output whose inputs are stressed.
        columns: Panels side by side; 2 suits a phone, 5 a slide.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for it.

    Example:
        >>> connectivity(query=3).alt.split(". ")[1]
        'Recurrence: inputs 0 to 3, input 0 is 3 steps away'
    """
    n = check_between("n", n, 3, 12)
    query = check_between("query", query, 0, n - 1)
    window = check_between("window", window, 0, n - 1)
    block_size = check_between("block_size", block_size, 1, n)
    if check_between("kernel", kernel, 1, 2 * n - 1) % 2 == 0:
        raise ValueError(f"kernel must be odd, got {kernel}")
    columns = check_between("columns", columns, 1, 5)
    panels = _mechanisms(n, window, block_size, kernel, query)
    width = columns * (WIDTH + GAP) - GAP
    parts = [
        _placed(k, columns, _panel(panel, n, query)) for k, panel in enumerate(panels)
    ]
    key, height = _key(query, len(panels), columns, width)
    title = f"What output {query} hears in one layer"
    return finish(title, "".join(parts) + key, height, _say(panels, n, query), width)


def _mechanisms(
    n: int, window: int, block_size: int, kernel: int, query: int
) -> list[_Mechanism]:
    def near(i, j):
        return abs(i - j) <= window

    def beside(i, j):
        return abs(i // block_size - j // block_size) <= 1

    def pairs(meets):
        return sum(meets(i, j) for i in range(n) for j in range(n))

    first = f"input 0 is {query} step{'s' * (query != 1)} away"
    fixed = f"{kernel} inputs, fixed weights"
    blocks = f"blocks of {block_size}: {pairs(beside)} pairs"
    inks = [COLORS[c] for c in ("sky", "purple", "vermillion", "blue", "green")]
    return [
        _Mechanism("Recurrence", first, inks[0], lambda i, j: i == j, chained=True),
        _Mechanism(
            "Convolution", fixed, inks[1], lambda i, j: abs(i - j) <= kernel // 2
        ),
        _Mechanism("Full attention", f"{n * n} pairs", inks[2], lambda i, j: True),
        _Mechanism(
            "Local attention", f"|i − j| ≤ {window}: {pairs(near)} pairs", inks[3], near
        ),
        _Mechanism("Block attention", blocks, inks[4], beside),
    ]


def _heard(panel: _Mechanism, n: int, query: int) -> list[int]:
    if panel.chained:
        return list(range(query + 1))
    return [j for j in range(n) if panel.meets(query, j)]


def _placed(k: int, columns: int, drawn: str) -> str:
    x, y = (k % columns) * (WIDTH + GAP), (k // columns) * HEIGHT
    return f'<g transform="translate({num(x)} {num(y)})">{drawn}</g>'


def _panel(panel: _Mechanism, n: int, query: int) -> str:
    xs = [14 + (WIDTH - 28) * i / (n - 1) for i in range(n)]
    heard = _heard(panel, n, query)
    parts = [
        word(WIDTH / 2, 15, panel.name, size=FONT, bold=True),
        word(WIDTH / 2, 33, panel.note),
        _links(panel, xs, query, heard),
    ]
    for i, x in enumerate(xs):
        for y, on in ((TOP, i == query), (BOTTOM, i in heard)):
            ink = panel.ink if on else INK
            fill = (ink, 1.0 if on else 0.0)
            parts.append(circle(x, y, RADIUS, fill, (ink, 1 if on else 0.5)))
        if n <= 10 or i % 2 == 0:
            parts.append(word(x, BOTTOM + 22, str(i)))
    return "".join(parts)


def _links(panel: _Mechanism, xs: list[float], query: int, heard: list[int]) -> str:
    """Draw faint links first, then those of the query, so that these lie on top."""
    faint, stressed = [], []
    for i, x in enumerate(xs):
        for j, start in enumerate(xs):
            if panel.meets(i, j):
                on = j in heard if panel.chained else i == query
                tip = 8 if on else 0  # room for the arrow's head
                (stressed if on else faint).append(_link(start, x, tip))
    drawn = line("".join(faint), width=1.1, faint=0.16) if faint else ""
    drawn += line("".join(stressed), panel.ink, width=1.8)
    tips = [xs[i] for i in (heard if panel.chained else [query])]
    below = TOP + RADIUS + 1
    drawn += "".join(arrow((x, below + 8), (x, below), panel.ink) for x in tips)
    return drawn + (_chain(panel, xs, query) if panel.chained else "")


def _link(start: float, end: float, tip: float) -> str:
    low, high, middle = BOTTOM - RADIUS, TOP + RADIUS + tip, (TOP + BOTTOM) / 2
    curve = f"C{num(start)} {num(middle)} {num(end)} {num(middle)} {num(end)}"
    return f"M{num(start)} {num(low)}{curve} {num(high)}"


def _chain(panel: _Mechanism, xs: list[float], query: int) -> str:
    parts = []
    for i, (left, right) in enumerate(pairwise(xs)):
        on = i < query
        ends = (left + RADIUS + 0.5, TOP), (right - RADIUS - 0.5, TOP)
        ink, faint = (panel.ink, 1) if on else (INK, 0.3)
        parts.append(arrow(*ends, ink, width=1.6, head=4.5, faint=faint))
    return "".join(parts)


def _key(query: int, count: int, columns: int, width: float) -> tuple[str, float]:
    """Say what circles and lines are, in the next free place; return the height."""
    text = (
        f"Above: outputs. Below: inputs. Filled: output {query} and all that it hears. "
        "Grey lines: what the others hear."
    )
    column, row = count % columns, count // columns
    x, y = column * (WIDTH + GAP) + 10, row * HEIGHT
    drawn, used = paragraph(x, y + (30 if column else 0), text, width - x - 6)
    return drawn, (row + 1) * HEIGHT if column else y + used + 6


def _say(panels: list[_Mechanism], n: int, query: int) -> str:
    parts = []
    for panel in panels:
        heard = _heard(panel, n, query)
        span = f"{heard[0]} to {heard[-1]}" if len(heard) > 1 else str(heard[0])
        parts.append(f"{panel.name}: inputs {span}, {panel.note}.")
    return f"What output {query} of {n} hears in one layer. " + " ".join(parts)
