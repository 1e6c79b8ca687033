"""Figures of ``converting``: what a switch costs, and what a tuning brings back."""

from __future__ import annotations

from attn_tutorial.experiments.figures.rows import Dots, mean_bar, rows_of_dots
from attn_tutorial.experiments.records import Runs
from attn_tutorial.experiments.studies.converting import last_of, targets
from attn_tutorial.pictures.plots import CYCLE, Picture, lines

__all__ = ["before_and_after", "layer_by_layer"]


def before_and_after(
    runs: Runs, title: str = "A dense model before and after its layers get windows"
) -> Picture:
    """Draw the bits of every seed: trained, switched, tuned, and trained so."""
    dense = runs.where(pattern="full")
    known = targets(dense[0].setting["keys"])
    found = {"dense": dense.values("bits")}
    for name in known:
        found[f"{name}: switched"] = last_of(dense, f"first_{name}").values(
            f"first_{name}"
        )
    for name in ("full", *known):
        found[f"{name}: tuned"] = dense.values(f"tuned_{name}")
    found["window from the start"] = runs.where(pattern=known["window"]).values("bits")
    look = {"marker": "o", "ls": "", "color": CYCLE[0], "alpha": 0.8, "markersize": 8}
    rows = {name: [mean_bar(x), Dots(x, look)] for name, x in found.items()}
    means = [f"{name} {sum(x) / len(x):.3f}" for name, x in found.items()]
    alt = f"Bits a byte, mean of {len(dense)} seeds: {', '.join(means)}."
    xlabel = "test bits a byte"
    return rows_of_dots(rows, title=title, xlabel=xlabel, alt=alt)


def layer_by_layer(
    runs: Runs, title: str = "Layer by layer: bits as more layers get their window"
) -> Picture:
    """Draw mean bits against the number of layers that are switched."""
    dense = runs.where(pattern="full")
    curves = {}
    for name in targets(dense[0].setting["keys"]):
        for way in ("first", "last"):
            found = dense.mean(f"{way}_{name}")
            curves[f"{way} k, {name}"] = (range(len(found)), found)
    spoken = [f"{n} {y[0]:.3f} to {y[-1]:.3f}" for n, (_, y) in curves.items()]
    alt = f"Bits a byte with none to all layers switched: {', '.join(spoken)}."
    axes = {"xlabel": "layers switched, k", "ylabel": "test bits a byte"}
    return lines(curves, title=title, alt=alt, **axes)
