"""Which window does a trained model need? Evidence from the model itself.

Three kinds, from the cheapest to the most telling:

- how far its attention looks (``distance_profile``, and ``advise_window`` on it),
- how far its outputs depend on its inputs (``gradient_profile``),
- what happens if its layers get a window after training (``with_window``,
  ``losses_with_windows``).

Attention can look far without need, at a first token for instance, and a model that is
trained with a window can learn to pass on what it no longer sees. So an advice is a
place to start from, and training with the window is the test.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial import patterns
from attn_tutorial.checks import check_count, check_window
from attn_tutorial.modules import MultiHeadAttention, Transformer
from attn_tutorial.tasks import IGNORE

__all__ = [
    "Advice",
    "advise_window",
    "distance_profile",
    "gradient_profile",
    "losses_with_windows",
    "smallest_window",
    "with_window",
]


@dataclass(frozen=True, repr=False)
class Advice:
    """A window for each layer, with what it rests on.

    Attributes:
        windows: One window w for each layer: enough for the widest of its heads.
        by_head: What each head of each layer would need alone.
        profiles: Share of attention at each distance, per layer, shape (heads, n).
        first_token: Share of each layer's attention that goes to the first token from
            beyond its window. Where it is large, keep that token as a global one.
        tolerance: Share of attention that may lie outside of the window.
    """

    windows: list[int]
    by_head: list[list[int]]
    profiles: list[Tensor]
    first_token: list[float]
    tolerance: float

    @property
    def window(self) -> int:
        """The widest window, one for all layers."""
        return max(self.windows)

    def __repr__(self) -> str:
        """A line for each layer."""
        lines = [
            f"layer {layer}: window {window} "
            f"(heads {', '.join(map(str, heads))}; first token {first:.0%})"
            for layer, (window, heads, first) in enumerate(
                zip(self.windows, self.by_head, self.first_token, strict=True)
            )
        ]
        return "\n".join([*lines, f"holds {1 - self.tolerance:.0%} of the attention"])


def advise_window(
    source: Iterable[Tensor] | nn.Module,
    tokens: Tensor | None = None,
    *,
    tolerance: float = 0.05,
    skip: int | None = None,
    ignore_first: bool = False,
) -> Advice:
    """Advise a window for each layer of a trained model with full attention.

    The window of a head is the smallest w such that at least 1 - tolerance of its
    attention goes to keys at most w positions away; a layer gets that of its widest
    head. What a query attends to is averaged over the queries and the batch.

    Args:
        source: Attention weights of every layer, each (batch, heads, n, n); or a model
            that has them: a ``Transformer`` of this package, or one of the Hugging
            Face library, loaded with ``attn_implementation="eager"``. Call ``eval()``
            on it before.
        tokens: Inputs for the model, shape (batch, n), without padding. Use held-out
            text, and as much of it as a few hundred queries need.
        tolerance: Share of attention that may lie outside, in [0, 1).
        skip: Leave out the first queries, whose keys cannot be far away; half of them
            if None and no query looks ahead, else 0.
        ignore_first: Whether attention to the first token does not count, since many
            models rest their attention there (Xiao et al., 2024).

    Returns:
        The advice, with its evidence.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, shape or size.

    Example:
        >>> previous = torch.eye(6).roll(-1, 1)[None, None]  # row i attends to i + 1
        >>> print(advise_window([previous[..., :5, :5]]))
        layer 0: window 1 (heads 1; first token 0%)
        holds 95% of the attention
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must lie in [0, 1), got {tolerance}")
    layers = [_checked(w.detach()) for w in _weights(source, tokens)]
    if ignore_first:
        layers = [_without_first(weights) for weights in layers]
    profiles = [distance_profile(weights, skip=skip) for weights in layers]
    by_head = [smallest_window(profile, tolerance) for profile in profiles]
    windows = [max(heads) for heads in by_head]
    first = [_to_first(x, w, skip) for x, w in zip(layers, windows, strict=True)]
    return Advice(windows, by_head, profiles, first, tolerance)


