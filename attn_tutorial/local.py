"""Eq. (7): local (sliding-window) attention."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from attn_tutorial import patterns
from attn_tutorial.checks import (
    check_count,
    check_first,
    check_key_keep,
    check_qkv,
    check_radius,
    check_scale,
    check_window,
)
from attn_tutorial.tiled import Tile, tiled_attention


def local_attention_loop(
    q: Tensor, k: Tensor, v: Tensor, window: int, *, causal: bool = False
) -> Tensor:
    """Local attention as its definition says it: query by query, slow, easy to trust.

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        window: w, how far a query sees to each side.
        causal: Also forbid the keys after the query.

    Returns:
        Shape (..., n, d_v).

    Raises:
        TypeError, ValueError: If window is no integer, or negative.

    >>> q = torch.randn(5, 4)
    >>> local_attention_loop(q, q, q, window=1).shape
    torch.Size([5, 4])
    """
    n, d = q.shape[-2:]
    rows, window = [], check_radius(window)
    for i in range(n):
        first, last = max(0, i - window), min(n - 1, i if causal else i + window)
        keys, values = k[..., first : last + 1, :], v[..., first : last + 1, :]
        scores = q[..., i : i + 1, :] @ keys.mT / d**0.5  # (..., 1, last - first + 1)
        rows.append(scores.softmax(-1) @ values)
    return torch.cat(rows, dim=-2) if rows else torch.zeros_like(v)


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | tuple[int, int],
    *,
    causal: bool = False,
    first: int | None = None,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention in which a query sees only the keys at most `window` positions away.

    Eq. (7): query i meets key j exactly when |i - j| <= w, or, if causal, when
    i - w <= j <= i. Computes n * (2w + tile) scores, never n * n, and keeps none.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d). Where a leading axis is 1, all heads of q share
            one head of keys, which is not copied.
        v: Values, shape (..., n_k, d_v).
        window: w >= 0, how far a query sees to each side: 2w + 1 keys, w + 1 if causal;
            or (left, right), how far back and how far ahead.
        causal: Also forbid the keys after the query.
        first: Position of the first query on the keys' axis. None means 0, and needs as
            many queries as keys.
        key_keep: bool, (n_k,) or with the leading axes of k, False = padding, never
            attended, whatever it holds.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept scores. With it,
            parts over disjoint keys can be merged (`online.merge_attention`, which
            wants it as `lse[..., None]`).

    Returns:
        Shape (..., n_q, d_v). A query with no key left gets zeros. With `return_lse`
        also (..., n_q), at least float32, -inf where no key is left.

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or window is
            no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, window < 0, or first is needed.

    >>> q = torch.randn(2, 8, 100, 16)
    >>> local_attention(q, q, q, window=10).shape
    torch.Size([2, 8, 100, 16])
    """
    check_qkv(q, k, v)
    check_key_keep(key_keep, k)
    n_q, n_k = q.shape[-2], k.shape[-2]
    first, scale = check_first(first, n_q, n_k), check_scale(scale, q.shape[-1])
    left, right = check_window(window)
    left = min(left, max(first + n_q - 1, 0))  # no key is farther away
    right = 0 if causal else min(right, max(n_k - 1 - first, 0))
    tile = window_tile((left, right))
    tile = replace(tile, offset=first, rows=min(tile.rows, max(n_q, 1)))
    return tiled_attention(
        q,
        k,
        v,
        (tile,),
        patterns.local((left, right)),
        first=first,
        key_keep=key_keep,
        scale=scale,
        return_lse=return_lse,
    )


def window_tile(window: int | tuple[int, int], causal: bool = False) -> Tile:
    """The tile for a window: all that its queries see lies `window` before and after.

    A taller tile makes fewer and larger products, but computes more pairs for
    nothing: `rows` of its keys in 2w + rows. Heights chosen by measurement: forward, 32
    rows won at every window, up to 9 %; backward, 64 won from w = 512 on.

    >>> window_tile(100)
    Tile(offset=0, rows=32, step=32, left=100, right=100)
    """
    left, right = check_window(window)
    widest = max(left, right)
    rows = 32 if widest < 512 else 64
    return Tile(0, rows, rows, left, 0 if causal else right)


class LocalAttention(nn.Module):
    """Local attention as a module without parameters; Q, K, V have d_k features.

    >>> x = torch.randn(1, 12, 4)
    >>> LocalAttention(d_k=4, w=2)(x, x, x).shape
    torch.Size([1, 12, 4])
    """

    def __init__(self, d_k: int, w: int):
        super().__init__()
        self.d_k = check_count("d_k", d_k, least=1)
        self.w = check_count("w", w, least=0)

    def forward(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """Eq. (7) with scale 1 / sqrt(d_k); Q, K: (..., n, d_k), V: (..., n, d_v)."""
        check_qkv(Q, K, V)
        if Q.shape[-1] != self.d_k:
            raise ValueError(
                f"Q must have d_k = {self.d_k} features, got shape {tuple(Q.shape)}"
            )
        return local_attention(Q, K, V, self.w)

    def extra_repr(self) -> str:
        """Name the settings in the module's repr."""
        return f"d_k={self.d_k}, w={self.w}"
