"""Figures of records: curves with their spread over runs, and where they come from.

Each contender has one colour, dash and name in all figures. The line at the foot of a
figure is the records' own provenance, so that no curve travels without it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from attn_tutorial.benchmark.cases import Case
from attn_tutorial.benchmark.load import Records
from attn_tutorial.pictures import plots

__all__ = ["NAMES", "against", "overlay", "roofline", "signed"]

# What figures and tables call the contenders.
NAMES = {
    "tiled": "tiles (this book)",
    "sdpa full": "full attention",
    "sdpa + mask": "full + window mask",
    "masked dense": "Eq. (1) + window mask",
    "local-attention": "local-attention",
    "flex 128": "FlexAttention, 128",
    "longformer chunks": "Longformer chunks",
    "triton": "Triton (this book)",
    "flash-attn": "flash-attn, window",
    "xformers": "xFormers, local",
    "natten": "NATTEN",
    "loop": "loop",
    "flex 32": "FlexAttention, 32",
    "flex 64": "FlexAttention, 64",
    "flex 128 partial": "FlexAttention, no full block",
}
UNITS = {"seconds": "seconds", "peak_bytes": "bytes above the inputs"}
AXES = {"n": "length n", "size": "window w"}


def look(name: str) -> dict[str, Any]:
    """Colour, dash and marker of a contender, the same in every figure."""
    k = list(NAMES).index(name) if name in NAMES else len(NAMES)
    inks = [*plots.CYCLE, plots.COLORS["grey"], plots.COLORS["black"]]
    marks = [*plots.MARKERS, "X", "*"]
    dash = plots.DASHES[k % len(plots.DASHES)]
    return {"color": inks[k % 8], "marker": marks[k % 8], "linestyle": dash}


def signed(picture: plots.Picture, records: Records, note: str = "") -> plots.Picture:
    """Print the records' source at the foot of a picture.

    Args:
        picture: Drawn by ``plots`` or by this module.
        records: What it shows.
        note: Put first, such as the dtype and the shapes.

    Returns:
        The same picture.
    """
    text = "; ".join(filter(None, (note, records.source)))
    letters = int(picture.get_size_inches()[0] * 10)  # 10 points, larger on a phone
    picture.supxlabel(
        textwrap.fill(text, letters), fontsize=10, color="#595959", ha="center"
    )
    return picture


def shapes(case: Case) -> str:
    """What all points of a figure share.

    >>> shapes(Case("local", 4096, 128, backward=True))
    'float32, 8 heads of 64, forward + backward'
    """
    work = "forward + backward" if case.backward else "forward"
    return f"{case.dtype}, {case.heads} heads of {case.d}, {work}"


def against(
    records: Records,
    case: Case,
    names: Iterable[str],
    *,
    title: str,
    alt: str,
    over: str = "n",
    value: str = "seconds",
    levels: Mapping[str, float] | None = None,
    height: float = 5.0,
) -> plots.Picture:
    """Draw a measured value against length or window, both axes logarithmic.

    Each point is the median over the runs; a bar spans the lowest and highest run.

    Args:
        records: Runs on one device.
        case: Fixes all but ``over``.
        names: Contenders; those without two points are left out.
        title: The finding.
        alt: What a sighted reader concludes.
        over: "n" or "size".
        value: "seconds" or "peak_bytes".
        levels: Name -> height of a dashed line across.
        height: Inches.

    Returns:
        A picture with its source at the foot.

    Raises:
        LookupError: If no contender has two points.
    """
    lines = {name: records.series(name, case, over, value) for name in names}
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        raise LookupError(f"records hold no {value} over {over} for {case}")
    picture, axes = plots.picture(alt, height=height)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for name, line in lines.items():
        points = list(line.values())
        middle = [spread.median for spread in points]
        below = [spread.median - spread.low for spread in points]
        above = [spread.high - spread.median for spread in points]
        axes.errorbar(
            list(line), middle, (below, above), label=NAMES.get(name, name),
            linewidth=2, capsize=3, **look(name),
        )  # fmt: skip
    for name, level in (levels or {}).items():
        axes.axhline(level, label=name, color=plots.COLORS["black"], linestyle="--")
    axes.set(title=title, xlabel=AXES[over], ylabel=UNITS[value])
    axes.grid(color=plots.COLORS["pale"])
    axes.xaxis.set_major_formatter(lambda x, _: short(x))
    legend(axes)
    return signed(picture, records, shapes(case))


def legend(axes: Any) -> None:
    """Name the curves below the axes, where they hide nothing."""
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
    axes.legend(ncols=2, frameon=False, **below)


def short(count: float) -> str:
    """A length as it is spoken of: 512, 4K, 1M.

    >>> short(512), short(65536), short(2**20)
    ('512', '64K', '1M')
    """
    for size, letter in ((2**20, "M"), (2**10, "K")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"


def overlay(
    picture: plots.Picture, records: Records, case: Case, names: Iterable[str]
) -> plots.Picture:
    """Draw the reader's own times over a picture made by ``against``, as hollow rings.

    Args:
        picture: From ``against``.
        records: Measured here, such as by ``here``.
        case: As in ``against``.
        names: Contenders.

    Returns:
        The same picture.
    """
    axes = picture.axes[0]
    for name in names:
        line = records.series(name, case)
        times = [spread.median for spread in line.values()]
        ring = {"markerfacecolor": "white", "markersize": 9, "markeredgewidth": 2}
        axes.plot(
            list(line), times, label=f"{NAMES.get(name, name)}, here", linewidth=1,
            **look(name), **ring,
        )  # fmt: skip
    legend(axes)
    return picture


def roofline(
    records: Records,
    points: Mapping[str, Iterable[tuple[float, float]]],
    *,
    title: str,
    alt: str,
    dtype: str = "float32",
) -> plots.Picture:
    """Draw reached rates below the two measured ceilings.

    Args:
        records: Give the ceilings, and the source at the foot.
        points: Name -> (useful FLOPs per compulsory byte, useful FLOP/s) of each case.
        title: The finding.
        alt: What a sighted reader concludes.
        dtype: Whose ceilings.

    Returns:
        A picture.
    """
    rate = records.ceiling("matmul", dtype).median
    bandwidth = records.ceiling("copy", dtype).median
    ridge = rate / bandwidth
    points = {name: list(line) for name, line in points.items()}
    everything = [x for line in points.values() for x, _ in line]
    low, high = min([*everything, ridge]) / 8, max([*everything, ridge]) * 2
    picture, axes = plots.picture(alt, height=5.0)
    roof = [bandwidth * low, rate, rate]
    axes.plot([low, ridge, high], roof, color=plots.COLORS["black"], linewidth=2.5)
    for k, (name, line) in enumerate(points.items()):
        x, y = zip(*line, strict=True)
        marker = {"marker": plots.MARKERS[k % 6], "color": plots.CYCLE[k % 6]}
        axes.plot(x, y, linewidth=1, label=name, markersize=7, **marker)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.annotate("matmul rate", (high, rate), (-4, 6), **words("right"))
    axes.annotate("copy bandwidth", (low, roof[0]), (16, 0), **words("left"))
    axes.set(title=title, xlabel="useful FLOPs per byte", ylabel="useful FLOP/s")
    axes.grid(color=plots.COLORS["pale"])
    legend(axes)
    return signed(picture, records, dtype)


def words(side: str) -> dict[str, Any]:
    """Where the name of a ceiling stands."""
    return {"textcoords": "offset points", "ha": side, "fontsize": plots.TICK}
