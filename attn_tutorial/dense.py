"""Eq. (1): attention as the document writes it, with the whole n x n matrix in memory.

This is the reference: slow for long sequences, and short enough to be read as the
definition. Every faster routine in this package must agree with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial.checks import check_keep, check_qkv, check_scale

__all__ = ["attention", "attention_weights"]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Average the values, weighted by how well each key fits the query.

    Eq. (1): softmax(Q K^T / sqrt(d)) V, the softmax taken over the kept keys.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d).
        v: Values, shape (..., n_k, d_v).
        keep: Bool mask, (n_q, n_k) or with the leading axes of q; True = attend.
        scale: Factor on the scores; 1 / sqrt(d) if None.

    Returns:
        Shape (..., n_q, d_v). A query that keeps no key gets zeros.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.

    Example:
        >>> q = k = torch.zeros(3, 4)
        >>> attention(q, k, torch.eye(3))[0].round(decimals=2)
        tensor([0.3300, 0.3300, 0.3300])
    """
    check_qkv(q, k, v)
    weights = attention_weights(q, k, keep, scale=scale)
    if keep is not None:  # 0 * NaN is NaN: a value that no query keeps counts as 0
        v = torch.where(keep.any(-2)[..., None], v, 0.0)
    with torch.autocast(q.device.type, enabled=False):
        return weights @ v


def attention_weights(
    q: Tensor,
    k: Tensor,
    keep: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Weight of each key for each query: the softmax inside Eq. (1).

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d).
        keep: Bool mask, (n_q, n_k) or with the leading axes of q; True = attend.
        scale: Factor on the scores; 1 / sqrt(d) if None.

    Returns:
        Shape (..., n_q, n_k). Rows sum to 1, or are all 0 where nothing is kept.
        Half-precision inputs are normalised in float32 and returned in their dtype.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.

    Example:
        >>> keep = torch.tensor([[True, False], [False, False]])
        >>> attention_weights(torch.ones(2, 4), torch.ones(2, 4), keep)
        tensor([[1., 0.],
                [0., 0.]])
    """
    check_qkv(q, k, k)
    check_keep(keep, q, k)
    scale = check_scale(scale, q.shape[-1])
    exact = torch.promote_types(q.dtype, torch.float32)
    if keep is not None:  # as in `attention`
        k = torch.where(keep.any(-2)[..., None], k, 0.0)
    with torch.autocast(q.device.type, enabled=False):
        scores = q.to(exact) @ k.to(exact).mT * scale
    if keep is None:
        return scores.softmax(-1).to(q.dtype)
    lowest = torch.finfo(exact).min  # a row of -inf alone would give NaN
    scores = scores.masked_fill(~keep, lowest)
    return scores.softmax(-1).masked_fill(~keep, 0.0).to(q.dtype)
