"""The one fast routine behind local and block-sparse attention: tiles of queries.

Cut the queries into tiles. The keys that a tile may meet form one contiguous run: its
own positions, some before and some after. All tiles of a kind look alike, so many of
them are one batched call. Three things make it fast and small:

- Runs of neighbouring tiles overlap in memory: they are views, no key is copied.
- One slab of tiles is in work at a time, so memory grows with n, never with n * n.
- The backward pass computes the weights again instead of keeping them.

The few tiles at the two ends, whose run is cut off, have calls of their own: nothing
is padded, so no padding can leak into a softmax.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_tutorial.patterns import Pattern

__all__ = ["Slab", "Tile", "TiledAttention", "tiled_attention", "windows"]

# Scores of all heads in one slab. Measured on CPUs: with 8 heads, 2**19 scores of a
# head fill 2 MiB, about one core's cache. Several threads, which wait for each other
# after every call, and a GPU want more work in one call.
SLAB_SCORES = {"cpu": 2**22, "threads": 2**24, "cuda": 2**26}


@dataclass(frozen=True)
class Tile:
    """A kind of tile: `rows` queries at `offset`, and again every `step` positions.

    Its run of keys begins `left` positions before its first query and ends `right`
    positions after its last. `bias`, (rows, left + rows + right), is 0 where a pair
    attends and -inf where it does not; None where all pairs attend.
    """

    offset: int
    rows: int
    step: int
    left: int
    right: int
    bias: Tensor | None = None

    @property
    def keys(self) -> int:
        """Length of the complete run."""
        return self.left + self.rows + self.right

    def trimmed(self, pattern: Pattern, like: Tensor) -> Tile:
        """Return the tile with the bias that leaves only the pairs of `pattern`."""
        query = torch.arange(self.left, self.left + self.rows, device=like.device)
        key = torch.arange(self.keys, device=like.device)
        keep = pattern(None, None, query[:, None], key)
        dtype = torch.promote_types(like.dtype, torch.float32)
        bias = torch.zeros(keep.shape, dtype=dtype, device=like.device)
        bias.masked_fill_(~keep, -math.inf)
        return Tile(self.offset, self.rows, self.step, self.left, self.right, bias)

    def slabs(self, n: int, most: int) -> Iterator[Slab]:
        """Group the tiles of n positions into slabs of at most `most` equal tiles.

        A tile with a complete run stands with its equals, any other one alone.

        >>> tile = Tile(offset=0, rows=2, step=2, left=2, right=2)
        >>> [(s.query, s.key, s.keys, s.count) for s in tile.slabs(11, most=9)]
        [(0, 0, 4, 1), (2, 0, 6, 3), (8, 6, 5, 1), (10, 8, 3, 1)]
        """
        query = self.offset
        while query < n:
            rows = min(self.rows, n - query)
            start, stop = max(0, query - self.left), min(n, query + rows + self.right)
            cut = start - (query - self.left)  # keys missing on the left
            bias = self.bias
            if bias is not None:
                bias = bias[:rows, cut : cut + stop - start]
            complete = (n - self.right - self.rows - query) // self.step + 1
            count = 1 if cut else max(1, min(complete, most))
            yield Slab(query, rows, start, stop - start, self.step, count, bias)
            query += count * self.step


@dataclass(frozen=True)
class Slab:
    """`count` tiles: c has queries from query + c * step, keys from key + c * step."""

    query: int
    rows: int
    key: int
    keys: int
    step: int
    count: int
    bias: Tensor | None

    def tiles(self, x: Tensor) -> Tensor:
        """View x, (G, n, d), as its query tiles, (G, count, rows, d)."""
        return windows(x, self.query, self.rows, self.step, self.count)

    def runs(self, x: Tensor) -> Tensor:
        """View x, (G, n, d), as its runs of keys, (G, count, keys, d)."""
        return windows(x, self.key, self.keys, self.step, self.count)

    def mask(self, key_bias: Tensor | None) -> Tensor | None:
        """Return what to add to the scores, broadcastable to (G, count, rows, keys).

        key_bias is (G, n, 1): 0, or -inf where a key is padding.
        """
        if key_bias is None:
            return self.bias
        padding = self.runs(key_bias).mT.expand(-1, -1, self.rows, -1)
        return padding if self.bias is None else padding + self.bias


def windows(x: Tensor, start: int, size: int, step: int, count: int) -> Tensor:
    """View x, (G, n, d), as (G, count, size, d): window c begins at start + c * step.

    >>> x = torch.arange(6).view(1, 6, 1)
    >>> windows(x, start=1, size=3, step=1, count=3)[0, ..., 0]
    tensor([[1, 2, 3],
            [2, 3, 4],
            [3, 4, 5]])
    """
    head, row, feature = x.stride()
    return x.as_strided(
        (x.shape[0], count, size, x.shape[2]),
        (head, step * row, row, feature),
        x.storage_offset() + start * row,
    )


class TiledAttention(torch.autograd.Function):
    """Attention of each tile over its run, with a backward pass of linear memory.

    Autograd alone would be quadratic: for each slice of k it makes a gradient as long
    as k. Here every slab adds to the same gradient.
    """

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor | None,
        tiles: tuple[Tile, ...],
        scale: float,
    ) -> Tensor:
        """Apply PyTorch's fused attention to one slab after the other."""
        output = v.new_empty(*q.shape[:-1], v.shape[-1])
        for slab in slabs(tiles, q):
            mask = slab.mask(key_bias)
            # 4-D inputs: with 3-D ones it would silently take a slow path.
            inputs = slab.tiles(q), slab.runs(k), slab.runs(v)
            out = F.scaled_dot_product_attention(*inputs, mask, scale=scale)
            if key_bias is not None:  # no key at all: not every device gives zeros
                out = out.masked_fill((mask == -math.inf).all(-1, keepdim=True), 0)
            slab.tiles(output).copy_(out)
        return output

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the inputs and the output, but no weights."""
        q, k, v, key_bias, ctx.tiles, ctx.scale = inputs
        ctx.save_for_backward(q, k, v, key_bias, output)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        """Hand over to TiledGradients."""
        with torch.autocast(grad.device.type, enabled=False):
            grads = TiledGradients.apply(grad, *ctx.saved_tensors, ctx.tiles, ctx.scale)
        return *grads, None, None, None

    @staticmethod
    def vmap(info, in_dims: tuple, *inputs) -> tuple:
        """torch.vmap: the new dimension is one more leading dimension."""
        return _apply_batched(TiledAttention, info.batch_size, in_dims, inputs)


class TiledGradients(torch.autograd.Function):
    """The backward pass of TiledAttention; it has none of its own."""

    @staticmethod
    def forward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor | None,
        output: Tensor,
        tiles: tuple[Tile, ...],
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add the gradients of one slab after the other."""
        grad = grad.contiguous()
        dq, dk, dv = q.new_empty(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
        for slab in slabs(tiles, q):
            parts = [slab.tiles(x) for x in (q, output, grad, dq)]
            parts += [slab.runs(x) for x in (k, v, dk, dv)]
            mask = slab.mask(key_bias)
            if mask is not None:
                parts += [mask.expand(q.shape[0], slab.count, -1, -1)]
            # A batched product has one batch dimension: the tiles of a head, or the
            # heads of a tile where these are fewer calls and still fit the cache.
            scores = q.shape[0] * slab.rows * slab.keys
            few = slab.count < q.shape[0] and scores <= slab_scores(q.device) // 8
            batch, apart = (1, 1) if few else (0, math.ceil(slab.keys / slab.step))
            for part in zip(*(x.unbind(batch) for x in parts), strict=True):
                add_gradients(apart, scale, key_bias is not None, *part)
        return dq, dk, dv

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple:
        """Refuse: second derivatives would need the n x n reference."""
        raise NotImplementedError(
            "tiled attention has no second derivative; differentiate at.attention "
            "with a dense mask instead"
        )

    @staticmethod
    def vmap(info, in_dims: tuple, *inputs) -> tuple:
        """torch.vmap: the new dimension is one more leading dimension."""
        return _apply_batched(TiledGradients, info.batch_size, in_dims, inputs)


def _apply_batched(function: type, size: int, in_dims: tuple, inputs: tuple) -> tuple:
    """Apply the function to inputs of which some have a batch dimension at in_dims."""
    merged = [
        _merge(x, dim, size) if isinstance(x, Tensor) else x
        for x, dim in zip(inputs, in_dims, strict=True)
    ]
    outputs = function.apply(*merged)
    if isinstance(outputs, Tensor):
        return outputs.unflatten(0, (size, -1)), 0
    return tuple(x.unflatten(0, (size, -1)) for x in outputs), (0,) * len(outputs)


def _merge(x: Tensor, dim: int | None, size: int) -> Tensor:
    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)  # (size, G, n, d) -> (size * G, n, d)


