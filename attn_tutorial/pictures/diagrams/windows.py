"""Windows in the matrix of scores: a slice, a band, a tile, blocks."""

from __future__ import annotations

import math

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    arrow,
    box,
    cells,
    finish,
    legend,
    line,
    rounded,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS, KEPT, WASTED
from attn_tutorial.pictures.svg import FONT, Frame, num

__all__ = ["rectangle_and_band", "tile_and_run", "window_over_blocks"]

NOTHING = (INK, 0.1)
SLICE = COLORS["vermillion"]
TOP = 22.0  # of the blocks


def _near(n: int, window: int) -> list[list[bool]]:
    return [[abs(i - j) <= window for j in range(n)] for i in range(n)]


def _side(n: int, room: float) -> float:
    """Size of a cell, in tenths, so that n of them fit."""
    return math.floor(10 * room / n) / 10


def rectangle_and_band(n: int = 8, windows: tuple[int, int] = (2, 5)) -> Frame:
    """Draw the columns of the slice [:, -w:w] over the band |i - j| <= w, for two w.

    The slice takes the same columns for every query, and none at all while
    w <= n / 2, since it begins behind its end. The band moves with the query.

    Args:
        n: Tokens, 4 to 16.
        windows: Two values of w, each from 1 to n - 1.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for it.

    Example:
        >>> rectangle_and_band().alt.split(", the")[0]
        'Of 8 columns the slice [:, -2:2] takes none'
    """
    n = check_between("n", n, 4, 16)
    windows = tuple(check_between("windows", w, 1, n - 1) for w in windows)
    check_between("number of windows", len(windows), 2, 2)
    panels = [_slice_panel(n, w, 176.0 * k + 8) for k, w in enumerate(windows)]
    entries = [
        ((KEPT, 1.0), "the band: |i − j| ≤ w"),
        ((SLICE, 1.0), "the slice [:, −w:w]"),
    ]
    key, height = legend(entries, 262)
    key += word(PAGE / 2, 262 + height + 14, "a row is a query i, a column a key j")
    said = [f"the slice [:, -{w}:{w}] takes {_columns_taken(n, w)}" for w in windows]
    alt = (
        f"Of {n} columns {', '.join(said)}, the same for every query. The band "
        "|i - j| <= w is a diagonal stripe that moves with the query: "
        f"{_pairs(n, windows[0])} and {_pairs(n, windows[1])} pairs."
    )
    title = "A slice of columns is not a window"
    return finish(title, "".join(panels) + key, 262 + height + 22, alt)


def _taken(n: int, window: int) -> range:
    return range(n)[-window:window]


def _columns_taken(n: int, window: int) -> str:
    taken = _taken(n, window)
    if len(taken) < 2:
        return f"column {taken[0]}" if taken else "none"
    return f"columns {taken[0]} to {taken[-1]}"


def _pairs(n: int, window: int) -> int:
    return sum(map(sum, _near(n, window)))


def _slice_panel(n: int, window: int, left: float) -> str:
    """Draw the band, the slice over it, and where the slice begins and ends."""
    size, top, taken = _side(n, 168.0), 62.0, _taken(n, window)
    start, stop = left + size * max(n - window, 0), left + size * min(window, n)
    middle, low = left + size * n / 2, top + size * n
    inks = [NOTHING, (KEPT, 1.0), (SLICE, 1.0)]
    parts = [
        word(middle, 15, f"w = {window}", size=FONT, bold=True),
        cells(_sliced(n, window), left, top, size, inks),
        _end(start, top, "−w" if start != stop else "−w, w"),
    ]
    if start != stop:
        parts.append(_end(stop, top, "w"))
        parts.append(arrow((start, top - 9), (stop, top - 9), SLICE, width=2))
    if taken:
        x, wide = left + size * taken[0] - 0.5, size * len(taken)
        edge = {"edge": (SLICE, 1.0), "thick": 2.5}
        parts.append(box(x, top - 2, wide, low - top + 3, **edge))
    words = _columns_taken(n, window).replace(" to ", "–")
    parts.append(word(middle, low + 19, f"slice: {words}", bold=True))
    return "".join(parts)


def _sliced(n: int, window: int) -> list[list[int]]:
    """0 neither, 1 in the band, 2 in the slice, which then lies inside the band."""
    taken = _taken(n, window)
    near = _near(n, window)
    return [[2 if j in taken else int(near[i][j]) for j in range(n)] for i in range(n)]


def _end(x: float, top: float, text: str) -> str:
    """Mark an end of the slice above the matrix."""
    tick = line(f"M{num(x)} {num(top - 15)}v13", SLICE, width=2)
    return tick + word(x, top - 20, text)


