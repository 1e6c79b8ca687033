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
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id 1 --rdzv-backend c10d \
        --rdzv-endpoint FIRST_MACHINE:29500 train.py

with the last command given on both machines. For GPUs write "nccl", and call
``torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))`` first.

All ranks have to make the same calls, forward and backward, in the same order. If one
dies or falls out of step, the others raise an error at the latest after the group's
timeout; with nccl it ends their processes. The tests run on CPUs, with gloo: nothing
here has been run with nccl yet.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn_tutorial.checks import (
    check_block,
    check_count,
    check_key_keep,
    check_qkv,
    check_same_length,
    check_window,
)
from attn_tutorial.local import local_attention
from attn_tutorial.sparse import sparse_attention

__all__ = [
    "Exchange",
    "Halo",
    "ReceiveHalo",
    "SendHalo",
    "SentBytes",
    "agree_on_lengths",
    "block_reach",
    "context_local_attention",
    "context_sparse_attention",
    "halo_bytes",
    "join_run",
    "plan_halo",
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
    key_keep: Tensor | None = None,
    overlap: bool = False,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
) -> Tensor:
    """Local attention, Eq. (2), of this rank's part of a sequence on several ranks.

    Positions are those of the whole sequence: the shards in the order of the ranks.
    A rank receives w tokens from each side (if causal, from the left only) and
    computes as many rows more than it keeps: those of the halo, and with overlap
    three times as many.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d).
        v: Values of the shard, shape (..., n_r, d_v).
        window: w >= 0, how far a query sees to each side; the same on all ranks.
        causal: Also forbid the keys after the query.
        key_keep: Of the shard's keys: bool, broadcastable to (..., n_r), False =
            padding, never attended.
        overlap: Compute the rows that see no halo while it travels. That is worth the
            more rows if the halo is large and the link slow.
        lengths: n_r of all ranks in order. Without it they are exchanged in each call,
            and the ranks check that shapes and pattern (not scale) are the same.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v).

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or window is
            no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, window < 0, lengths do not fit the group, or
            the ranks disagree.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    window = check_window(window)
    routine = partial(local_attention, window=window, causal=causal, scale=scale)
    reach = partial(window_reach, window=window, causal=causal)
    return _attend(routine, reach, q, k, v, key_keep, overlap, lengths, group)


def context_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    causal: bool = False,
    key_keep: Tensor | None = None,
    overlap: bool = False,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
) -> Tensor:
    """Block attention, Eq. (3), of this rank's part of a sequence on several ranks.

    Blocks are those of the whole sequence: they may cross the borders of shards. A rank
    receives what it lacks of its own blocks and of the blocks beside them, and computes
    as many rows more than it keeps, and with overlap a few times as many.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d).
        v: Values of the shard, shape (..., n_r, d_v).
        block_size: b, tokens in a block; the same on all ranks.
        causal: Also forbid the keys after the query.
        key_keep: Of the shard's keys: bool, broadcastable to (..., n_r), False =
            padding, never attended.
        overlap: Compute the rows that see no halo while it travels. That is worth the
            more rows if the halo is large and the link slow.
        lengths: n_r of all ranks in order. Without it they are exchanged in each call,
            and the ranks check that shapes and pattern (not scale) are the same.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v).

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or block_size
            is no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, block_size < 1, lengths do not fit the group,
            or the ranks disagree.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    b = check_block(0, None, block_size)
    routine = partial(sparse_attention, block_size=b, causal=causal, scale=scale)
    reach = partial(block_reach, block_size=b, causal=causal)
    return _attend(routine, reach, q, k, v, key_keep, overlap, lengths, group)


def _attend(
    routine: Callable[..., Tensor],
    reach: partial[range],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_keep: Tensor | None,
    overlap: bool,
    lengths: Sequence[int] | None,
    group: torch.distributed.ProcessGroup | None,
) -> Tensor:
    """Fetch the halo; in between, or else then, compute the rows that do without it."""
    check_qkv(q, k, v)
    check_same_length(q, k)
    check_key_keep(key_keep, k)
    settings = reach.keywords | {"key_keep": key_keep is not None}
    lengths = agree_on_lengths(lengths, k, v, settings, group)
    halo = plan_halo(lengths, dist.get_rank(group), reach)
    tokens, widths = _pack(k, v, key_keep)
    exchange, own = Exchange(halo, group), halo.own
    inner = halo.inner if overlap else own[:0]
    q = F.pad(q, (0, 0, halo.left, halo.right))  # as long as the run
    rows = partial(_rows_of, routine, partial(reach, n=sum(lengths)), halo, q, widths)

    arriving = SendHalo.apply(tokens, exchange)
    middle = rows(inner, tokens, own.start)  # while the halo travels
    run = join_run(tokens, ReceiveHalo.apply(arriving, exchange), halo)
    first = rows(range(own.start, inner.start), run, halo.run.start)
    last = rows(range(inner.stop, own.stop), run, halo.run.start)
    return torch.cat([first, middle, last], -2)


def _rows_of(
    routine: Callable[..., Tensor],
    reach: partial[range],
    halo: Halo,
    q: Tensor,
    widths: list[int],
    part: range,
    tokens: Tensor,
    start: int,
) -> Tensor:
    """Output at the positions `part`, from tokens at start, start + 1, ...

    The routine for one device is given the run that `part` sees, and knows no more:
    seen from `part` nothing is missing. Its other rows are thrown away.
    """
    run = reach(part)
    queries = _cut(q.movedim(-2, 0), run, halo.run.start).movedim(0, -2)
    k, v, key_keep = _unpack(_cut(tokens, run, start), widths)
    output = routine(queries, k, v, key_keep=key_keep)
    return output[..., part.start - run.start :, :][..., : len(part), :]