def slabs(tiles: tuple[Tile, ...], q: Tensor) -> Iterator[Slab]:
    """Slabs of all kinds of tiles for q, (G, n, d), sized for the device's memory."""
    for tile in tiles:
        most = slab_scores(q.device) // (q.shape[0] * tile.rows * tile.keys)
        yield from tile.slabs(q.shape[1], max(1, most))


def slab_scores(device: torch.device) -> int:
    """How many scores of all heads a slab may have."""
    if device.type == "cpu" and torch.get_num_threads() > 1:
        return SLAB_SCORES["threads"]
    return SLAB_SCORES["cpu" if device.type == "cpu" else "cuda"]


def add_gradients(
    apart: int,
    scale: float,
    padded: bool,
    q: Tensor,
    output: Tensor,
    grad: Tensor,
    dq: Tensor,
    k: Tensor,
    v: Tensor,
    dk: Tensor,
    dv: Tensor,
    bias: Tensor | None = None,
) -> None:
    """Set a batch of tiles' dq and add their share to dk and dv, in place. Eq. (12).

    q, output, grad, dq are query tiles, (batch, rows, ...), and k, v, dk, dv their runs
    of keys, (batch, keys, ...): views that overlap, but not those of tiles `apart` from
    each other. bias, (batch, rows, keys), is added to the scores. If padded, some
    queries may have no key at all.
    """
    q = q * scale
    weights = torch.bmm(q, k.mT)
    if bias is not None:
        weights += bias
    torch.softmax(weights, -1, out=weights)
    if padded:  # the softmax over no key at all is 0 / 0
        weights.masked_fill_(bias == -math.inf, 0)
    mean = (grad * output).sum(-1, keepdim=True)  # the weighted mean of a row's dP
    dscores = torch.bmm(grad, v.mT).sub_(mean).mul_(weights)  # P * (dP - mean)
    dq.baddbmm_(dscores, k, beta=0, alpha=scale)
    for first in range(min(apart, len(k))):
        some = slice(first, None, apart)
        dv[some].baddbmm_(weights[some].mT, grad[some])
        dk[some].baddbmm_(dscores[some].mT, q[some])


