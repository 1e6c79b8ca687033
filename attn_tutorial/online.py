"""Eq. (6): softmax over keys that arrive in chunks, so that no n x n matrix is formed.

The result is exact: the same numbers as Eq. (1), up to rounding. What changes is the
memory, not the arithmetic: every query still meets every key.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial.checks import check_count, check_qkv

__all__ = ["merge_attention", "online_attention"]


def online_attention(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """Attention to all keys, of which only ``chunk`` are looked at at a time.

    Eq. (6): keep for each query the largest score so far (top), the sum of
    exp(score - top) and the same sum weighted by the values. When a chunk brings
    a larger score, both sums shrink by exp(old top - new top).

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d).
        v: Values, shape (..., n_k, d_v).
        chunk: Keys in a chunk, at least 1; the last chunk may be shorter.

    Returns:
        Shape (..., n_q, d_v): what ``attention(q, k, v)`` returns.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.

    Example:
        >>> q = k = torch.zeros(3, 4)
        >>> online_attention(q, k, torch.eye(3), chunk=2)[0].round(decimals=2)
        tensor([0.3300, 0.3300, 0.3300])
    """
    check_qkv(q, k, v)
    chunk = check_count("chunk", chunk, least=1)
    dtype, exact = q.dtype, torch.promote_types(q.dtype, torch.float32)
    q, k, v = (x.to(exact) for x in (q, k, v))  # 16 bits hold no sum of 70,000 ones
    with torch.autocast(q.device.type, enabled=False):
        return _over_chunks(q, k, v, chunk).to(dtype)


def _over_chunks(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    top = q.new_full((*q.shape[:-1], 1), float("-inf"))
    total = torch.zeros_like(top)
    output = q.new_zeros(*q.shape[:-1], v.shape[-1])
    for start in range(0, k.shape[-2], chunk):
        keys = k[..., start : start + chunk, :]
        values = v[..., start : start + chunk, :]
        scores = q @ keys.mT / q.shape[-1] ** 0.5  # (..., n_q, chunk)
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
        weights = torch.exp(scores - new_top)
        shrink = torch.exp(top - new_top)  # 0 for the first chunk, 1 if top holds
        total = shrink * total + weights.sum(-1, keepdim=True)
        output = shrink * output + weights @ values
        top = new_top
    return output / total.clamp(min=1)  # the key at the top alone adds exp(0) = 1


def merge_attention(
    output_a: Tensor, lse_a: Tensor, output_b: Tensor, lse_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention to two disjoint sets of keys, from the attention to each of them.

    A part is its output and the log of its softmax denominator, lse = log sum
    exp(score). The merged output is the mean of both, weighted by exp(lse).

    Args:
        output_a: Attention to the first keys, shape (..., n_q, d_v).
        lse_a: Their logsumexp of the scores, shape (..., n_q, 1).
        output_b: Attention to the other keys, shape (..., n_q, d_v), or () if it is
            the same number everywhere.
        lse_b: Their logsumexp of the scores, shape (..., n_q, 1).

    Returns:
        The merged output and its logsumexp, in the same shapes.

    Raises:
        ValueError: If a logsumexp has not the axis of width 1.

    Example:
        >>> zero, one = torch.zeros(1, 1), torch.ones(1, 1)
        >>> merge_attention(zero, zero, one, torch.log(3 * one))[0]
        tensor([[0.7500]])
    """
    _check_lse("lse_a", lse_a, output_a)
    _check_lse("lse_b", lse_b, output_b)
    nothing = (lse_a == -torch.inf) & (lse_b == -torch.inf)  # no key in either part
    lse_a, lse_b = (torch.where(nothing, 0.0, lse) for lse in (lse_a, lse_b))
    lse = torch.logaddexp(lse_a, lse_b)
    output = output_a * torch.exp(lse_a - lse) + output_b * torch.exp(lse_b - lse)
    return output, lse.masked_fill(nothing, -torch.inf)


def _check_lse(name: str, lse: Tensor, output: Tensor) -> None:
    if not output.ndim:  # one output for all: a sink's zeros
        return
    if lse.ndim != output.ndim or lse.shape[-1] != 1:
        raise ValueError(
            f"{name} must have shape (..., n_q, 1), as many axes as the output, "
            f"{tuple(output.shape)}, got {tuple(lse.shape)}: write {name}[..., None]"
        )
