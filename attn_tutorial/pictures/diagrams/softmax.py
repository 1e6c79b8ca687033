"""The online softmax, one step a frame: maximum, shrink factor, sum and value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    box,
    finish,
    line,
    rounded,
    word,
)
from attn_tutorial.pictures.inputs import check_between, numbers
from attn_tutorial.pictures.style import COLORS
from attn_tutorial.pictures.svg import Frame, num

__all__ = ["online_softmax"]

BASE, TALL = 104.0, 78.0  # where the bars stand, and how high a bar of 1 is
LEFT = 66.0  # where the columns of keys begin


class _Step(NamedTuple):
    """What is known after a chunk, and what the one before it was multiplied by."""

    top: float
    shrink: float
    total: float
    mix: float
    seen: int


def online_softmax(
    scores: Sequence[float] = (1, 2, 0, 4, 3),
    values: Sequence[float] = (10, 20, 30, 40, 50),
    *,
    chunk: int = 1,
    step: int | None = None,
) -> Frame:
    """Draw one step of a softmax over keys that arrive in chunks, for one query.

    Bars are e^(score - maximum so far). When a larger score arrives, all bars seen so
    far shrink by one factor; dashes show how high they were.

    Args:
        scores: Scores of the keys, 2 to 8 of them, in the order in which they arrive.
        values: A value of each key, one number.
        chunk: Keys that arrive at a time.
        step: Steps done so far, from 0; all where None.

    Returns:
        An SVG frame. Frames of all steps are equally high.

    Raises:
        TypeError, ValueError: If scores and values are not as many numbers as each
            other, or there is no such step.

    Example:
        >>> online_softmax(step=2).alt.split(".")[0]
        'Step 2 of 5: maximum 1 → 2, so all before shrinks by 0'
    """
    scores, values = (
        numbers(scores=[list(scores)])[0],
        numbers(values=[list(values)])[0],
    )
    n = check_between("number of scores", len(scores), 2, 8)
    if len(values) != n:
        raise ValueError(f"values must be {n}, one a score, got {len(values)}")
    chunk = check_between("chunk", chunk, 1, n)
    steps = _walk(scores, values, chunk)
    last = len(steps) - 1
    step = last if step is None else check_between("step", step, 0, last)
    now, before = steps[step], steps[max(step - 1, 0)]
    found = _finding(step, now, before)
    body = _draw_keys(scores, values, now, before) + _draw_state(step, steps, scores)
    title = f"Step {step} of {last}: {found}"
    return finish(title, body, BASE + 78 + 28 * 5, _say(title, now, step))


def _walk(scores: list[float], values: list[float], chunk: int) -> list[_Step]:
    steps = [_Step(-math.inf, 0.0, 0.0, 0.0, 0)]
    for start in range(0, len(scores), chunk):
        old = steps[-1]
        mine = slice(start, start + chunk)
        top = max(old.top, *scores[mine])
        shrink = math.exp(old.top - top)
        powers = [math.exp(s - top) for s in scores[mine]]
        total = shrink * old.total + math.fsum(powers)
        weighted = (p * v for p, v in zip(powers, values[mine], strict=True))
        mix = shrink * old.mix + math.fsum(weighted)
        steps.append(_Step(top, shrink, total, mix, old.seen + len(powers)))
    return steps


def _finding(step: int, now: _Step, before: _Step) -> str:
    if step == 0:
        return "nothing has been read"
    if step == 1:
        return "the first maximum"
    if now.top > before.top:
        return f"maximum {rounded(before.top)} → {rounded(now.top)}"
    return f"maximum stays {rounded(now.top)}"


def _column(k: int, n: int) -> float:
    return LEFT + (PAGE - LEFT - 10) * (k + 0.5) / n


def _draw_keys(
    scores: list[float], values: list[float], now: _Step, before: _Step
) -> str:
    """Draw a bar for each key that was read, above its score and its value."""
    n = len(scores)
    wide = min(40.0, (PAGE - LEFT - 10) / n - 6)
    parts = [
        line(f"M{num(LEFT)} {num(BASE)}H{num(PAGE - 10)}", faint=0.5),
        word(LEFT - 8, BASE - TALL + 5, "1", "end"),
        line(
            f"M{num(LEFT)} {num(BASE - TALL)}H{num(PAGE - 10)}", faint=0.2, dash="3 3"
        ),
        word(LEFT - 8, BASE + 22, "score", "end"),
        word(LEFT - 8, BASE + 45, "value", "end"),
    ]
    for k, (score, value) in enumerate(zip(scores, values, strict=True)):
        x, new = _column(k, n), before.seen <= k < now.seen
        ink = COLORS["blue"] if new else INK
        if k < now.seen:
            parts.append(_bar(x, wide, score, now, before, new))
        shown = (ink, 0.3 if new else 0.16 if k < now.seen else 0.0)
        for row, number in enumerate((score, value)):
            y = BASE + 6 + 23 * row
            parts.append(box(x - wide / 2, y, wide, 22, shown, edge=(ink, 0.5)))
            parts.append(word(x, y + 15.5, rounded(number), bold=new))
    return "".join(parts)


def _bar(
    x: float, wide: float, score: float, now: _Step, before: _Step, new: bool
) -> str:
    height = TALL * math.exp(score - now.top)
    ink, faint = (COLORS["blue"], 1.0) if new else (INK, 0.45)
    place = x - wide / 2 + 3, wide - 6
    drawn = ""
    if not new and now.top > before.top:
        was = TALL * math.exp(score - before.top)
        edge = (COLORS["vermillion"], 1.0)
        dashed = {"edge": edge, "dash": "3 3", "thick": 1.5}
        drawn = box(place[0], BASE - was, place[1], was, **dashed)
    return drawn + box(
        place[0], BASE - height, place[1], height, (ink, faint), edge=(ink, faint)
    )


def _draw_state(step: int, steps: list[_Step], scores: list[float]) -> str:
    """Write the four numbers that are kept, and how they were made."""
    now, before = steps[step], steps[max(step - 1, 0)]
    y = BASE + 78
    new = scores[before.seen : now.seen] if step else []
    rows = _sums(step, now, before, new)
    parts = []
    for k, (name, made, result, ink) in enumerate(rows):
        top = y + 28 * k
        parts += [
            box(8, top - 1, PAGE - 16, 26, (ink, 0.12), edge=(ink, 0.0)),
            word(16, top + 16.5, name, "start", bold=True),
            word(258, top + 16.5, made, "end"),
            word(344, top + 16.5, result, "end", bold=True),
        ]
    return "".join(parts)


def _sums(step: int, now: _Step, before: _Step, new: list[float]) -> list[tuple]:
    """Name, making, result and ink of each number."""
    if step == 0:
        names = ("maximum", "shrink by", "sum", "value sum", "mean")
        start = ("−∞", "–", "0", "0", "–")
        return [(n, "", s, INK) for n, s in zip(names, start, strict=True)]
    factor = rounded(now.shrink, 3)
    added = rounded(now.total - now.shrink * before.total, 3)
    gained = rounded(now.mix - now.shrink * before.mix)
    largest = max(new)
    old = "−∞" if math.isinf(before.top) else rounded(before.top)
    ink = COLORS["vermillion"] if now.top > before.top and step > 1 else INK
    mean = f"{rounded(now.mix)} / {rounded(now.total, 3)}"
    total = f"{factor} · {rounded(before.total, 3)} + {added}"
    mix = f"{factor} · {rounded(before.mix)} + {gained}"
    return [
        ("maximum", f"max({old}, {rounded(largest)})", rounded(now.top), INK),
        ("shrink by", f"e^({old} − {rounded(now.top)})", factor, ink),
        ("sum", total, rounded(now.total, 3), INK),
        ("value sum", mix, rounded(now.mix), INK),
        ("mean", mean, rounded(now.mix / now.total), COLORS["green"]),
    ]


def _say(title: str, now: _Step, step: int) -> str:
    if step == 0:
        return f"{title}; both sums are 0."
    shrunk = (
        f", so all before shrinks by {rounded(now.shrink, 3)}" if now.shrink < 1 else ""
    )
    return (
        f"{title}{shrunk if step > 1 else ''}. The sum is {rounded(now.total, 3)}, the "
        f"value sum {rounded(now.mix)}, their ratio {rounded(now.mix / now.total)}."
    )