def tiled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: tuple[Tile, ...],
    key_keep: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Attention of query tiles over runs of keys: the pairs that `tiles` leave.

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        tiles: Kinds of tiles that together hold every query once.
        key_keep: Bool, broadcasts to (..., n), False = padding, never attended.
        scale: Factor on the scores.

    Returns:
        Shape (..., n, d_v). A query that keeps no key gets zeros.

    >>> q = torch.randn(2, 3, 10, 4)
    >>> pairs = Tile(offset=0, rows=2, step=2, left=0, right=0)
    >>> tiled_attention(q, q, q, (pairs,)).shape
    torch.Size([2, 3, 10, 4])
    """
    shape = (*q.shape[:-1], v.shape[-1])
    if 0 in shape:
        return (q.sum() + k.sum() + v.sum()) * v.new_zeros(shape)
    # Half precision is computed in float32, so that scores keep their digits.
    q32, k32, v32 = (_flatten(x.float() if x.itemsize < 4 else x) for x in (q, k, v))
    key_bias = None
    if key_keep is not None:
        key_bias = q32.new_zeros(q.shape[:-1]).masked_fill_(~key_keep, -math.inf)
        key_bias = _flatten(key_bias[..., None])
    with torch.autocast(q.device.type, enabled=False):
        output = TiledAttention.apply(q32, k32, v32, key_bias, tiles, scale)
    return output.to(q.dtype).view(shape)


def _flatten(x: Tensor) -> Tensor:
    return x.reshape(-1, *x.shape[-2:])  # (..., n, d) -> (G, n, d)
