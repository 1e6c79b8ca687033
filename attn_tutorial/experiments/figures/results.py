"""Figures of records: every seed is shown, and theory where there is one.

Each function takes the finished runs of an experiment. A title states a finding, so
that a chapter passes its own; the alt text is made from the numbers in the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attn_tutorial.experiments.figures import applications
from attn_tutorial.experiments.figures.advice import (
    advice,
    advice_on_new_tasks,
    loss_by_context,
)
from attn_tutorial.experiments.figures.converting import (
    before_and_after,
    layer_by_layer,
)
from attn_tutorial.experiments.figures.inside import (
    agreement,
    copying_by_period,
    course_of_copying,
    every_head,
)
from attn_tutorial.experiments.figures.pairs import (
    headline_pairs,
    leads,
    sink_pairs,
    sink_pairs_longer,
)
from attn_tutorial.experiments.figures.rows import Dots, mean_bar, rows_of_dots
from attn_tutorial.experiments.figures.tradeoffs import pareto, remedies
from attn_tutorial.experiments.models import WINDOWS
from attn_tutorial.experiments.records import Run, Runs
from attn_tutorial.experiments.studies.language_model import BANDS
from attn_tutorial.experiments.studies.latch import VALUES, edge
from attn_tutorial.experiments.studies.layer_search import full_layers, listed
from attn_tutorial.experiments.studies.optimisers import best_rates
from attn_tutorial.pictures.plots import COLORS, CYCLE, MARKERS, Picture, lines, picture

__all__ = [
    "FIGURES",
    "bits_against_cost",
    "bits_against_full",
    "bits_along_passage",
    "bits_at_equal_steps",
    "deep_recall_by_distance",
    "dots",
    "evidence_by_window",
    "latch_blocks",
    "latch_memory",
    "learning_rates",
    "placements",
    "quality",
    "recall_by_distance",
    "tagging_of_names",
    "translation_quality",
]


def dots(
    values: Mapping[str, Sequence[float]], *, title: str, xlabel: str, alt: str = ""
) -> Picture:
    """Draw a row of dots for each name, one for each seed, and a bar at their mean."""
    means = {name: sum(found) / len(found) for name, found in values.items()}
    spoken = [f"{n} {means[n]:.3g} ({len(values[n])} seeds)" for n in values]
    alt = alt or f"{title}. Mean {xlabel}: {', '.join(spoken)}."
    look = {"marker": "o", "ls": "", "color": CYCLE[0], "alpha": 0.8, "markersize": 8}
    rows = {
        name: [mean_bar(found), Dots(found, look)] for name, found in values.items()
    }
    return rows_of_dots(rows, title=title, xlabel=xlabel, alt=alt, wide=False)


def quality(
    runs: Runs,
    result: str,
    *,
    title: str,
    xlabel: str,
    name: Callable[[Run], str] = lambda run: run.setting["pattern"],
) -> Picture:
    """Draw one result of all settings, each seed a dot."""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(name(run), []).append(run.result[result])
    return dots(found, title=title, xlabel=xlabel)


def latch_memory(
    runs: Runs,
    shown: Sequence[tuple[str, int]] = (
        ("local 8", 1),
        ("local 8", 2),
        ("local 8", 4),
        ("local 16", 4),
        ("full", 2),
    ),
    title: str = "Memory ends where theory says: after L w steps",
) -> Picture:
    """Draw accuracy against distance, with a line at each edge that theory predicts."""
    curves, edges, spoken = {}, [], []
    for pattern, layers in shown:
        part = runs.where(pattern=pattern, layers=layers)
        accuracy = part.mean("accuracy_by_distance")
        curves[f"{pattern}, L = {layers}"] = (range(len(accuracy)), accuracy)
        end = edge(part[0].result["inside_by_distance"], enough=1.0)
        spoken.append(f"{pattern}, L = {layers}: {edge(accuracy)} ({end})")
        if end < len(accuracy) - 1:
            edges.append(end + 0.5)
    alt = f"Last distance with accuracy of 0.9 (by theory): {'; '.join(spoken)}."
    axes = {"xlabel": "steps back to the value", "ylabel": "accuracy"}
    look = {"marks": edges, "points": False, "below": True, "height": 4.4}
    return lines(curves, title=title, alt=alt, **look, **axes)


def latch_blocks(
    runs: Runs,
    pattern: str = "blocks 16",
    layers: int = 2,
    title: str = "Blocks: sure up to L b steps, then a straight line down to guessing",
) -> Picture:
    """Draw the accuracy of each seed on the curve that theory predicts for blocks."""
    part = runs.where(pattern=pattern, layers=layers)
    reached = part[0].result["inside_by_distance"]
    theory = [share + (1 - share) / VALUES for share in reached]
    seeds = part.values("accuracy_by_distance")
    off = [abs(a - b) for seed in seeds for a, b in zip(seed, theory, strict=True)]
    found = f"{len(seeds)} seeds, on average {sum(off) / len(off):.3f} from theory"
    alt = f"Accuracy of {pattern} with {layers} layers by distance: {found}."
    axes = {"xlabel": "steps back to the value", "ylabel": "accuracy"}
    curve = {"theory": (range(len(theory)), theory)}
    figure = lines(curve, title=title, alt=alt, points=False, **axes)
    for k, seed in enumerate(seeds):
        look = {"color": CYCLE[1], "alpha": 0.6, "markersize": 5}
        figure.axes[0].plot(seed, "o", label="each seed" if k == 0 else None, **look)
    figure.axes[0].legend(frameon=False)
    return figure


def recall_by_distance(
    runs: Runs,
    shown: Sequence[tuple[str, int]] = (
        ("full", 2),
        ("local 16", 2),
        ("local 16", 4),
        ("local 32", 2),
        ("local 32", 4),
        ("blocks 32", 2),
    ),
    bands: Sequence[str] = ("1-7", "8-15", "16-31", "32-63", "64-127"),
    title: str = "Recall within reach is not learned everywhere",
) -> Picture:
    """Draw mean accuracy in bands of distance, and each seed, by pattern and depth."""
    curves, spoken = {}, []
    for pattern, layers in shown:
        part = runs.where(pattern=pattern, layers=layers)
        accuracy = part.mean("test_accuracy_by_band")
        curves[f"{pattern}, L = {layers}"] = (range(len(bands)), accuracy)
        shares = ", ".join(f"{share:.2f}" for share in accuracy)
        spoken.append(f"{pattern} with {layers} layers: {shares}")
    alt = f"Accuracy in the bands {', '.join(bands)}: {'; '.join(spoken)}."
    labels = {"xlabel": "tokens back to the value", "ylabel": "accuracy"}
    look = {"height": 5, "points": False, "below": True}
    drawn = lines(curves, title=title, alt=alt, **look, **labels)
    for k, (pattern, layers) in enumerate(shown):
        for run in runs.where(pattern=pattern, layers=layers):
            look = {"color": CYCLE[k % 6], "markersize": 6, "alpha": 0.6}
            shares = run.result["test_accuracy_by_band"]
            drawn.axes[0].plot(shares, MARKERS[k % 6], **look)
    drawn.axes[0].set_xticks(range(len(bands)), bands)
    return drawn


def deep_recall_by_distance(
    runs: Runs, title: str = "Recall with four layers, tuned and trained longer"
) -> Picture:
    """Draw the recall of four layers in bands of distance."""
    shown = [group for group, _ in runs.groups("pattern", "layers")]
    return recall_by_distance(runs, shown, title=title)


def placements(
    runs: Runs, title: str = "Bits by the layers that stay full, each seed a dot"
) -> Picture:
    """Draw test bits of every placement of full layers, fewest first."""

    def named(run: Run) -> str:
        return f"full: {listed(full_layers(run.setting['pattern']))}"

    ordered = sorted(runs, key=lambda run: run.setting["pattern"].count("full"))
    xlabel = "test bits per byte"
    return quality(Runs(ordered), "test_bits", title=title, xlabel=xlabel, name=named)


def bits_at_equal_steps(
    runs: Runs, title: str = "Bits per byte after the same steps"
) -> Picture:
    """Draw test bits per byte of the models with equal steps, each seed a dot."""

    def named(run: Run) -> str:
        return _contender(run.setting["pattern"], "steps", run.setting["n"], None)

    alike = runs.where(equal="steps")
    xlabel = "test bits per byte"
    return quality(alike, "test_bits", title=title, xlabel=xlabel, name=named)


def bits_against_full(
    runs: Runs,
    shown: Sequence[str] = ("local 4", "local 16", "local 64"),
    title: str = "Bits lost against full attention, by position",
) -> Picture:
    """Draw what a window costs at each position: seeds in pairs, mean and range."""
    spoken, (figure, axes) = [], picture("Bits lost by position.")
    for k, name in enumerate(shown):
        bands = list(zip(*_bits_lost(runs.where(equal="steps"), name), strict=True))
        means = [sum(band) / len(band) for band in bands]
        up = [max(band) - mean for band, mean in zip(bands, means, strict=True)]
        down = [mean - min(band) for band, mean in zip(bands, means, strict=True)]
        places = [x + 0.08 * (k - 1) for x in range(len(means))]
        look = {"color": CYCLE[k], "marker": MARKERS[k], "capsize": 4, "label": name}
        axes.errorbar(places, means, [down, up], **look)
        spoken.append(f"{name}: {', '.join(f'{mean:+.3f}' for mean in means)}")
    starts = [str(start) for start, _ in BANDS]
    axes.axhline(0, color=COLORS["black"], linewidth=1.2)
    axes.set_xticks(range(len(starts)), starts)
    axes.set(title=title, xlabel="from position", ylabel="bits more than full")
    axes.legend(frameon=False)
    where = f"from positions {', '.join(starts)}"
    figure.alt = f"Bits more than full attention {where}: {'; '.join(spoken)}."
    return figure


def _bits_lost(runs: Runs, pattern: str) -> list[list[float]]:
    """Bits of a pattern less those of full attention, for each seed, by position."""
    bits = "test_bits_by_band"
    full = {run.seed: run.result[bits] for run in runs.where(pattern="full")}
    return [
        [a - b for a, b in zip(run.result[bits], full[run.seed], strict=True)]
        for run in runs.where(pattern=pattern)
        if run.seed in full
    ]


def bits_against_cost(
    runs: Runs,
    cost: str = "kv_bytes",
    title: str = "What a byte of cache buys",
    xlabel: str = "bytes of keys and values after 512 tokens",
) -> Picture:
    """Draw test bits per byte against a cost, each setting with its seeds' range."""
    groups = [
        (_contender(*group), part.values("test_bits"), part[0].result[cost])
        for group, part in runs.groups("pattern", "equal", "n", "num_kv_heads")
    ]
    spoken = [f"{name}: {x:,.0f}, {sum(y) / len(y):.3f}" for name, y, x in groups]
    alt = f"{xlabel} and test bits per byte: {'; '.join(spoken)}."
    figure, axes = picture(alt, height=6)
    for k, (name, bits, price) in enumerate(groups):
        mean = sum(bits) / len(bits)
        reach = [[mean - min(bits)], [max(bits) - mean]]
        look = {"color": CYCLE[k % 6], "marker": MARKERS[(k + k // 6) % 6]}
        axes.errorbar([price], [mean], reach, label=name, ls="", capsize=4, **look)
    axes.set_xscale("log")
    axes.set(title=title, xlabel=xlabel, ylabel="test bits per byte")
    axes.grid(color=COLORS["pale"])
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _contender(pattern: str, equal: str, n: int, kv_heads: int | None) -> str:
    """Name a language model in a legend."""
    notes = ["equal FLOPs"] if equal == "FLOPs" else []
    notes += [f"context {n}"] if n < 512 else []
    notes += [f"{kv_heads} kv head"] if kv_heads else []
    return ", ".join([pattern.replace("local 16, " * 3, "3 x local 16, "), *notes])


def bits_along_passage(
    runs: Runs,
    shown: Sequence[str] = ("full", "local 4", "local 16", "local 64"),
    title: str = "Where in a passage the bits are saved",
) -> Picture:
    """Draw test bits per byte against the position in a passage, at equal steps."""
    starts = (0, 16, 32, 64, 128, 256)
    curves = {}
    for pattern in shown:
        part = runs.where(pattern=pattern, equal="steps")
        curves[pattern] = (range(len(starts)), part.mean("test_bits_by_band"))
    spoken = [
        f"{p}: {', '.join(f'{b:.2f}' for b in y)}" for p, (_, y) in curves.items()
    ]
    alt = f"Bits per byte from positions {starts}: {'; '.join(spoken)}."
    labels = {"xlabel": "from position", "ylabel": "test bits per byte"}
    drawn = lines(curves, title=title, alt=alt, **labels)
    drawn.axes[0].set_xticks(range(len(starts)), map(str, starts))
    return drawn


def evidence_by_window(
    runs: Runs, title: str = "How much lies within a window, for attention and gradient"
) -> Picture:
    """Draw the share of attention and of gradient within each window."""
    full = runs.where(pattern="full")
    full = Runs(run for run in full if "attention_within" in run.result)
    curves = {
        "attention": (WINDOWS, full.mean("attention_within")),
        "gradient": (WINDOWS, full.mean("gradient_within")),
    }
    drawn = {name: dict(zip(*curve, strict=True)) for name, curve in curves.items()}
    spoken = [f"{name} {inside[16]:.2f}" for name, inside in drawn.items()]
    alt = f"Share within 16 positions: {', '.join(spoken)} ({len(full)} seeds)."
    labels = {"xlabel": "window w", "ylabel": "share within w"}
    figure = lines(curves, title=title, alt=alt, **labels)
    figure.axes[0].set_xscale("symlog", base=2, linthresh=1)
    return figure


def learning_rates(
    runs: Runs, title: str = "Every optimiser at every rate: a wrong rate costs most"
) -> Picture:
    """Draw validation bits against the learning rate: all seeds, and their mean."""
    curves, dots_of = {}, {}
    for (name,), part in runs.groups("optimizer"):
        tried = sorted(
            (lr, g.mean("validation_bits")) for (lr,), g in part.groups("lr")
        )
        curves[name] = tuple(zip(*tried, strict=True))
        dots_of[name] = [run.setting["lr"] for run in part], part
    best = {
        n: (p[0].setting["lr"], p.mean("test_bits"))
        for n, p in best_rates(runs).items()
    }
    spoken = [f"{name} {bits:.3f} at {lr:g}" for name, (lr, bits) in best.items()]
    alt = f"Test bits per byte at the best rate: {', '.join(spoken)}."
    labels = {"xlabel": "learning rate", "ylabel": "validation bits per byte"}
    drawn = lines(curves, title=title, alt=alt, logx=True, points=False, **labels)
    for k, (rates, part) in enumerate(dots_of.values()):
        look = {"color": CYCLE[k], "marker": MARKERS[k], "alpha": 0.7, "ls": ""}
        drawn.axes[0].plot(rates, part.values("validation_bits"), **look)
    return drawn


def _structure(runs: Runs) -> Picture:
    title, xlabel = "Smaller in many ways", "test bits per byte"
    named = {"name": lambda run: run.setting["variant"]}
    return quality(runs, "test_bits", title=title, xlabel=xlabel, **named)


def translation_quality(
    runs: Runs, title: str = "Whole texts right, by pattern"
) -> Picture:
    """Draw the share of whole texts that are right, for windows in each attention."""

    def named(run: Run) -> str:
        return f"{run.setting['pattern']}; cross: {run.setting['cross']}"

    xlabel = "whole texts right, test"
    return quality(runs, "test_exact", title=title, xlabel=xlabel, name=named)


def tagging_of_names(
    runs: Runs, title: str = "Names that need their scope, by pattern"
) -> Picture:
    """Draw the accuracy on names whose role depends on the program around them."""
    xlabel = "accuracy on names, test"
    return quality(runs, "test_by_scope", title=title, xlabel=xlabel)


# What `report --figures` draws.
FIGURES: dict[str, tuple[Callable[[Runs], Picture], ...]] = {
    "latch": (latch_memory, latch_blocks),
    "language_model": (
        bits_at_equal_steps,
        bits_against_cost,
        bits_along_passage,
        bits_against_full,
        evidence_by_window,
    ),
    "headline": (headline_pairs,),
    "headline_adamw": (headline_pairs,),
    "trajectories": (leads,),
    "sinks": (sink_pairs, sink_pairs_longer),
    "layer_search": (placements,),
    "deep_recall": (deep_recall_by_distance,),
    "recall": (recall_by_distance, evidence_by_window),
    "window_advice": (advice, loss_by_context),
    "advice_tasks": (advice_on_new_tasks,),
    "inside": (copying_by_period, course_of_copying, every_head, agreement),
    "tagging": (tagging_of_names, evidence_by_window),
    "optimisers": (learning_rates,),
    "translation": (translation_quality,),
    "structure": (_structure, pareto),
    "regularisation": (remedies,),
    "converting": (before_and_after, layer_by_layer),
    **applications.FIGURES,
}
