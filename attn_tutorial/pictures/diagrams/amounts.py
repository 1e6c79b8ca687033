"""How much: bars to one scale, growth with the length, a share within a window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    box,
    finish,
    line,
    rounded,
    sentence,
    width_of,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS, KEPT
from attn_tutorial.pictures.svg import Frame, num

__all__ = ["amounts", "covered_share", "growth"]

INKS = [COLORS[name] for name in ("blue", "vermillion", "green", "purple")]
LEFT, RIGHT, LOW, TOP = 44.0, 240.0, 124.0, 8.0  # of the axes


def amounts(values: Mapping[str, float], *, title: str, unit: str) -> Frame:
    """Draw bars to one scale, each below its name.

    Args:
        values: Name -> a number above 0; at most four.
        title: The finding.
        unit: What is counted.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there are too many, or one is not above 0.

    Example:
        >>> amounts({"kept": 3, "computed": 9}, title="A tax", unit="pairs").alt
        'A tax. Kept: 3 pairs. Computed: 9 pairs.'
    """
    check_between("number of values", len(values), 1, 4)
    if not all(math.isfinite(x) and x > 0 for x in values.values()):
        raise ValueError(f"values must be finite and above 0, got {dict(values)}")
    parts, most = [], max(values.values())
    for k, (name, value) in enumerate(values.items()):
        y = 42.0 * k
        width = max((PAGE - 24) * value / most, 1.5)
        parts.append(word(12, y + 14, name, "start"))
        parts.append(word(PAGE - 12, y + 14, f"{value:,} {unit}", "end", bold=True))
        parts.append(box(12, y + 20, width, 13, (KEPT, 0.85), edge=(KEPT, 1.0)))
    said = (f"{n[:1].upper()}{n[1:]}: {x:,} {unit}." for n, x in values.items())
    return finish(
        title, "".join(parts), 42.0 * len(values), f"{sentence(title)} {' '.join(said)}"
    )


def growth(
    lengths: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    *,
    title: str,
    unit: str,
) -> Frame:
    """Draw amounts against the length, both logarithmic, with each curve's last slope.

    Args:
        lengths: n, at least two, increasing.
        curves: Name -> an amount for each length; at most three.
        title: The finding.
        unit: What is counted.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If a curve has not one positive amount for each length.

    Example:
        >>> growth([1, 10], {"all": [1, 100]}, title="Squares", unit="pairs").alt
        'Squares. Pairs against the length, both logarithmic: all, slope 2.00.'
    """
    check_between("number of curves", len(curves), 1, 3)
    check_between("number of lengths", len(lengths), 2, 32)
    for name, ys in curves.items():
        if len(ys) != len(lengths) or not all(y > 0 for y in ys):
            raise ValueError(f"{name} must have a positive amount for each length")
    every = [y for ys in curves.values() for y in ys]
    across, up = _scale(lengths, LEFT, RIGHT), _scale(every, LOW, TOP)
    parts = [line(f"M{num(LEFT)} {num(TOP)}V{num(LOW)}H{num(RIGHT)}", faint=0.5)]
    for ink, (name, ys) in zip(INKS, curves.items(), strict=False):
        points = [
            f"{num(across(x))} {num(up(y))}" for x, y in zip(lengths, ys, strict=True)
        ]
        parts.append(line("M" + "L".join(points), ink, width=2.6))
        y = up(ys[-1])
        parts.append(word(RIGHT + 8, y + 5, name, "start", bold=True))
        parts.append(
            word(RIGHT + 8, y + 21, f"slope {_slope(lengths, ys):.2f}", "start")
        )
    parts += [
        word(LEFT, LOW + 18, f"{lengths[0]:,}"),
        word(RIGHT, LOW + 18, f"{lengths[-1]:,}"),
        word((LEFT + RIGHT) / 2, LOW + 18, "length n"),
        word(LEFT - 14, (LOW + TOP) / 2, unit, turned=True),
    ]
    said = ", ".join(
        f"{n}, slope {_slope(lengths, ys):.2f}" for n, ys in curves.items()
    )
    axes = f"{unit[:1].upper()}{unit[1:]} against the length, both logarithmic"
    return finish(title, "".join(parts), LOW + 26, f"{sentence(title)} {axes}: {said}.")


def _scale(values: Sequence[float], start: float, stop: float):
    low, high = math.log(min(values)), math.log(max(values))
    return lambda x: start + (stop - start) * (math.log(x) - low) / (high - low)


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    return math.log(ys[-1] / ys[-2]) / math.log(xs[-1] / xs[-2])


def covered_share(weights: Sequence[float], window: int, *, title: str) -> Frame:
    """Draw how much attention goes how far back, and what a window covers of it.

    Args:
        weights: Weight at the distances 0, 1, 2, ...; 2 to 40, made to sum to 1.
        window: w: distances up to w are covered.
        title: The finding.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a weight is negative, or w is no such distance.

    Example:
        >>> covered_share([5, 4, 1, 0, 0, 0], 1, title="Short").alt
        'Short. A window of 1 covers 90 % of the weight at 6 distances.'
    """
    check_between("number of weights", len(weights), 2, 40)
    window = check_between("window", window, 0, len(weights) - 2)
    if min(weights) < 0 or not sum(weights):
        raise ValueError("weights must be at least 0, and not all 0")
    covered = sum(weights[: window + 1]) / sum(weights)
    pitch, base = (PAGE - 32) / len(weights), 96.0
    parts = [line(f"M12 {num(base)}H{num(PAGE - 12)}", faint=0.5)]
    for distance, weight in enumerate(weights):
        high = max(82 * weight / max(weights), 0.6)
        ink = (KEPT, 0.9) if distance <= window else (INK, 0.18)
        place = 16 + distance * pitch + pitch * 0.12, base - high
        parts.append(box(*place, pitch * 0.76, high, ink, edge=(ink[0], 0.6)))
    edge = 16 + (window + 1) * pitch
    percent = rounded(100 * covered, 0)
    label = f"w = {window}: {percent} % of the weight"
    if edge + 8 + width_of(label) * 1.06 > PAGE:
        raise ValueError(f"window must leave room for its label, got {window}")
    parts += [
        line(
            f"M{num(edge)} {num(base + 4)}V6", COLORS["vermillion"], width=2, dash="5 3"
        ),
        word(edge + 8, 18, label, "start", bold=True),
        word(16, base + 18, "0", "start"),
        word(PAGE / 2, base + 18, "distance, in tokens"),
        word(PAGE - 14, base + 18, str(len(weights) - 1), "end"),
    ]
    said = f"A window of {window} covers {percent} % of the weight at"
    alt = f"{sentence(title)} {said} {len(weights)} distances."
    return finish(title, "".join(parts), base + 26, alt)
