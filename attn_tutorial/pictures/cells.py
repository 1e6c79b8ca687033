"""Cells: the grid of a matrix, its shades, and the rows of a mask."""

from __future__ import annotations

import html
import math

from attn_tutorial.pictures.style import KEPT, LEVELS, WASTED
from attn_tutorial.pictures.svg import (
    CHARACTER,
    FONT,
    WIDTH,
    Frame,
    draw_heading,
    draw_label,
    num,
    runs,
    svg,
)

__all__ = [
    "Grid",
    "box_row",
    "draw_below",
    "mask_rows",
    "say_counts",
    "say_keys",
    "shade_cells",
    "shade_of",
    "shade_scale",
]

_STEPS = [2**k for k in range(30)]  # names at every position, every second, ...


class Grid:
    """Where the cells of a matrix, its names and its title stand."""

    def __init__(self, cells, title, rows, cols, xlabel, ylabel):
        self.height, self.width = len(cells), len(cells[0])
        self.rows, self.cols = list(map(str, rows)), list(map(str, cols))
        self._check()
        self.left = 22.0 * bool(ylabel) + 8 + CHARACTER * self._longest(self.rows, 2)
        fit = min((WIDTH - self.left - 8) / self.width, 400 / self.height, 38)
        self.cell = max(math.floor(fit * 10) / 10, 0.5)
        self.gap = 1.0 if self.cell >= 6 else 0.0
        self.right = self.left + self.cell * self.width
        self.page = max(self.right + 8, 250.0)
        shift = (self.page - self.right - 8) / 2
        self.left, self.right = self.left + shift, self.right + shift
        self.heading, top = draw_heading(title, self.page / 2, self.page)
        self.slant = self._longest(self.cols, 2) * CHARACTER + 4 > self.cell
        self.slant = self.slant and bool(self.cols)
        room = self._longest(self.cols, 2) * CHARACTER if self.slant else FONT
        self.top = top + (20 if xlabel else 0) + room + 6
        self.bottom = self.top + self.cell * self.height
        self.axes = self._axes(xlabel, ylabel, top)

    def _check(self) -> None:
        for name, given, wanted in (
            ("rows", self.rows, self.height),
            ("cols", self.cols, self.width),
        ):
            if given and len(given) != wanted:
                raise ValueError(f"{name} has {len(given)} names, not {wanted}")

    @staticmethod
    def _longest(names: list[str], default: int) -> int:
        return max(map(len, names), default=default)

    def _axes(self, xlabel: str, ylabel: str, top: float) -> str:
        """Draw the names of axes, rows and columns, as many as fit."""
        middle = (self.top + self.bottom) / 2
        x = max(self.left - CHARACTER * self._longest(self.rows, 2) - 14, 12)
        turn = f' transform="rotate(-90 {num(x)} {num(middle)})"'
        parts = [draw_label(x, middle, ylabel, more=turn)] if ylabel else []
        if xlabel:
            parts.append(draw_label((self.left + self.right) / 2, top + 14, xlabel))
        for i, name in self._ticks(self.rows, self.height):
            y = self.top + (i + 0.5) * self.cell + 5
            parts.append(draw_label(self.left - 5, y, name, "end"))
        for j, name in self._ticks(self.cols, self.width):
            x, y = self.left + (j + 0.5) * self.cell, self.top - 6
            up = f' transform="rotate(-90 {num(x + 5)} {num(y)})"'
            if self.slant:
                parts.append(draw_label(x + 5, y, name, "start", up))
            else:
                parts.append(draw_label(x, y, name))
        return "".join(parts)

    def _ticks(self, names: list[str], count: int) -> list[tuple[int, str]]:
        """Choose the positions whose names fit beside each other."""
        room = 15 if names else 24
        step = next(s for s in _STEPS if s * self.cell >= room)
        names = names or [str(i) for i in range(count)]
        return list(enumerate(names))[::step]

    def frame(self, body: str, below: float, alt: str) -> Frame:
        """Put the cells among their names."""
        parts = self.heading + self.axes + body
        return svg(parts, self.page, self.bottom + below + 4, alt)


def shade_cells(levels: list[list[int]], grid: Grid) -> str:
    """Draw cells as one path for each shade, a run of equal neighbours at a time."""
    paths: dict[int, list[str]] = {}
    for i, row in enumerate(levels):
        for level, j, length in runs(row):
            path = f"M{j} {i}h{length}v1h-{length}z"
            paths.setdefault(level, []).append(path)
    drawn = "".join(
        f'<path fill="{LEVELS[k]}" d="{"".join(paths[k])}"/>' for k in sorted(paths)
    )
    place = f"translate({num(grid.left)} {num(grid.top)}) scale({num(grid.cell)})"
    return f'<g transform="{place}" shape-rendering="crispEdges">{drawn}</g>'


