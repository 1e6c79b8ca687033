"""Latch: how far back can a value be remembered? The theory of reach says exactly.

Every position must name the most recent value token. With the value d steps back, L
causal layers of window w can know it if d <= L w (Eq. 10), and must guess otherwise.
With adjacent blocks of b tokens it depends on the place inside the block: always known
up to d = L b, never from (L + 1) b on.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.models import (
    build,
    causal_layers,
    labels,
    share,
    train_as,
)
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.tables import table
from attn_tutorial.instruments.graph import reach_mask
from attn_tutorial.networks.tasks import latch, latch_distance

__all__ = ["QUESTION", "edge", "settings", "train"]

QUESTION = "Up to which distance can a stack of layers remember a value?"

VALUES, NOISE = 8, 4
TEST_SIZE, TEST_SEED = 512, 10**6  # far from every seed that draws training batches
SIZE = {"n": 128, "max_gap": 80, "d_model": 32, "heads": 2}
SIZE |= {"batch": 32, "steps": 300, "lr": 3e-3}

GRID = [
    *[(f"local {w}", layers) for w in (8, 16) for layers in (1, 2, 3, 4)],
    ("local 4", 4),
    ("local 32", 2),
    *[("blocks 8", layers) for layers in (1, 2, 4)],
    ("blocks 16", 2),
    ("full", 2),
    ("local 8 + global 1", 2),
    ("local 8, full", 2),
]
QUICK = [("local 4", 1), ("local 4", 2), ("full", 1)]


def settings(quick: bool) -> list[Setting]:
    """Patterns and numbers of layers."""
    small = {"n": 48, "max_gap": 24, "batch": 16}
    size = {**SIZE, **small, "steps": 120} if quick else SIZE
    grid = QUICK if quick else GRID
    return [{"pattern": p, "layers": layers, **size} for p, layers in grid]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model and measure its accuracy at every distance."""
    torch.manual_seed(seed)
    model = build(setting, VALUES + NOISE, VALUES, causal=True).to(device)
    size = setting["batch"], setting["n"], setting["max_gap"]
    losses = train_as(setting, model, lambda generator: draw(*size, generator), seed)
    test = Generator().manual_seed(TEST_SEED)
    inputs, targets = draw(TEST_SIZE, setting["n"], setting["max_gap"], test)
    right = labels(model, inputs) == targets
    return {"final_loss": losses[-1], **accuracy_by_distance(setting, inputs, right)}


def draw(
    batch: int, n: int, max_gap: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Sequences whose values are 1 to max_gap steps apart."""
    return latch(batch, n, generator, num_values=VALUES, max_gap=max_gap)


def accuracy_by_distance(setting: Setting, inputs: Tensor, right: Tensor) -> Result:
    """Accuracy by distance, and on both sides of the border that theory draws."""
    distance = latch_distance(inputs, VALUES)
    known, inside = distance >= 0, within_reach(setting, distance)
    steps = range(int(distance.max()) + 1)
    return {
        "accuracy": share(right, known),
        "accuracy_inside": share(right, known & inside),
        "accuracy_outside": share(right, known & ~inside),
        "accuracy_by_distance": [share(right, distance == d) for d in steps],
        "inside_by_distance": [share(inside, distance == d) for d in steps],
    }


def within_reach(setting: Setting, distance: Tensor) -> Tensor:
    """Whether the layers can carry the value to where it is asked for."""
    n, place = distance.shape[-1], torch.arange(distance.shape[-1])
    reached = reach_mask(causal_layers(setting), n, setting["layers"])
    return reached[place, place - distance.clamp(min=0)]


def edge(accuracies: list[float], enough: float = 0.9) -> int:
    """Largest distance up to which every accuracy is at least ``enough``.

    Example:
        >>> edge([1.0, 0.99, 0.98, 0.12, 0.95])
        2
    """
    good = [accuracy >= enough for accuracy in accuracies]
    return (good.index(False) if False in good else len(good)) - 1


def report(runs: Runs) -> str:
    """The edge by theory and by training, and the accuracy on both sides of it."""
    header = ("pattern", "layers", "edge by theory", "edge of each seed")
    rows = [
        (
            *group,
            edge(part[0].result["inside_by_distance"], enough=1.0),
            " ".join(str(edge(a)) for a in part.values("accuracy_by_distance")),
            part.lowest("accuracy_inside"),
            part.highest("accuracy_outside"),
        )
        for group, part in runs.groups("pattern", "layers")
    ]
    return table((*header, "lowest inside", "highest outside"), rows)
