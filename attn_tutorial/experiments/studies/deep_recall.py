"""Deep recall: can four layers with windows look up what one of them cannot reach?

The task of ``recall`` with four layers, which two of its contenders did not learn. Here
each is trained twice as long, at a rate that is tuned for that length. What guesses
still, or not with every seed, counts as untrained: that says nothing of its reach.
"""

from __future__ import annotations

from attn_tutorial.experiments.records import Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies import recall
from attn_tutorial.experiments.studies.recall import train
from attn_tutorial.experiments.tables import table

__all__ = ["ENOUGH", "QUESTION", "TUNING", "inside", "settings", "train"]

QUESTION = "Do four layers with windows learn to look up, tuned and trained longer?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error")
ENOUGH = 0.9  # accuracy within one window from which on a model counts as trained
PATTERNS = ("full", "local 16", "local 32", "local 16, full")


def settings(quick: bool) -> list[Setting]:
    """Patterns of four layers."""
    base = {**recall.settings(quick)[0], "layers": 4}
    base |= {} if quick else {"steps": 2 * base["steps"]}
    chosen = PATTERNS[:2] if quick else PATTERNS
    return [{**base, "pattern": pattern} for pattern in chosen]


def inside(runs: Runs) -> list[float]:
    """Accuracy of each run at distances that the narrowest window covers at once."""
    return [bands[0] for bands in runs.values("test_accuracy_by_band")]


def report(runs: Runs) -> str:
    """How many seeds trained, then the accuracy by distance, as ``recall`` has it."""
    rows = []
    for group, part in runs.groups("pattern", "lr"):
        trained = sum(share >= ENOUGH for share in inside(part))
        rows.append((*group, len(part), trained))
    tables = table(("pattern", "rate", "seeds", "trained"), rows), recall.report(runs)
    return "\n\n".join(tables)
