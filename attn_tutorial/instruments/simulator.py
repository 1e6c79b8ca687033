"""Attention as a chip computes it, tile by tile, with every load and product counted.

A chip has a large slow memory and a small fast one. A schedule cuts the score matrix
into tiles of rows x columns. Each tile of queries walks along the tiles of keys, passes
over those in which no pair attends, and keeps its running softmax in the fast memory.

Written with NumPy, so that it shares no arithmetic with the routines it explains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attn_tutorial.checks import check_count
from attn_tutorial.patterns import Pattern, dense_mask

__all__ = ["FULL", "PARTIAL", "SKIPPED", "Chip", "simulate", "tile_states", "tiles"]

SKIPPED, PARTIAL, FULL = range(3)  # no pair of the tile attends, some do, all do


@dataclass
class Chip:
    """Counts what moves between slow and fast memory, and what is multiplied.

    Attributes:
        bytes: Moved in either direction.
        flops: Multiplications and additions of the matrix products.
    """

    bytes: int = 0
    flops: int = 0

    def load(self, x: np.ndarray, tile: int, size: int) -> np.ndarray:
        """Bring a tile of x, (size, d), into fast memory: zeros past the end of x."""
        found = x[tile * size : (tile + 1) * size]
        self.bytes += found.nbytes
        return np.pad(found, ((0, size - len(found)), (0, 0)))

    def store(self, x: np.ndarray, tile: int, result: np.ndarray) -> None:
        """Write a tile back to x, as far as x goes."""
        place = x[tile * len(result) : (tile + 1) * len(result)]
        place[:] = result[: len(place)]
        self.bytes += place.nbytes

    def product(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return a @ b: 2 FLOPs for each row of a, column of b and term between."""
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def simulate(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    pattern: Pattern,
    rows: int,
    columns: int,
) -> tuple[np.ndarray, Chip]:
    """Compute attention over a pattern by a schedule of tiles, and count its work.

    Eq. (16) is what the chip's bytes come to, Eq. (6) how a tile of queries gets
    along without its whole row of scores.

    Args:
        q: Queries, shape (n, d).
        k: Keys, shape (n, d).
        v: Values, shape (n, d_v).
        pattern: Which (query, key) pairs attend.
        rows: Queries in a tile.
        columns: Keys in a tile.

    Returns:
        The output, shape (n, d_v), zeros where a query keeps no key; and the chip.

    Raises:
        TypeError, ValueError: If the pattern or a size is none, a size below 1, an
            input not floating, or not as long as the others.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> q = np.zeros((8, 4), np.float32)
        >>> output, chip = simulate(q, q, q, local(1), rows=4, columns=2)
        >>> output.shape, chip.flops
        ((8, 4), 768)
    """
    _check_inputs(q, k, v)
    mask, chip, output = tiles(pattern, len(q), rows, columns), Chip(), np.zeros_like(v)
    for r, states in enumerate(tile_states(mask)):
        queries = chip.load(q, r, rows)
        top = np.full((rows, 1), -np.inf)  # largest score so far
        total, mix = np.zeros((rows, 1)), np.zeros((rows, v.shape[1]))
        for c in np.flatnonzero(states != SKIPPED):
            keys, values = chip.load(k, c, columns), chip.load(v, c, columns)
            scores = chip.product(queries, keys.T) / q.shape[1] ** 0.5
            if states[c] == PARTIAL:
                scores = np.where(mask[r, c], scores, -np.inf)
            new_top = np.maximum(top, scores.max(1, keepdims=True))
            shift = np.where(new_top == -np.inf, 0.0, new_top)  # no key met so far
            weights, shrink = np.exp(scores - shift), np.exp(top - shift)
            total = shrink * total + weights.sum(1, keepdims=True)
            mix = shrink * mix + chip.product(weights, values)
            top = new_top
        chip.store(output, r, mix / np.where(total == 0, 1, total))
    return output, chip


def _check_inputs(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"{name} must have a floating dtype, got {x.dtype}")
        if len(x) != len(q):
            raise ValueError(f"{name} must be as long as q, {len(q)}, got {len(x)}")


def tiles(pattern: Pattern, n: int, rows: int, columns: int) -> np.ndarray:
    """Cut a pattern's mask into tiles; what lies past the end never attends.

    Returns:
        Bool, shape (tiles down, tiles across, rows, columns).

    Example:
        >>> from attn_tutorial.patterns import local
        >>> tiles(local(1), 8, rows=4, columns=2).shape
        (2, 4, 4, 2)
    """
    rows = check_count("rows", rows, least=1)
    columns = check_count("columns", columns, least=1)
    keep = dense_mask(pattern, n).numpy()
    keep = np.pad(keep, ((0, -n % rows), (0, -n % columns)))
    down, across = keep.shape[0] // rows, keep.shape[1] // columns
    return keep.reshape(down, rows, across, columns).swapaxes(1, 2)


def tile_states(mask: np.ndarray) -> np.ndarray:
    """Say of each tile of `tiles` whether it is SKIPPED, PARTIAL or FULL.

    Returns:
        Integers 0, 1 or 2, shape (tiles down, tiles across).

    Example:
        >>> from attn_tutorial.patterns import local
        >>> tile_states(tiles(local(2), 8, rows=2, columns=2))
        array([[2, 1, 0, 0],
               [1, 2, 1, 0],
               [0, 1, 2, 1],
               [0, 0, 1, 2]])
    """
    return mask.any((2, 3)).astype(int) + mask.all((2, 3))
