"""How far attention looks, and how far outputs depend: shares at each distance."""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial.checks import check_count, check_number
from attn_tutorial.instruments.heads import gradient_size
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "block_share",
    "distance_profile",
    "gradient_profile",
    "smallest_block",
    "smallest_window",
]


LEAST = 1e-3  # share of a query's attention that is more than rounding


def checked_weights(weights: Tensor, name: str = "weights") -> Tensor:
    """Return a layer's weights, (batch, heads, n, n), if each row is made of shares."""
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        kind = getattr(weights, "dtype", type(weights).__name__)
        raise TypeError(f"{name} must be a tensor of a floating dtype, got {kind}")
    if weights.ndim != 4 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(
            f"{name} must have shape (batch, heads, n, n), one such tensor for each "
            f"layer, got {tuple(weights.shape)}"
        )
    if weights.shape[-1] < 2 or weights.numel() == 0:
        shape = tuple(weights.shape)
        raise ValueError(f"{name} must be those of 2 tokens or more, got shape {shape}")
    _check_rows(weights, name)
    return weights


def _check_rows(weights: Tensor, name: str) -> None:
    """Refuse rows with NaN, with a negative share, or with another sum than 1."""
    allowed = LEAST if weights.itemsize >= 4 else 20 * LEAST
    total = weights.sum(-1, dtype=torch.float64)  # (batch, heads, n)
    wrong = ~((total - 1).abs() <= allowed) | (weights < 0).any(-1)
    if wrong.any():
        text, head, query = wrong.nonzero()[0].tolist()
        row = weights[text, head, query]
        raise ValueError(
            f"{name} must hold shares, at least 0 and with sum 1 in each row: in text "
            f"{text}, head {head}, query {query} has the sum {row.double().sum():.4g} "
            f"and the least share {row.min():.4g}; use texts without padding, and the "
            "weights after the softmax, without dropout (call eval() on the model)"
        )


def _check_finite(name: str, x: Tensor) -> None:
    if not (x.isfinite() & (x >= 0)).all():
        wrong = x[~(x.isfinite() & (x >= 0))][0].item()
        raise ValueError(f"{name} must be finite and at least 0, got {wrong}")


def without_first(weights: Tensor, skip: int | None) -> Tensor:
    """Drop what goes to the first token; a head with nothing else is left empty."""
    weights = weights.clone()
    weights[..., 1:, 0] = 0
    late = weights[..., max(1, skipped(weights, skip)) :, :]
    rest = late.sum((0, 2, 3), dtype=torch.float64) / late[:, 0, :, 0].numel()
    weights[:, rest < LEAST] = 0
    return weights


def skipped(weights: Tensor, skip: int | None) -> int:
    """How many first queries are left out: `skip`, or half of them if causal."""
    n = weights.shape[-1]
    if skip is None:
        return 0 if weights.triu(1).any() else n // 2
    if check_count("skip", skip, least=0) >= n:
        raise ValueError(f"skip must leave a query of the n={n}, got {skip}")
    return check_count("skip", skip, least=0)


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
        distance d; a row's sum is 1, or 0 for a head that attends to nothing.

    Raises:
        ValueError: If a weight is negative or not finite, or no query is left.

    Example:
        >>> distance_profile(torch.full((1, 1, 3, 3), 1 / 3)) * 9
        tensor([[3., 4., 2.]], dtype=torch.float64)
    """
    _check_finite("weights", weights)
    first = skipped(weights, skip)
    n, summed = weights.shape[-1], weights.double().sum(0)[:, first:]
    lag = _lag(n, weights.device)[first:].flatten()
    profile = summed.new_zeros(len(summed), n).index_add(1, lag, summed.flatten(1))
    total = profile.sum(-1, keepdim=True)
    return (profile / total.where(total > 0, 1)).cpu()


def smallest_window(profile: Tensor, tolerance: float) -> list[int]:
    """Smallest window of each head that holds all but ``tolerance`` of its profile.

    It is 0 for an empty profile, that of a head that attends to nothing.

    Example:
        >>> smallest_window(torch.tensor([[0.5, 0.3, 0.2], [1, 0, 0]]), 0.25)
        [1, 0]
    """
    _check_finite("profile", profile)
    inside = profile.double().cumsum(-1)
    # Sums of shares end a rounding error short of 1.
    short = inside < 1 - check_number("tolerance", tolerance) - 1e-9
    return (short & (inside[:, -1:] > 0)).sum(-1).tolist()


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

    It is 1 for an empty profile.

    Example:
        >>> smallest_block(torch.tensor([[0.2, 0.2, 0.2, 0.2, 0.2]]), 0.3)
        [2]
    """
    _check_finite("profile", profile)
    profile = profile.double()
    sizes = range(1, max(2, profile.shape[-1]))
    shares = torch.stack([block_share(profile, b) for b in sizes])  # (sizes, heads)
    short = shares < 1 - check_number("tolerance", tolerance) - 1e-9
    return (1 + (short & (profile.sum(-1) > 0)).sum(0)).tolist()


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
        queries: How many of the last positions are looked at; all of them at most.

    Returns:
        float64, shape (n,): entry d is the share at distance d; the sum is 1.

    Raises:
        ValueError: If the gradients are not finite, or all are zero.
    """
    n = tokens.shape[-1]
    profile = torch.zeros(n, dtype=torch.float64)
    for position in range(max(0, n - check_count("queries", queries, least=1)), n):
        size = gradient_size(model, tokens, position).double().mean(0).cpu()  # (n,)
        profile.index_add_(0, (torch.arange(n) - position).abs(), size)
    if not 0 < profile.sum() < torch.inf:
        total = profile.sum().item()
        raise ValueError(f"model must have finite gradients, not all 0, got {total}")
    return profile / profile.sum()
