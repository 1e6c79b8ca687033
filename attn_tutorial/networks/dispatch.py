"""Which routine computes a pattern: the fast ones where there is one, else a mask."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.dense import attention
from attn_tutorial.local import local_attention
from attn_tutorial.patterns import Pattern, dense_mask
from attn_tutorial.sparse import sparse_attention

__all__ = ["pattern_attention"]


def pattern_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern | None = None,
    key_keep: Tensor | None = None,
) -> Tensor:
    """Attention of several heads under a pattern, on the fast routine if it has one.

    ``local`` and ``adjacent_blocks``, alone or with ``& causal()``, go to
    ``local_attention`` and ``sparse_attention``. Any other pattern becomes a mask for
    PyTorch's attention. No pattern at all is Eq. (1) as it is written.

    Args:
        q: Queries, shape (..., h, n_q, d).
        k: Keys, shape (..., h, n_k, d).
        v: Values, shape (..., h, n_k, d_v).
        pattern: Which pairs to keep; every pair if None.
        key_keep: Bool, shape (..., n_k), the same for every head; False = padding.

    Returns:
        Shape (..., h, n_q, d_v).
    """
    core, causal = _without_causal(pattern)
    same_length = q.shape[-2] == k.shape[-2]
    options = {
        "causal": causal,
        "key_keep": None if key_keep is None else key_keep.unsqueeze(-2),
    }
    if same_length and core is not None and core.name == "local":
        return local_attention(q, k, v, core["window"], **options)
    if same_length and core is not None and core.name == "adjacent_blocks":
        return sparse_attention(q, k, v, block_size=core["block_size"], **options)
    if pattern is None:
        return attention(q, k, v, keep_mask(q, k, None, key_keep))
    return _masked_attention(q, k, v, keep_mask(q, k, pattern, key_keep))


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """PyTorch's attention under a mask; a query that keeps no key gets zeros."""
    output = F.scaled_dot_product_attention(q, k, v, keep)
    if keep is None:
        return output
    return output.masked_fill(~keep.any(-1, keepdim=True), 0.0)


def _without_causal(pattern: Pattern | None) -> tuple[Pattern | None, bool]:
    """Split ``p & causal()`` into (p, True); any other p into (p, False)."""
    if pattern is None or pattern.name != "intersection" or len(pattern.parts) != 2:
        return pattern, False
    first, second = pattern.parts
    if first == patterns.causal():
        return second, True
    return (first, True) if second == patterns.causal() else (pattern, False)


def keep_mask(
    q: Tensor, k: Tensor, pattern: Pattern | None, key_keep: Tensor | None
) -> Tensor | None:
    """Write the pattern and the padding out as one mask, or None if all is kept."""
    keep = None if key_keep is None else key_keep[..., None, None, :]
    if pattern is None or pattern == patterns.full():
        return keep
    mask = dense_mask(pattern, q.shape[-2], k.shape[-2], device=q.device)
    return mask if keep is None else mask & keep
