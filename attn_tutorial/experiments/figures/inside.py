"""Figures of the experiment ``inside``: copying by period, its course, and heads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from attn_tutorial.experiments.figures.rows import Dots, mean_bar, rows_of_dots
from attn_tutorial.experiments.named import named_patterns
from attn_tutorial.experiments.records import Run, Runs
from attn_tutorial.experiments.studies.inside import PERIODS
from attn_tutorial.instruments.graph import reach_mask
from attn_tutorial.pictures.plots import (
    COLORS,
    CYCLE,
    DASHES,
    MARKERS,
    Picture,
    lines,
    picture,
)

__all__ = [
    "agreement",
    "copying_by_period",
    "course_of_copying",
    "every_head",
    "last_copied",
    "steps_back",
    "steps_to_copy",
]

COMPARED = ("attention", "rollout", "gradient", "nearness")  # what is compared


def steps_back(pattern: str, layers: int, n: int = 64) -> int:
    """How many tokens back the last output of a stack can depend on, by Eq. (10).

    Example:
        >>> steps_back("local 1, local 16", 2), steps_back("local 8", 2)
        (17, 16)
    """
    heard = reach_mask(named_patterns(pattern, causal=True), n, layers)[-1]
    return n - 1 - int(heard.nonzero().min())


def last_copied(accuracy: Sequence[float], enough: float = 0.9) -> int:
    """Longest period up to which every one is copied; 0 if the shortest is not.

    Example:
        >>> last_copied([1.0, 0.95, 0.2, 0.99])
        5
    """
    good = [share >= enough for share in accuracy]
    count = good.index(False) if False in good else len(good)
    return PERIODS[count - 1] if count else 0


def copying_by_period(
    runs: Runs,
    shown: Sequence[tuple[str, int]] = (
        ("full", 2),
        ("local 1, full", 2),
        ("local 1, local 16", 2),
        ("local 1, local 8", 2),
        ("full", 1),
    ),
    title: str = "Copying ends where the first copy leaves the reach",
) -> Picture:
    """Draw mean accuracy against the period, with a line where reach ends."""
    curves, edges, spoken = {}, [], []
    for pattern, layers in shown:
        part = runs.where(task="copy", pattern=pattern, layers=layers)
        if not len(part):
            continue
        accuracy, reach = part.mean("accuracy_by_period"), steps_back(pattern, layers)
        curves[f"{pattern}, L = {layers}"] = (PERIODS, accuracy)
        spoken.append(f"{pattern}, L = {layers}: {last_copied(accuracy)}")
        edges += [reach + 0.5] if reach < PERIODS[-1] else []
    alt = f"Longest period copied with accuracy of 0.9: {'; '.join(spoken)}."
    labels = {"xlabel": "period of the sequence", "ylabel": "accuracy"}
    look = {"marks": edges, "points": False, "below": True}
    return lines(curves, title=title, alt=alt, **look, **labels)


def steps_to_copy(run: Run, below: float = 1.0) -> int:
    """Steps until the loss of a recorded block of steps is below so many nats.

    All steps of the run if it never is.
    """
    losses = run.result["losses"]
    blocks = next((k for k, x in enumerate(losses, 1) if x < below), len(losses))
    return blocks * run.setting["steps"] // len(losses)


def course_of_copying(
    runs: Runs,
    shown: Sequence[str] = ("full", "local 1, full"),
    title: str = "The loss falls when induction heads form",
) -> Picture:
    """Draw loss and best induction score of every seed against the steps."""
    copiers = runs.where(task="copy", layers=2)
    steps = {p: [steps_to_copy(r) for r in copiers.where(pattern=p)] for p in shown}
    spoken = [f"{p} after {', '.join(map(str, found))}" for p, found in steps.items()]
    alt = f"{title}. Steps to a loss below 1 nat: {'; '.join(spoken)}."
    figure, axes = picture(alt, height=4.2, rows=2, sharex=True)
    for k, pattern in enumerate(shown):
        part = copiers.where(pattern=pattern)
        for run in part:
            count = len(run.result["losses"])
            starts = [run.setting["steps"] * i / count for i in range(count)]
            middles = [start + starts[1] / 2 for start in starts]
            name = pattern if run is part[0] else None
            look = {"color": CYCLE[k], "linestyle": DASHES[k], "linewidth": 1.5}
            axes[0].plot(middles, run.result["losses"], label=name, **look)
            axes[1].plot(starts, run.result["best_induction"], **look)
    axes[0].set(title=title, ylabel="loss (nats)")
    axes[1].set(xlabel="step", ylabel="best induction score")
    axes[0].legend(frameon=False)
    for one in axes:
        one.grid(color=COLORS["pale"])
    return figure


def every_head(
    runs: Runs,
    measure: str = "effective_keys",
    title: str = "Effective number of keys of every head",
    xlabel: str = "effective keys (of as many as the pattern keeps)",
    *,
    task: str = "bytes",
    log: bool = True,
) -> Picture:
    """Draw one measure of all heads of all seeds, a row for each pattern and layer."""
    rows = {}
    for (pattern, layers), part in runs.where(task=task).groups("pattern", "layers"):
        found = part.values(measure)  # of each seed, layer after layer
        heads = len(found[0]) // layers
        for layer in range(layers):
            mine = slice(layer * heads, (layer + 1) * heads)
            numbers = [x for seed in found for x in seed[mine]]
            rows[f"{pattern}: {layer}"] = [_dots(numbers, layer)]
    ends = {name: (min(x), max(x)) for name, ((x, *_),) in rows.items()}
    spoken = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in ends.items()]
    alt = f"{title}. Pattern, layer and range: {'; '.join(spoken)}."
    words = {"title": title, "xlabel": xlabel, "alt": alt}
    figure = rows_of_dots(rows, heights=(1.2, 0.2), **words)
    (axes,) = figure.axes
    if log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("pattern: layer", labelpad=12)
    return figure


def _dots(found: list[float], kind: int) -> Dots:
    look = {"color": CYCLE[kind], "marker": MARKERS[kind], "markersize": 5, "ls": ""}
    return Dots(found, look)


def agreement(
    runs: Runs, title: str = "How well each ranks the tokens by their effect"
) -> Picture:
    """Draw the rank correlations with the effect of replacing, each text a dot."""
    rows = {}
    for task in ("bytes", "copy"):
        part = runs.where(task=task, pattern="full")
        part = part.where(layers=max(run.setting["layers"] for run in part))
        for name in COMPARED:
            found = [x for run in part.values(f"{name}_effect") for x in run]
            rows[f"{task}: {name}"] = found
    spoken = [f"{name} {sum(x) / len(x):.2f}" for name, x in rows.items()]
    alt = f"{title}. Mean rank correlation: {', '.join(spoken)}."
    kinds = itertools.cycle(range(len(COMPARED)))
    rows = {name: [_dots(x, next(kinds)), mean_bar(x)] for name, x in rows.items()}
    xlabel = "rank correlation with the effect"
    options = {"xlabel": xlabel, "alt": alt, "heights": (1.2, 0.3)}
    return rows_of_dots(rows, title=title, **options)
