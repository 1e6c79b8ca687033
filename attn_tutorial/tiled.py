"""The one fast routine behind local and block-sparse attention: query tiles x key runs.

Cut the queries into tiles. Every tile meets one contiguous run of keys: its own
positions, `left` keys before the first and `right` keys after the last. The run is a
view, so no key is copied, and no more scores exist at a time than one slab of tiles
has: memory grows with n, not with n * n, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SLAB_ROWS = 1024


class Slab(NamedTuple):
    """`count` tiles of `rows` queries; tile c starts at query + c * rows."""

    query: int
    rows: int
    key: int
    keys: int
    count: int


def slabs(n: int, tile: int, left: int, right: int) -> Iterator[Slab]:
    """Cut n queries into slabs of equal tiles, whose runs are clipped to [0, n).

    A tile with a complete run stands in a slab with its equals; a tile at an end of
    the sequence, whose run is clipped, and a last shorter tile have their own slab.

    >>> [tuple(slab) for slab in slabs(10, tile=2, left=2, right=2)]
    [(0, 2, 0, 4, 1), (2, 2, 0, 6, 3), (8, 2, 6, 4, 1)]
    """
    query = 0
    while query < n:
        rows = min(tile, n - query)
        start, stop = max(0, query - left), min(n, query + rows + right)
        complete = (n - right - query) // tile if query >= left else 0
        count = max(1, min(complete, SLAB_ROWS // tile))
        yield Slab(query, rows, start, stop - start, count)
        query += rows * count


def windows(x: Tensor, start: int, size: int, step: int, count: int) -> Tensor:
    """Overlapping views of x (G, n, d): (G, count, size, d), window c at start + c * step."""
    heads, rows, features = x.stride()
    return x.as_strided(
        (x.shape[0], count, size, x.shape[2]),
        (heads, step * rows, rows, features),
        x.storage_offset() + start * rows,
    )


def slab_mask(
    keep: Tensor | None, key_keep: Tensor | None, slab: Slab, left: int
) -> Tensor | None:
    """The part of the tile's picture that the slab needs, and its keys that are padding.

    Args:
        keep: (tile, left + tile + right), True = attend; None where all is kept.
        key_keep: (G, n, 1), False = padding; None where there is none.
        slab: The tiles.
        left: Keys before the tile in the picture.

    Returns:
        Broadcastable to (G, count, rows, keys), or None where everything is kept.
    """
    if keep is not None:
        cut = left - (slab.query - slab.key)  # keys missing before the sequence's start
        keep = keep[: slab.rows, cut : cut + slab.keys]
    if key_keep is None:
        return keep
    real = windows(key_keep, slab.key, slab.keys, slab.rows, slab.count).mT
    return real if keep is None else keep & real


class TiledAttention(torch.autograd.Function):
    """Attention of query tiles over key runs, recomputed slab by slab in the backward.

    A plain loop over slices would be quadratic in the backward: the gradient of each
    slice of k is a tensor as long as k. Here each slab *adds* into one gradient.
    """

    @staticmethod
    def forward(ctx, q, k, v, keep, key_keep, tile, left, right, scale):
        ctx.save_for_backward(q, k, v, keep, key_keep)
        ctx.settings = tile, left, right, scale
        output = v.new_empty(*q.shape[:-1], v.shape[-1])
        for slab in slabs(q.shape[1], tile, left, right):
            mask = slab_mask(keep, key_keep, slab, left)
            out = windows(output, slab.query, slab.rows, slab.rows, slab.count)
            out.copy_(attend(*slab_inputs(q, k, v, slab), mask, scale))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        q, k, v, keep, key_keep = ctx.saved_tensors
        tile, left, right, scale = ctx.settings
        grad_output = grad_output.contiguous()
        grads = [
            torch.zeros_like(x, memory_format=torch.contiguous_format)
            for x in (q, k, v)
        ]
        for slab in slabs(q.shape[1], tile, left, right):
            inputs = [x.detach().requires_grad_() for x in slab_inputs(q, k, v, slab)]
            mask = slab_mask(keep, key_keep, slab, left)
            with torch.enable_grad():
                output = attend(*inputs, mask, scale)
            grad = windows(grad_output, slab.query, slab.rows, slab.rows, slab.count)
            parts = torch.autograd.grad(output, inputs, grad)
            windows(grads[0], slab.query, slab.rows, slab.rows, slab.count).copy_(
                parts[0]
            )
            add_runs(grads[1], parts[1], slab)
            add_runs(grads[2], parts[2], slab)
        return *grads, None, None, None, None, None, None


def slab_inputs(q: Tensor, k: Tensor, v: Tensor, slab: Slab) -> tuple[Tensor, ...]:
    """Views: query tiles (G, count, rows, d), key and value runs (G, count, keys, d)."""
    step, count = slab.rows, slab.count
    return (
        windows(q, slab.query, slab.rows, step, count),
        windows(k, slab.key, slab.keys, step, count),
        windows(v, slab.key, slab.keys, step, count),
    )


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """PyTorch's fused attention on 4-D inputs (3-D ones silently take a slow path)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def add_runs(total: Tensor, parts: Tensor, slab: Slab) -> None:
    """Add the gradients of overlapping runs: strips of `rows` keys never collide."""
    for start in range(0, slab.keys, slab.rows):
        strip = parts[:, :, start : start + slab.rows]
        view = windows(total, slab.key + start, strip.shape[2], slab.rows, slab.count)
        view += strip


def tiled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor | None,
    tile: int,
    left: int,
    right: int,
    key_keep: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Attention in which query tile c, at c * tile, meets the run of keys around it.

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        keep: Which pairs of a tile and its run attend, shape
            (tile, left + tile + right): the same picture for every tile. None: all.
        tile: Queries in a tile (the last may have fewer).
        left: Keys that the run has before the tile's first position.
        right: Keys that the run has after the tile's last position.
        key_keep: bool, broadcastable to (..., n), False = padding, never attended.
        scale: Factor of the scores.

    Returns:
        Shape (..., n, d_v). A query with no key left gets zeros.

    >>> q = torch.randn(2, 3, 10, 4)
    >>> tiled_attention(q, q, q, None, tile=2, left=2, right=2).shape
    torch.Size([2, 3, 10, 4])
    """
    shape = (*q.shape[:-1], v.shape[-1])
    if 0 in shape:
        return (q.sum() + k.sum() + v.sum()) * v.new_zeros(shape)
    if key_keep is not None:
        key_keep = key_keep.expand(q.shape[:-1]).reshape(-1, q.shape[-2], 1)
    q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v))
    return TiledAttention.apply(q, k, v, keep, key_keep, tile, left, right, scale).view(
        shape
    )
