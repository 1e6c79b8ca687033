"""What leads where: two ways between tokens, an average, a flow of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    arrow,
    box,
    circle,
    finish,
    ink_on,
    line,
    rounded,
    sentence,
    width_of,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS, KEPT
from attn_tutorial.pictures.svg import Frame, num

__all__ = ["flow", "two_paths", "weighted_average"]

STEP = COLORS["vermillion"]


def two_paths(n: int = 8) -> Frame:
    """Draw how the first token reaches the last: by recurrence, and by attention.

    Args:
        n: Tokens, 3 to 12.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If n is no integer, or there is no room for it.

    Example:
        >>> two_paths(8).alt.split(". ")[0]
        'From token 0 to token 7: 7 steps through a recurrence, 1 through attention'
    """
    n = check_between("n", n, 3, 12)
    xs = [30 + (PAGE - 60) * i / (n - 1) for i in range(n)]
    steps = [
        arrow((left + 11, 40), (right - 11, 40), STEP, width=2)
        for left, right in pairwise(xs)
    ]
    arc = f"M{num(xs[0])} 108C{num(xs[0])} 76 {num(xs[-1])} 76 {num(xs[-1])} 100"
    parts = [
        word(12, 16, f"recurrence: {n - 1} steps, one after the other", "start"),
        *steps,
        word(12, 76, "attention: 1 step", "start"),
        line(arc, KEPT, width=2.2),
        arrow((xs[-1], 99), (xs[-1], 108), KEPT, width=2.2),
    ]
    for y, ink in ((40, STEP), (118, KEPT)):
        for i, x in enumerate(xs):
            end = i in (0, n - 1)
            parts.append(circle(x, y, 8, (ink, 1.0 if end else 0.0), (ink, 0.9)))
    said = f"From token 0 to token {n - 1}: {n - 1} steps through a recurrence, "
    title = f"From the first token to the last: {n - 1} steps, or one"
    alt = f"{said}1 through attention. Each step waits for the one before it."
    return finish(title, "".join(parts), 132, alt)


def weighted_average(
    words: Sequence[str], scores: Sequence[float], asked: str
) -> Frame:
    """Draw one query's weights, the softmax of its scores, and the average they make.

    Args:
        words: Keys, 2 to 6 of them.
        scores: Score of each key, scaled.
        asked: The query's word.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there is no room for the words, or words and scores differ in
            number.

    Example:
        >>> weighted_average(["red", "ball"], [1.0, 1.0], "it").alt.split(": ")[1]
        'red 0.50, ball 0.50.'
    """
    check_between("number of words", len(words), 2, 6)
    powers = [math.exp(s - max(scores)) for s in scores]
    weights = [p / sum(powers) for p in powers]
    pitch = (PAGE - 24) / len(words)
    if max(map(width_of, words)) > pitch - 12:
        raise ValueError(f"words must have room for each, got {list(words)}")
    parts = []
    for k, (text, weight) in enumerate(zip(words, weights, strict=True)):
        x = 12 + (k + 0.5) * pitch
        high = max(44 * weight, 1.0)
        parts += [
            box(x - pitch / 2 + 3, 4, pitch - 6, 26, (KEPT, 0.1), edge=(KEPT, 0.8)),
            word(x, 22, text),
            word(x, 52, rounded(weight, fixed=True), bold=weight == max(weights)),
            box(x - 12, 58, 24, high, (KEPT, 0.85), edge=(KEPT, 1.0)),
            line(f"M{num(x)} {num(62 + high)}L{num(PAGE / 2)} 128", KEPT, faint=weight),
        ]
    half = max(width_of(asked), 90) / 2 + 12
    parts.append(box(PAGE / 2 - half, 128, 2 * half, 28, (KEPT, 1.0), edge=(KEPT, 1.0)))
    parts.append(word(PAGE / 2, 146.5, f"new “{asked}”", ink=ink_on(KEPT), bold=True))
    listed = ", ".join(f"{t} {w:.2f}" for t, w in zip(words, weights, strict=True))
    title = f"“{asked}” becomes an average of what it looks at"
    alt = (
        f"The new vector of “{asked}” is the average of values with weights: {listed}."
    )
    return finish(title, "".join(parts), 162, alt)


def flow(
    rows: Sequence[Sequence[str]],
    *,
    title: str,
    stressed: Sequence[str] = (),
    both: bool = False,
) -> Frame:
    """Draw rows of boxes; each box of a row leads to each one of the next.

    Args:
        rows: Short texts, 2 to 4 rows of at most four.
        title: The finding.
        stressed: Texts whose boxes are filled.
        both: Whether arrows lead back as well.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there is no room for the rows or the texts.

    Example:
        >>> flow([["config"], ["eager", "tiles"]], title="Two ways").alt
        'Two ways. From config to eager, tiles.'
    """
    check_between("number of rows", len(rows), 2, 4)
    places = [_spread(row) for row in rows]
    parts = []
    for k, (above, below) in enumerate(pairwise(places)):
        y = 30 + 62 * k
        for x0 in above.values():
            for x1 in below.values():
                ends = (x0, y + 3.0), (x1, y + 32.0)
                parts.append(arrow(*(ends[::-1] if both else ends), INK, faint=0.75))
    for k, row in enumerate(places):
        for text, x in row.items():
            parts.append(_step(text, x, 2.0 + 62 * k, text in stressed))
    said = " to ".join(", ".join(row) for row in rows)
    alt = f"{sentence(title)} From {said}{', and back' * both}."
    return finish(title, "".join(parts), 62 * len(rows) - 30, alt)


def _spread(row: Sequence[str]) -> dict[str, float]:
    """Middle of each box of a row."""
    check_between("number of boxes in a row", len(row), 1, 4)
    widths = [width_of(text) + 16 for text in row]
    gap = (PAGE - sum(widths)) / (len(row) + 1)
    if gap < 3:
        raise ValueError(f"a row must fit into {PAGE:g} units, got {list(row)}")
    places, x = {}, gap
    for text, width in zip(row, widths, strict=True):
        places[text] = x + width / 2
        x += width + gap
    return places


def _step(text: str, x: float, y: float, full: bool) -> str:
    width = width_of(text) + 16
    fill = (KEPT, 1.0) if full else (KEPT, 0.1)
    drawn = box(x - width / 2, y, width, 28, fill, edge=(KEPT, 0.9))
    return drawn + word(x, y + 18.5, text, ink=ink_on(KEPT) if full else INK)
