"""Small pictures as text: SVG and HTML frames that need no plotting library.

A frame is a string of markup, the same on every machine: its coordinates are rounded
here and depend on nothing but the numbers given. ``explore.explorer`` puts frames under
sliders; a frame at the end of a notebook cell shows itself.
"""

from __future__ import annotations

import html
import itertools
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Frame", "beside", "caption", "chart", "heatmap", "mask", "table"]

WIDTH = (
    440  # widest picture, in CSS pixels: at 340 px on a phone, text is still 10.8 px
)
FONT = 14
_STEPS = [2**k for k in range(30)]  # names at every position, every second, ...
CHARACTER = 7.4  # mean width of a character at that size

# 16 steps of viridis, fixed here so that no picture depends on matplotlib's version.
LEVELS = (
    "#440154 #481a6c #472f7d #414487 #39568c #31688e #2a788e #23888e "
    "#1f988b #22a884 #35b779 #54c568 #7ad151 #a5db36 #d2e21b #fde725"
).split()
KEPT, WASTED = "#0072b2", "#e69f00"
INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")

STYLE = (
    ".attn-b{display:flex;flex-wrap:wrap;gap:.6em 1.2em;justify-content:center;"
    "align-items:flex-start}.attn-b>*{flex:1 1 15em;min-width:0}"
    ".attn-b>svg{max-width:440px!important}"
    ".attn-c{margin:.4em 0 0;font-size:.95em}"
    ".attn-w{overflow-x:auto}"
    ".attn-t{border-collapse:collapse;margin:.3em auto!important;"
    "font-variant-numeric:tabular-nums;width:auto!important}"
    ".attn-t caption{caption-side:top;font-weight:600;text-align:center;"
    "color:inherit;padding:.2em 0}"
    ".attn-t th,.attn-t td{padding:.2em .7em!important;text-align:right!important;"
    "border-bottom:1px solid rgba(128,128,128,.35)!important;color:inherit!important;"
    "background:none!important}"
    ".attn-r text{display:none;stroke:none;"
    "fill:currentColor}.attn-r:hover text{display:inline}"
    ".attn-s:has(.attn-r:hover) .attn-r:not(:hover) path{opacity:.45}"
    ".attn-s:has(.attn-r:hover) .attn-o{visibility:hidden}"
)


class Frame(str):
    """Markup of one picture; ``alt`` says in words what it shows."""

    alt: str

    def __new__(cls, markup: str, alt: str = "") -> Frame:
        """Make the string and keep its description beside it."""
        frame = super().__new__(cls, markup)
        frame.alt = alt
        return frame

    def __add__(self, other: str) -> Frame:
        """Put another frame below this one."""
        alts = (self.alt, getattr(other, "alt", ""))
        return Frame(str(self) + str(other), " ".join(filter(None, alts)))

    def __repr__(self) -> str:
        """Return the description, so that a stored output reads well."""
        return self.alt or str(self)

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>{self}"


def heatmap(
    matrix: Any,
    *,
    alt: str,
    title: str = "",
    rows: Sequence[Any] = (),
    cols: Sequence[Any] = (),
    vmin: float = 0.0,
    vmax: float = 1.0,
    xlabel: str = "key j",
    ylabel: str = "query i",
    scale: bool = True,
) -> Frame:
    """Draw a matrix in 16 shades, dark for ``vmin`` and bright for ``vmax``.

    Args:
        matrix: Numbers, shape (n_rows, n_cols); tensor, array or nested list.
        alt: What a sighted reader concludes, in one sentence.
        title: The finding; empty for none.
        rows: Names of the rows; positions where empty.
        cols: Names of the columns; positions where empty.
        vmin: Number drawn in the darkest shade; smaller ones are clipped to it.
        vmax: Number drawn in the brightest shade; larger ones are clipped to it.
        xlabel: What the columns are.
        ylabel: What the rows are.
        scale: Whether to draw the scale of shades below.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If the matrix is not rectangular and non-empty, or vmin >= vmax.

    Example:
        >>> heatmap([[1, 0], [0, 1]], alt="Each token sees itself.")
        Each token sees itself.
    """
    table_ = _matrix(matrix)
    if not vmin < vmax:
        raise ValueError(f"vmin must be below vmax, got vmin={vmin}, vmax={vmax}")
    levels = [[_level(x, vmin, vmax) for x in row] for row in table_]
    grid = _Grid(levels, title, rows, cols, xlabel, ylabel)
    marks = _scale(grid, vmin, vmax) if scale else ""
    return grid.frame(_shades(levels, grid) + marks, 26 if scale else 0, alt)