def _cut(x: Tensor, part: range, start: int) -> Tensor:
    """View the rows at the positions `part` of x, which begins at position `start`."""
    return x[part.start - start :][: len(part)] if part else x[:0]


def _pack(k: Tensor, v: Tensor, key_keep: Tensor | None) -> tuple[Tensor, list[int]]:
    """Keys, values and key_keep as one message, (n_r, ..., d + d_v (+ 1)); widths."""
    parts = [k, v]
    if key_keep is not None:
        parts.append(key_keep[..., None].expand(*k.shape[:-1], 1).to(k.dtype))
    return torch.cat(parts, -1).movedim(-2, 0), [part.shape[-1] for part in parts]


def _unpack(tokens: Tensor, widths: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    k, v, *keep = tokens.movedim(0, -2).split(widths, -1)
    return k.contiguous(), v.contiguous(), keep[0][..., 0].bool() if keep else None


def agree_on_lengths(
    lengths: Sequence[int] | None,
    k: Tensor,
    v: Tensor,
    settings: dict[str, int],
    group: torch.distributed.ProcessGroup | None,
) -> list[int]:
    """Tokens of all ranks: those given, or what the ranks tell each other.

    Raises:
        ValueError: If this process is not in the group, or lengths do not fit, or the
            ranks disagree about settings or the rest of the shapes.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ValueError(f"group must contain this process, got {group!r}")
    if lengths is None:
        return _exchange_lengths(k, v, settings, group)
    lengths, n = [check_count("lengths", n, least=0) for n in lengths], k.shape[-2]
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


class SentBytes:
    """Counts the bytes that this process hands over for other ranks, in a with block.

    Backward passes inside the block count too. The exchange of the lengths does not.

    Attributes:
        bytes: The count so far.

    >>> with SentBytes() as sent:
    ...     pass
    >>> sent.bytes
    0
    """

    _open: ClassVar[list[SentBytes]] = []

    def __init__(self):
        self.bytes = 0

    def __enter__(self) -> SentBytes:
        SentBytes._open.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        SentBytes._open.remove(self)

    @classmethod
    def count(cls, x: Tensor) -> None:
        """Add the size of x, which is about to be sent, to all open counts."""
        for sent in cls._open:
            sent.bytes += x.nbytes


class Exchange:
    """A message to every rank and one from each, on their way while others compute.

    What leaves and what arrives is kept until `wait`, so that its memory is not given
    to another tensor while it is sent or filled.
    """

    def __init__(self, halo: Halo, group: torch.distributed.ProcessGroup | None):
        self.halo, self.group = halo, group
        self._arriving = self._leaving = self._work = None

    def start(self, x: Tensor, sent: tuple, received: tuple) -> Tensor:
        """Send the first len(sent[0]) rows of x to rank 0, the next to rank 1, ...

        The result is filled when `wait` returns, not before.
        """
        SentBytes.count(x)
        self._leaving = x.contiguous()
        self._arriving = x.new_empty(sum(_counts(received)), *x.shape[1:])
        splits = _counts(received), _counts(sent)
        self._work = dist.all_to_all_single(
            self._arriving, self._leaving, *splits, group=self.group, async_op=True
        )
        return self._arriving

    def wait(self) -> Tensor:
        """Return what has come, or raise an error after the group's timeout."""
        self._work.wait()
        arrived = self._arriving
        self._arriving = self._leaving = self._work = None
        return arrived


class SendHalo(torch.autograd.Function):
    """Sends off what others need; last in the backward pass, adds what they send back.

    The backward pass runs through what was computed between SendHalo and ReceiveHalo
    while the gradients travel: in both directions it fills the same wait.
    """

    @staticmethod
    def forward(x: Tensor, exchange: Exchange) -> Tensor:
        """Start the exchange of x, (n_r, ...); returns the halo, not yet filled."""
        halo = exchange.halo
        leaving = torch.cat([_cut(x, part, halo.own.start) for part in halo.sent])
        return exchange.start(leaving, halo.sent, halo.received)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the exchange: the way back is the same."""
        ctx.exchange = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        """Wait for the gradients that ReceiveHalo has sent off, and add them."""
        halo, back = ctx.exchange.halo, ctx.exchange.wait()
        total = back.new_zeros(len(halo.own), *back.shape[1:])
        for part, more in zip(halo.sent, back.split(_counts(halo.sent)), strict=True):
            _cut(total, part, halo.own.start).add_(more)
        return total, None


class ReceiveHalo(torch.autograd.Function):
    """Waits for the halo; first in the backward pass, sends its gradient back."""

    @staticmethod
    def forward(arriving: Tensor, exchange: Exchange) -> Tensor:
        """Return the halo, (left + right, ...), filled."""
        return exchange.wait().view_as(arriving)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the exchange."""
        ctx.exchange = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        """Start the exchange of the gradient, (left + right, ...)."""
        halo = ctx.exchange.halo
        ctx.exchange.start(grad, halo.received, halo.sent)
        return grad, None


def join_run(x: Tensor, received: Tensor, halo: Halo) -> Tensor:
    """Put the own tokens x, (n_r, ...), between the two sides of the halo."""
    return torch.cat([received[: halo.left], x, received[halo.left :]])


def _counts(parts: tuple[range, ...]) -> list[int]:
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
    reach = _reach(window, block_size, causal)
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    token = check_count("numbers", numbers, least=1)
    token *= check_count("bytes_per_number", bytes_per_number, least=1)
    plans = [plan_halo(lengths, rank, reach) for rank in range(len(lengths))]
    parts = [plan.received if backward else plan.sent for plan in plans]
    return [token * sum(_counts(part)) for part in parts]


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
