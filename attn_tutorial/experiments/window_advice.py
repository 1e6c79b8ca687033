"""Window advice: does the advice of a trained model name the window that it needs?

On the latch the need is known: with values at most g - 1 steps back, L layers need
L w >= g - 1. A model with full attention is trained and asked; then models with windows
are trained, and the smallest that does as well is the answer to compare with.
"""

from __future__ import annotations

import math

import torch
from torch import Generator

from attn_tutorial.experiments.latch import NOISE, VALUES, draw
from attn_tutorial.experiments.models import (
    build,
    counted,
    evidence,
    labels,
    share,
    train_as,
)
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Experiment
from attn_tutorial.experiments.tables import table

__all__ = ["EXPERIMENT", "RULES", "needed", "settings", "smallest_as_good", "train"]

RULES = {
    "widest head of any layer": "advised_by_attention",
    "mean of the heads": "advised_by_mean_attention",
    "gradient": "advised_by_gradient",
}
WINDOWS = (1, 2, 4, 8, 16, 32)
BASE = {"n": 96, "d_model": 32, "heads": 2, "layers": 2, "batch": 32, "steps": 300}
BASE |= {"lr": 3e-3}


def settings(quick: bool) -> list[Setting]:
    """Full attention and windows, for several largest gaps between the values."""
    small = {"n": 32, "batch": 8, "steps": 8}
    base, gaps, windows = {**BASE, **small}, (5,), WINDOWS[1:2]
    if not quick:
        base, gaps, windows = BASE, (5, 9, 17, 33), WINDOWS
    patterns = ["full", *(f"local {w}" for w in windows)]
    return [{"max_gap": g, "pattern": p, **base} for g in gaps for p in patterns]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its accuracy, and its evidence if it sees everything."""
    torch.manual_seed(seed)
    model = build(setting, VALUES + NOISE, VALUES, causal=True).to(device)
    size = setting["batch"], setting["n"], setting["max_gap"]
    losses = train_as(setting, model, lambda g: draw(*size, g), seed)
    result = {"final_loss": losses[-1]}
    for part, held_out in (("validation", 10**6), ("test", 10**6 + 1)):
        generator = Generator().manual_seed(held_out)
        inputs, targets = draw(256, *size[1:], generator)
        right = labels(model, inputs) == targets
        result[f"{part}_accuracy"] = share(right, counted(targets))
    if setting["pattern"] == "full":
        result |= evidence(model, inputs[:32].to(device))
    return result


def needed(max_gap: int, layers: int) -> int:
    """The window that the latch needs, by Eq. (9).

    Example:
        >>> needed(17, layers=2)
        8
    """
    return math.ceil((max_gap - 1) / layers)


def smallest_as_good(runs: Runs, quality: str, tolerance: float) -> int | None:
    """Smallest trained window whose mean quality is as good as full attention's.

    Args:
        runs: Runs with full attention and with single windows, "local w".
        quality: Name of a validation result; more is better.
        tolerance: How much less still counts as equal, beside twice the spread of the
            runs with full attention.

    Returns:
        The window, or None if none is good enough.
    """
    full = runs.where(pattern="full")
    least = full.mean(quality) - max(tolerance, 2 * full.deviation(quality))
    windows = {}
    for (pattern,), part in runs.groups("pattern"):
        kind, _, width = pattern.partition(" ")
        if kind == "local" and width.isdecimal():
            windows[int(width)] = part.mean(quality)
    return next((w for w in sorted(windows) if windows[w] >= least), None)


def advised(runs: Runs, rule: str) -> int:
    """What a rule advises: the median over the seeds, of the widest layer."""
    found = runs.where(pattern="full").values(RULES[rule])
    widest = sorted(max(w) if isinstance(w, list) else w for w in found)
    return widest[len(widest) // 2]


def report(runs: Runs) -> str:
    """For each task: what theory needs, what training shows, what each rule says."""
    rows = []
    for (gap, layers), part in runs.groups("max_gap", "layers"):
        known = needed(gap, layers)
        found = smallest_as_good(part, "validation_accuracy", 0.02)
        advice = [advised(part, rule) for rule in RULES]
        rows.append((f"gaps up to {gap}", layers, known, found, *advice))
    header = ("task", "layers", "needed by theory", "smallest that is as good")
    return table((*header, *RULES), rows)


EXPERIMENT = Experiment(
    name="window_advice",
    question="Does the advice of a trained model name the window that it needs?",
    settings=settings,
    train=train,
    report=report,
)