def mask(
    keep: Any,
    *,
    alt: str,
    title: str = "",
    computed: Any = None,
    rows: Sequence[Any] = (),
    cols: Sequence[Any] = (),
    xlabel: str = "key j",
    ylabel: str = "query i",
    reading: str = "query {row} keeps {cells}",
    noun: str = "key",
    total: str | None = None,
) -> Frame:
    """Draw which keys each query keeps; pointing at a row reads it out.

    Args:
        keep: Booleans, shape (n_q, n_k), True = attend.
        alt: What a sighted reader concludes, in one sentence.
        title: The finding; empty for none.
        computed: Booleans of the same shape: pairs that are computed. Those that are
            computed and not kept are drawn in orange.
        rows: Names of the queries; positions where empty.
        cols: Names of the keys; positions where empty.
        xlabel: What the columns are.
        ylabel: What the rows are.
        reading: What is read out when a row is pointed at.
        noun: What one cell of a row is, in the reading.
        total: Line below the cells; by default the number of kept pairs.

    Returns:
        An SVG frame with the number of kept pairs below the cells.

    Raises:
        ValueError: If keep is not a rectangle, or computed has another shape.

    Example:
        >>> "1 of 4 pairs kept (25 %)" in mask([[1, 0], [0, 0]], alt="One pair.")
        True
    """
    cells = _booleans(keep)
    extra = cells if computed is None else _booleans(computed)
    if len(extra) != len(cells) or len(extra[0]) != len(cells[0]):
        raise ValueError("computed must have the shape of keep")
    grid = _Grid(cells, title, rows, cols, xlabel, ylabel)
    lines = []
    for i, (kept, made) in enumerate(zip(cells, extra, strict=True)):
        name = f"{i} ({grid.rows[i]})" if grid.rows else str(i)
        words = reading.format(row=name, cells=_spoken(kept, noun))
        lines.append(_mask_row(grid, i, kept, made, words))
    thick = _num(grid.cell - grid.gap)
    style = (
        f'<g fill="none" stroke="currentColor" stroke-width="{thick}" text-anchor='
        f'"middle" stroke-dasharray="{thick} {_num(grid.gap)}">'
    )
    counts = _counts(cells, extra) if total is None else total
    below = _below(grid, counts, f"point at a row to read its {noun}s")
    body = f"{style}{''.join(lines)}</g>{below}"
    return grid.frame(body, 46, alt)