def tile_and_run(
    n: int = 20, *, window: int = 3, tile: int = 4, index: int = 2
) -> Frame:
    """Draw a tile of queries and the run of keys that its windows cover.

    Args:
        n: Tokens, 4 to 32.
        window: w, keys to each side of a query.
        tile: Queries in a tile.
        index: Which tile, from 0.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no such tile.

    Example:
        >>> tile_and_run().alt.split(" scores")[0]
        'Queries 8 to 11 meet keys 5 to 14: 4 x 10 = 40'
    """
    n = check_between("n", n, 4, 32)
    window = check_between("window", window, 0, n - 1)
    tile = check_between("tile", tile, 1, n)
    index = check_between("index", index, 0, -(-n // tile) - 1)
    rows = range(index * tile, min((index + 1) * tile, n))
    keys = range(max(0, rows.start - window), min(n, rows.stop + window))
    made = len(rows) * len(keys)
    kept = sum(abs(i - j) <= window for i in rows for j in keys)
    product = f"{len(rows)} × {len(keys)} = {made}"
    alt = (
        f"Queries {rows[0]} to {rows[-1]} meet keys {keys[0]} to {keys[-1]}: "
        f"{product.replace('×', 'x')} scores are computed, and {kept} of them lie in "
        f"the window of {window}."
    )
    body = _draw_tile(n, window, rows, keys)
    entries = [
        ((KEPT, 1.0), f"kept: {kept}"),
        ((WASTED, 1.0), f"in vain: {made - kept}"),
        ((INK, 0.4), "other tiles"),
    ]
    key, height = legend(entries, 336)
    said = word(
        PAGE / 2, 328, f"one product: {product} score{'s' * (made > 1)}", bold=True
    )
    title = "A tile of queries meets one run of keys"
    return finish(title, body + said + key, 336 + height + 4, alt)


def _draw_tile(n: int, window: int, rows: range, keys: range) -> str:
    size = _side(n, 270.0)
    left, top = (PAGE - size * n) / 2 + 22, 38.0
    states = [[int(near) for near in row] for row in _near(n, window)]
    for i in rows:
        for j in keys:
            states[i][j] = 3 if states[i][j] else 2
    inks = [NOTHING, (INK, 0.4), (WASTED, 1.0), (KEPT, 1.0)]
    x, wide = left + size * keys.start, size * len(keys)
    y, high = top + size * rows.start, size * len(rows)
    run = f"{len(keys)} keys" if len(keys) > 1 else "1 key"
    side = f"{len(rows)} queries" if len(rows) > 1 else "1 query"
    return "".join(
        [
            cells(states, left, top, size, inks),
            box(x - 1.5, y - 1.5, wide + 2, high + 2, edge=(INK, 1.0), thick=2),
            _brace(x, top - 8, wide - 1),
            word(_inside(x + wide / 2, run), top - 17, run, bold=True),
            line(f"M{num(left - 4)} {num(y)}h-5v{num(high - 1)}h5", width=1.8),
            word(
                left - 15,
                _upright(y + high / 2, side, top),
                side,
                bold=True,
                turned=True,
            ),
        ]
    )


def _brace(x: float, y: float, width: float) -> str:
    return line(f"M{num(x)} {num(y + 5)}v-5h{num(width)}v5", width=1.8)


def _inside(x: float, text: str) -> float:
    half = 4.2 * len(text)
    return min(max(x, half), PAGE - half)


def _upright(y: float, text: str, top: float) -> float:
    half = 3.9 * len(text)
    return min(max(y, top - 30 + half), top + 275 - half)


def window_over_blocks(
    n: int = 24, *, window: int = 3, rows: int = 4, columns: int = 4
) -> Frame:
    """Draw a window over blocks on a grid, in three colours: kept, in vain, skipped.

    A kernel that works in blocks of rows x columns computes a block whole, or skips it
    if it keeps no pair of the window.

    Args:
        n: Tokens, 4 to 48.
        window: w, keys to each side of a query.
        rows: Queries in a block.
        columns: Keys in a block.

    Returns:
        An SVG frame with the three counts. The last blocks count what of them lies
        in the matrix.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for it.

    Example:
        >>> window_over_blocks().alt.split(":")[0]
        'Blocks of 4 x 4 over a window of 3 among 24 tokens'
    """
    n = check_between("n", n, 4, 48)
    window = check_between("window", window, 0, n - 1)
    rows = check_between("rows", rows, 1, n)
    columns = check_between("columns", columns, 1, n)
    states = _block_states(n, window, rows, columns)
    skipped, vain, kept = (sum(row.count(s) for row in states) for s in range(3))
    tax = rounded((kept + vain) / kept, 2)
    alt = (
        f"Blocks of {rows} x {columns} over a window of {window} among {n} tokens: "
        f"{kept} pairs are kept, {vain} computed in vain, {skipped} skipped with their "
        f"blocks. That is {tax} times the useful work."
    )
    size = _side(n, 300.0)
    left = (PAGE - size * n) / 2
    inks = [NOTHING, (WASTED, 1.0), (KEPT, 1.0)]
    entries = [
        ((KEPT, 1.0), f"kept: {kept:,}"),
        ((WASTED, 1.0), f"in vain: {vain:,}"),
        (NOTHING, f"skipped: {skipped:,}"),
    ]
    low = TOP + size * n
    key, height = legend(entries, low + 30)
    grid = _grid(n, rows, columns, left, size)
    said = word(PAGE / 2, low + 21, f"computed: {tax} times what is kept", bold=True)
    said += word(PAGE / 2, TOP - 8, "keys")
    said += word(left - 9, TOP + size * n / 2, "queries", turned=True)
    title = "A window pays for whole blocks"
    body = cells(states, left, TOP, size, inks) + grid + said + key
    return finish(title, body, low + 30 + height + 4, alt)


def _block_states(n: int, window: int, rows: int, columns: int) -> list[list[int]]:
    """0 skipped, 1 computed in vain, 2 kept."""
    keep = _near(n, window)
    visited = {
        (i // rows, j // columns) for i in range(n) for j in range(n) if keep[i][j]
    }
    return [
        [
            2 if keep[i][j] else int((i // rows, j // columns) in visited)
            for j in range(n)
        ]
        for i in range(n)
    ]


def _grid(n: int, rows: int, columns: int, left: float, size: float) -> str:
    """Draw the borders of the blocks."""
    side = num(size * n)
    ys = [TOP + size * i for i in (*range(0, n, rows), n)]
    xs = [left + size * j for j in (*range(0, n, columns), n)]
    across = (f"M{num(left)} {num(y)}h{side}" for y in ys)
    down = (f"M{num(x)} {num(TOP)}v{side}" for x in xs)
    return line("".join([*across, *down]), width=1.4, faint=0.75)
