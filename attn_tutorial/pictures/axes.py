"""Axes: where a number falls, ticks, curves and what is stressed among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attn_tutorial.pictures.inputs import check_limits
from attn_tutorial.pictures.style import CYCLE, DASH_ARRAYS
from attn_tutorial.pictures.svg import CHARACTER, WIDTH, draw_label, num

__all__ = ["Axis", "draw_axes", "draw_curve", "draw_legend", "draw_mark"]


class Axis:
    """One axis of a chart: its range, its ticks, and where a number falls on it."""

    def __init__(self, name, values, log, limits, ends):
        if limits is not None:
            check_limits(name, *limits)
        low, high = limits or (min(values), max(values))
        self.log = log
        if log and low <= 0:
            raise ValueError(f"a logarithmic axis needs positive numbers, got {low}")
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        self.low, self.high = float(low), float(high)
        self.start, self.stop = ends

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(x) for x in (value, low, high))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Choose round numbers inside the range."""
        if self.log:
            return self._log_ticks()
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        first = math.floor(math.log10(self.low))
        last = math.ceil(math.log10(self.high))
        wide = math.log10(self.high / self.low) > 2.5
        factors = (1,) if wide else (1, 2, 5)
        every = 1 + int((last - first) / 7)
        powers = range(first, last + 1, every)
        ticks = [f * 10.0**p for p in powers for f in factors]
        inside = (self.low * (1 - 1e-9), self.high * (1 + 1e-9))
        return [t for t in ticks if inside[0] <= t <= inside[1]]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= step * 0.999999)


def _tick(value: float, log: bool) -> str:
    """Write a tick, large and small ones as powers of ten: 2·10⁵."""
    if value and (abs(value) >= (1e3 if log else 1e5) or abs(value) < 1e-3):
        power = math.floor(math.log10(abs(value)) + 1e-9)
        factor = f"{value / 10.0**power:.3g}"
        raised = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(c)] if c != "-" else "⁻" for c in str(power))
        return f"10{raised}" if factor == "1" else f"{factor}·10{raised}"
    return f"{value:,.5g}" if abs(value) < 1000 else f"{value:,.0f}"


def draw_axes(across: Axis, up: Axis, xlabel: str, ylabel: str) -> str:
    """Draw frame lines, ticks, their numbers and the axes' names."""
    left, right, low, high = across.start, across.stop, up.start, up.stop
    lines, words = [f"M{num(left)} {num(high)}V{num(low)}H{num(right)}"], []
    faint = []
    for value in across.ticks():
        x = across(value)
        lines.append(f"M{num(x)} {num(low)}v5")
        words.append(draw_label(x, low + 20, _tick(value, across.log)))
    for value in up.ticks():
        y = up(value)
        faint.append(f"M{num(left)} {num(y)}H{num(right)}")
        words.append(draw_label(left - 6, y + 5, _tick(value, up.log), "end"))
    turn = f' transform="rotate(-90 13 {num((low + high) / 2)})"'
    words.append(draw_label((left + right) / 2, low + 40, xlabel) if xlabel else "")
    words.append(draw_label(13, (low + high) / 2, ylabel, more=turn) if ylabel else "")
    grid = f'<path stroke-opacity=".15" d="{"".join(faint)}"/>'
    drawn = (
        f'<g fill="none" stroke="currentColor">{grid}<path d="{"".join(lines)}"/></g>'
    )
    return drawn + "".join(words)


def draw_legend(points: Mapping[str, Any], top: float) -> tuple[str, float]:
    """Draw the curves' names with their inks and dashes; return the height used."""
    if len(points) < 2:
        return "", top
    parts, x, y = [], 62.0, top + 8
    for k, name in enumerate(points):
        width = 40 + CHARACTER * len(name)
        if x > 62 and x + width > WIDTH:
            x, y = 62.0, y + 18
        ink = _ink(k)
        parts.append(f'<path {ink} d="M{num(x)} {num(y - 5)}h24"/>')
        parts.append(draw_label(x + 30, y, name, "start"))
        x += width + 8
    return "".join(parts), y + 4


def _ink(k: int) -> str:
    dash = DASH_ARRAYS[k % len(DASH_ARRAYS)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{CYCLE[k % len(CYCLE)]}" stroke-width="2.5"{dashed}'


def draw_curve(line: list[tuple], across: Axis, up: Axis, k: int) -> str:
    """Draw one curve through its points, leaving out what lies outside the axes."""
    inside = [
        f"{num(across(x))} {num(up(y))}"
        for x, y in line
        if across.low <= x <= across.high and up.low <= y <= up.high
    ]
    return f'<path {_ink(k)} d="M{"L".join(inside)}"/>' if inside else ""


def draw_mark(mark: Any, across: Axis, up: Axis) -> str:
    """Draw the stressed point with its words, or the stressed x as a line."""
    if mark is None:
        return ""
    alone = not isinstance(mark, (tuple, list))
    if not all(map(math.isfinite, [mark] if alone else mark[:2])):
        raise ValueError(f"mark must be finite, got {mark}")
    if alone:
        x = num(across(float(mark)))
        line = f"M{x} {num(up.start)}V{num(up.stop)}"
        return f'<path stroke="currentColor" stroke-dasharray="4 3" d="{line}"/>'
    x, y = across(float(mark[0])), up(float(mark[1]))
    dot = f'<circle cx="{num(x)}" cy="{num(y)}" r="6" fill="{CYCLE[1]}"/>'
    if len(mark) < 3:
        return dot
    bold = ' font-weight="600"'
    if x > (across.start + across.stop) / 2:
        return dot + draw_label(x - 10, y - 9, mark[2], "end", bold)
    return dot + draw_label(x + 10, y + 18, mark[2], "start", bold)
