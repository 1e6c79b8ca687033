"""How far do dependencies reach in data? Mutual information against distance.

I(X; Y) says how many bits one token tells about another, whatever the form of the
dependence. It is estimated from counts of pairs, and counts by chance look like a
dependence: what shuffled tokens would give is measured, and taken off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from attn_tutorial.checks import check_count

__all__ = ["Dependence", "dependence", "mutual_information"]

CLEARLY = 5  # standard deviations


def mutual_information(x: Tensor, y: Tensor) -> float:
    """Estimate the mutual information of two symbols in bits, from pairs of them.

    sum over a, b of p(a, b) log2(p(a, b) / (p(a) p(b))), with shares of the pairs as
    probabilities. Of N pairs it is too large by about (K_x - 1) (K_y - 1) / (2 N ln 2)
    bits for K_x and K_y symbols (Miller, 1955), even if there is no dependence at all.

    Args:
        x: Integers from 0 on, any shape.
        y: As many integers.

    Raises:
        TypeError: If one of them has a floating dtype.
        ValueError: If their numbers differ, there are none, or one is negative.

    Example:
        >>> coin = torch.tensor([0, 1, 0, 1])
        >>> mutual_information(coin, coin), mutual_information(coin, coin.sort().values)
        (1.0, 0.0)
    """
    x, y = _symbols("x", x), _symbols("y", y)
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"x and y must be as long, and not empty, got {len(x)}, {len(y)}"
        )
    columns = int(y.max()) + 1
    size = (int(x.max()) + 1) * columns
    counts = torch.bincount(x * columns + y, minlength=size)
    joint = counts.view(-1, columns).double() / len(x)
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    seen = joint > 0
    return (joint[seen] * (joint[seen] / alone[seen]).log2()).sum().item()


def _symbols(name: str, x: Tensor) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    if x.numel() and x.min() < 0:
        raise ValueError(f"{name} must be at least 0, got {int(x.min())}")
    return x.flatten().long()


@dataclass(frozen=True)
class Dependence:
    """Mutual information at some distances, with what chance alone would give.

    Attributes:
        distances: Steps from the one token back to the other.
        found: Estimates in bits, too large by chance.
        chance: The mean of the same estimates with one side shuffled.
        deviation: Standard deviation of a shuffle from the mean of its distance, over
            all distances.
    """

    distances: list[int]
    found: list[float]
    chance: list[float]
    deviation: float

    @property
    def corrected(self) -> list[float]:
        """The estimates less what chance gives."""
        return [f - c for f, c in zip(self.found, self.chance, strict=True)]

    @property
    def horizon(self) -> int | None:
        """The largest distance with clearly more than chance; None if there is none.

        Clearly is by more than five deviations.
        """
        pairs = zip(self.distances, self.corrected, strict=True)
        margin = CLEARLY * self.deviation
        return max((d for d, bits in pairs if bits > margin), default=None)


def dependence(
    tokens: Tensor,
    distances: Iterable[int],
    *,
    targets: Tensor | None = None,
    shuffles: int = 3,
    seed: int = 0,
) -> Dependence:
    """Mutual information of targets[i] and tokens[i - d], for each distance d.

    Args:
        tokens: Integers from 0 on, shape (n,) or (batch, n); pairs stay in their row.
        distances: Which d >= 0 to look at.
        targets: What may depend on the tokens, of the same shape; the tokens if None.
            Where one is below 0, as ``IGNORE`` is, its pairs are left out.
        shuffles: How often one side is shuffled, for what chance gives; twice or more.
        seed: Seed of the shuffles.

    Raises:
        ValueError: If shapes differ, there is no distance, or one leaves no pair.

    Example:
        >>> row = torch.tensor([0, 1, 2, 3] * 25)
        >>> found = dependence(row, [1, 2, 4])
        >>> [round(bits, 2) for bits in found.found]  # each row tells the next
        [2.0, 2.0, 2.0]
    """
    check_count("shuffles", shuffles, least=2)
    targets = tokens if targets is None else targets
    if targets.shape != tokens.shape:
        raise ValueError(
            f"targets must have shape {tuple(tokens.shape)}, got {tuple(targets.shape)}"
        )
    generator, rows, squares = Generator().manual_seed(seed), [], []
    for distance in distances:
        x, y = _pairs(tokens, targets, check_count("distance", distance, least=0))
        by_chance = [
            mutual_information(x[torch.randperm(len(x), generator=generator)], y)
            for _ in range(shuffles)
        ]
        mean = sum(by_chance) / shuffles
        squares += [(bits - mean) ** 2 for bits in by_chance]
        rows.append((distance, mutual_information(x, y), mean))
    if not rows:
        raise ValueError("distances must name at least one, got none")
    deviation = math.sqrt(sum(squares) / (len(rows) * (shuffles - 1)))
    return Dependence(*map(list, zip(*rows, strict=True)), deviation)


def _pairs(tokens: Tensor, targets: Tensor, distance: int) -> tuple[Tensor, Tensor]:
    """Tokens and the targets that stand ``distance`` later, both flat."""
    n = tokens.shape[-1]
    if distance >= n:
        raise ValueError(f"distance must be below the length {n}, got {distance}")
    x, y = tokens[..., : n - distance].flatten(), targets[..., distance:].flatten()
    return x[y >= 0], y[y >= 0]
