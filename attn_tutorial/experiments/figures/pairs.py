"""Pairs of contenders in figures: a difference for each seed, and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attn_tutorial.experiments.comparison import LEAST_SEEDS, interval
from attn_tutorial.experiments.figures.rows import Dots, mean_bar, rows_of_dots
from attn_tutorial.experiments.records import Runs
from attn_tutorial.experiments.studies import headline, sinks, trajectories
from attn_tutorial.pictures.plots import COLORS, CYCLE, MARKERS, Picture, picture

__all__ = ["differences", "headline_pairs", "leads", "sink_pairs", "sink_pairs_longer"]


def differences(
    found: Mapping[str, Sequence[float]], *, title: str, xlabel: str
) -> Picture:
    """Draw a row for each pair: a dot for each seed, the mean, and its interval.

    Args:
        found: Name of a pair -> the first less the second, for each seed. There is an
            interval from three seeds on.
        title: The finding.
        xlabel: Quantity and unit.
    """
    rows, spoken = {}, []
    for name, values in found.items():
        dot = {"marker": "o", "ls": "", "color": CYCLE[0], "alpha": 0.8}
        rows[name] = [*_interval(values), mean_bar(values), Dots(values, dot)]
        spoken.append(f"{name} {_words(values)}")
    alt = f"{title}. Means, with intervals of 95 %: {'; '.join(spoken)}."
    figure = rows_of_dots(rows, title=title, xlabel=xlabel, alt=alt)
    figure.axes[0].axvline(0, color=COLORS["black"], lw=1.2, zorder=0)
    return figure


def _interval(values: Sequence[float]) -> list[Dots]:
    """The interval as a line below the dots."""
    if len(values) < LEAST_SEEDS:
        return []
    known, bar = interval(values), {"color": COLORS["black"], "lw": 2.5}
    return [Dots([known.low, known.high], bar, lift=0.25)]


def _words(values: Sequence[float]) -> str:
    if len(values) < LEAST_SEEDS:
        return f"{sum(values) / len(values):+.3f}"
    return f"{interval(values)}, {len(values)} seeds"


def headline_pairs(
    runs: Runs, title: str = "Bits more than the other, seed by seed"
) -> Picture:
    """Draw the pairs of the headline, or of a record with some of its contenders."""
    found = headline.by_seed(runs)
    return differences(found, title=title, xlabel="test bits per byte, difference")


def sink_pairs(
    runs: Runs, title: str = "What a sink changes, at the length of training"
) -> Picture:
    """Draw the pairs of the study of sinks, at the length of training."""
    found = sinks.by_seed(runs, "test_bits")
    return differences(found, title=title, xlabel="test bits per byte, difference")


def sink_pairs_longer(
    runs: Runs, title: str = "What a sink changes, beyond the length of training"
) -> Picture:
    """Draw the pairs of the study of sinks, beyond the length of training."""
    found = sinks.by_seed(runs, "test_bits_longer")
    return differences(found, title=title, xlabel="test bits per byte, difference")


def leads(
    runs: Runs, title: str = "What a pattern takes more than full attention, by steps"
) -> Picture:
    """Draw each trajectory less that of full attention: the seeds, and their mean.

    All points of a line come from one training for each seed. Lines of program text are
    drawn through, those of prose dashed.
    """
    steps = trajectories.lengths(runs[0].setting)
    spoken, (figure, axes) = [], picture("Bits more than full attention, by steps.")
    patterns = [p for (p,), _ in runs.groups("pattern") if p != "full"]
    for row, (data,) in enumerate(key for key, _ in runs.groups("data")):
        for k, pattern in enumerate(patterns):
            every = [
                trajectories.lead(runs, data, pattern, j) for j in range(len(steps))
            ]
            if all(every):
                means = [sum(values) / len(values) for values in every]
                text = data if data == trajectories.CODE else "prose"
                name = f"{trajectories.NAMES[pattern]}, {text}"
                look = {"color": CYCLE[k], "marker": MARKERS[k]}
                axes.plot(steps, means, ls=("-", "--")[row % 2], label=name, **look)
                axes.plot(steps, every, ls="", alpha=0.35, markersize=5, **look)
                words = ", ".join(f"{mean:+.3f}" for mean in means)
                spoken.append(f"{name}: {words}")
    axes.axhline(0, color=COLORS["black"], lw=1.2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, list(map(str, steps)))
    axes.set(title=title, xlabel="steps of training", ylabel="bits more than full")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    after = ", ".join(map(str, steps))
    figure.alt = f"Bits more than full attention after {after} steps: "
    figure.alt += "; ".join(spoken) + "."
    return figure
