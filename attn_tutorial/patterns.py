"""Attention patterns: predicates that say which query meets which key.

Eq. (15): a pattern is a function of positions, keep(i, j) -> bool, and patterns
combine as sets do: union (or, ``|``) and intersection (and, ``&``).

A pattern is called as FlexAttention calls its ``mask_mod``: ``pattern(b, h, q_idx,
kv_idx)`` on integer tensors that broadcast. The same object draws the picture, masks
the dense reference, and is what every fast path is tested against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attn_tutorial.checks import check_count, check_window

__all__ = [
    "Pattern",
    "adjacent_blocks",
    "causal",
    "dense_mask",
    "dilated",
    "full",
    "global_tokens",
    "intersection",
    "local",
    "random_blocks",
    "strided",
    "union",
]

Predicate = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pattern:
    """A named predicate on (query position, key position).

    Attributes:
        name: The function that made it.
        parameters: Its arguments, as (name, value) pairs.
        parts: The patterns that it combines (union and intersection only).
        keep: The predicate on broadcastable index tensors.
        max_length: Longest sequence it is defined for, or None.
    """

    name: str
    parameters: tuple[tuple[str, int], ...] = ()
    parts: tuple[Pattern, ...] = ()
    keep: Predicate = field(compare=False, repr=False, kw_only=True)
    max_length: int | None = field(default=None, compare=False, kw_only=True)

    def __call__(self, b: object, h: object, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return keep(q_idx, kv_idx); the batch and head indices are not used."""
        return self.keep(q_idx, kv_idx)

    def __or__(self, other: Pattern) -> Pattern:
        return union(self, other)

    def __and__(self, other: Pattern) -> Pattern:
        return intersection(self, other)

    def __getitem__(self, parameter: str) -> int:
        return dict(self.parameters)[parameter]

    def __repr__(self) -> str:
        values = [f"{name}={value}" for name, value in self.parameters]
        return f"{self.name}({', '.join(values + [repr(p) for p in self.parts])})"


def full() -> Pattern:
    """Every query meets every key."""
    return Pattern("full", keep=lambda i, j: (i >= 0) & (j >= 0))


def causal() -> Pattern:
    """No query looks ahead: keep j <= i."""
    return Pattern("causal", keep=lambda i, j: j <= i)


