"""The package's patterns through PyTorch's FlexAttention.

FlexAttention cuts the score matrix into blocks. A table tells it which blocks to
visit, and which of them are full, so that they need no mask inside. PyTorch builds
the table from a mask of n * n; here it is computed from the pattern, block by block:

1. A rule for each pattern says whether a block is empty, partial or full, from the
   first and last position of its queries and keys (`RULES`).
2. Unions and intersections combine the states of their parts (`combine`).
3. Blocks that stay undecided are written out, a few at a time (`decide`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import lru_cache, reduce
from types import FunctionType
from typing import NamedTuple

import torch
from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.checks import (
    check_count,
    check_key_keep,
    check_qkv,
    check_same_length,
    check_scale,
)
from attn_tutorial.patterns import Pattern

__all__ = ["block_mask", "block_states", "flex_attention"]

EMPTY, PARTIAL, FULL, UNDECIDED = range(4)
WRITTEN_OUT = 2**22  # pairs of undecided blocks that are in memory at once


class Span(NamedTuple):
    """First and last position of each block: queries (m, 1), keys (m,)."""

    first: Tensor
    last: Tensor


def flex_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    block_size: int = 128,
    compiled: bool = True,
) -> Tensor:
    """Attention over a pattern, computed by FlexAttention.

    The first call for a pattern and shape builds the block table and compiles a
    kernel, which takes seconds; both are kept for later calls (the 64 last used).

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        pattern: Which (query, key) pairs attend.
        key_keep: bool, broadcastable to (..., n), False = padding, never attended.
        scale: Factor of the scores, by default 1 / sqrt(d).
        block_size: Tokens in a block of the table.
        compiled: False runs PyTorch's unfused form, which holds all n * n scores and
            ignores the block table: a check on the mask, never a fast path.

    Returns:
        Shape (..., n, d_v). A query with no key left gets zeros.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.
        NotImplementedError: If gradients are asked for where FlexAttention has no
            backward pass (CPU and MPS).
        RuntimeError: If PyTorch's FlexAttention is missing or too old.

    Example:
        >>> q = torch.randn(2, 8, 100, 16)
        >>> flex_attention(q, q, q, patterns.local(10), compiled=False).shape
        torch.Size([2, 8, 100, 16])
    """
    check_qkv(q, k, v)
    check_key_keep(key_keep, k)
    n = check_same_length(q, k)
    check_pattern(pattern, n)
    check_kernel(q, k, v, compiled)
    settings = Settings(
        pattern,
        foreign(pattern),
        check_count("block_size", block_size, least=1),
        check_scale(scale, q.shape[-1]),
        bool(compiled),
    )
    if q.numel() == 0 or v.numel() == 0:
        return q.new_zeros(*q.shape[:-1], v.shape[-1])
    if key_keep is not None:
        key_keep = four_dimensions(key_keep.expand(q.shape[:-1])[..., None])[..., 0]
    flat = [four_dimensions(x) for x in (q, k, v)]
    kind = (*(x.shape for x in flat), q.dtype, q.device, key_keep is None)
    output = routine(settings, n, q.device, kind)(*flat, key_keep)
    return output.reshape(*q.shape[:-1], v.shape[-1])


def block_mask(
    pattern: Pattern,
    n: int,
    *,
    block_size: int = 128,
    device: torch.device | str | None = None,
):
    """A pattern as FlexAttention wants it: its block table and its `mask_mod`.

    Holds some tables of (n / block_size)^2 integers, never anything of n * n. The
    `mask_mod` is always there: the unfused form of FlexAttention reads nothing else.

    Args:
        pattern: Which (query, key) pairs attend.
        n: Number of queries and of keys.
        block_size: Tokens in a block.
        device: Where the table is made; the CPU if None.

    Returns:
        The `BlockMask` that `torch.nn.attention.flex_attention` takes.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, is below 1, or n is
            longer than the pattern is defined for.
        RuntimeError: If PyTorch's FlexAttention is missing or too old.

    Example:
        >>> mask = block_mask(patterns.adjacent_blocks(64), 256, block_size=64)
        >>> mask.kv_num_blocks.tolist(), mask.full_kv_num_blocks.tolist()
        ([[[0, 0, 0, 0]]], [[[2, 3, 3, 2]]])
    """
    states = block_states(pattern, n, block_size=block_size, device=device)
    return flex_module().BlockMask.from_kv_blocks(
        *listed(states == PARTIAL),
        *listed(states == FULL),
        BLOCK_SIZE=block_size,
        mask_mod=pattern,
        seq_lengths=(n, n),
    )


def block_states(
    pattern: Pattern,
    n: int,
    *,
    block_size: int = 128,
    device: torch.device | str | None = None,
) -> Tensor:
    """Say of each block of the score matrix how many of its pairs attend.

    Args:
        pattern: Which (query, key) pairs attend.
        n: Number of queries and of keys.
        block_size: Tokens in a block; a block that reaches beyond n is never full.
        device: Where the table is made; the CPU if None.

    Returns:
        uint8, shape (m, m) for m = ceil(n / block_size); 0 where a block is empty,
        1 where it is partial, 2 where it is full.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, is below 1, or n is
            longer than the pattern is defined for.

    Example:
        >>> block_states(patterns.causal(), 6, block_size=2)
        tensor([[1, 0, 0],
                [2, 1, 0],
                [2, 2, 1]], dtype=torch.uint8)
    """
    n = check_count("n", n, least=1)
    size = check_count("block_size", block_size, least=1)
    check_pattern(pattern, n)
    first = torch.arange(0, n, size, dtype=torch.int32, device=device)
    last = (first + size - 1).clamp(max=n - 1)
    states = classify(pattern, Span(first[:, None], last[:, None]), Span(first, last))
    decide(states, pattern, n, size)
    if n % size:
        states[-1].clamp_(max=PARTIAL)
        states[:, -1].clamp_(max=PARTIAL)
    return states


# The states of blocks


def classify(pattern: Pattern, i: Span, j: Span) -> Tensor:
    """State of each block as far as rules tell, (m, m)."""
    if pattern.name == "union":
        parts = [classify(part, i, j) for part in pattern.parts]
        return reduce(lambda a, b: combine(a, b, neutral=EMPTY, absorbing=FULL), parts)
    if pattern.name == "intersection":
        parts = [classify(part, i, j) for part in pattern.parts]
        return reduce(lambda a, b: combine(a, b, neutral=FULL, absorbing=EMPTY), parts)
    if pattern.name not in RULES:
        shape = (len(i.first), len(j.first))
        return i.first.new_full(shape, UNDECIDED, dtype=torch.uint8)
    some, every = RULES[pattern.name](i, j, **dict(pattern.parameters))
    return some.byte() + every.byte()


def combine(a: Tensor, b: Tensor, neutral: int, absorbing: int) -> Tensor:
    """States of a union (neutral: empty, absorbing: full) or an intersection.

    A neutral part leaves the other as it is, an absorbing part decides. Two partial
    parts may overlap in any way, so that their blocks stay undecided.
    """
    both = torch.full_like(a, UNDECIDED)
    both = torch.where(a == neutral, b, torch.where(b == neutral, a, both))
    return both.masked_fill_((a == absorbing) | (b == absorbing), absorbing)


def decide(states: Tensor, pattern: Pattern, n: int, size: int) -> None:
    """Write undecided blocks out, at most as many at once as a row of blocks has."""
    rows, columns = (states == UNDECIDED).nonzero(as_tuple=True)
    at_once = max(1, min(len(states), WRITTEN_OUT // size**2))
    inside = torch.arange(size, device=states.device)
    for r, c in zip(rows.split(at_once), columns.split(at_once), strict=True):
        i, j = ((x[:, None] * size + inside).clamp(max=n - 1) for x in (r, c))
        keep = pattern.keep(i[:, :, None], j[:, None, :])  # (blocks, size, size)
        keep = keep.expand(len(r), size, size).flatten(1)
        states[r, c] = keep.any(1).byte() + keep.all(1).byte()


# A rule returns two tables: is any pair of the block kept, and are all of them?


def full_rule(i: Span, j: Span) -> tuple[Tensor, Tensor]:
    """Every block is full."""
    every = (i.first >= 0) & (j.first >= 0)
    return every, every


def causal_rule(i: Span, j: Span) -> tuple[Tensor, Tensor]:
    """Keys at or before the query: j <= i for some pair, and for all pairs."""
    return j.first <= i.last, j.last <= i.first


def local_rule(i: Span, j: Span, window: int) -> tuple[Tensor, Tensor]:
    """The nearest, and the farthest pair are at most `window` apart."""
    nearest = torch.maximum(j.first - i.last, i.first - j.last)
    farthest = torch.maximum(j.last - i.first, i.last - j.first)
    return nearest <= window, farthest <= window


def adjacent_rule(i: Span, j: Span, block_size: int) -> tuple[Tensor, Tensor]:
    """A window of one, counted in the pattern's own blocks."""
    i, j = (Span(x.first // block_size, x.last // block_size) for x in (i, j))
    return local_rule(i, j, window=1)


def global_rule(i: Span, j: Span, count: int) -> tuple[Tensor, Tensor]:
    """The first, and the last query or key of the block are global."""
    some = (i.first < count) | (j.first < count)
    return some, (i.last < count) | (j.last < count)


RULES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "full": full_rule,
    "causal": causal_rule,
    "local": local_rule,
    "adjacent_blocks": adjacent_rule,
    "global_tokens": global_rule,
}


def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Count the chosen blocks of each row, (1, 1, m), and list them, (1, 1, m, m)."""
    columns = chosen.byte().argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1)[None, None].int(), columns[None, None].int()


# PyTorch's function, compiled once for each use


class Settings(NamedTuple):
    """What a compiled routine is made for, besides its inputs' shapes."""

    pattern: Pattern
    predicates: tuple[Callable, ...]
    block_size: int
    scale: float
    compiled: bool


@lru_cache(maxsize=64)
def routine(settings: Settings, n: int, device: torch.device, kind: tuple) -> Callable:
    """FlexAttention with its mask, for inputs of one `kind`: shapes, dtype, padding.

    PyTorch stops compiling a function after eight kinds of inputs. Each routine is
    therefore a function of its own.
    """
    flex, scale, size = (
        flex_module().flex_attention,
        settings.scale,
        settings.block_size,
    )
    with torch.inference_mode(False):  # the table may serve a backward pass later
        mask = block_mask(settings.pattern, n, block_size=size, device=device)

    def attend(q: Tensor, k: Tensor, v: Tensor, key_keep: Tensor | None) -> Tensor:
        def without_padding(score, b, h, i, j):
            return torch.where(key_keep[b, h, j], score, -float("inf"))

        change = None if key_keep is None else without_padding
        return flex(q, k, v, score_mod=change, block_mask=mask, scale=scale)

    backend = "inductor" if settings.compiled else "eager"
    return torch.compile(with_own_code(attend), backend=backend, dynamic=False)


def with_own_code(function: Callable) -> Callable:
    """Copy a function and its code, since PyTorch counts what it compiles by code."""
    code, values = function.__code__.replace(), function.__globals__
    return FunctionType(code, values, function.__name__, None, function.__closure__)


def foreign(pattern: Pattern) -> tuple[Callable, ...]:
    """Predicates that no function of `patterns` made: their names do not tell them."""
    if pattern.parts:
        return sum((foreign(part) for part in pattern.parts), ())
    return () if pattern.name in patterns.__all__ else (pattern.keep,)


def four_dimensions(x: Tensor) -> Tensor:
    """View (..., n, d) as (batch, heads, n, d)."""
    *batch, heads = (1, 1, *x.shape[:-2])
    return x.reshape(math.prod(batch), heads, *x.shape[-2:])


# Checks


def check_pattern(pattern: Pattern, n: int) -> None:
    """Check that it is a pattern, and one that is defined for n tokens."""
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be an attn_tutorial pattern, got {pattern!r}")
    limit = pattern.max_length
    if limit is not None and n > limit:
        raise ValueError(f"n must be at most {limit} for {pattern}, got {n}")


def check_kernel(q: Tensor, k: Tensor, v: Tensor, compiled: bool) -> None:
    """Refuse what FlexAttention has no kernel for, before it is compiled."""
    if compiled and q.dtype == torch.float64:
        raise TypeError(
            "q must be float32, float16 or bfloat16 for a compiled kernel, "
            f"got {q.dtype}"
        )
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.requires_grad and x.device.type in ("cpu", "mps"):
            raise NotImplementedError(
                f"FlexAttention has no backward pass on {x.device.type}, but {name} "
                f"requires grad: pass {name}.detach(), or use at.local_attention or "
                "at.sparse_attention, which have one"
            )


def flex_module():
    """`torch.nn.attention.flex_attention`, if it has what is needed here."""
    version = f"this is PyTorch {torch.__version__}"
    try:
        from torch.nn.attention import flex_attention as module
    except ImportError:
        raise RuntimeError(f"FlexAttention needs PyTorch 2.5; {version}") from None
    accepted = inspect.signature(module.BlockMask.from_kv_blocks).parameters
    if "seq_lengths" not in accepted:
        raise RuntimeError(
            "FlexAttention needs a PyTorch whose BlockMask.from_kv_blocks takes "
            f"seq_lengths; {version}: install a newer one"
        )
    return module
