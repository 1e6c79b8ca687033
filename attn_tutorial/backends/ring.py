r"""Full attention over a sequence on several devices: what the halo is compared with.

Without a window every query sees every key, so every shard has to come to every rank:
all at once and kept (all-gather), or one after the other around a ring and dropped when
used (ring attention, Liu, Zaharia and Abbeel 2023, arXiv:2310.01889). The bytes are the
same, the memory is not. Half precision travels as it is and is computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from attn_tutorial.backends.exchange import (
    Exchange,
    ReceiveHalo,
    SendHalo,
    SentBytes,
    agree_on_lengths,
)
from attn_tutorial.backends.halo import (
    join_run,
    pack,
    plan_runs,
    shards_of,
    unpack,
)
from attn_tutorial.checks import (
    check_count,
    check_qkv,
    check_same_length,
    check_scale,
)
from attn_tutorial.dense import attention
from attn_tutorial.online import merge_attention

__all__ = ["all_gather_attention", "all_gather_bytes", "ring_attention", "ring_bytes"]


def all_gather_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
) -> Tensor:
    """Full attention, Eq. (1), of this rank's queries to the keys of all ranks.

    A halo exchange in which the halo is everything. Holds all keys and values, and the
    scores of n_r queries with n keys: for comparison, not for long sequences.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d).
        v: Values of the shard, shape (..., n_r, d_v).
        lengths: n_r of all ranks in order; without it they are exchanged.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v).

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    check_qkv(q, k, v)
    check_same_length(q, k)
    lengths = agree_on_lengths(lengths, k, v, {}, group)
    every = [range(sum(lengths))] * len(lengths)
    halo = plan_runs(shards_of(lengths), every, dist.get_rank(group))
    tokens, exchange = pack(k, v), Exchange(halo, group)
    others = ReceiveHalo.apply(SendHalo.apply(tokens, exchange), exchange)
    run = join_run(tokens, others, halo)
    return _exact_attention(q, *unpack(run, [k.shape[-1], v.shape[-1]]), scale)


def _exact_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Eq. (1), of half precision in float32: 16 bits hold no sum of 70,000 weights."""
    exact = torch.promote_types(q.dtype, torch.float32)
    output = attention(q.to(exact), k.to(exact), v.to(exact), scale=scale)
    return output.to(q.dtype)


def ring_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
) -> Tensor:
    """Full attention, Eq. (1), with one foreign shard of keys at a time; forward only.

    In each round a rank passes the shard it holds on to the next rank, and attends to
    it while it travels. The parts are merged as in Eq. (6).

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d).
        v: Values of the shard, shape (..., n_r, d_v).
        lengths: n_r of all ranks in order; without it they are exchanged.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v).

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape, or requires
            a gradient.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    leading = check_qkv(q, k, v)
    check_same_length(q, k)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise ValueError("q, k, v must require no gradient: ring_attention has none")
    scale = check_scale(scale, q.shape[-1])
    lengths = agree_on_lengths(lengths, k, v, {}, group)
    rank, ranks = dist.get_rank(group), len(lengths)
    widths, held = [k.shape[-1], v.shape[-1]], pack(k, v).contiguous()
    queries = scale * q.to(torch.promote_types(q.dtype, torch.float32))
    output = queries.new_zeros(*leading, q.shape[-2], v.shape[-1])
    lse = queries.new_full((*leading, q.shape[-2], 1), -torch.inf)
    for hop in range(1, ranks + 1):
        coming = held.new_empty(lengths[(rank - hop) % ranks], *held.shape[1:])
        work = _pass_on(held, coming, group) if hop < ranks else []
        if len(held):
            part = _part(queries, *unpack(held, widths))
            output, lse = merge_attention(output, lse, *part)
        for each in work:
            each.wait()
        held = coming
    return output.to(q.dtype)


def _part(queries: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of scaled queries to one shard, in their dtype, and its log-sum-exp."""
    k, v = k.to(queries.dtype), v.to(queries.dtype)
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries @ k.mT
        return scores.softmax(-1) @ v, scores.logsumexp(-1, keepdim=True)


def _pass_on(held: Tensor, coming: Tensor, group) -> list[dist.Work]:
    """Start to send `held` to the next rank and to fill `coming` from the last one."""
    SentBytes.count(held)
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    work = []
    for operation, x, step in ((dist.isend, held, 1), (dist.irecv, coming, -1)):
        if len(x):
            peer = (rank + step) % ranks
            if group is not None:
                peer = dist.get_global_rank(group, peer)
            work.append(dist.P2POp(operation, x, peer, group))
    return dist.batch_isend_irecv(work) if work else []


def all_gather_bytes(
    lengths: Sequence[int],
    numbers: int,
    *,
    backward: bool = False,
    bytes_per_number: int = 4,
) -> list[int]:
    """Bytes that each rank sends if every rank sends its shard to every other.

    Eq. (20): (G - 1) n_r tokens, with G ranks. The backward pass sends their gradients
    home: n - n_r tokens. With equal shards both are (G - 1) n / G.

    Args:
        lengths: Tokens of each rank's shard.
        numbers: Numbers in a token's keys and values: batch * heads * (d + d_v).
        backward: Count the backward pass, not the forward pass.
        bytes_per_number: 4 for float32, 2 for bfloat16.

    Returns:
        One count for each rank.

    >>> all_gather_bytes([1000, 1000, 1000, 1000], numbers=128)
    [1536000, 1536000, 1536000, 1536000]
    """
    lengths, token = _check_sizes(lengths, numbers, bytes_per_number)
    if backward:
        return [token * (sum(lengths) - n) for n in lengths]
    return [token * (len(lengths) - 1) * n for n in lengths]


def ring_bytes(
    lengths: Sequence[int], numbers: int, *, bytes_per_number: int = 4
) -> list[int]:
    """Bytes that each rank sends in a forward pass of ring attention.

    Eq. (20): a rank passes on every shard except that of the next rank, where it would
    come home: n - n_(r+1) tokens, with equal shards (G - 1) n / G for G ranks.

    Args:
        lengths: Tokens of each rank's shard.
        numbers: Numbers in a token's keys and values: batch * heads * (d + d_v).
        bytes_per_number: 4 for float32, 2 for bfloat16.

    Returns:
        One count for each rank.

    >>> ring_bytes([1000, 1000, 1000, 1000], numbers=128)
    [1536000, 1536000, 1536000, 1536000]
    """
    lengths, token = _check_sizes(lengths, numbers, bytes_per_number)
    following = [*lengths[1:], *lengths[:1]]
    return [token * (sum(lengths) - n) for n in following]


def _check_sizes(
    lengths: Sequence[int], numbers: int, bytes_per_number: int
) -> tuple[list[int], int]:
    """Return the lengths and the bytes of a token."""
    lengths = [check_count("lengths", length, least=0) for length in lengths]
    token = check_count("numbers", numbers, least=1)
    return lengths, token * check_count("bytes_per_number", bytes_per_number, least=1)