def chart(
    curves: Mapping[str, tuple[Iterable[float], Iterable[float]]],
    *,
    alt: str,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    logx: bool = False,
    logy: bool = False,
    mark: Any = None,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> Frame:
    """Draw curves on axes with ticks.

    Args:
        curves: Name -> (x values, y values).
        alt: What a sighted reader concludes, in one sentence.
        title: The finding; empty for none.
        xlabel: Quantity and unit along x.
        ylabel: Quantity and unit along y.
        logx: Whether x is logarithmic.
        logy: Whether y is logarithmic.
        mark: (x, y) or (x, y, text): one point to stress; or a number: a line at x.
        xlim: First and last x shown; the data's range where None.
        ylim: Lowest and highest y shown; give it when frames are to be compared.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there is no curve, or x and y differ in length.

    Example:
        >>> chart({"square": ([0, 1, 2], [0, 1, 4])}, alt="It grows faster and faster.")
        It grows faster and faster.
    """
    points = {name: _points(name, *curve) for name, curve in curves.items()}
    everything = list(itertools.chain(*points.values()))
    if not everything:
        raise ValueError("curves must hold at least one point")
    across = _Axis([x for x, _ in everything], logx, xlim, (62.0, WIDTH - 16.0))
    heading, top = _heading(title, WIDTH / 2, WIDTH)
    legend, top = _legend(points, top)
    up = _Axis([y for _, y in everything], logy, ylim, (top + 214.0, top + 14.0))
    parts = [heading, legend, _axes(across, up, xlabel, ylabel)]
    for k, line in enumerate(points.values()):
        parts.append(_curve(line, across, up, k))
    parts.append(_mark(mark, across, up))
    return _svg("".join(parts), WIDTH, up.start + 46, alt)


def table(
    header: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: str = ""
) -> Frame:
    """Write a table; numbers keep four digits, whole numbers all of them.

    Args:
        header: Column names.
        rows: Rows of cells, each as long as the header.
        caption: What the table shows.

    Returns:
        An HTML frame.

    Raises:
        ValueError: If a row's length is not the header's.

    Example:
        >>> "1,024" in table(["n", "kept"], [[1024, 0.12345]], caption="Kept pairs")
        True
    """
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    body = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {row!r} needs {len(header)} cells")
        body.append("<tr>" + "".join(f"<td>{_text(c)}</td>" for c in row) + "</tr>")
    name = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    label = html.escape(caption or "table")
    return Frame(
        f'<div class="attn-w" role="region" aria-label="{label}" tabindex="0">'
        f'<table class="attn-t">{name}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>",
        caption,
    )


def beside(*frames: str) -> Frame:
    """Put frames side by side; on a narrow screen they stand one below the other.

    Args:
        *frames: Frames, at least one.

    Returns:
        An HTML frame.

    Raises:
        ValueError: If there is no frame.
    """
    if not frames:
        raise ValueError("beside needs at least one frame")
    inside = "".join(f"<div>{frame}</div>" for frame in frames)
    alts = " ".join(filter(None, (getattr(frame, "alt", "") for frame in frames)))
    return Frame(f'<div class="attn-b">{inside}</div>', alts)


def caption(text: str) -> Frame:
    """Write a line of text; it stands below a frame that it is added to.

    Args:
        text: Plain text.

    Returns:
        An HTML frame.
    """
    return Frame(f'<p class="attn-c">{html.escape(text)}</p>', text)


# Numbers and text -----------------------------------------------------------------


def _matrix(values: Any) -> list[list[Any]]:
    """Turn a tensor, an array or nested lists into rows of Python numbers."""
    rows = values.tolist() if hasattr(values, "tolist") else list(values)
    rows = [r.tolist() if hasattr(r, "tolist") else r for r in rows]
    if not rows or not all(isinstance(row, (list, tuple)) for row in rows):
        raise ValueError("a matrix with at least one row and column is needed")
    if not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("every row of the matrix must have the same length, not 0")
    if isinstance(rows[0][0], (list, tuple)):
        raise ValueError("a matrix has 2 dimensions; pick one batch and head")
    return rows


def _booleans(values: Any) -> list[list[bool]]:
    return [[bool(x) for x in row] for row in _matrix(values)]


def _points(name: str, xs: Iterable[Any], ys: Iterable[Any]) -> list[tuple]:
    xs, ys = [float(x) for x in xs], [float(y) for y in ys]
    if len(xs) != len(ys):
        raise ValueError(f"curve {name!r} has {len(xs)} x and {len(ys)} y values")
    return list(zip(xs, ys, strict=True))


def _level(x: float, vmin: float, vmax: float) -> int:
    """Shade of a number; the small step keeps 0.5 on one side on every machine."""
    share = (min(max(float(x), vmin), vmax) - vmin) / (vmax - vmin)
    return int(share * 15 + 0.5 - 1e-6)


def _num(x: float) -> str:
    """Coordinate with at most one decimal."""
    return f"{round(float(x), 1) + 0.0:g}"


def _text(cell: Any) -> str:
    """Cell of a table as text."""
    if isinstance(cell, (bool, str)):
        return html.escape(str(cell))
    cell = cell.item() if hasattr(cell, "item") else cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return html.escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell))


def _runs(cells: Sequence[Any]) -> Iterator[tuple[Any, int, int]]:
    """Yield (value, start, length) of each run of equal neighbours."""
    start = 0
    for value, group in itertools.groupby(cells):
        length = len(list(group))
        yield value, start, length
        start += length


def _svg(body: str, width: float, height: float, alt: str) -> Frame:
    """Wrap drawn parts; fonts and colours come from the page."""
    return Frame(
        f'<svg class="attn-s" role="img" aria-label="{html.escape(alt)}" '
        f'xmlns="http://www.w3.org/2000/svg" width="{_num(width)}" '
        f'viewBox="0 0 {_num(width)} {_num(height)}" font-family="sans-serif" '
        f'font-size="{FONT}" fill="currentColor" style="display:block;'
        f'margin:0 auto;max-width:100%;height:auto">{body}</svg>',
        alt,
    )


def _label(
    x: float, y: float, text: Any, anchor: str = "middle", more: str = ""
) -> str:
    return (
        f'<text x="{_num(x)}" y="{_num(y)}" text-anchor="{anchor}"{more}>'
        f"{html.escape(str(text))}</text>"
    )