def local(window: int) -> Pattern:
    """Keep the keys at most ``window`` positions away: |i - j| <= w.

    A query in the interior meets 2w + 1 keys; with w = 0 it meets itself only.

    Example:
        >>> local(1)
        local(window=1)
        >>> dense_mask(local(1), 4).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    window = check_window(window)
    return Pattern(
        "local", (("window", window),), keep=lambda i, j: (i - j).abs() <= window
    )


def adjacent_blocks(block_size: int) -> Pattern:
    """Keep a query's own block and the two beside it: |i // b - j // b| <= 1.

    Example:
        >>> dense_mask(adjacent_blocks(1), 3).int()
        tensor([[1, 1, 0],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    size = check_count("block_size", block_size, least=1)
    return Pattern(
        "adjacent_blocks",
        (("block_size", size),),
        keep=lambda i, j: (i // size - j // size).abs() <= 1,
    )


def global_tokens(count: int) -> Pattern:
    """The first ``count`` tokens meet everyone: keep i < g or j < g."""
    count = check_count("count", count, least=0)
    return Pattern(
        "global_tokens",
        (("count", count),),
        keep=lambda i, j: (i < count) | (j < count),
    )


def dilated(window: int, step: int) -> Pattern:
    """A window with gaps: keep |i - j| <= w * step where step divides i - j.

    As many keys as ``local(window)``, spread over ``step`` times the distance.
    """
    window = check_window(window)
    step = check_count("step", step, least=1)
    return Pattern(
        "dilated",
        (("window", window), ("step", step)),
        keep=lambda i, j: ((i - j).abs() <= window * step) & ((i - j) % step == 0),
    )


def strided(stride: int) -> Pattern:
    """Every ``stride``-th key, counted from the query: keep where stride | i - j.

    With ``causal() & (local(stride) | strided(stride))`` this is the strided
    pattern of the Sparse Transformer (Child et al., 2019).
    """
    stride = check_count("stride", stride, least=1)
    return Pattern(
        "strided", (("stride", stride),), keep=lambda i, j: (i - j) % stride == 0
    )


def random_blocks(
    block_size: int, num_blocks: int, count: int, seed: int = 0
) -> Pattern:
    """Each block of queries meets ``count`` blocks of keys, drawn once by ``seed``.

    The random part of BigBird (Zaheer et al., 2020). Defined for at most
    ``num_blocks * block_size`` tokens, since the draw needs the number of blocks.
    """
    size = check_count("block_size", block_size, least=1)
    blocks = check_count("num_blocks", num_blocks, least=1)
    count = check_count("count", count, least=0)
    if count > blocks:
        raise ValueError(f"count must be at most num_blocks={blocks}, got {count}")
    seed = check_count("seed", seed, least=0)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(blocks, blocks, generator=generator).argsort(1)[:, :count]
    table = torch.zeros(blocks, blocks, dtype=torch.bool).scatter_(1, drawn, True)
    return Pattern(
        "random_blocks",
        (
            ("block_size", size),
            ("num_blocks", blocks),
            ("count", count),
            ("seed", seed),
        ),
        keep=lambda i, j: table.to(i.device)[i // size, j // size],
        max_length=size * blocks,
    )


def union(*patterns: Pattern) -> Pattern:
    """Keep a pair that any of the patterns keeps. Eq. (15).

    Example:
        >>> union(local(2), global_tokens(1))
        union(local(window=2), global_tokens(count=1))
    """
    return _combine("union", patterns, torch.logical_or)


def intersection(*patterns: Pattern) -> Pattern:
    """Keep a pair that all of the patterns keep. Eq. (15).

    Example:
        >>> causal() & local(2)
        intersection(causal(), local(window=2))
    """
    return _combine("intersection", patterns, torch.logical_and)


def _combine(name: str, patterns: tuple[Pattern, ...], operation: Callable) -> Pattern:
    if not patterns:
        raise ValueError(f"{name} needs at least one pattern, got none")
    for pattern in patterns:
        _check_pattern("patterns", pattern)

    def keep(i: Tensor, j: Tensor) -> Tensor:
        result = patterns[0].keep(i, j)
        for pattern in patterns[1:]:
            result = operation(result, pattern.keep(i, j))
        return result

    limits = [p.max_length for p in patterns if p.max_length is not None]
    return Pattern(
        name, parts=patterns, keep=keep, max_length=min(limits, default=None)
    )


def _check_pattern(name: str, pattern: Pattern) -> None:
    if not isinstance(pattern, Pattern):
        raise TypeError(f"{name} must be attn_tutorial patterns, got {pattern!r}")


def dense_mask(
    pattern: Pattern,
    n_q: int,
    n_k: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Write a pattern out as a matrix, for pictures and for the dense reference.

    Args:
        pattern: Which (query, key) pairs to keep.
        n_q: Number of queries, at positions 0 ... n_q - 1.
        n_k: Number of keys, at positions 0 ... n_k - 1; n_q if None.
        device: Where the mask is made; the CPU if None.

    Returns:
        Bool mask, shape (n_q, n_k); True = attend.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, is negative, or is
            longer than the pattern is defined for.

    Example:
        >>> dense_mask(causal(), 2, 3)
        tensor([[ True, False, False],
                [ True,  True, False]])
    """
    _check_pattern("pattern", pattern)
    n_q = check_count("n_q", n_q, least=0)
    n_k = n_q if n_k is None else check_count("n_k", n_k, least=0)
    limit = pattern.max_length
    for name, n in (("n_q", n_q), ("n_k", n_k)):
        if limit is not None and n > limit:
            raise ValueError(f"{name} must be at most {limit} for {pattern}, got {n}")
    i = torch.arange(n_q, device=device)[:, None]
    j = torch.arange(n_k, device=device)[None, :]
    return pattern.keep(i, j).expand(n_q, n_k)
