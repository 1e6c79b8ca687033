r"""Local and block attention over a sequence that lies on several devices.

Each rank of a ``torch.distributed`` group holds one contiguous piece of the sequence,
its shard, and computes the output of its own tokens. A window of w tokens reaches at
most w tokens into the shards beside it, its halo: that is all a rank has to receive,
however long the sequence. The backward pass sends the gradients of the halo back to
their owners, who add them. The shards may differ in length, be shorter than the halo
(then it comes from further ranks too), or be empty.

The same program runs on CPUs (gloo) and GPUs (nccl). A script ``train.py`` with ::

    from datetime import timedelta
    import torch.distributed as dist
    from attn_tutorial.backends.context_parallel import context_local_attention

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    q, k, v = ...  # this rank's tokens, (..., its number of tokens, d)
    output = context_local_attention(q, k, v, window=256)
    output.square().mean().backward()
    dist.destroy_process_group()

is started as four processes on one machine, or as eight on each of two::

    torchrun --standalone --nproc-per-node 4 train.py
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d \
        --rdzv-endpoint FIRST_MACHINE:29500 train.py

with the last command given on both machines. For GPUs write "nccl", and call
``torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))`` first.

All ranks have to make the same calls, forward and backward, in the same order. If one
dies or falls out of step, the others raise an error at the latest after the group's
timeout; with nccl it ends their processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn_tutorial.checks import (
    check_block,
    check_count,
    check_qkv,
    check_same_length,
    check_window,
)
from attn_tutorial.local import local_attention
from attn_tutorial.sparse import sparse_attention

__all__ = [
    "Halo",
    "HaloExchange",
    "block_reach",
    "context_local_attention",
    "context_sparse_attention",
    "halo_bytes",
    "plan_halo",
    "ring_bytes",
    "window_reach",
]

Reach = Callable[[range, int], range]


def context_local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    *,
    causal: bool = False,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
) -> Tensor:
    """Local attention, Eq. (2), of this rank's part of a sequence on several ranks.

    Positions are those of the whole sequence: the shards in the order of the ranks.
    A rank receives w tokens from each side (if causal, from the left only) and
    computes as many rows more than it keeps: those of the halo.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d).
        v: Values of the shard, shape (..., n_r, d_v).
        window: w >= 0, how far a query sees to each side; the same on all ranks.
        causal: Also forbid the keys after the query.
        lengths: n_r of all ranks in order. Without it they are exchanged in each call,
            and the ranks check that all else is the same.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v).

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or window is
            no integer.
        ValueError: If shapes do not fit, window < 0, lengths do not fit the group, or
            the ranks disagree.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    window = check_window(window)
    routine = partial(local_attention, window=window, causal=causal, scale=scale)
    reach = partial(window_reach, window=window, causal=causal)
    return _attend(routine, reach, q, k, v, lengths, group)


