"""Window advice: does the advice of a trained model name the window that it needs?

On the latch the need is known: with values at most g - 1 steps back, L layers need
L w >= g - 1. A model with full attention is trained and asked; then models with windows
are trained, and the smallest that does as well is the answer to compare with. The
report also compares advice and training on the tasks of other experiments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

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
from attn_tutorial.experiments.records import (
    FOLDER,
    Result,
    Runs,
    Setting,
    load,
    record_path,
)
from attn_tutorial.experiments.runner import Experiment
from attn_tutorial.experiments.tables import table

__all__ = [
    "EXPERIMENT",
    "RULES",
    "Task",
    "hit_count",
    "latch_tasks",
    "needed",
    "recorded_tasks",
    "settings",
    "train",
]

RULES = {
    "widest head of any layer": "advised_by_attention",
    "mean of the heads": "advised_by_mean_attention",
    "gradient": "advised_by_gradient",
    "imposed after training": "advised_by_loss",
}
# Experiment, which of its runs, the result that decides, and its direction.
OTHERS = (
    ("language_model", {"equal": "steps"}, "validation_bits", -1),
    ("recall", {"layers": 2}, "validation_accuracy", 1),
    ("tagging", {"steps": 400}, "validation_by_scope", 1),
)
WINDOWS = (1, 2, 4, 8, 16, 32)
BASE = {"n": 64, "d_model": 32, "heads": 2, "layers": 2, "batch": 32, "steps": 250}
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
    for part, held_out in (("test", 10**6), ("validation", 10**6 + 1)):
        generator = Generator().manual_seed(held_out)
        inputs, targets = draw(256, *size[1:], generator)
        right = labels(model, inputs) == targets
        result[f"{part}_accuracy"] = share(right, counted(targets))
    if setting["pattern"] == "full":
        result |= evidence(model, inputs[:32], targets[:32])
    return result


def needed(max_gap: int, layers: int) -> int:
    """The window that the latch needs, by Eq. (9).

    Example:
        >>> needed(17, layers=2)
        8
    """
    return math.ceil((max_gap - 1) / layers)


@dataclass(frozen=True)
class Task:
    """A task on which advice is compared with what training shows.

    Attributes:
        name: What the task is.
        runs: Runs with full attention and with single windows, "local w".
        quality: Name of a validation result.
        sign: 1 if more of it is better, -1 if less is.
        known: The needed window by theory; None where there is no theory.
    """

    name: str
    runs: Runs
    quality: str = "validation_accuracy"
    sign: int = 1
    known: int | None = None

    @property
    def windows(self) -> dict[int, Runs]:
        """The runs of each trained window, smallest window first."""
        found = {}
        for (pattern,), part in self.runs.groups("pattern"):
            kind, _, width = pattern.partition(" ")
            if kind == "local" and width.isdecimal():
                found[int(width)] = part
        return dict(sorted(found.items()))

    def smallest_as_good(self, tolerance: float = 0.02) -> int | None:
        """Smallest trained window that does as well as full attention on average.

        As well means: at most ``tolerance`` worse, or twice the standard deviation of
        the runs with full attention, whichever is more. None if no window does.
        """
        full, sign = self.runs.where(pattern="full"), self.sign
        allowed = max(tolerance, 2 * full.deviation(self.quality))
        least = sign * full.mean(self.quality) - allowed
        for window, part in self.windows.items():
            if sign * part.mean(self.quality) >= least:
                return window
        return None

    def advised(self, rule: str) -> int:
        """What a rule advises: the median over the seeds, for the widest layer."""
        found = self.runs.where(pattern="full").values(RULES[rule])
        widest = sorted(max(w) if isinstance(w, list) else w for w in found)
        return widest[len(widest) // 2]

    def verdict(self, rule: str) -> str:
        """The advice, and whether the next trained window is the right one."""
        window, found = self.advised(rule), self.smallest_as_good()
        next_one = next((w for w in self.windows if w >= window), math.inf)
        right = math.inf if found is None else found
        kind = "hit" if next_one == right else "wide" if next_one > right else "narrow"
        return f"{window} ({kind})"


def latch_tasks(runs: Runs) -> list[Task]:
    """The latches with different largest gaps."""
    return [
        Task(f"latch, gaps up to {gap}", part, known=needed(gap, layers))
        for (gap, layers), part in runs.groups("max_gap", "layers")
    ]


def recorded_tasks(folder: Path = FOLDER) -> list[Task]:
    """Tasks of other experiments, as far as they are recorded."""
    found = []
    for name, chosen, quality, sign in OTHERS:
        if record_path(name, folder).exists():
            runs = load(name, folder).final.where(**chosen)
            found.append(Task(name.replace("_", " "), runs, quality, sign))
    return found


def hit_count(tasks: list[Task], rule: str) -> int:
    """On how many tasks a rule names the right trained window."""
    return sum("hit" in task.verdict(rule) for task in tasks)


def report(runs: Runs) -> str:
    """What theory needs, what training shows, what each rule says, and its hits."""
    tasks = [*latch_tasks(runs), *recorded_tasks()]
    rows = [
        (task.name, task.known, task.smallest_as_good(), *map(task.verdict, RULES))
        for task in tasks
    ]
    hits = [f"{hit_count(tasks, rule)} of {len(tasks)}" for rule in RULES]
    rows.append(("hits", None, None, *hits))
    return table(("task", "by theory", "smallest as good", *RULES), rows)


EXPERIMENT = Experiment(
    name="window_advice",
    question="Does the advice of a trained model name the window that it needs?",
    settings=settings,
    train=train,
    report=report,
)
