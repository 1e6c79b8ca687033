"""Recall: which value stood behind this key the last time? A lookup, not a copy.

A sequence alternates keys and values; each sequence has its own random dictionary. At
a key that was seen before, the model must name its value. Two steps are needed: mark
each value with its key, then find the mark that fits. Reach alone does not teach that.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.models import build, evidence, labels, share, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.tasks import IGNORE

__all__ = ["QUESTION", "TUNING", "draw", "settings", "train"]

QUESTION = "Can layers with windows look up what was said before?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error", {"steps": 120}, reach=0)

KEYS = VALUES = 16
TEST_SIZE, HELD_OUT = 512, {"test": 10**6, "validation": 10**6 + 1}  # seeds
BANDS = ((1, 8), (8, 16), (16, 32), (32, 64), (64, 128))  # distances, end excluded
SIZE = {"n": 128, "d_model": 64, "heads": 2, "batch": 32, "steps": 400}
MUON = {"optimizer": "muon", "lr": 0.02}
GRID = [
    *[(f"local {w}", 2) for w in (16, 32, 64)],
    *[(f"local {w}", 4) for w in (16, 32)],
    ("blocks 32", 2),
    ("full", 2),
    ("local 16, full", 2),
    ("full, local 16", 2),
]


def settings(quick: bool) -> list[Setting]:
    """Patterns and numbers of layers."""
    small = {"n": 32, "d_model": 32, "batch": 16, "steps": 20}
    size = {**SIZE, **MUON, **small} if quick else {**SIZE, **MUON}
    grid = [("full", 2), ("local 8", 2)] if quick else GRID
    return [{"pattern": p, "layers": layers, **size} for p, layers in grid]


def draw(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw sequences, the values to recall, and how far back they stand.

    Returns:
        Inputs, targets and distances, each (batch, n): keys at even places, values at
        odd ones; targets are ``IGNORE`` and distances 0 where nothing can be recalled.
    """
    keys = torch.randint(KEYS, (batch, n // 2), generator=generator)
    dictionary = torch.randint(VALUES, (batch, KEYS), generator=generator)
    values = dictionary.gather(1, keys)
    inputs = torch.stack([keys, KEYS + values], -1).flatten(1)
    steps = _steps_back(keys)
    distance = torch.stack([(2 * steps - 1).clamp(min=0), torch.zeros_like(steps)], -1)
    targets = torch.stack([values, values], -1).flatten(1)
    distance = distance.flatten(1)
    return inputs, targets.masked_fill(distance == 0, IGNORE), distance


def _steps_back(keys: Tensor) -> Tensor:
    """Pairs back to the same key, shape (batch, pairs); 0 if it is new."""
    place = torch.arange(keys.shape[1])
    lag = place[:, None] - place
    same = (keys[:, :, None] == keys[:, None, :]) & (lag > 0)
    nearest = lag.where(same, len(place)).min(-1).values
    return nearest.where(nearest < len(place), 0)


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model and measure its recall by distance."""
    torch.manual_seed(seed)
    model = build(setting, KEYS + VALUES, VALUES, causal=True).to(device)
    size = setting["batch"], setting["n"]
    losses = train_as(setting, model, lambda g: draw(*size, g)[:2], seed)
    result = {"final_loss": losses[-1]}
    for part, held_out in HELD_OUT.items():
        drawn = draw(TEST_SIZE, setting["n"], Generator().manual_seed(held_out))
        result |= accuracy_by_band(part, labels(model, drawn[0]), *drawn[1:])
    if setting["pattern"] == "full" and "stage" not in setting:
        result |= evidence(model, drawn[0][:32], drawn[1][:32])
    return result


def accuracy_by_band(
    part: str, found: Tensor, targets: Tensor, distance: Tensor
) -> Result:
    """Accuracy where something can be recalled, in all and in bands of distance."""
    right = found == targets
    accuracy = share(right, distance > 0)
    bands = [share(right, (distance >= a) & (distance < b)) for a, b in BANDS]
    by_band = {f"{part}_accuracy_by_band": bands}
    return {f"{part}_accuracy": accuracy, f"{part}_error": 1 - accuracy} | by_band


def report(runs: Runs) -> str:
    """Mean accuracy over the seeds in bands of distance."""
    header = ["pattern", "layers", "seeds", *(f"{a} to {b - 1}" for a, b in BANDS)]
    rows = []
    for group, part in runs.groups("pattern", "layers"):
        bands = zip(*part.values("test_accuracy_by_band"), strict=True)
        texts = [_mean(band) for band in bands]
        rows.append((*group, len(part), *texts, part.spread("test_accuracy")))
    return table([*header, "all"], rows)


def _mean(shares: tuple[float | None, ...]) -> str | None:
    return None if None in shares else f"{sum(shares) / len(shares):.3f}"
