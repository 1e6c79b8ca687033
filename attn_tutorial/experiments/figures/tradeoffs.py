"""What was bought, and what was paid: structures, remedies and optimisers compared.

One structure dominates another if it costs no more of anything and is clearly better,
by the rule for seeds in ``comparison``, so that luck decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attn_tutorial.experiments.comparison import apart, judgement
from attn_tutorial.experiments.figures.rows import Dots, rows_of_dots
from attn_tutorial.experiments.records import Runs
from attn_tutorial.experiments.studies.regularisation import OPTIONS, remedy
from attn_tutorial.pictures.plots import COLORS, CYCLE, MARKERS, Picture, picture

__all__ = ["COSTS", "dominated_by", "effects", "pareto", "remedies", "rivals"]

COSTS = {
    "parameters": "parameters",
    "cache_bytes": "cache, bytes at 256 tokens",
    "token_flops": "operations for a token",
}
BITS = "test bits per byte"
PAIR = tuple[Sequence[float], Sequence[float]]


def dominated_by(runs: Runs, costs: Sequence[str] = tuple(COSTS)) -> dict[str, list]:
    """Name, for each structure, the others that make it pointless.

    Args:
        runs: Final runs of the experiment ``structure``.
        costs: Names of results of which less is better.

    Returns:
        For each variant, those that cost no more of anything and are clearly better.
    """
    parts = {name: part for (name,), part in runs.groups("variant")}
    return {
        name: [other for other in parts if _dominates(parts[other], part, costs)]
        for name, part in parts.items()
    }


def _dominates(a: Runs, b: Runs, costs: Sequence[str]) -> bool:
    price, other = ([part[0].result[cost] for cost in costs] for part in (a, b))
    no_more = all(x <= y for x, y in zip(price, other, strict=True))
    return no_more and judgement(a, b, "test_bits", more_is_better=False) == "better"


def rivals(runs: Runs) -> dict[str, Runs]:
    """The runs of each remedy, by its name.

    Args:
        runs: Final runs of the experiment ``regularisation``.
    """
    groups = runs.groups("pattern", "steps", *OPTIONS)
    return {remedy(part[0].setting): part for _, part in groups}


def remedies(
    runs: Runs, title: str = "What was trained on is known by heart; what was not, less"
) -> Picture:
    """Draw bits of the training text and of new text for each remedy, all seeds."""
    parts = rivals(runs)
    spoken = [
        f"{name} {part.mean('train_bits'):.2f} and {part.mean('test_bits'):.2f}"
        for name, part in parts.items()
    ]
    alt = f"{title}. Bits of the training text and of test text: {', '.join(spoken)}."
    rows = {name: _known_and_new(part) for name, part in parts.items()}
    words = {"title": title, "xlabel": "bits per byte", "alt": alt}
    figure = rows_of_dots(rows, heights=(1.6, 0.34), **words)
    known = figure.axes[0].get_lines()[1:3]
    below = {"frameon": False, "loc": "outside lower center", "ncols": 2}
    figure.legend(known, ["training text", "test text"], **below)
    return figure


def _known_and_new(part: Runs) -> list[Dots]:
    """Bits of the training text and of new text, with a line from mean to mean."""
    names = ("train_bits", "test_bits")
    line = {"color": COLORS["grey"], "linewidth": 1.2, "zorder": 0}
    look = {"alpha": 0.8, "ls": ""}
    dots = [
        Dots(part.values(name), {"color": CYCLE[k], "marker": MARKERS[k], **look})
        for k, name in enumerate(names)
    ]
    return [Dots([part.mean(name) for name in names], line), *dots]


def pareto(
    runs: Runs,
    times: Mapping[str, Sequence[float]] | None = None,
    title: str = "Bits against each of the costs: the line joins the best for less",
) -> Picture:
    """Draw test bits of all structures against each of their costs.

    Args:
        runs: Final runs of the experiment ``structure``.
        times: Time of a training step over the plain one's, see ``step_time.ratios``.
        title: The finding.
    """
    parts = {name: part for (name,), part in runs.groups("variant")}
    prices = {
        label: {name: [part[0].result[cost]] for name, part in parts.items()}
        for cost, label in COSTS.items()
    }
    if times:
        prices["time of a step, plain = 1"] = dict(times)
    spoken = [f"{name} {part.mean('test_bits'):.3f}" for name, part in parts.items()]
    alt = f"{title}. Mean {BITS}: {', '.join(spoken)}."
    shape = {"rows": 2, "cols": 2, "height": 6.9, "sharey": True}
    figure, grid = picture(alt, **shape)
    for axes, (label, price) in zip(grid.flat, prices.items(), strict=False):
        _costs_and_bits(axes, price, parts)
        axes.set(xlabel=label, xscale="log")
        axes.grid(color=COLORS["pale"], which="both")
        _few_ticks(axes, price)
    for axes in grid.flat[len(prices) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(BITS)
    figure.suptitle(title)
    names = grid[0, 0].get_legend_handles_labels()
    figure.legend(*names, frameon=False, loc="outside lower center", ncols=2)
    return figure


def _costs_and_bits(axes: Any, price: Mapping, parts: Mapping[str, Runs]) -> None:
    """Draw a point for each structure, and a line through those with no better one."""
    points = []
    for k, (name, part) in enumerate(parts.items()):
        cost, bits = sum(price[name]) / len(price[name]), part.mean("test_bits")
        points.append((cost, bits))
        low, high = min(part.values("test_bits")), max(part.values("test_bits"))
        look = {"color": CYCLE[k % 6], "marker": MARKERS[(k + k // 6) % 6]}
        reach = [[abs(bits - low)], [abs(high - bits)]]  # a mean of equals is rounded
        axes.errorbar([cost], [bits], reach, label=name, ls="", capsize=3, **look)
    best = [p for p in points if not any(_below(q, p) for q in points)]
    ink = {"color": COLORS["grey"], "linewidth": 1.2, "zorder": 0}
    axes.plot(*zip(*sorted(best), strict=True), drawstyle="steps-post", **ink)


def _below(q: tuple[float, float], p: tuple[float, float]) -> bool:
    return q != p and q[0] <= p[0] and q[1] <= p[1]


def _few_ticks(axes: Any, price: Mapping[str, Sequence[float]]) -> None:
    """Three ticks: the smallest, the middle, the largest in round numbers."""
    costs = [sum(found) / len(found) for found in price.values()]
    low, high = min(costs), max(costs)
    ticks = [float(f"{x:.2g}") for x in (low, (low * high) ** 0.5, high)]
    axes.set_xticks(ticks, [_short(x) for x in ticks])
    axes.set_xticks([], minor=True)


def _short(x: float) -> str:
    """Write a number in few letters.

    Example:
        >>> _short(590000.0), _short(0.37), _short(1300.0)
        ('590k', '0.37', '1.3k')
    """
    return f"{x / 1000:.3g}k" if x >= 1000 else f"{x:.3g}"


def effects(
    pairs: Mapping[str, PAIR],
    title: str,
    xlabel: str = "change of the test bits per byte",
) -> Picture:
    """Draw differences of means; hollow where the seeds cannot tell the two apart.

    Args:
        pairs: Name of a change -> results of all seeds with it, and without it.
        title: The finding.
        xlabel: What is compared.
    """
    change = {name: sum(a) / len(a) - sum(b) / len(b) for name, (a, b) in pairs.items()}
    clear = {name: apart(*pair) for name, pair in pairs.items()}
    order = sorted(change, key=change.get)
    words = {True: "clear", False: "not clear"}
    spoken = [f"{name} {change[name]:+.2f} ({words[clear[name]]})" for name in order]
    alt = f"{title}. {xlabel.capitalize()}: {', '.join(spoken)}."
    rows = {name: _effect(*pairs[name], clear[name]) for name in order}
    words = {"title": title, "xlabel": xlabel, "alt": alt}
    figure = rows_of_dots(rows, heights=(1.4, 0.32), **words)
    figure.axes[0].axvline(0, color=COLORS["black"], linewidth=1)
    return figure


def _effect(a: Sequence[float], b: Sequence[float], clear: bool) -> list[Dots]:
    """The difference of the means, and a line over those of single seeds."""
    lone = [x - y for x in a for y in b]
    ink = CYCLE[0] if clear else COLORS["grey"]
    look = {"marker": "o", "ls": "", "color": ink}
    look["markerfacecolor"] = ink if clear else "white"
    line = Dots([min(lone), max(lone)], {"color": ink, "linewidth": 1.5})
    return [line, Dots([sum(a) / len(a) - sum(b) / len(b)], look)]
