"""Small pictures as text: SVG and HTML frames that need no plotting library.

A frame is a string of markup, the same on every machine: its coordinates are rounded
and depend on nothing but the numbers given. ``explore.explorer`` puts frames under
sliders; a frame at the end of a notebook cell shows itself.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attn_tutorial.pictures.axes import (
    Axis,
    draw_axes,
    draw_curve,
    draw_legend,
    draw_mark,
)
from attn_tutorial.pictures.cells import (
    Grid,
    box_row,
    draw_below,
    mask_rows,
    say_counts,
    say_keys,
    shade_cells,
    shade_of,
    shade_scale,
)
from attn_tutorial.pictures.inputs import (
    booleans,
    check_limits,
    curve_points,
    numbers,
)
from attn_tutorial.pictures.svg import (
    CHARACTER,
    WIDTH,
    Frame,
    cell_text,
    draw_heading,
    draw_label,
    svg,
)

__all__ = ["Frame", "beside", "boxes", "caption", "chart", "mask", "shades", "table"]


def shades(
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
        ValueError: If the matrix is not rectangular, not empty and finite, or vmin is
            not below vmax.

    Example:
        >>> shades([[1, 0], [0, 1]], alt="Each token sees itself.")
        Each token sees itself.
    """
    check_limits("vmin, vmax", vmin, vmax)
    levels = [[shade_of(x, vmin, vmax) for x in row] for row in numbers(matrix=matrix)]
    grid = Grid(levels, title, rows, cols, xlabel, ylabel)
    marks = shade_scale(grid, vmin, vmax) if scale else ""
    return grid.frame(shade_cells(levels, grid) + marks, 26 if scale else 0, alt)


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
        TypeError: If keep or computed are no booleans but, say, 0 and -inf.
        ValueError: If keep is not a rectangle, or computed has another shape.

    Example:
        >>> "1 of 4 pairs kept (25 %)" in mask([[1, 0], [0, 0]], alt="One pair.")
        True
    """
    cells = booleans(keep=keep)
    extra = cells if computed is None else booleans(computed=computed)
    if len(extra) != len(cells) or len(extra[0]) != len(cells[0]):
        raise ValueError("computed must have the shape of keep")
    grid = Grid(cells, title, rows, cols, xlabel, ylabel)
    words = []
    for i, kept in enumerate(cells):
        name = f"{i} ({grid.rows[i]})" if grid.rows else str(i)
        words.append(reading.format(row=name, cells=say_keys(kept, noun)))
    counts = say_counts(cells, extra) if total is None else total
    below = draw_below(grid, counts, f"point at a row to read its {noun}s")
    return grid.frame(mask_rows(grid, cells, extra, words) + below, 46, alt)


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
        ValueError: If there is no curve, x and y differ in length, a number is NaN or
            infinite, or limits do not ascend.

    Example:
        >>> chart({"square": ([0, 1, 2], [0, 1, 4])}, alt="It grows faster and faster.")
        It grows faster and faster.
    """
    points = {name: curve_points(name, *curve) for name, curve in curves.items()}
    everything = list(itertools.chain(*points.values()))
    if not everything:
        raise ValueError("curves must hold at least one point")
    xs, ys = zip(*everything, strict=True)
    across = Axis("xlim", xs, logx, xlim, (62.0, WIDTH - 16.0))
    heading, top = draw_heading(title, WIDTH / 2, WIDTH)
    legend, top = draw_legend(points, top)
    up = Axis("ylim", ys, logy, ylim, (top + 214.0, top + 14.0))
    parts = [heading, legend, draw_axes(across, up, xlabel, ylabel)]
    for k, line in enumerate(points.values()):
        parts.append(draw_curve(line, across, up, k))
    parts.append(draw_mark(mark, across, up))
    return svg("".join(parts), WIDTH, up.start + 46, alt)


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
    head = "".join(f'<th scope="col">{cell_text(cell)}</th>' for cell in header)
    body = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {row!r} needs {len(header)} cells")
        body.append("<tr>" + "".join(f"<td>{cell_text(c)}</td>" for c in row) + "</tr>")
    name = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    label = html.escape(caption or "table")
    return Frame(
        f'<div class="attn-w" role="region" aria-label="{label}" tabindex="0">'
        f'<table class="attn-t">{name}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>",
        caption,
    )


def boxes(
    rows: Mapping[str, Sequence[Any]],
    *,
    alt: str,
    title: str = "",
    marked: Mapping[str, Collection[int]] | None = None,
) -> Frame:
    """Draw rows of boxes with a text in each, such as the slots of a memory.

    Args:
        rows: Name -> texts of its boxes, short ones; an empty text is an empty box.
        alt: What a sighted reader concludes, in one sentence.
        title: The finding; empty for none.
        marked: Name -> places of the boxes that are drawn in blue.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there is no box, or a mark names none.

    Example:
        >>> boxes({"slot": [0, 1], "holds": [2, ""]}, alt="Slot 1 is empty.")
        Slot 1 is empty.
    """
    texts = {name: [str(text) for text in row] for name, row in rows.items()}
    marks = {name: set(places) for name, places in (marked or {}).items()}
    longest = max(map(len, texts.values()), default=0)
    if not longest:
        raise ValueError(f"rows must hold at least one box, got {dict(rows)}")
    for name, places in marks.items():
        if not places <= set(range(len(texts.get(name, ())))):
            raise ValueError(f"marked names {name}: {sorted(places)}, which has no box")
    left = 14 + CHARACTER * max(map(len, texts))
    size = min(36.0, (WIDTH - left - 8) / longest)
    heading, top = draw_heading(title, WIDTH / 2, WIDTH)
    parts = [heading]
    for k, (name, row) in enumerate(texts.items()):
        y = top + 6 + k * (size + 8)
        parts.append(draw_label(left - 6, y + size / 2 + 5, name, "end"))
        parts.append(box_row(left, y, size, row, marks.get(name, set())))
    return svg("".join(parts), WIDTH, top + 6 + len(texts) * (size + 8), alt)


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
