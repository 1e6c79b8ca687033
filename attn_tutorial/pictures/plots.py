"""Figures: each function returns a ``Picture`` with alt text and a title that finds.

A picture is a plain matplotlib figure made without pyplot, so it changes no backend
and looks the same in every notebook. It shows itself as SVG (``vector``), which follows
a page from light to dark. Its repr is its alt text: what a stored output compares, and
what a reader who does not see the image is told.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from attn_tutorial.pictures.inputs import booleans, check_limits, numbers
from attn_tutorial.pictures.style import COLORS, CYCLE, DASHES, MARKERS
from attn_tutorial.pictures.vector import SCREEN, as_svg

__all__ = [
    "COLORS",
    "Picture",
    "bars",
    "heatmap",
    "lines",
    "masks",
    "picture",
    "tile",
]

TITLE, LABEL, TICK = 13, 12, 11.5  # points, for a figure 6 inches wide
SHARP = 2  # how many times finer than a page shows it an image is drawn
TINTS = 64  # colours of the small image beside the SVG

FONT = "DejaVu Sans"
STYLE = {
    "font.size": TICK,
    "mathtext.fontset": "dejavusans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
    "axes.axisbelow": True,
    "text.color": COLORS["black"],
    "axes.labelcolor": COLORS["black"],
    "axes.edgecolor": COLORS["black"],
    "xtick.color": COLORS["black"],
    "ytick.color": COLORS["black"],
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "text.usetex": False,
}


def _style() -> dict[str, Any]:
    """All settings; the reader's own font writes what ours has no letters for."""
    return STYLE | {"font.family": [FONT, *matplotlib.rcParams["font.family"]]}


class Picture(Figure):
    """A figure that carries its description and shows itself as a sharp PNG.

    Attributes:
        alt: What a sighted reader concludes, in one or two sentences.
    """

    def __init__(self, *args: Any, alt: str = "", **kwargs: Any):
        """Make an empty figure; ``picture`` is the usual way."""
        super().__init__(*args, **kwargs)
        self.alt = alt
        FigureCanvasAgg(self)

    def __repr__(self) -> str:
        """Return the alt text."""
        return self.alt

    def _repr_svg_(self) -> str:
        """Return the figure as one SVG element."""
        with matplotlib.rc_context(_style()):
            _finish(self)
            return as_svg(self, self.alt)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the image, and the size at which a page shows it."""
        return self._image(SCREEN * SHARP), self._size()

    def _image(self, dpi: int) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(_style()):
            _finish(self)
            self.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()

    def _size(self) -> dict[str, int]:
        width, height = (round(side * SCREEN) for side in self.get_size_inches())
        return {"width": width, "height": height}

    def _ipython_display_(self) -> None:
        """Show figure and alt text, whatever a notebook does with other figures.

        JupyterLab shows no SVG of a notebook that it does not trust: for that there is
        a small image beside it.
        """
        from IPython.display import display

        png = base64.b64encode(_of_few_colours(self._image(SCREEN))).decode()
        data = {"image/svg+xml": self._repr_svg_(), "image/png": png}
        metadata = {"image/png": self._size()}
        display(data | {"text/plain": self.alt}, metadata=metadata, raw=True)


def _of_few_colours(png: bytes) -> bytes:
    """Write an image again with a palette, in a third of the bytes."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(TINTS)
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _finish(figure: Picture) -> None:
    """Give all text one set of sizes and let long titles run over several lines."""
    if figure._suptitle is not None:
        figure._suptitle.set_text(_wrap(figure._suptitle.get_text(), figure, 1))
        figure._suptitle.set_fontsize(TITLE)
    for axes in figure.axes:
        columns = axes.get_gridspec().ncols if axes.get_gridspec() else 1
        axes.title.set_text(_wrap(axes.title.get_text(), figure, columns))
        axes.title.set_fontsize(TITLE if columns == 1 else LABEL)
        axes.xaxis.label.set_fontsize(LABEL)
        axes.yaxis.label.set_fontsize(LABEL)
        axes.tick_params(labelsize=TICK)
        for image in axes.images:
            image.set_interpolation("none")  # a pixel a cell, in a file of any size
    legends = [axes.get_legend() for axes in figure.axes] + figure.legends
    for legend in filter(None, legends):
        for text in legend.get_texts():
            text.set_fontsize(TICK)