def shade_scale(grid: Grid, vmin: float, vmax: float) -> str:
    """Draw the scale of shades below the cells."""
    x, y = grid.page / 2 - 64, grid.bottom + 12
    steps = "".join(
        f'<path fill="{ink}" d="M{num(x + 8 * k)} {num(y)}h8v10h-8z"/>'
        for k, ink in enumerate(LEVELS)
    )
    low = draw_label(x - 6, y + 10, f"{vmin:g}", "end")
    return steps + low + draw_label(x + 134, y + 10, f"{vmax:g}", "start")


def mask_rows(
    grid: Grid,
    kept: list[list[bool]],
    computed: list[list[bool]],
    words: list[str],
) -> str:
    """Draw the rows of a mask, with what each says when it is pointed at."""
    thick = num(grid.cell - grid.gap)
    style = (
        f'<g fill="none" stroke="currentColor" stroke-width="{thick}" text-anchor='
        f'"middle" stroke-dasharray="{thick} {num(grid.gap)}">'
    )
    rows = zip(kept, computed, words, strict=True)
    drawn = [_mask_row(grid, i, *row) for i, row in enumerate(rows)]
    return f"{style}{''.join(drawn)}</g>"


def _mask_row(
    grid: Grid, i: int, kept: list[bool], computed: list[bool], words: str
) -> str:
    """Draw one row: its empty, wasted and kept cells, and its words when pointed at."""
    y = grid.top + (i + 0.5) * grid.cell
    state = [2 if k else int(c) for k, c in zip(kept, computed, strict=True)]
    paths: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for value, j, length in runs(state):
        start = num(grid.left + j * grid.cell)
        paths[value].append(f"M{start} {num(y)}h{num(length * grid.cell)}")
    inks = ('stroke-opacity=".12"', f'stroke="{WASTED}"', f'stroke="{KEPT}"')
    cells = "".join(
        f'<path {inks[v]} d="{"".join(d)}"/>' for v, d in paths.items() if d
    )
    x, y = num(grid.page / 2), num(grid.bottom + 42)
    text = f'<text x="{x}" y="{y}">{html.escape(words)}</text>'
    return f'<g class="attn-r">{cells}{text}</g>'


def say_keys(kept: list[bool], noun: str) -> str:
    """Say which keys are kept: ``keys 2–8 (7 of them)``."""
    spans = [(j, j + size - 1) for value, j, size in runs(kept) if value]
    if not spans:
        return f"no {noun}"
    words = [f"{a}" if a == b else f"{a}–{b}" for a, b in spans]
    text = ", ".join(words if len(words) <= 5 else [*words[:4], "…"])
    many = sum(kept)
    return f"{noun} {text}" if many == 1 else f"{noun}s {text} ({many} of them)"


def say_counts(kept: list[list[bool]], computed: list[list[bool]]) -> str:
    """Say how many pairs are kept, and computed where that differs."""
    some, made = sum(map(sum, kept)), sum(map(sum, computed))
    pairs = len(kept) * len(kept[0])
    if made != some:
        return f"{made:,} of {pairs:,} pairs computed, {some:,} of them kept"
    return f"{some:,} of {pairs:,} pairs kept ({100 * some / pairs:.0f} %)"


def box_row(x: float, y: float, size: float, texts: list[str], marked: set) -> str:
    """Draw a row of boxes with a text in each; an empty text is an empty box."""
    parts = []
    for k, text in enumerate(texts):
        ink = f'fill="{KEPT}"' if k in marked else 'fill="currentColor"'
        ink += "" if k in marked else f' fill-opacity="{0.12 if text else 0}"'
        place = f'x="{num(x + k * size + 1)}" y="{num(y + 1)}"'
        side = f'width="{num(size - 2)}" height="{num(size - 2)}"'
        line = 'stroke="currentColor" stroke-opacity=".4"'
        parts.append(f"<rect {place} {side} {ink} {line}/>")
        more = ' fill="#ffffff"' if k in marked else ""
        middle = x + (k + 0.5) * size
        parts.append(draw_label(middle, y + size / 2 + 5, text, more=more))
    return "".join(parts)


def draw_below(grid: Grid, total: str, hint: str) -> str:
    """Write a line below the cells, and a hint where a row is read out."""
    x = grid.page / 2
    faint = ' class="attn-o" opacity=".75"'
    return draw_label(x, grid.bottom + 20, total) + draw_label(
        x, grid.bottom + 42, hint, more=faint
    )


def shade_of(x: float, vmin: float, vmax: float) -> int:
    """Shade of a number; the small step keeps 0.5 on one side on every machine."""
    share = (min(max(float(x), vmin), vmax) - vmin) / (vmax - vmin)
    return int(share * 15 + 0.5 - 1e-6)
