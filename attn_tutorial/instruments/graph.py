"""Attention as a graph: an edge j -> i wherever query i keeps key j.

A layer carries information along one edge. How far it can have travelled after L
layers is then a question about paths, answered exactly by boolean matrix powers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attn_tutorial.checks import check_count
from attn_tutorial.patterns import Pattern, dense_mask

__all__ = ["edges", "hops", "reach_mask"]


def edges(pattern: Pattern, n: int) -> Tensor:
    """Write the pattern's graph as a matrix, with a loop at every token.

    The loop is the residual branch: a token never loses its own state.

    Args:
        pattern: Which (query, key) pairs a layer keeps.
        n: Sequence length.

    Returns:
        Bool, shape (n, n): entry (i, j) is True if one layer can carry j to i.

    Raises:
        TypeError, ValueError: If the pattern or n cannot make a mask.
    """
    return dense_mask(pattern, n) | torch.eye(n, dtype=torch.bool)


def reach_mask(pattern: Pattern | Sequence[Pattern], n: int, layers: int) -> Tensor:
    """Find which inputs can influence which outputs of a stack of layers.

    The boolean product of the layers' graphs, A^L for equal layers: entry (i, j) is
    True exactly when a path of at most L edges leads from j to i, one edge of each
    layer in turn.

    Args:
        pattern: Which (query, key) pairs each layer keeps; of several patterns, the
            layers take one after the other, and then from the first again.
        n: Sequence length.
        layers: Number of layers L >= 0; with 0, a token reaches only itself.

    Returns:
        Bool, shape (n, n).

    Raises:
        TypeError, ValueError: If layers is not an integer, or is negative.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> reach_mask(local(2), 100, 3)[50].sum().item()
        13
        >>> reach_mask([local(2), local(5)], 100, 3)[50].sum().item()  # 2, 5, 2
        19
    """
    layers = check_count("layers", layers, least=0)
    several = [pattern] if isinstance(pattern, Pattern) else pattern
    steps = [edges(each, n).float() for each in several]
    heard = torch.eye(n, dtype=torch.bool)
    for layer in range(min(layers, n * len(steps))):  # by then nothing is new
        heard = steps[layer % len(steps)] @ heard.float() > 0
    return heard


def hops(pattern: Pattern, n: int) -> Tensor:
    """Count the layers that each input needs to reach each output.

    The shortest path in the graph. Its largest entry, if none is -1, is the graph's
    diameter: the layers until everyone has heard from everyone.

    Args:
        pattern: Which (query, key) pairs each layer keeps.
        n: Sequence length.

    Returns:
        int64, shape (n, n): entry (i, j) is the least number of layers after which
        output i can depend on input j; 0 on the diagonal, -1 if it never can.

    Example:
        >>> from attn_tutorial.patterns import causal, local
        >>> hops(local(2) & causal(), 4)
        tensor([[ 0, -1, -1, -1],
                [ 1,  0, -1, -1],
                [ 1,  1,  0, -1],
                [ 2,  1,  1,  0]])
    """
    step = edges(pattern, n).float()  # sums of at most n ones: exact for n < 2^24
    heard = torch.eye(n, dtype=torch.bool)
    distance = heard.long() - 1
    for layer in range(1, n):
        now = step @ heard.float() > 0
        if torch.equal(now, heard):
            break
        distance[now & ~heard] = layer
        heard = now
    return distance
