"""The training loop that every trained chapter shares: short, seeded, CPU-sized."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.checks import check_count
from attn_tutorial.tasks import IGNORE

__all__ = ["accuracy", "fit"]

BatchFunction = Callable[[Generator], tuple[Tensor, ...]]
WARM_UP = 0.05  # share of the steps in which the learning rate rises


def fit(
    model: nn.Module,
    batch_fn: BatchFunction,
    *,
    steps: int,
    lr: float = 3e-3,
    seed: int = 0,
) -> list[float]:
    """Train ``model`` to predict targets, on fresh batches, by AdamW.

    The learning rate rises for 5 % of the steps and falls to zero along a cosine;
    gradients are clipped to norm 1. Seed the model's own weights before you build it.

    Args:
        model: Called on a batch without its last tensor; returns (batch, n, labels).
        batch_fn: Takes a generator; returns inputs and, last, targets (batch, n).
        steps: Number of batches.
        lr: Highest learning rate.
        seed: Seed of the generator that draws the batches.

    Returns:
        The loss of each step.
    """
    check_count("steps", steps, least=1)
    generator = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    losses = []
    for step in range(steps):
        *inputs, targets = batch_fn(generator)
        scores = model(*inputs).flatten(0, -2)
        loss = cross_entropy(scores, targets.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = lr * _schedule(step, steps)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: a linear rise, then half a cosine down to 0."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


@torch.no_grad()
def accuracy(model: nn.Module, batch_fn: BatchFunction, *, seed: int = 1) -> float:
    """Share of the targets that the model ranks first, on one batch.

    Args:
        model: As in ``fit``.
        batch_fn: As in ``fit``.
        seed: Seed of the batch; use another one than in ``fit``.
    """
    *inputs, targets = batch_fn(Generator().manual_seed(seed))
    right = model(*inputs).argmax(-1) == targets
    counted = targets != IGNORE
    return (right[counted].sum() / counted.sum()).item()
