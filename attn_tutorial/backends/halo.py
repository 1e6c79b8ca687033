"""What a shard of a sequence needs from its neighbours: positions, plans, bytes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from attn_tutorial.checks import check_count
from attn_tutorial.patterns import Pattern, run

__all__ = [
    "Halo",
    "halo_bytes",
    "join_run",
    "pack",
    "plan_halo",
    "plan_runs",
    "shards_of",
    "unpack",
]


def pack(*parts: Tensor) -> Tensor:
    """Lay parts, each (..., n, d_i), side by side in one message, (n, ..., sum of d_i).

    A leading axis that is 1 in all parts stays 1: what heads share is sent once.

    >>> pack(torch.ones(2, 1, 5, 3), torch.ones(1, 1, 5, 4)).shape
    torch.Size([5, 2, 1, 7])
    """
    leading = torch.broadcast_shapes(*(x.shape[:-2] for x in parts))
    parts = [x.expand(*leading, *x.shape[-2:]) for x in parts]
    return torch.cat(parts, -1).movedim(-2, 0)


def unpack(tokens: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Take a message, (n, ..., sum of d_i), apart into views, each (..., n, d_i)."""
    return tokens.movedim(0, -2).split(widths, -1)


def cut(x: Tensor, part: range, start: int) -> Tensor:
    """View the rows at the positions `part` of x, which begins at position `start`."""
    return x[part.start - start :][: len(part)] if part else x[:0]


@dataclass(frozen=True)
class Halo:
    """The positions that one rank owns, needs, sends to and receives from each rank.

    What is received, in the order of the ranks, and `own` in its place, are the `run`.
    The queries at `inner` see none but own positions.
    """

    own: range
    run: range
    inner: range
    sent: tuple[range, ...]
    received: tuple[range, ...]

    @property
    def left(self) -> int:
        """Tokens of the run before the own ones."""
        return self.own.start - self.run.start

    @property
    def right(self) -> int:
        """Tokens of the run after the own ones."""
        return self.run.stop - self.own.stop


def shards_of(lengths: Sequence[int]) -> list[range]:
    """Positions of each rank's tokens.

    >>> shards_of([4, 2, 5])
    [range(0, 4), range(4, 6), range(6, 11)]
    """
    ends = accumulate(lengths)
    return [range(end - n, end) for n, end in zip(lengths, ends, strict=True)]


def plan_halo(lengths: Sequence[int], rank: int, pattern: Pattern) -> Halo:
    """Work out from the lengths of all shards what a rank sends and receives.

    Args:
        lengths: Tokens of each rank's shard.
        rank: Whose plan.
        pattern: Which keys a query meets: one run, that moves to the right with it, as
            of a window or of blocks, causal or not.

    >>> from attn_tutorial.patterns import local
    >>> halo = plan_halo([4, 2, 5], rank=0, pattern=local(3))
    >>> halo.run, halo.received  # rank 1 is too short: a token comes from rank 2
    (range(0, 7), (range(0, 0), range(4, 6), range(6, 7)))
    >>> halo.inner
    range(0, 1)
    """
    shards, seen = shards_of(lengths), partial(_seen, pattern, n=sum(lengths))
    runs = [seen(shard) for shard in shards]
    return plan_runs(shards, runs, rank, _inner(shards[rank], seen))


def plan_runs(
    shards: Sequence[range],
    runs: Sequence[range],
    rank: int,
    inner: range = range(0),
) -> Halo:
    """Plan from the run of tokens that each rank needs, its own among them."""
    own, seen = shards[rank], runs[rank]
    sent, received = [], []
    for other, (shard, needed) in enumerate(zip(shards, runs, strict=True)):
        sent.append(_overlap(own, needed) if other != rank else range(0))
        received.append(_overlap(shard, seen) if other != rank else range(0))
    return Halo(own, seen, inner, tuple(sent), tuple(received))


def _seen(pattern: Pattern, own: range, n: int) -> range:
    """The run of keys that queries meet, extended to the queries' own positions."""
    seen = run(pattern, own, n) or own
    return range(min(seen.start, own.start), max(seen.stop, own.stop))


def _inner(own: range, seen: Callable[[range], range]) -> range:
    """Own positions that see none but own ones; the farther right, the farther seen."""
    first = bisect_left(own, own.start, key=lambda i: seen(range(i, i + 1)).start)
    stop = bisect_right(own, own.stop, key=lambda i: seen(range(i, i + 1)).stop)
    return own[first:stop] if first < stop else own[:0]


def _overlap(a: range, b: range) -> range:
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    return range(start, stop) if start < stop else range(0)


def join_run(x: Tensor, received: Tensor, halo: Halo) -> Tensor:
    """Put the own tokens x, (n_r, ...), between the two sides of the halo."""
    return torch.cat([received[: halo.left], x, received[halo.left :]])


def counts(parts: tuple[range, ...]) -> list[int]:
    """How many tokens each part has."""
    return [len(part) for part in parts]


def halo_bytes(
    lengths: Sequence[int],
    numbers: int,
    pattern: Pattern,
    *,
    backward: bool = False,
    bytes_per_number: int = 4,
) -> list[int]:
    """Bytes that each rank sends in a pass of context-parallel attention.

    Eq. (19): the keys and values of w tokens to each neighbour. So with a window w no
    longer than a shard a rank in the middle sends 2w tokens, w if causal, and one at
    an end w: nothing depends on n. The backward pass sends a gradient for every message
    the opposite way, so all ranks together send the same again. The exchange of the
    lengths, a few integers a rank, is not counted.

    Args:
        lengths: Tokens of each rank's shard.
        numbers: Numbers in a token's keys and values: batch * heads * (d + d_v) with
            the heads of keys; with key_keep, batch * heads * (d + d_v + 1).
        pattern: A window or adjacent blocks, with or without `& causal()`.
        backward: Count the backward pass, not the forward pass.
        bytes_per_number: 4 for float32, 2 for bfloat16.

    Returns:
        One count for each rank.

    Raises:
        TypeError: If pattern is no pattern, or a number is no integer.
        ValueError: If a number is too small.

    >>> from attn_tutorial.patterns import local
    >>> halo_bytes([1000, 1000, 1000, 1000], numbers=128, pattern=local(10))
    [5120, 10240, 10240, 5120]
    """
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    token = check_count("numbers", numbers, least=1)
    token *= check_count("bytes_per_number", bytes_per_number, least=1)
    plans = [plan_halo(lengths, rank, pattern) for rank in range(len(lengths))]
    parts = [plan.received if backward else plan.sent for plan in plans]
    return [token * sum(counts(part)) for part in parts]
