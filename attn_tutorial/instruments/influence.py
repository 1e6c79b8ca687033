"""Influence: how much an input matters to an output, not only whether it can.

Reach (graph.py) says which entries of the Jacobian d output / d input may differ from
zero. This file measures their size on real layers, and gives the exact answer for
layers that average their window uniformly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attn_tutorial.checks import check_count, check_radius

__all__ = ["influence", "lag_distribution", "lag_quantile", "profile_spread"]


def influence(layers: Callable[[Tensor], Tensor], x: Tensor, position: int) -> Tensor:
    """Measure how strongly each input position moves one output position.

    Args:
        layers: Maps (..., n, d) to (..., n, d_out): a module, a stack, any function.
        x: The input at which to differentiate, shape (n, d).
        position: Which output to look at, 0 ... n - 1.

    Returns:
        Shape (n,): entry j is the Frobenius norm of d layers(x)[position] / d x[j].

    Raises:
        TypeError, ValueError: If position is not an integer, or not inside 0 ... n - 1.

    Example:
        >>> influence(lambda x: 2 * x, torch.ones(3, 4), position=1)
        tensor([0., 4., 0.])
    """
    position = check_count("position", position, least=0)
    if position >= x.shape[-2]:
        raise ValueError(f"position must be below n={x.shape[-2]}, got {position}")
    x = x.detach().requires_grad_()
    output = layers(x)[position]  # (d_out,)
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in output]
    return torch.stack(rows).square().sum((0, 2)).sqrt()


def profile_spread(profile: Tensor, position: int) -> Tensor:
    """Standard deviation of the distance at which influence sits.

    Args:
        profile: Non-negative influence of each input, shape (n,); any total.
        position: The output that it belongs to.

    Returns:
        Scalar: sqrt(sum_j p_j (j - position)^2), p being the normalised profile.

    Example:
        >>> profile_spread(torch.tensor([1.0, 0.0, 1.0]), position=1)
        tensor(1.)
    """
    lag = torch.arange(len(profile)) - position
    return (profile / profile.sum() * lag.square()).sum().sqrt()


def lag_distribution(
    window: int, layers: int, *, residual: float = 0.0, causal: bool = False
) -> Tensor:
    """Share of an output that comes from each lag, if every layer averages uniformly.

    One layer keeps a share ``residual`` of the token itself and spreads the rest
    evenly over its window. Stacking layers convolves their shares.

    Args:
        window: One-sided window w of each layer.
        layers: Number of layers L.
        residual: Share a in [0, 1] that the residual branch carries.
        causal: Look back only: lags 0 ... w instead of -w ... w.

    Returns:
        float64: the shares of lags -Lw ... Lw, or 0 ... Lw if causal; their sum is 1.

    Raises:
        ValueError: If residual lies outside [0, 1], or a size is negative.

    Example:
        >>> lag_distribution(1, 2) * 9
        tensor([1., 2., 3., 2., 1.], dtype=torch.float64)
    """
    window, layers = check_radius(window), check_count("layers", layers, least=0)
    if not 0 <= residual <= 1:
        raise ValueError(f"residual must lie in [0, 1], got {residual}")
    width = window + 1 if causal else 2 * window + 1
    step = torch.full((width,), (1 - residual) / width, dtype=torch.float64)
    step[0 if causal else window] += residual
    shares = torch.ones(1, dtype=torch.float64)
    for _ in range(layers):
        shares = torch.nn.functional.conv1d(
            shares[None, None], step.flip(0)[None, None], padding=width - 1
        )[0, 0]
    return shares


def lag_quantile(shares: Tensor, share: float) -> int:
    """Smallest lag of a causal stack within which ``share`` of the total lies.

    Args:
        shares: What ``lag_distribution(..., causal=True)`` returns, shape (Lw + 1,).
        share: Between 0 and 1, such as 0.99.

    Example:
        >>> lag_quantile(lag_distribution(9, 1, causal=True), 0.55)
        5
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    return min(int((shares.cumsum(0) < share).sum()), len(shares) - 1)