@torch.no_grad()
def _weights(source: Iterable[Tensor] | nn.Module, tokens: Tensor | None) -> list:
    if not isinstance(source, nn.Module):
        return list(source)
    if tokens is None:
        raise TypeError("tokens must be given with a model, got None")
    if isinstance(source, Transformer):
        return source.attention_maps(tokens)
    found = source(tokens, output_attentions=True).attentions
    if not found or found[0] is None:
        raise ValueError(
            "source returned no attention weights: load the model with "
            'attn_implementation="eager"'
        )
    return list(found)


def _checked(weights: Tensor) -> Tensor:
    if weights.ndim != 4 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(
            "weights of a layer must have shape (batch, heads, n, n), "
            f"got {tuple(weights.shape)}"
        )
    return weights


def _without_first(weights: Tensor) -> Tensor:
    weights = weights.clone()
    weights[..., 1:, 0] = 0
    return weights


def _skipped(weights: Tensor, skip: int | None) -> int:
    if skip is not None:
        return check_count("skip", skip, least=0)
    looks_ahead = weights.triu(1).any()
    return 0 if looks_ahead else weights.shape[-1] // 2


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
    first = _skipped(weights, skip)
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


def _to_first(weights: Tensor, window: int, skip: int | None) -> float:
    """Share of attention that the first token gets from further away than a window."""
    queries = weights[..., max(_skipped(weights, skip), window + 1) :, :].double()
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
        size = _gradient_size(model, tokens, position)  # (n,)
        profile.index_add_(0, (torch.arange(n) - position).abs(), size)
    return profile / profile.sum()


def _gradient_size(model: Transformer, tokens: Tensor, position: int) -> Tensor:
    """Size of d (score of the best label at a position) / d (input), averaged."""
    x = model.embed(tokens).detach().requires_grad_()
    hidden = x
    for block in model.blocks:
        hidden = block(hidden)
    best = model.head(model.norm(hidden[:, position])).max(-1).values
    (gradient,) = torch.autograd.grad(best.sum(), x)
    return gradient.norm(dim=-1).double().mean(0).cpu()


def with_window(model: Transformer, window: int | list[int]) -> Transformer:
    """Copy a trained model and give its layers a window, without training again.

    Args:
        model: A model of attention layers.
        window: One window for all layers, or one for each.

    Returns:
        A model in which each layer keeps ``its pattern & local(window)``.

    Example:
        >>> model = with_window(Transformer(5, 5, num_layers=2), 3)
        >>> model.blocks[0].mixer.pattern
        local(window=3)
    """
    limited = copy.deepcopy(model)
    layers = [m for m in limited.modules() if isinstance(m, MultiHeadAttention)]
    several = [window] * len(layers) if isinstance(window, int) else list(window)
    if len(several) != len(layers):
        raise ValueError(f"window must have {len(layers)} entries, got {window}")
    for layer, w in zip(layers, several, strict=True):
        near = patterns.local(check_window(w))
        layer.pattern = _within(layer.pattern, near)
    return limited


def _within(pattern: patterns.Pattern | None, near: patterns.Pattern):
    """Intersect, in the form that the fast routines know."""
    if pattern is None or pattern == patterns.full():
        return near
    return near & pattern


@torch.no_grad()
def losses_with_windows(
    model: Transformer, inputs: Tensor, targets: Tensor, windows: Iterable[int]
) -> list[float]:
    """Loss of a trained model under each window, without training again.

    Args:
        model: A model of attention layers.
        inputs: Tokens, shape (batch, n).
        targets: Labels, shape (batch, n); ``IGNORE`` is left out.
        windows: Which windows to try.

    Returns:
        Mean cross-entropy in nats, for each window.
    """
    wanted = targets.flatten()
    return [
        cross_entropy(
            with_window(model, window)(inputs).flatten(0, -2),
            wanted,
            ignore_index=IGNORE,
        ).item()
        for window in windows
    ]
