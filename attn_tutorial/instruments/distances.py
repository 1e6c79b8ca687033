"""How far attention looks, and how far outputs depend: shares at each distance."""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial.checks import check_count
from attn_tutorial.instruments.heads import gradient_size
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "block_share",
    "distance_profile",
    "gradient_profile",
    "smallest_block",
    "smallest_window",
]


def checked_weights(weights: Tensor) -> Tensor:
    if weights.ndim != 4 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(
            "weights of a layer must have shape (batch, heads, n, n), "
            f"got {tuple(weights.shape)}"
        )
    return weights


def without_first(weights: Tensor) -> Tensor:
    weights = weights.clone()
    weights[..., 1:, 0] = 0
    return weights


def skipped(weights: Tensor, skip: int | None) -> int:
    if skip is not None:
        return check_count("skip", skip, least=0)
    ahead = weights.triu(1).any()
    return 0 if ahead else weights.shape[-1] // 2


def _lag(n: int, device: torch.device) -> Tensor:
    """Distance of each pair, shape (n, n)."""
    place = torch.arange(n, device=device)
    return (place[:, None] - place).abs()


def distance_profile(weights: Tensor, *, skip: int | None = None) -> Tensor:
    """Share of each head's attention that goes to each distance.

    Args:
        weights: Attention weights, shape (batch, heads, n, n).
        skip: As in ``advise_window``.

    Returns:
        float64 on the CPU, shape (heads, n): entry (h, d) is the share of head h at
        distance d; a row's sum is 1.

    Example:
        >>> distance_profile(torch.full((1, 1, 3, 3), 1 / 3)) * 9
        tensor([[3., 4., 2.]], dtype=torch.float64)
    """
    first = skipped(weights, skip)
    n, summed = weights.shape[-1], weights.double().sum(0)[:, first:]
    lag = _lag(n, weights.device)[first:].flatten()
    profile = summed.new_zeros(len(summed), n).index_add(1, lag, summed.flatten(1))
    return (profile / profile.sum(-1, keepdim=True)).cpu()


def smallest_window(profile: Tensor, tolerance: float) -> list[int]:
    """Smallest window of each head that holds all but ``tolerance`` of its profile.

    Example:
        >>> smallest_window(torch.tensor([[0.5, 0.3, 0.2], [1, 0, 0]]), 0.25)
        [1, 0]
    """
    inside = profile.double().cumsum(-1)
    # Sums of shares end a rounding error short of 1.
    return (inside < 1 - tolerance - 1e-9).sum(-1).tolist()


def block_share(profile: Tensor, block_size: int) -> Tensor:
    """Share of each head's attention that adjacent blocks of this size keep.

    Blocks may begin anywhere, and this is the mean over where. Two tokens d apart are
    then in the same or in adjacent blocks of b always for d <= b, never for d >= 2 b,
    and with a chance of 2 - d / b in between: the distances alone decide.

    Args:
        profile: What ``distance_profile`` returns, shape (heads, n).
        block_size: b, at least 1.

    Returns:
        Shape (heads,).

    Example:
        >>> block_share(torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2]]).double(), 2)
        tensor([0.7000], dtype=torch.float64)
    """
    b = check_count("block_size", block_size, least=1)
    distance = torch.arange(profile.shape[-1], dtype=profile.dtype)
    return (profile * (2 - distance / b).clamp(0, 1)).sum(-1)


def smallest_block(profile: Tensor, tolerance: float) -> list[int]:
    """Smallest block size of each head that keeps all but ``tolerance`` of its profile.

    Example:
        >>> smallest_block(torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2]]), 0.3)
        [2]
    """
    profile = profile.double()
    sizes = range(1, profile.shape[-1])
    shares = torch.stack([block_share(profile, b) for b in sizes])  # (sizes, heads)
    return (1 + (shares < 1 - tolerance - 1e-9).sum(0)).tolist()


def to_first(weights: Tensor, window: int, skip: int | None) -> float:
    """Share of attention that the first token gets from further away than a window."""
    queries = weights[..., max(skipped(weights, skip), window + 1) :, :].double()
    total = queries.sum()
    return (queries[..., 0].sum() / total).item() if total > 0 else 0.0


def gradient_profile(model: Transformer, tokens: Tensor, queries: int = 4) -> Tensor:
    """Share of the outputs' dependence that comes from each distance.

    The outputs at the last positions are differentiated with respect to all embedded
    inputs. Unlike attention, this counts all layers together, and what they do with
    what they look at.

    Args:
        model: A trained model.
        tokens: Inputs, shape (batch, n).
        queries: How many of the last positions are looked at.

    Returns:
        float64, shape (n,): entry d is the share at distance d; the sum is 1.
    """
    n = tokens.shape[-1]
    profile = torch.zeros(n, dtype=torch.float64)
    for position in range(n - check_count("queries", queries, least=1), n):
        size = gradient_size(model, tokens, position).double().mean(0).cpu()  # (n,)
        profile.index_add_(0, (torch.arange(n) - position).abs(), size)
    return profile / profile.sum()