def _heading(title: str, x: float, width: float) -> tuple[str, float]:
    """Draw a title in as many lines as it needs; return it and the height used."""
    lines = textwrap.wrap(title, max(12, int(width / (CHARACTER * 1.1))))
    bold = ' font-weight="600"'
    text = [_label(x, 16 + 18 * k, s, more=bold) for k, s in enumerate(lines)]
    return "".join(text), 18.0 * len(lines) + (8 if lines else 2)


# Cells ----------------------------------------------------------------------------


class _Grid:
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
        self.heading, top = _heading(title, self.page / 2, self.page)
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
        turn = f' transform="rotate(-90 {_num(x)} {_num(middle)})"'
        parts = [_label(x, middle, ylabel, more=turn)] if ylabel else []
        if xlabel:
            parts.append(_label((self.left + self.right) / 2, top + 14, xlabel))
        for i, name in self._ticks(self.rows, self.height):
            y = self.top + (i + 0.5) * self.cell + 5
            parts.append(_label(self.left - 5, y, name, "end"))
        for j, name in self._ticks(self.cols, self.width):
            x, y = self.left + (j + 0.5) * self.cell, self.top - 6
            up = f' transform="rotate(-90 {_num(x + 5)} {_num(y)})"'
            if self.slant:
                parts.append(_label(x + 5, y, name, "start", up))
            else:
                parts.append(_label(x, y, name))
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
        return _svg(parts, self.page, self.bottom + below + 4, alt)


def _shades(levels: list[list[int]], grid: _Grid) -> str:
    """Draw cells as one path for each shade, a run of equal neighbours at a time."""
    runs: dict[int, list[str]] = {}
    for i, row in enumerate(levels):
        for level, j, length in _runs(row):
            path = f"M{j} {i}h{length}v1h-{length}z"
            runs.setdefault(level, []).append(path)
    paths = "".join(
        f'<path fill="{LEVELS[k]}" d="{"".join(runs[k])}"/>' for k in sorted(runs)
    )
    place = f"translate({_num(grid.left)} {_num(grid.top)}) scale({_num(grid.cell)})"
    return f'<g transform="{place}" shape-rendering="crispEdges">{paths}</g>'


def _scale(grid: _Grid, vmin: float, vmax: float) -> str:
    """Draw the scale of shades below the cells."""
    x, y = grid.page / 2 - 64, grid.bottom + 12
    steps = "".join(
        f'<path fill="{ink}" d="M{_num(x + 8 * k)} {_num(y)}h8v10h-8z"/>'
        for k, ink in enumerate(LEVELS)
    )
    low = _label(x - 6, y + 10, f"{vmin:g}", "end")
    return steps + low + _label(x + 134, y + 10, f"{vmax:g}", "start")


def _mask_row(
    grid: _Grid, i: int, kept: list[bool], computed: list[bool], words: str
) -> str:
    """Draw one row: its empty, wasted and kept cells, and its words when pointed at."""
    y = grid.top + (i + 0.5) * grid.cell
    state = [2 if k else int(c) for k, c in zip(kept, computed, strict=True)]
    paths: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for value, j, length in _runs(state):
        start = _num(grid.left + j * grid.cell)
        paths[value].append(f"M{start} {_num(y)}h{_num(length * grid.cell)}")
    inks = ('stroke-opacity=".12"', f'stroke="{WASTED}"', f'stroke="{KEPT}"')
    cells = "".join(
        f'<path {inks[v]} d="{"".join(d)}"/>' for v, d in paths.items() if d
    )
    x, y = _num(grid.page / 2), _num(grid.bottom + 42)
    text = f'<text x="{x}" y="{y}">{html.escape(words)}</text>'
    return f'<g class="attn-r">{cells}{text}</g>'


def _spoken(kept: list[bool], noun: str) -> str:
    """Say which keys are kept: ``keys 2–8 (7 of them)``."""
    runs = [(j, j + size - 1) for value, j, size in _runs(kept) if value]
    if not runs:
        return f"no {noun}"
    words = [f"{a}" if a == b else f"{a}–{b}" for a, b in runs]
    text = ", ".join(words if len(words) <= 5 else [*words[:4], "…"])
    many = sum(kept)
    return f"{noun} {text}" if many == 1 else f"{noun}s {text} ({many} of them)"


