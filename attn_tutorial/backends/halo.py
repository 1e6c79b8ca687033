"""What a shard of a sequence needs from its neighbours: positions, plans, bytes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from attn_tutorial.checks import (
    check_block,
    check_count,
    check_radius,
)

__all__ = ["Halo", "block_reach", "halo_bytes", "join_run", "plan_halo", "window_reach"]

Reach = Callable[[range, int], range]


def cut(x: Tensor, part: range, start: int) -> Tensor:
    """View the rows at the positions `part` of x, which begins at position `start`."""
    return x[part.start - start :][: len(part)] if part else x[:0]


def window_reach(own: range, n: int, window: int, causal: bool = False) -> range:
    """Positions that the queries at the positions `own` see, of n in all.

    >>> window_reach(range(8, 12), n=14, window=3)
    range(5, 14)
    """
    if not own:
        return own
    stop = own.stop if causal else min(n, own.stop + window)
    return range(max(0, own.start - window), stop)


def block_reach(own: range, n: int, block_size: int, causal: bool = False) -> range:
    """The blocks of the positions `own` and the blocks beside them, of n.

    The run begins where a block begins; if causal, it ends with `own`.

    >>> block_reach(range(9, 10), n=100, block_size=4)
    range(4, 16)
    """
    if not own:
        return own
    first, last = own.start // block_size - 1, own[-1] // block_size + 1
    stop = own.stop if causal else min(n, (last + 1) * block_size)
    return range(max(0, first * block_size), stop)


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


def plan_halo(lengths: Sequence[int], rank: int, reach: Reach) -> Halo:
    """Work out from the lengths of all shards what a rank sends and receives.

    Args:
        lengths: Tokens of each rank's shard.
        rank: Whose plan.
        reach: Gives, for a range of positions and n, the range that they see.

    >>> reach = partial(window_reach, window=3)
    >>> halo = plan_halo([4, 2, 5], rank=0, reach=reach)
    >>> halo.run, halo.received  # rank 1 is too short: a token comes from rank 2
    (range(0, 7), (range(0, 0), range(4, 6), range(6, 7)))
    >>> halo.inner
    range(0, 1)
    """
    ends = list(accumulate(lengths))
    shards = [range(end - n, end) for n, end in zip(lengths, ends, strict=True)]
    runs = [reach(shard, ends[-1]) for shard in shards]
    own, run = shards[rank], runs[rank]
    sent, received = [], []
    for other, (shard, needed) in enumerate(zip(shards, runs, strict=True)):
        sent.append(_overlap(own, needed) if other != rank else range(0))
        received.append(_overlap(shard, run) if other != rank else range(0))
    inner = _inner(own, ends[-1], reach)
    return Halo(own, run, inner, tuple(sent), tuple(received))


def _inner(own: range, n: int, reach: Reach) -> range:
    """Own positions that see none but own ones; the farther right, the farther seen."""
    first = bisect_left(own, own.start, key=lambda i: reach(range(i, i + 1), n).start)
    stop = bisect_right(own, own.stop, key=lambda i: reach(range(i, i + 1), n).stop)
    return own[first:stop] if first < stop else own[:0]


def _overlap(a: range, b: range) -> range:
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    return range(start, stop) if start < stop else range(0)


def join_run(x: Tensor, received: Tensor, halo: Halo) -> Tensor:
    """Put the own tokens x, (n_r, ...), between the two sides of the halo."""
    return torch.cat([received[: halo.left], x, received[halo.left :]])


def counts(parts: tuple[range, ...]) -> list[int]:
    return [len(part) for part in parts]


def halo_bytes(
    lengths: Sequence[int],
    numbers: int,
    *,
    window: int | None = None,
    block_size: int | None = None,
    causal: bool = False,
    backward: bool = False,
    bytes_per_number: int = 4,
) -> list[int]:
    """Bytes that each rank sends in a pass of context-parallel attention.

    Eq. (17): the keys and values of w tokens to each neighbour. So with a window w no
    longer than a shard a rank in the middle sends 2w tokens, w if causal, and one at
    an end w: nothing depends on n. The backward pass sends a gradient for every message
    the opposite way, so all ranks together send the same again. The exchange of the
    lengths, nine integers a rank, is not counted.

    Args:
        lengths: Tokens of each rank's shard.
        numbers: Numbers in a token's keys and values: batch * heads * (d + d_v); with
            key_keep, batch * heads * (d + d_v + 1).
        window: w, for local attention.
        block_size: b, for block attention, instead of window.
        causal: Whether no key after the query is seen.
        backward: Count the backward pass, not the forward pass.
        bytes_per_number: 4 for float32, 2 for bfloat16.

    Returns:
        One count for each rank.

    Raises:
        TypeError: If not exactly one of window and block_size is given.
        ValueError: If an argument is too small.

    >>> halo_bytes([1000, 1000, 1000, 1000], numbers=128, window=10)
    [5120, 10240, 10240, 5120]
    """
    reach = reach_of(window, block_size, causal)
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    token = check_count("numbers", numbers, least=1)
    token *= check_count("bytes_per_number", bytes_per_number, least=1)
    plans = [plan_halo(lengths, rank, reach) for rank in range(len(lengths))]
    parts = [plan.received if backward else plan.sent for plan in plans]
    return [token * sum(counts(part)) for part in parts]


def reach_of(window: int | None, block_size: int | None, causal: bool) -> Reach:
    if (window is None) == (block_size is None):
        raise TypeError(
            "give exactly one of window and block_size, "
            f"got window={window!r} and block_size={block_size!r}"
        )
    if window is not None:
        return partial(window_reach, window=check_radius(window), causal=causal)
    b = check_block(0, None, block_size)
    return partial(block_reach, block_size=b, causal=causal)
