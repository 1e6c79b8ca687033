"""Which routine computes a pattern: the fast ones where there is one, else a mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.checks import check_first, check_key_keep, check_qkv
from attn_tutorial.dense import attention
from attn_tutorial.patterns import (
    Pattern,
    check_length,
    check_pattern,
    dense_mask,
    run,
)
from attn_tutorial.runs import has_own_routine, run_attention
from attn_tutorial.tiled import rows_for

__all__ = ["pattern_attention"]


def pattern_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern | None = None,
    key_keep: Tensor | None = None,
    *,
    first: int | None = None,
) -> Tensor:
    """Attention of several heads under a pattern, on the fast routine if it has one.

    ``local`` and ``adjacent_blocks``, alone or with ``& causal()``, go to
    ``local_attention`` and ``sparse_attention``. Another pattern whose queries meet
    short runs of keys goes to tiles with masks, any other becomes one mask for
    PyTorch's attention. No pattern at all is Eq. (1) as it is written.

    Args:
        q: Queries, shape (..., h, n_q, d).
        k: Keys, shape (..., h, n_k, d), or (..., 1, n_k, d) where all h heads share
            one, which is not copied. In groups: q (..., groups, h, n_q, d) and k
            (..., groups, 1, n_k, d).
        v: Values, shape (..., h, n_k, d_v) or (..., 1, n_k, d_v).
        pattern: Which pairs to keep; every pair if None.
        key_keep: Bool, (n_k,) or (..., n_k), the same for all h heads; False = padding.
            One for all groups too is (..., 1, n_k).
        first: Position of the first query on the keys' axis. None means 0, and needs
            as many queries as keys, unless every pair is kept.

    Returns:
        Shape (..., h, n_q, d_v). A query with no key left gets zeros.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.
    """
    check_qkv(q, k, v)
    if k.ndim < 3:
        raise ValueError(f"k must have shape (..., h, n, d), got {tuple(k.shape)}")
    check_key_keep(key_keep, k.select(-3, 0))
    if pattern is not None:
        check_pattern("pattern", pattern)
    if pattern is None or pattern == patterns.full():
        keep = keep_mask(q, k, None, key_keep)
        return (_masked_attention if pattern else _plain_attention)(q, k, v, keep)
    first = check_first(first, q.shape[-2], k.shape[-2])
    check_length(pattern, q.shape[-2], k.shape[-2], first)
    if has_own_routine(pattern) or _is_narrow(pattern, q.shape[-2], k.shape[-2], first):
        by_head = key_keep
        if key_keep is not None and key_keep.ndim > 1:
            by_head = key_keep.unsqueeze(-2)
        return run_attention(q, k, v, pattern, first=first, key_keep=by_head)
    return _masked_attention(q, k, v, keep_mask(q, k, pattern, key_keep, first))


def _is_narrow(pattern: Pattern, n_q: int, n_k: int, first: int) -> bool:
    """Whether tiles with runs of keys compute at most half of all pairs."""
    pairs, rows = 0, rows_for(pattern, n_q, n_k, first)
    for start in range(first, first + n_q, rows):
        queries = range(start, min(start + rows, first + n_q))
        pairs += len(queries) * len(run(pattern, queries, n_k))
    return 2 * pairs <= n_q * n_k


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """Eq. (1) with a mask of keys; heads that share their keys are more queries."""
    if not _shares(q, k, v):
        return attention(q, k, v, keep)
    if keep is not None and keep.ndim > 2:
        keep = keep.squeeze(-3)
    output = attention(q.flatten(-3, -2), k.squeeze(-3), v.squeeze(-3), keep)
    return output.unflatten(-2, q.shape[-3:-1])


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """PyTorch's attention under a mask; a query that keeps no key gets zeros."""
    if keep is None:
        return _fused_attention(q, k, v, None)
    used = keep.any(-2)[..., None]  # what no query keeps may be NaN
    k, v = (torch.where(used, x, 0.0) for x in (k, v))
    output = _fused_attention(q, k, v, keep)
    return output.masked_fill(~keep.any(-1, keepdim=True), 0.0)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """PyTorch's attention, which is fast with four axes and knows one axis of heads."""
    shared = _shares(q, k, v)
    if not shared or not q.shape[:-3] == k.shape[:-3] == v.shape[:-3]:
        return F.scaled_dot_product_attention(q, k, v, keep)
    if q.ndim < 5:
        return F.scaled_dot_product_attention(q, k, v, keep, enable_gqa=True)
    if keep is not None and keep.ndim > 2:
        keep = keep.squeeze(-3)
    parts = q.flatten(-4, -3), k.squeeze(-3), v.squeeze(-3), keep
    output = F.scaled_dot_product_attention(*parts, enable_gqa=True)
    return output.unflatten(-3, q.shape[-4:-2])


def _shares(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether all heads of q share one head of keys and values."""
    return q.shape[-3] > 1 == k.shape[-3] == v.shape[-3]


def keep_mask(
    q: Tensor,
    k: Tensor,
    pattern: Pattern | None,
    key_keep: Tensor | None,
    first: int | None = None,
) -> Tensor | None:
    """Write the pattern and the padding out as one mask, or None if all is kept."""
    keep = key_keep
    if key_keep is not None and key_keep.ndim > 1:
        keep = key_keep[..., None, None, :]
    elif key_keep is not None:
        keep = key_keep[None, :]
    if pattern is None or pattern == patterns.full():
        return keep
    n_q, n_k = q.shape[-2], k.shape[-2]
    first = check_first(first, n_q, n_k)
    mask = dense_mask(pattern, n_q, n_k, device=q.device, first=first)
    return mask if keep is None else mask & keep
