"""Eq. (11): block-sparse attention, each block with itself and the two beside it."""

from __future__ import annotations

import math

from torch import Tensor, nn

from attn_tutorial import patterns
from attn_tutorial.checks import (
    check_block,
    check_count,
    check_first,
    check_key_keep,
    check_qkv,
    check_scale,
)
from attn_tutorial.tiled import Tile, tiled_attention


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_blocks: int | None = None,
    *,
    block_size: int | None = None,
    causal: bool = False,
    first: int | None = None,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of each block of queries to its own block of keys and its neighbours.

    Eq. (11): query i meets key j exactly when |i // b - j // b| <= 1 and, if causal,
    j <= i. Computes n * 3b scores, never n * n, and keeps none.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d). Where a leading axis is 1, all heads of q share
            one head of keys, which is not copied.
        v: Values, shape (..., n_k, d_v).
        num_blocks: How many blocks of equal size; must divide n_k.
        block_size: b, tokens in a block, instead of num_blocks; any n_k, the last block
            may be shorter.
        causal: Also forbid the keys after the query.
        first: Position of the first query on the keys' axis, where the blocks are
            counted. None means 0, and needs as many queries as keys.
        key_keep: bool, (n_k,) or with the leading axes of k, False = padding, never
            attended, whatever it holds.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept, scaled scores.

    Returns:
        Shape (..., n_q, d_v). A query with no key left gets zeros. With `return_lse`
        also (..., n_q), at least float32, -inf where no key is left.

    Raises:
        TypeError: If q, k, v are no floating-point tensors of one dtype, or a number of
            blocks is no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, num_blocks does not divide n_k, first is
            needed, or not exactly one of num_blocks and block_size is given.

    >>> import torch
    >>> q = torch.randn(2, 8, 96, 16)
    >>> sparse_attention(q, q, q, num_blocks=6).shape
    torch.Size([2, 8, 96, 16])
    """
    check_qkv(q, k, v)
    check_key_keep(key_keep, k)
    n_q, n_k = q.shape[-2], k.shape[-2]
    first, scale = check_first(first, n_q, n_k), check_scale(scale, q.shape[-1])
    farthest = max(n_k, first + n_q, -first, 1)  # a larger block borders on nothing
    b = min(check_block(n_k, num_blocks, block_size), farthest)
    pattern = patterns.adjacent_blocks(b) & patterns.causal() if causal else None
    return tiled_attention(
        q,
        k,
        v,
        block_tiles(b, causal),
        pattern,
        first=first,
        key_keep=key_keep,
        scale=scale,
        return_lse=return_lse,
    )


def block_tiles(block_size: int, causal: bool) -> tuple[Tile, ...]:
    """The tiles of a block: the whole block, or even parts of a large one.

    Their run is the block and its neighbours, so that every pair attends: no mask at
    all. If causal, the run ends with the tile, and parts compute less for nothing.

    >>> block_tiles(64, causal=False)
    (Tile(offset=0, rows=64, step=64, left=64, right=64),)
    """
    parts = math.ceil(block_size / (128 if causal else 512))
    rows = math.ceil(block_size / parts)
    tiles = []
    for first in range(0, block_size, rows):
        end = min(first + rows, block_size)
        right = 0 if causal else 2 * block_size - end
        tiles.append(Tile(first, end - first, block_size, block_size + first, right))
    return tuple(tiles)


class SparseAttention(nn.Module):
    """Block-sparse attention as a module without parameters; Q, K, V have d_k features.

    `n` is the number of blocks, as in the source document.

    >>> import torch
    >>> x = torch.randn(1, 12, 4)
    >>> SparseAttention(d_k=4, n=3)(x, x, x).shape
    torch.Size([1, 12, 4])
    """

    def __init__(self, d_k: int, n: int):
        super().__init__()
        self.d_k = check_count("d_k", d_k, least=1)
        self.n = check_count("n", n, least=1)

    def forward(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """Eq. (11) with scale 1 / sqrt(d_k); Q, K: (..., n, d_k), V: (..., n, d_v)."""
        check_qkv(Q, K, V)
        if Q.shape[-1] != self.d_k:
            raise ValueError(
                f"Q must have d_k = {self.d_k} features, got shape {tuple(Q.shape)}"
            )
        return sparse_attention(Q, K, V, self.n)

    def extra_repr(self) -> str:
        """Name the settings in the module's repr."""
        return f"d_k={self.d_k}, n={self.n}"
