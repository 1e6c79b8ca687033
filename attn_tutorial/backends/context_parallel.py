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

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from attn_tutorial.backends.exchange import (
    Exchange,
    ReceiveHalo,
    SendHalo,
    agree_on_lengths,
)
from attn_tutorial.backends.halo import (
    Halo,
    block_reach,
    cut,
    join_run,
    plan_halo,
    window_reach,
)
from attn_tutorial.checks import (
    check_block,
    check_key_keep,
    check_qkv,
    check_radius,
    check_same_length,
)
from attn_tutorial.local import local_attention
from attn_tutorial.sparse import sparse_attention

__all__ = ["context_local_attention", "context_sparse_attention"]


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
    window = check_radius(window)
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
    queries = cut(q.movedim(-2, 0), run, halo.run.start).movedim(0, -2)
    k, v, key_keep = _unpack(cut(tokens, run, start), widths)
    output = routine(queries, k, v, key_keep=key_keep)
    return output[..., part.start - run.start :, :][..., : len(part), :]


def _pack(k: Tensor, v: Tensor, key_keep: Tensor | None) -> tuple[Tensor, list[int]]:
    """Keys, values and key_keep as one message, (n_r, ..., d + d_v (+ 1)); widths."""
    parts = [k, v]
    if key_keep is not None:
        parts.append(key_keep[..., None].expand(*k.shape[:-1], 1).to(k.dtype))
    return torch.cat(parts, -1).movedim(-2, 0), [part.shape[-1] for part in parts]


def _unpack(tokens: Tensor, widths: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    k, v, *keep = tokens.movedim(0, -2).split(widths, -1)
    return k.contiguous(), v.contiguous(), keep[0][..., 0].bool() if keep else None