def context_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    causal: bool = False,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
) -> Tensor:
    """Block attention, Eq. (3), of this rank's part of a sequence on several ranks.

    Blocks are those of the whole sequence: they may cross the borders of shards. A rank
    receives what it lacks of its own blocks and of the blocks beside them, and computes
    as many rows more than it keeps.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d).
        v: Values of the shard, shape (..., n_r, d_v).
        block_size: b, tokens in a block; the same on all ranks.
        causal: Also forbid the keys after the query.
        lengths: n_r of all ranks in order. Without it they are exchanged in each call,
            and the ranks check that all else is the same.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v).

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or block_size
            is no integer.
        ValueError: If shapes do not fit, block_size < 1, lengths do not fit the group,
            or the ranks disagree.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    b = check_block(0, None, block_size)
    routine = partial(sparse_attention, block_size=b, causal=causal, scale=scale)
    reach = partial(block_reach, block_size=b, causal=causal)
    return _attend(routine, reach, q, k, v, lengths, group)


def _attend(
    routine: Callable[..., Tensor],
    reach: partial[range],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int] | None,
    group: torch.distributed.ProcessGroup | None,
) -> Tensor:
    """Fetch the halo, apply the routine for one device to the run, keep the own rows.

    Seen from the shard's rows nothing is missing: the run ends where they see no more.
    """
    check_qkv(q, k, v)
    check_same_length(q, k)
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError(f"group must contain this process, got {group!r}")
    if lengths is None:
        lengths = _exchange_lengths(k, v, reach.keywords, group)
    else:
        lengths = _check_lengths(lengths, rank, q.shape[-2], dist.get_world_size(group))
    halo = plan_halo(lengths, rank, reach)
    tokens = torch.cat([k, v], -1).movedim(-2, 0)  # (n_r, ..., d + d_v): one message
    run = HaloExchange.apply(tokens, halo, group).movedim(0, -2)
    k, v = (x.contiguous() for x in run.split([k.shape[-1], v.shape[-1]], -1))
    output = routine(F.pad(q, (0, 0, halo.left, halo.right)), k, v)
    return output[..., halo.left : halo.left + len(halo.own), :]


def _check_lengths(lengths: Sequence[int], rank: int, n: int, ranks: int) -> list[int]:
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    if len(lengths) != ranks or lengths[rank] != n:
        raise ValueError(
            f"lengths must hold one length for each of {ranks} ranks, "
            f"{n} for rank {rank}, got {lengths}"
        )
    return lengths


def _exchange_lengths(
    k: Tensor, v: Tensor, settings: dict[str, int], group
) -> list[int]:
    """Tell all ranks this one's n and settings; return all n, refuse other settings."""
    leading = k.shape[:-2].numel()
    grad = torch.is_grad_enabled() and (k.requires_grad or v.requires_grad)
    settings = settings | {"leading size": leading, "d": k.shape[-1]}
    settings |= {"d_v": v.shape[-1], "bytes of a number": k.itemsize, "grad": grad}
    own = torch.tensor([k.shape[-2], *map(int, settings.values())], device=k.device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    lengths, *columns = torch.stack(every, -1).tolist()
    for name, column in zip(settings, columns, strict=True):
        if len(set(column)) > 1:
            raise ValueError(f"{name} must be the same on all ranks, got {column}")
    return lengths


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
    """

    own: range
    run: range
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
    """
    ends = list(accumulate(lengths))
    shards = [range(end - n, end) for n, end in zip(lengths, ends, strict=True)]
    runs = [reach(shard, ends[-1]) for shard in shards]
    own, run = shards[rank], runs[rank]
    sent, received = [], []
    for other, (shard, needed) in enumerate(zip(shards, runs, strict=True)):
        sent.append(_overlap(own, needed) if other != rank else range(0))
        received.append(_overlap(shard, run) if other != rank else range(0))
    return Halo(own, run, tuple(sent), tuple(received))


def _overlap(a: range, b: range) -> range:
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    return range(start, stop) if start < stop else range(0)


class HaloExchange(torch.autograd.Function):
    """Shard in, run out: the halo comes from its owners, its gradient goes back."""

    @staticmethod
    def forward(
        x: Tensor, halo: Halo, group: torch.distributed.ProcessGroup | None
    ) -> Tensor:
        """Map the own tokens, (n_r, ...), to those of the run, (left + n_r + right)."""
        sent = torch.cat([_rows(x, part, halo) for part in halo.sent])
        received = _exchange(sent, halo.sent, halo.received, group)
        return torch.cat([received[: halo.left], x, received[halo.left :]])

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the plan: the way back is the same."""
        _, ctx.halo, ctx.group = inputs

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        """Send the halo's gradients to their owners, and add what others send."""
        halo = ctx.halo
        before, own, after = grad.split([halo.left, len(halo.own), halo.right])
        halo_grad = torch.cat([before, after])
        received = _exchange(halo_grad, halo.received, halo.sent, ctx.group)
        total, parts = own.clone(), received.split(_counts(halo.sent))
        for part, more in zip(halo.sent, parts, strict=True):
            _rows(total, part, halo).add_(more)
        return total, None, None


def _rows(x: Tensor, part: range, halo: Halo) -> Tensor:
    """View the rows of x, the own tokens, at the positions `part`."""
    return x[part.start - halo.own.start :][: len(part)] if part else x[:0]


def _counts(parts: tuple[range, ...]) -> list[int]:
    return [len(part) for part in parts]


def _exchange(x: Tensor, sent: tuple, received: tuple, group) -> Tensor:
    """Send the first len(sent[0]) rows of x to rank 0, the next to rank 1, ..."""
    result = x.new_empty(sum(_counts(received)), *x.shape[1:])
    splits = _counts(received), _counts(sent)
    dist.all_to_all_single(result, x.contiguous(), *splits, group=group)
    return result


def halo_bytes(
    lengths: Sequence[int],
    numbers: int,
    *,
    window: int | None = None,
    block_size: int | None = None,
    causal: bool = False,
    bytes_per_number: int = 4,
) -> list[int]:
    """Bytes that each rank sends in a forward pass of context-parallel attention.

    With a window w no longer than a shard, a rank in the middle sends 2w tokens, w if
    causal: nothing depends on n. The backward pass sends a gradient for every message
    the opposite way, so all ranks together send the same again. The exchange of the
    lengths, eight integers a rank, is not counted.

    Args:
        lengths: Tokens of each rank's shard.
        numbers: Numbers in a token's keys and values: batch * heads * (d + d_v).
        window: w, for local attention.
        block_size: b, for block attention, instead of window.
        causal: Whether no key after the query is seen.
        bytes_per_number: 4 for float32, 2 for bfloat16.

    Returns:
        One count for each rank.

    Raises:
        TypeError: If not exactly one of window and block_size is given.
        ValueError: If an argument is too small.

    >>> halo_bytes([1000, 1000, 1000, 1000], numbers=128, window=10)
    [5120, 10240, 10240, 5120]
    """
    reach = _reach(window, block_size, causal)
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    token = _token_bytes(numbers, bytes_per_number)
    plans = [plan_halo(lengths, rank, reach) for rank in range(len(lengths))]
    return [token * sum(_counts(plan.sent)) for plan in plans]


def _reach(window: int | None, block_size: int | None, causal: bool) -> Reach:
    if (window is None) == (block_size is None):
        raise TypeError(
            "give exactly one of window and block_size, "
            f"got window={window!r} and block_size={block_size!r}"
        )
    if window is not None:
        return partial(window_reach, window=check_window(window), causal=causal)
    b = check_block(0, None, block_size)
    return partial(block_reach, block_size=b, causal=causal)


def _token_bytes(numbers: int, bytes_per_number: int) -> int:
    numbers = check_count("numbers", numbers, least=1)
    return numbers * check_count("bytes_per_number", bytes_per_number, least=1)


def ring_bytes(
    lengths: Sequence[int], numbers: int, *, bytes_per_number: int = 4
) -> list[int]:
    """Bytes that each rank sends in a forward pass if every shard goes around a ring.

    So works ring attention, which drops a shard when it has passed it on, and so works
    an all-gather around a ring, which keeps all. A rank passes on every shard except
    that of the next rank, where it would come home: n - n_(r+1) tokens.

    Args:
        lengths: Tokens of each rank's shard.
        numbers: Numbers in a token's keys and values: batch * heads * (d + d_v).
        bytes_per_number: 4 for float32, 2 for bfloat16.

    Returns:
        One count for each rank.

    >>> ring_bytes([1000, 1000, 1000, 1000], numbers=128)
    [1536000, 1536000, 1536000, 1536000]
    """
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    token = _token_bytes(numbers, bytes_per_number)
    following = [*lengths[1:], *lengths[:1]]
    return [token * (sum(lengths) - n) for n in following]
