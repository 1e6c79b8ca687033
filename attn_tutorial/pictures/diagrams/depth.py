"""What reaches a token through layers of a window, and how much of it."""

from __future__ import annotations

import math

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    box,
    circle,
    finish,
    line,
    paragraph,
    rounded,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import KEPT
from attn_tutorial.pictures.svg import Frame, num

__all__ = ["reach_and_influence"]

LEFT, START, END = 8.0, 72.0, 350.0  # of the page, of the tokens
STOREY, BARS = 46.0, 84.0


def reach_and_influence(
    window: int = 2, layers: int = 3, *, beside: int = 2, most: float = 0.9
) -> Frame:
    """Draw the cone of tokens that reach an output, and what share comes from each.

    The cone has 2 L w + 1 tokens. The shares are those of L layers that average their
    windows evenly: the output's row of the L-th power of the averaging matrix. Trained
    weights move them, but not beyond the cone.

    Args:
        window: w, keys to each side of a query, at least 1.
        layers: L, at least 1.
        beside: Tokens drawn on each side of the cone.
        most: Share of the influence whose tokens are counted, below 1.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or the cone is wider than 41 tokens.

    Example:
        >>> reach_and_influence().alt.split(". ")[1]
        'With even averages 94 percent of it comes from the inner 9.'
    """
    window = check_between("window", window, 1, 20)
    layers = check_between("layers", layers, 1, 8)
    beside = check_between("beside", beside, 0, 6)
    reach = check_between("2 L w + 1", 2 * layers * window + 1, 3, 41)
    if not 0 < most < 1:
        raise ValueError(f"most must be between 0 and 1, got {most}")
    shares = [_shares(window, depth) for depth in range(layers + 1)]
    inner = _inner(shares[-1], most)
    percent = rounded(100 * _middle_sum(shares[-1], inner), 0)
    title = f"{reach} inputs reach an output{', but not equally' * (layers > 1)}"
    body, height = _draw_cone(shares, inner, window, beside)
    said = (
        f"{reach} = 2 · {layers} · {window} + 1. If every layer averages its window "
        f"evenly, {percent} % of the output comes from the inner {inner} inputs."
    )
    text, more = paragraph(10, height, said, PAGE - 20)
    alt = (
        f"Through {layers} layers of a window of {window}, an output is reached by "
        f"{reach} tokens, a cone that widens by {2 * window} a layer. With even "
        f"averages {percent} percent of it comes from the inner {inner}."
    )
    return finish(title, body + text, height + more + 4, alt)


def _shares(window: int, layers: int) -> list[float]:
    """Share of each of the 2 L w + 1 inputs in an even average of averages."""
    counts = [1]
    for _ in range(layers):
        wider = [0] * (len(counts) + 2 * window)
        for place, count in enumerate(counts):
            for step in range(2 * window + 1):
                wider[place + step] += count
        counts = wider
    return [count / (2 * window + 1) ** layers for count in counts]


def _middle_sum(shares: list[float], inner: int) -> float:
    start = (len(shares) - inner) // 2
    return math.fsum(shares[start : start + inner])


def _inner(shares: list[float], most: float) -> int:
    """Fewest tokens around the middle with at least so much of the influence."""
    odd = range(1, len(shares) + 1, 2)
    return next(k for k in odd if _middle_sum(shares, k) >= most - 1e-9)


def _draw_cone(
    shares: list[list[float]], inner: int, window: int, beside: int
) -> tuple[str, float]:
    """Draw the layers from the output down to the inputs, and the inputs' bars."""
    layers, half = len(shares) - 1, len(shares[-1]) // 2 + beside
    pitch, middle = (END - START) / (2 * half), (START + END) / 2
    radius = min(6.0, pitch * 0.36)
    parts = []
    for depth in range(layers):
        parts.append(_links(depth, window, middle, pitch, radius))
    for depth, row in enumerate(shares):
        y = _level(depth)
        parts.append(_tokens(row, y, middle, pitch, radius, half))
    parts.append(word(LEFT, _level(0) + 4.5, "output", "start", bold=True))
    parts.append(word(LEFT, _level(layers) + 4.5, "inputs", "start", bold=True))
    base = _level(layers) + 24 + BARS
    parts.append(_bars(shares[-1], inner, base, middle, pitch))
    return "".join(parts), base + 36


def _level(depth: int) -> float:
    return 16 + STOREY * depth


def _links(depth: int, window: int, middle: float, pitch: float, radius: float) -> str:
    """Draw which tokens of the layer below each token of the cone averages."""
    low, high = _level(depth + 1) - radius, _level(depth) + radius
    reached = depth * window
    paths = [
        f"M{num(middle + pitch * (place + step))} {num(low)}"
        f"L{num(middle + pitch * place)} {num(high)}"
        for place in range(-reached, reached + 1)
        for step in range(-window, window + 1)
    ]
    return line("".join(paths), KEPT, width=1.1, faint=0.6 if pitch > 12 else 0.3)


def _tokens(
    row: list[float], y: float, middle: float, pitch: float, radius: float, half: int
) -> str:
    reached, top = len(row) // 2, max(row)
    parts = []
    for place in range(-half, half + 1):
        x = middle + pitch * place
        if abs(place) > reached:
            parts.append(circle(x, y, radius, (INK, 0.0), (INK, 0.35)))
        else:
            share = row[place + reached] / top
            parts.append(circle(x, y, radius, (KEPT, share), (KEPT, 1.0)))
    return "".join(parts)


def _bars(
    shares: list[float], inner: int, base: float, middle: float, pitch: float
) -> str:
    """Draw the inputs' shares, the inner ones darker, over the span of them all."""
    reached, top = len(shares) // 2, max(shares)
    wide = min(pitch - 2, 14)
    parts = [line(f"M{num(START - 12)} {num(base)}H{num(END)}", faint=0.5)]
    for place, share in enumerate(shares, start=-reached):
        x = middle + pitch * place - wide / 2
        high = max((BARS - 20) * share / top, 0.8)
        ink = (KEPT, 1.0 if abs(place) <= inner // 2 else 0.35)
        parts.append(box(x, base - high, wide, high, ink, edge=(KEPT, 1.0)))
    percent = f"{rounded(100 * top, 0)} %"
    left, span = middle - pitch * (reached + 0.4), pitch * (2 * reached + 0.8)
    parts += [
        word(middle, base - BARS + 13, percent, bold=True),
        word(LEFT, base - 24, "share", "start", bold=True),
        line(f"M{num(left)} {num(base + 6)}v6h{num(span)}v-6", width=1.8),
        word(middle, base + 28, f"reach: {len(shares)} inputs", bold=True),
    ]
    return "".join(parts)
