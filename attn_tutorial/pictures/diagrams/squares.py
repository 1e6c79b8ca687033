"""Who meets whom, small: squares of pairs side by side, and the keys of one query."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    arrow,
    box,
    cells,
    finish,
    sentence,
    width_of,
    word,
)
from attn_tutorial.pictures.inputs import check_between, numbers
from attn_tutorial.pictures.style import COLORS, KEPT
from attn_tutorial.pictures.svg import FONT, Frame

__all__ = ["one_query", "small_maps"]

SHADES = 8  # steps from no weight to all of it
GAP = 16.0  # between two squares
MISSED = COLORS["vermillion"]


def small_maps(
    maps: Mapping[str, Any], *, title: str, notes: Mapping[str, str] | None = None
) -> Frame:
    """Draw up to four matrices side by side, their cells all of one size.

    Args:
        maps: Name -> weights from 0 to 1, or booleans, shape (n_q, n_k).
        title: The finding.
        notes: Name -> what stands below; the number of pairs where there is none.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there are none or more than four, or one is no matrix of such
            weights.

    Example:
        >>> small_maps({"two tokens": [[1, 0], [1, 1]]}, title="Causal").alt
        'Causal. From left to right: two tokens, 3 pairs.'
    """
    check_between("number of maps", len(maps), 1, 4)
    grids = {name: _weights(name, weights) for name, weights in maps.items()}
    said = {name: f"{_pairs(grid):,} pairs" for name, grid in grids.items()}
    said |= notes or {}
    wide = [len(grid[0]) for grid in grids.values()]
    room = PAGE - 12 - GAP * (len(grids) - 1)
    size = min(math.floor(2 * room / sum(wide)) / 2, 14.0)
    columns = _columns(grids, said, size)
    high = size * max(map(len, grids.values()))
    parts = [
        _draw_map(name, grids[name], said[name], middle, high, size)
        for name, middle in columns.items()
    ]
    listed = "; ".join(f"{name}, {said[name]}" for name in grids)
    alt = f"{sentence(title)} From left to right: {listed}."
    return finish(title, "".join(parts), high + 48, alt)


def _weights(name: str, weights: Any) -> list[list[float]]:
    grid = numbers(**{name: weights})
    if not all(0 <= x <= 1 for row in grid for x in row):
        raise ValueError(f"{name} must have weights from 0 to 1")
    return grid


def _pairs(grid: list[list[float]]) -> int:
    return sum(x > 0 for row in grid for x in row)


def _columns(
    grids: Mapping[str, list[list[float]]], said: Mapping[str, str], size: float
) -> dict[str, float]:
    """Middle of each square; a column is as wide as its square and its words."""
    widths = [
        max(size * len(grid[0]), 1.06 * width_of(name), width_of(said[name]))
        for name, grid in grids.items()
    ]
    gap = (PAGE - sum(widths)) / (len(widths) + 1)
    if gap < 3:
        raise ValueError(f"names and notes are too long to stand beside: {[*said]}")
    middles, x = {}, gap
    for name, width in zip(grids, widths, strict=True):
        middles[name] = x + width / 2
        x += width + gap
    return middles


def _draw_map(
    name: str, grid: list[list[float]], note: str, x: float, high: float, size: float
) -> str:
    """Draw a square on the line where all stand, its name below it."""
    states = [[math.ceil(SHADES * weight) for weight in row] for row in grid]
    inks = [(INK, 0.1), *((KEPT, k / SHADES) for k in range(1, SHADES + 1))]
    left, top = x - size * len(grid[0]) / 2, 4 + high - size * len(grid)
    return (
        cells(states, left, top, size, inks)
        + word(x, high + 22, name, bold=True)
        + word(x, high + 40, note)
    )


def one_query(
    readings: Mapping[str, tuple[int, int]],
    n: int,
    query: int,
    *,
    title: str,
    needed: int | None = None,
) -> Frame:
    """Draw which keys one query meets, a row for each reading.

    Args:
        readings: Name -> first and last key that is met; at most five.
        n: Tokens, 2 to 24.
        query: Position of the query.
        title: The finding.
        needed: A key that the query needs, if one is to be shown.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for it.

    Example:
        >>> one_query({"Both sides": (1, 3)}, 5, 2, title="Five words").alt
        'Five words. Query 2 of 5. Both sides: keys 1 to 3.'
    """
    check_between("number of readings", len(readings), 1, 5)
    n = check_between("n", n, 2, 24)
    query = check_between("query", query, 0, n - 1)
    parts, said, y = [], [], 0.0
    for name, (first, last) in readings.items():
        first = check_between(f"first key of {name!r}", first, 0, n - 1)
        last = check_between(f"last key of {name!r}", last, first, n - 1)
        met = set(range(first, last + 1))
        parts.append(word(12, y + 14, name, "start", bold=True))
        parts.append(word(PAGE - 12, y + 14, _count(met, needed), "end"))
        parts.append(_draw_keys(met, n, query, needed, y + 22))
        said.append(f"{name}: keys {first} to {last}{_lost(met, needed)}")
        y += 54
    parts.append(_point_at(n, query, y))
    alt = f"{sentence(title)} Query {query} of {n}. {'; '.join(said)}."
    return finish(title, "".join(parts), y + 20, alt)


def _count(met: set[int], needed: int | None) -> str:
    return f"{len(met)} keys" if needed is None else _lost(met, needed)[2:]


def _lost(met: set[int], needed: int | None) -> str:
    if needed is None:
        return ""
    return f", {'meets' if needed in met else 'misses'} key {needed}"


def _pitch(n: int) -> float:
    return min((PAGE - 24) / n, 26.0)


def _draw_keys(met: set[int], n: int, query: int, needed: int | None, y: float) -> str:
    pitch, parts = _pitch(n), []
    left = (PAGE - n * pitch) / 2
    for j in range(n):
        fill = (KEPT, 0.85) if j in met else (INK, 0.07)
        edge, thick = ((MISSED, 1.0), 2.6) if j == needed else ((INK, 0.4), 1.0)
        if j == query:
            edge, thick = (INK, 1.0), 2.2
        parts.append(
            box(left + j * pitch + 1.5, y, pitch - 3, 20, fill, edge=edge, thick=thick)
        )
    return "".join(parts)


def _point_at(n: int, query: int, y: float) -> str:
    """Name the query below the last row."""
    pitch = _pitch(n)
    x = (PAGE - n * pitch) / 2 + (query + 0.5) * pitch
    side = "end" if x > PAGE / 2 else "start"
    beside = x - 10 if side == "end" else x + 10
    return arrow((x, y + 12), (x, y - 8)) + word(
        beside, y + 10, f"query {query}", side, size=FONT - 1
    )