def _wrap(text: str, figure: Picture, columns: int) -> str:
    """Break a title that is wider than its axes into lines of about one length."""
    text = text.replace("\n", " ")
    letters = max(int(figure.get_size_inches()[0] / columns * 8.6) - 1, 12)
    count = -(-len(text) // letters)
    return textwrap.fill(text, min(letters, len(text) // max(count, 1) + 6))


def picture(
    alt: str,
    *,
    width: float = 6.0,
    height: float = 3.6,
    rows: int = 1,
    cols: int = 1,
    **subplots: Any,
) -> tuple[Picture, Any]:
    """Start a figure.

    Args:
        alt: What a sighted reader concludes, in one or two sentences.
        width: Inches.
        height: Inches.
        rows: Rows of axes.
        cols: Columns of axes.
        **subplots: Passed to matplotlib's ``Figure.subplots``, such as ``sharey=True``.

    Returns:
        The picture and its axes (an array of them when there are several).

    Raises:
        ValueError: If alt is empty.

    Example:
        >>> figure, axes = picture("A straight line.")
        >>> _ = axes.plot([0, 1], [0, 1])
        >>> figure
        A straight line.
    """
    if not alt.strip():
        raise ValueError("alt must say what the picture shows")
    with matplotlib.rc_context(_style()):
        figure = Picture(alt=alt, figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        axes = figure.subplots(rows, cols, **subplots)
    return figure, axes


def lines(
    curves: Mapping[str, tuple[Iterable[float], Iterable[float]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    alt: str,
    logx: bool = False,
    logy: bool = False,
    marks: Iterable[Any] = (),
    points: bool = True,
    below: bool = False,
    width: float = 6.0,
    height: float = 3.6,
) -> Picture:
    """Draw curves, told apart by colour, dash and marker.

    Args:
        curves: Name -> (x values, y values).
        title: The finding.
        xlabel: Quantity and unit.
        ylabel: Quantity and unit.
        alt: What a sighted reader concludes.
        logx: Whether x is logarithmic.
        logy: Whether y is logarithmic.
        marks: Points to name, each (x, y, text), or numbers: dashed lines at x.
        points: Whether to draw a marker at each point.
        below: Whether the curves' names stand below the axes, where they hide nothing.
        width: Inches.
        height: Inches.

    Returns:
        A picture.
    """
    figure, axes = picture(alt, width=width, height=height)
    for k, (name, (x, y)) in enumerate(curves.items()):
        look = {"color": CYCLE[k % 6], "linestyle": DASHES[k % 6], "linewidth": 2}
        marker = MARKERS[k % 6] if points else None
        axes.plot(_array(x), _array(y), label=name, marker=marker, **look)
    axes.set_xscale("log" if logx else "linear")
    axes.set_yscale("log" if logy else "linear")
    for axis in [axes.xaxis] * logx + [axes.yaxis] * logy:
        _tick_powers(axis)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(color=COLORS["pale"])
    _name_points(axes, marks)
    if len(curves) > 1 and below:
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
    elif len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def _tick_powers(axis: Any) -> None:
    """Tick a logarithmic axis at 1, 2, 5, 10, ... where it spans few powers of ten."""
    low, high = axis.get_view_interval()
    if high / low < 10 ** (2.5 if high < 1e4 else 2.0):  # long numbers need room
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _name_points(axes: Any, marks: Iterable[Any]) -> None:
    """Draw (x, y, text) as a named ring, a number as a line across."""
    for mark in marks:
        if not isinstance(mark, (tuple, list)):
            axes.axvline(mark, color=COLORS["black"], linestyle="--", linewidth=1.2)
            continue
        x, y, text = mark
        ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
        axes.plot([x], [y], color=COLORS["black"], markeredgewidth=2, **ring)
        spot = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        axes.annotate(text, (x, y), fontsize=TICK, **_beside(*spot))


def _beside(x: float, y: float) -> dict[str, Any]:
    """Choose the side of a point (in shares of the axes) on which its name stands."""
    offset = (-9, 9) if x > 0.5 else (12, -4) if y < 0.15 else (9, -16)
    side = "right" if x > 0.5 else "left"
    return {"xytext": offset, "textcoords": "offset points", "ha": side}


def bars(
    values: Mapping[str, float],
    *,
    title: str,
    ylabel: str,
    alt: str,
    number: str = "{:,.4g}",
    logy: bool = False,
    width: float = 6.0,
    height: float = 3.4,
) -> Picture:
    """Draw one bar for each name, with its number above.

    Args:
        values: Name -> height.
        title: The finding.
        ylabel: Quantity and unit.
        alt: What a sighted reader concludes.
        number: Format of the numbers; empty for none (as with timings).
        logy: Whether heights are logarithmic.
        width: Inches.
        height: Inches.

    Returns:
        A picture.
    """
    figure, axes = picture(alt, width=width, height=height)
    names = [textwrap.fill(name, 14) for name in values]
    heights = [float(x) for x in values.values()]
    drawn = axes.bar(names, heights, color=[CYCLE[k % 6] for k in range(len(names))])
    if number:
        axes.bar_label(drawn, [number.format(x) for x in heights], fontsize=TICK)
    axes.set_yscale("log" if logy else "linear")
    axes.set(title=title, ylabel=ylabel)
    axes.margins(y=0.12)
    return figure


def heatmap(
    matrix: Any,
    *,
    title: str,
    alt: str,
    rows: Sequence[Any] = (),
    cols: Sequence[Any] = (),
    xlabel: str = "key position j",
    ylabel: str = "query position i",
    vmin: float | None = None,
    vmax: float | None = None,
    width: float = 6.0,
    height: float = 4.6,
) -> Picture:
    """Draw a matrix in shades of viridis, with its scale beside it.

    Args:
        matrix: Numbers, shape (n_rows, n_cols).
        title: The finding.
        alt: What a sighted reader concludes.
        rows: Names of the rows.
        cols: Names of the columns.
        xlabel: What the columns are.
        ylabel: What the rows are.
        vmin: Number of the darkest shade; the smallest where None.
        vmax: Number of the brightest shade; the largest where None.
        width: Inches.
        height: Inches.

    Returns:
        A picture.

    Raises:
        ValueError: If the matrix is not rectangular, not empty and finite, or vmin is
            not below vmax.
    """
    numbers(matrix=matrix)
    cells = _array(matrix)
    _check_shades(cells, vmin, vmax)
    figure, axes = picture(alt, width=width, height=height)
    shades = {"cmap": "viridis", "vmin": vmin, "vmax": vmax}
    image = axes.imshow(cells, interpolation="none", **shades)
    _name_cells(axes, rows, cols)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.suptitle(title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, shrink=0.85).ax.tick_params(labelsize=TICK)
    return figure


def _check_shades(cells: numpy.ndarray, vmin: Any, vmax: Any) -> None:
    """Check the ends of the scale, the data's own where none is given."""
    check_limits("vmin, vmax", vmin, vmax)
    low = cells.min() if vmin is None else vmin
    high = cells.max() if vmax is None else vmax
    if low > high:
        span = f"{cells.min():g} to {cells.max():g}"
        raise ValueError(f"vmin={vmin}, vmax={vmax} leave out all of matrix, {span}")


def _name_cells(axes: Any, rows: Sequence[Any], cols: Sequence[Any]) -> None:
    """Write names of rows and columns in the reader's font, long ones upright."""
    font = {"fontfamily": [*matplotlib.rcParams["font.family"], FONT]}
    if len(cols):
        upright = 90 if max(len(str(c)) for c in cols) * len(cols) > 40 else 0
        axes.set_xticks(range(len(cols)), map(str, cols), rotation=upright, **font)
        axes.xaxis.labelpad += 4 if upright else 0  # names grow downwards on a phone
    if len(rows):
        axes.set_yticks(range(len(rows)), map(str, rows), **font)
    axes.tick_params(length=0)


def masks(
    keeps: Mapping[str, Any],
    *,
    title: str,
    alt: str,
    xlabel: str = "key position j",
    ylabel: str = "query position i",
    height: float | None = None,
    width: float = 6.0,
    cols: int | None = None,
) -> Picture:
    """Draw which keys each query keeps, one grid for each name, side by side.

    Args:
        keeps: Name -> booleans, shape (n_q, n_k), True = attend.
        title: The finding.
        alt: What a sighted reader concludes.
        xlabel: What the columns are.
        ylabel: What the rows are.
        height: Inches; enough for square cells where None.
        width: Inches.
        cols: Grids in a row; all where None.

    Returns:
        A picture.

    Raises:
        TypeError: If a mask is no booleans but, say, 0 and -inf.
    """
    grids = {name: numpy.asarray(booleans(**{name: m})) for name, m in keeps.items()}
    cols = min(cols or len(grids), len(grids))
    rows = -(-len(grids) // cols)
    tall = height or rows * 0.85 * min(width / cols, 4.5) + 1.15 + 0.75 * (rows - 1)
    sizes = {"width": width, "height": tall, "rows": rows, "cols": cols}
    figure, axes = picture(alt, **sizes, squeeze=False)
    for place, (name, cells) in zip(axes.flat, grids.items(), strict=False):
        _draw_mask(place, cells, name, xlabel)
        _number_cells(place, cells.shape, about=6 if cols < 3 else 4)
    for place in axes.flat[len(grids) :]:
        place.set_axis_off()
    for place in axes[:, 0]:
        place.set_ylabel(ylabel)
    figure.suptitle(title)
    return figure


def _draw_mask(place: Any, cells: numpy.ndarray, name: str, xlabel: str) -> None:
    colours = ListedColormap([COLORS["pale"], COLORS["blue"]])
    place.pcolormesh(cells, cmap=colours, vmin=0, vmax=1, edgecolors="white")
    place.set(title=name, aspect="equal", xlabel=xlabel)
    place.invert_yaxis()
    place.spines[:].set_visible(False)


def _number_cells(axes: Any, shape: tuple[int, int], about: int = 6) -> None:
    """Write positions at the middle of cells, about so many along each side."""
    for axis, count in ((axes.yaxis, shape[0]), (axes.xaxis, shape[1])):
        step = max(1, 2 ** int(numpy.ceil(numpy.log2(max(count, 1) / about))))
        places = numpy.arange(0, count, step)
        axis.set_ticks(places + 0.5, [str(p) for p in places])
    axes.tick_params(length=0)


def tile(
    keep: Any,
    queries: tuple[int, int],
    keys: tuple[int, int],
    *,
    title: str,
    alt: str,
    width: float = 6.0,
    height: float = 5.6,
) -> Picture:
    """Draw one tile of queries with the run of keys that it meets.

    Cells of the tile are blue where kept and orange where computed only to be thrown
    away; the rest of the pattern is grey.

    Args:
        keep: Booleans, shape (n_q, n_k), True = attend.
        queries: First query of the tile, and one past its last.
        keys: First key of the run, and one past its last.
        title: The finding.
        alt: What a sighted reader concludes.
        width: Inches.
        height: Inches.

    Returns:
        A picture.

    Raises:
        TypeError: If keep is no booleans but, say, 0 and -inf.
    """
    kept = numpy.asarray(booleans(keep=keep))
    inside = numpy.zeros_like(kept)
    inside[slice(*queries), slice(*keys)] = True
    shade = numpy.where(kept, 1, 0) + numpy.where(inside, 2, 0)
    names = ("pale", "grey", "orange", "blue")
    figure, axes = picture(alt, width=width, height=height)
    colours = ListedColormap([COLORS[name] for name in names])
    axes.pcolormesh(shade, cmap=colours, vmin=0, vmax=3, edgecolors="white")
    size = (keys[1] - keys[0], queries[1] - queries[0])
    edge = {"fill": False, "linewidth": 2.5, "edgecolor": COLORS["black"]}
    axes.add_patch(Rectangle((keys[0], queries[0]), *size, **edge))
    figure.suptitle(title)
    axes.set(aspect="equal", xlabel="key position j", ylabel="query position i")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    _number_cells(axes, kept.shape)
    words = ("outside the pattern", "kept, in another tile", "wasted", "kept, here")
    patches = [Rectangle((0, 0), 1, 1, color=COLORS[name]) for name in names]
    below = {"loc": "outside lower center", "ncols": 2, "frameon": False}
    figure.legend(patches, words, **below)
    return figure


def _array(values: Any) -> numpy.ndarray:
    """Turn a tensor, an array or a list into an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.dtype.is_floating_point else values
    return numpy.asarray(values.numpy() if hasattr(values, "numpy") else list(values))
