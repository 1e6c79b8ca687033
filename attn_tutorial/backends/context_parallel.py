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
from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.backends.exchange import (
    Exchange,
    ReceiveHalo,
    SendHalo,
    agree_on_lengths,
)
from attn_tutorial.backends.halo import (
    cut,
    join_run,
    pack,
    plan_halo,
    unpack,
)
from attn_tutorial.checks import (
    check_block,
    check_key_keep,
    check_qkv,
    check_same_length,
    check_window,
)
from attn_tutorial.local import local_attention
from attn_tutorial.patterns import Pattern
from attn_tutorial.sparse import sparse_attention

__all__ = ["context_local_attention", "context_sparse_attention"]


def context_local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | tuple[int, int],
    *,
    causal: bool = False,
    key_keep: Tensor | None = None,
    overlap: bool = False,
    lengths: Sequence[int] | None = None,
    group: torch.distributed.ProcessGroup | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Local attention, Eq. (7), of this rank's part of a sequence on several ranks.

    Positions are those of the whole sequence: the shards in the order of the ranks.
    A rank receives w tokens from each side (if causal, from the left only), and
    computes the rows of its own queries, no others.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d). Where a leading axis is 1, all heads
            of q share one head of keys, which is sent once and not copied.
        v: Values of the shard, shape (..., n_r, d_v).
        window: w >= 0, how far a query sees to each side, or (left, right), how far
            back and how far ahead; the same on all ranks.
        causal: Also forbid the keys after the query.
        key_keep: Of the shard's keys: bool, (n_r,) or with the leading axes of k,
            False = padding, never attended, whatever it holds.
        overlap: Compute the rows that see no halo while it travels. That is worth two
            more calls, for the rows at the ends, if the halo is large and the link
            slow.
        lengths: n_r of all ranks in order. Without it they are exchanged in each call,
            and the ranks check that shapes and pattern (not scale) are the same.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept scores.

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v). With `return_lse` also
        (..., n_r), at least float32, -inf where no key is left.

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or window is
            no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, window < 0, lengths do not fit the group, or
            the ranks disagree.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    left, right = check_window(window)
    settings = {"window": left, "window[1]": right, "causal": causal}
    pattern = _made_causal(patterns.local((left, right)), causal)
    options = {"causal": causal, "scale": scale, "return_lse": return_lse}
    routine = partial(local_attention, window=(left, right), **options)
    inputs = q, k, v, key_keep
    return _attend(routine, pattern, settings, inputs, overlap, lengths, group)


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
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Block attention, Eq. (11), of this rank's part of a sequence on several ranks.

    Blocks are those of the whole sequence: they may cross the borders of shards. A rank
    receives what it lacks of its own blocks and of the blocks beside them, and computes
    the rows of its own queries, no others.

    Args:
        q: Queries of this rank's shard, shape (..., n_r, d); n_r may be 0.
        k: Keys of the shard, shape (..., n_r, d). Where a leading axis is 1, all heads
            of q share one head of keys, which is sent once and not copied.
        v: Values of the shard, shape (..., n_r, d_v).
        block_size: b, tokens in a block; the same on all ranks.
        causal: Also forbid the keys after the query.
        key_keep: Of the shard's keys: bool, (n_r,) or with the leading axes of k,
            False = padding, never attended, whatever it holds.
        overlap: Compute the rows that see no halo while it travels. That is worth two
            more calls, for the rows at the ends, if the halo is large and the link
            slow.
        lengths: n_r of all ranks in order. Without it they are exchanged in each call,
            and the ranks check that shapes and pattern (not scale) are the same.
        group: The ranks that share the sequence, by default all.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept scores.

    Returns:
        The output of the shard's queries, shape (..., n_r, d_v). With `return_lse` also
        (..., n_r), at least float32, -inf where no key is left.

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or block_size
            is no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, block_size < 1, lengths do not fit the group,
            or the ranks disagree.
        RuntimeError: If a rank does not answer within the group's timeout.
    """
    b = check_block(0, None, block_size)
    settings = {"block_size": b, "causal": causal}
    pattern = _made_causal(patterns.adjacent_blocks(b), causal)
    options = {"causal": causal, "scale": scale, "return_lse": return_lse}
    routine = partial(sparse_attention, block_size=b, **options)
    inputs = q, k, v, key_keep
    return _attend(routine, pattern, settings, inputs, overlap, lengths, group)


def _made_causal(pattern: Pattern, causal: bool) -> Pattern:
    return pattern & patterns.causal() if causal else pattern


def _attend(
    routine: Callable[..., Tensor | tuple[Tensor, Tensor]],
    pattern: Pattern,
    settings: dict[str, int],
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    overlap: bool,
    lengths: Sequence[int] | None,
    group: torch.distributed.ProcessGroup | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Fetch the halo; in between, or else then, compute the rows that do without it."""
    q, k, v, key_keep = inputs
    check_qkv(q, k, v)
    check_same_length(q, k)
    check_key_keep(key_keep, k)
    settings = settings | {"key_keep": key_keep is not None}
    lengths = agree_on_lengths(lengths, k, v, settings, group)
    halo = plan_halo(lengths, dist.get_rank(group), pattern)
    tokens, widths = _message(k, v, key_keep)
    exchange, own = Exchange(halo, group), halo.own
    inner = halo.inner if overlap else own[:0]
    seen = partial(patterns.run, pattern, n=sum(lengths))
    rows = partial(_rows_of, routine, seen, q, own.start, widths)

    arriving = SendHalo.apply(tokens, exchange)
    middle = rows(inner, tokens, own.start)  # while the halo travels
    run = join_run(tokens, ReceiveHalo.apply(arriving, exchange), halo)
    first = rows(range(own.start, inner.start), run, halo.run.start)
    last = rows(range(inner.stop, own.stop), run, halo.run.start)
    return _in_order(first, middle, last)


def _rows_of(
    routine: Callable[..., Tensor | tuple[Tensor, Tensor]],
    seen: Callable[[range], range],
    q: Tensor,
    start: int,
    widths: list[int],
    part: range,
    tokens: Tensor,
    place: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """Output at the positions `part`, of q at start, ... and tokens at place, ...

    The routine for one device is given the queries, the run of keys that they see, and
    where on it they begin. It knows no more: seen from `part` nothing is missing. A run
    of blocks begins where a block begins, so that blocks can be counted from there.
    """
    run = seen(part)
    queries = q[..., part.start - start : part.stop - start, :]
    k, v, *keep = (x.contiguous() for x in unpack(cut(tokens, run, place), widths))
    key_keep = keep[0][..., 0].bool() if keep else None
    return routine(queries, k, v, first=part.start - run.start, key_keep=key_keep)


def _message(k: Tensor, v: Tensor, key_keep: Tensor | None) -> tuple[Tensor, list[int]]:
    """Keys, values and key_keep as one message, (n_r, ..., d + d_v (+ 1)); widths."""
    keep = [] if key_keep is None else [key_keep[..., None].to(k.dtype)]
    return pack(k, v, *keep), [x.shape[-1] for x in (k, v, *keep)]


def _in_order(*parts: Tensor | tuple) -> Tensor | tuple[Tensor, Tensor]:
    """Join outputs, (..., n_i, d_v), or pairs of outputs and log-sum-exps."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts, -2)
    outputs, logs = zip(*parts, strict=True)
    return torch.cat(outputs, -2), torch.cat(logs, -1)