def _counts(kept: list[list[bool]], computed: list[list[bool]]) -> str:
    """Say how many pairs are kept, and computed where that differs."""
    some, made = sum(map(sum, kept)), sum(map(sum, computed))
    pairs = len(kept) * len(kept[0])
    if made != some:
        return f"{made:,} of {pairs:,} pairs computed, {some:,} of them kept"
    return f"{some:,} of {pairs:,} pairs kept ({100 * some / pairs:.0f} %)"


def _below(grid: _Grid, total: str, hint: str) -> str:
    """Write a line below the cells, and a hint where a row is read out."""
    x = grid.page / 2
    faint = ' class="attn-o" opacity=".75"'
    return _label(x, grid.bottom + 20, total) + _label(
        x, grid.bottom + 42, hint, more=faint
    )


# Axes -----------------------------------------------------------------------------


class _Axis:
    """One axis of a chart: its range, its ticks, and where a number falls on it."""

    def __init__(self, values, log, limits, ends):
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


def _axes(across: _Axis, up: _Axis, xlabel: str, ylabel: str) -> str:
    """Draw frame lines, ticks, their numbers and the axes' names."""
    left, right, low, high = across.start, across.stop, up.start, up.stop
    lines, words = [f"M{_num(left)} {_num(high)}V{_num(low)}H{_num(right)}"], []
    faint = []
    for value in across.ticks():
        x = across(value)
        lines.append(f"M{_num(x)} {_num(low)}v5")
        words.append(_label(x, low + 20, _tick(value, across.log)))
    for value in up.ticks():
        y = up(value)
        faint.append(f"M{_num(left)} {_num(y)}H{_num(right)}")
        words.append(_label(left - 6, y + 5, _tick(value, up.log), "end"))
    turn = f' transform="rotate(-90 13 {_num((low + high) / 2)})"'
    words.append(_label((left + right) / 2, low + 40, xlabel) if xlabel else "")
    words.append(_label(13, (low + high) / 2, ylabel, more=turn) if ylabel else "")
    grid = f'<path stroke-opacity=".15" d="{"".join(faint)}"/>'
    drawn = (
        f'<g fill="none" stroke="currentColor">{grid}<path d="{"".join(lines)}"/></g>'
    )
    return drawn + "".join(words)


def _legend(points: Mapping[str, Any], top: float) -> tuple[str, float]:
    """Draw the curves' names with their inks and dashes; return the height used."""
    if len(points) < 2:
        return "", top
    parts, x, y = [], 62.0, top + 8
    for k, name in enumerate(points):
        width = 40 + CHARACTER * len(name)
        if x > 62 and x + width > WIDTH:
            x, y = 62.0, y + 18
        ink = _ink(k)
        parts.append(f'<path {ink} d="M{_num(x)} {_num(y - 5)}h24"/>')
        parts.append(_label(x + 30, y, name, "start"))
        x += width + 8
    return "".join(parts), y + 4


def _ink(k: int) -> str:
    dash = DASHES[k % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{INKS[k % len(INKS)]}" stroke-width="2.5"{dashed}'


def _curve(line: list[tuple], across: _Axis, up: _Axis, k: int) -> str:
    """Draw one curve through its points, leaving out what lies outside the axes."""
    inside = [
        f"{_num(across(x))} {_num(up(y))}"
        for x, y in line
        if across.low <= x <= across.high and up.low <= y <= up.high
    ]
    return f'<path {_ink(k)} d="M{"L".join(inside)}"/>' if inside else ""


def _mark(mark: Any, across: _Axis, up: _Axis) -> str:
    """Draw the stressed point with its words, or the stressed x as a line."""
    if mark is None:
        return ""
    if not isinstance(mark, (tuple, list)):
        x = _num(across(float(mark)))
        line = f"M{x} {_num(up.start)}V{_num(up.stop)}"
        return f'<path stroke="currentColor" stroke-dasharray="4 3" d="{line}"/>'
    x, y = across(float(mark[0])), up(float(mark[1]))
    dot = f'<circle cx="{_num(x)}" cy="{_num(y)}" r="6" fill="{INKS[1]}"/>'
    if len(mark) < 3:
        return dot
    bold = ' font-weight="600"'
    if x > (across.start + across.stop) / 2:
        return dot + _label(x - 10, y - 9, mark[2], "end", bold)
    return dot + _label(x + 10, y + 18, mark[2], "start", bold)
