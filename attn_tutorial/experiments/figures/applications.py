"""Applications in figures: quality, memory and time side by side; lag against bits."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence

from attn_tutorial.experiments.figures.rows import ROOM
from attn_tutorial.experiments.records import Runs
from attn_tutorial.pictures.plots import COLORS, CYCLE, MARKERS, Picture, picture

__all__ = ["contenders", "lag_and_bits", "lag_and_bits_recorded", "recorded"]

MIB = 2**20
# Of each application: the result that is compared, and what its setting varies.
QUALITY = {
    "help_translation": ("test_bits", "test bits per byte"),
    "topics": ("test_accuracy", "test accuracy"),
    "entities": ("test_f1", "test F-score"),
    "recognition": ("test_error", "letters wrong"),
    "writing": ("test_bits", "test bits per byte"),
}
VARIED = {
    "help_translation": ("pattern", "cross"),
    "recognition": ("data", "pattern"),
}
TITLES = {
    "help_translation": "A manual translated, with windows here and there",
    "topics": "Topics of paragraphs, by pattern",
    "entities": "Marked words found, by pattern",
    "recognition": "Letters misheard, by voice and pattern",
    "writing": "A manual continued, by pattern",
}


def recorded(runs: Runs, application: str, title: str | None = None) -> Picture:
    """Draw the record of an application but live translation, see ``contenders``.

    Args:
        runs: Its final runs.
        application: Its name, such as "topics".
        title: The finding; one that only names the subject if None.
    """
    result, xlabel = QUALITY[application]
    keys = VARIED.get(application, ("pattern",))
    title = title or TITLES[application]
    return contenders(runs, result, title=title, xlabel=xlabel, keys=keys)


def contenders(
    runs: Runs,
    result: str,
    *,
    title: str,
    xlabel: str,
    keys: Sequence[str] = ("pattern",),
) -> Picture:
    """Draw quality, memory and time of all contenders, a dot for each seed.

    Memory is what a forward pass keeps for the backward pass. Time is what a whole
    training took of a processor, which it shared with others. Both are costs, of which
    a part may be saved: their axes start at 0.

    Args:
        runs: Final runs of an experiment.
        result: Name of the result that is compared, a number.
        title: The finding.
        xlabel: What the result is.
        keys: Keys of the setting in which contenders differ.

    Returns:
        Three panels side by side, a row for each contender.
    """
    rows = {", ".join(map(str, group)): part for group, part in runs.groups(*keys)}
    panels: dict[str, Callable[[Runs], list[float]]] = {
        xlabel: lambda part: part.values(result),
        "memory (MiB)": lambda part: [x / MIB for x in part.values("training_bytes")],
        "CPU (minutes)": lambda part: [run.made["cpu_seconds"] / 60 for run in part],
    }
    spoken = [
        f"{name} {part.mean(result):.3g}, {part.mean('training_bytes') / MIB:.0f} MiB"
        for name, part in rows.items()
    ]
    alt = f"{title}. Mean {xlabel}, and memory: {'; '.join(spoken)}."
    shape = {"height": 1.9 + 0.4 * len(rows), "cols": 3, "sharey": True}
    figure, grid = picture(alt, **shape)
    figure.get_layout_engine().set(rect=ROOM)
    for axes, (label, values), ink in zip(grid, panels.items(), CYCLE, strict=False):
        _column(axes, [values(part) for part in rows.values()], ink)
        axes.set_xlabel(textwrap.fill(label, 12))
    for axes in grid[1:]:
        axes.set_xlim(0, 1.15 * axes.dataLim.x1)
    grid[0].set_yticks(range(len(rows)), list(rows))
    grid[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.suptitle(title)
    return figure


def _column(axes, rows: Sequence[Sequence[float]], ink: str) -> None:
    """Draw a row of dots for each contender, with a bar at their mean."""
    for place, found in enumerate(rows):
        mean = sum(found) / len(found)
        axes.plot([mean], [place], marker="|", color=COLORS["black"], markersize=17)
        look = {"ls": "", "marker": "o", "color": ink, "alpha": 0.75}
        axes.plot(found, [place] * len(found), **look)
    axes.locator_params(axis="x", nbins=3)
    axes.margins(x=0.18)
    axes.grid(axis="x", color=COLORS["pale"])


def lag_and_bits(
    points: dict[str, tuple[float, Sequence[float]]],
    title: str,
    ylabel: str = "bits per token",
) -> Picture:
    """Draw what is lost against how long one waits.

    Args:
        points: Contender -> its average lag in tokens, and the bits of each seed.
        title: The finding.
        ylabel: Of what the bits are.
    """
    spoken = [
        f"{name} {lag:.1f} and {sum(bits) / len(bits):.2f}"
        for name, (lag, bits) in points.items()
    ]
    alt = f"{title}. Lag in tokens and {ylabel}: {', '.join(spoken)}."
    figure, axes = picture(alt, height=4.4)
    for k, (name, (lag, bits)) in enumerate(points.items()):
        look = {"color": CYCLE[k % 6], "marker": MARKERS[(k + k // 6) % 6]}
        look |= {"markersize": 9, "mfc": "none", "mew": 1.8}  # equal ones both show
        axes.plot([lag] * len(bits), bits, ls="", label=name, **look)
    axes.set(title=title, xlabel="average lag (source tokens)", ylabel=ylabel)
    axes.grid(color=COLORS["pale"])
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def lag_and_bits_recorded(
    runs: Runs, title: str = "Live translation: bits against lag"
) -> Picture:
    """Draw the record of live translation, each seed a dot."""
    points = {
        f"{own}, wait {wait}": (part.mean("test_lag"), part.values("test_bits"))
        for (own, wait), part in runs.groups("pattern", "wait")
    }
    return lag_and_bits(points, title, "test bits per byte")


# What `report --figures` draws.
FIGURES = {name: (functools.partial(recorded, application=name),) for name in QUALITY}
FIGURES["live_translation"] = (lag_and_bits_recorded,)
