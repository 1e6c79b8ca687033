"""Which window does a trained model need? Evidence from the model itself.

Four kinds, from the cheapest to the most telling:

- how far its attention looks (``distance_profile``, and ``advise_window`` on it),
- how far its outputs depend on its inputs (``gradient_profile``),
- what happens if its layers get a window after training (``losses_with_windows``,
  ``narrow_layers``),
- what happens if its text gets shorter (``needed_context``, and ``advise_window`` with
  targets).

Attention can look far without need, at a first token for instance, and a model that is
trained with a window can learn to pass on what it no longer sees. So an advice is a
place to start from, and training with the window is the test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attn_tutorial.checks import check_number
from attn_tutorial.instruments.distances import (
    checked_weights,
    distance_profile,
    smallest_block,
    smallest_window,
    to_first,
    without_first,
)
from attn_tutorial.instruments.limits import RISE, needed_context
from attn_tutorial.networks.transformer import Transformer

__all__ = ["Advice", "advise_window"]

SHARE = 0.05  # of attention that may lie outside


@dataclass(frozen=True, repr=False)
class Advice:
    """A window for each layer, with what it rests on.

    Attributes:
        windows: One window w for each layer: an equal part of the context that the
            loss needs if targets were given, else as wide as its widest head looks.
        by_head: What each head of each layer would need for its attention.
        profiles: Share of attention at each distance, per layer, shape (heads, n).
        first_token: Share of each layer's attention that goes to the first token from
            beyond its window. Where it is large, keep that token as a global one.
        tolerance: Share of attention that may lie outside.
        context: How many tokens to each side the loss needs; None without targets.
    """

    windows: list[int]
    by_head: list[list[int]]
    profiles: list[Tensor]
    first_token: list[float]
    tolerance: float = SHARE
    context: int | None = None

    @property
    def window(self) -> int:
        """The widest window, one for all layers."""
        return max(self.windows)

    @property
    def block_sizes(self) -> list[int]:
        """A size of adjacent blocks for each layer, found like its window."""
        if self.context is not None:  # L layers of blocks reach L b tokens for certain
            return [max(1, window) for window in self.windows]
        return [max(smallest_block(p, self.tolerance)) for p in self.profiles]

    def __repr__(self) -> str:
        """A line for each layer."""
        lines = [
            f"layer {layer}: window {window} "
            f"(heads {', '.join(map(str, heads))}; first token {first:.0%})"
            for layer, (window, heads, first) in enumerate(
                zip(self.windows, self.by_head, self.first_token, strict=True)
            )
        ]
        if self.context is None:
            held = f"holds {1 - self.tolerance:.0%} of the attention"
        else:
            held = f"the loss needs {self.context} tokens of context"
        return "\n".join([*lines, held])


def advise_window(
    source: Iterable[Tensor] | nn.Module,
    tokens: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    tolerance: float | None = None,
    skip: int | None = None,
    ignore_first: bool = False,
) -> Advice:
    """Advise a window for each layer of a trained model with full attention.

    Without targets the advice rests on attention alone: the window of a head is the
    smallest w such that all but a share of its attention goes to keys at most w
    positions away, averaged over the queries and the batch; a layer gets that of its
    widest head. With targets it rests on the loss: the text is cut to the fewest tokens
    around a query that the loss hardly notices (see ``needed_context``), and L layers
    share the way to them evenly, since their windows add up (``cost.reach``).

    How good is it? Measured with three seeds each (chapter "Choosing a window"), the
    advice from the loss named the smallest trained window or block size that did as
    well as full attention on 8 of 10 tasks: on 7 of 7 where theory knows it, on 1 of 3
    others. It was too narrow on 1 (a look-up, which layers did not learn to share), and
    too wide on 1 (a model that used more than it gained from). The advice from
    attention named it on 1 of 10, and was too wide on 9, on average 9.2 times.

    Args:
        source: Attention weights of every layer, each (batch, heads, n, n); or a model
            that has them: a ``Transformer`` of this package, or one of the Hugging
            Face library, loaded with ``attn_implementation="eager"``. Call ``eval()``
            on it before.
        tokens: Inputs for the model, shape (batch, n), without padding. Use held-out
            text, and as much of it as a few hundred queries need.
        targets: The right labels, shape (batch, n); ``IGNORE`` is left out.
        tolerance: Without targets, share of attention that may lie outside, in [0, 1),
            0.05 if None. With targets, rise of the loss in nats, 0.02 if None.
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
    by_loss = targets is not None
    share = SHARE if tolerance is None or by_loss else tolerance
    if not 0 <= share < 1:
        raise ValueError(f"tolerance must lie in [0, 1), got {tolerance}")
    advice = _from_attention(_weights(source, tokens), share, skip, ignore_first)
    if not by_loss:
        return advice
    rise = check_number("tolerance", RISE if tolerance is None else tolerance)
    context = needed_context(source, tokens, targets, tolerance=rise)
    windows = [math.ceil(context / len(advice.windows))] * len(advice.windows)
    return replace(advice, windows=windows, context=context)


def _from_attention(
    layers: list[Tensor], share: float, skip: int | None, ignore_first: bool
) -> Advice:
    layers = [checked_weights(weights.detach()) for weights in layers]
    if ignore_first:
        layers = [without_first(weights) for weights in layers]
    profiles = [distance_profile(weights, skip=skip) for weights in layers]
    by_head = [smallest_window(profile, share) for profile in profiles]
    windows = [max(heads) for heads in by_head]
    first = [to_first(x, w, skip) for x, w in zip(layers, windows, strict=True)]
    return Advice(windows, by_head, profiles, first, share)


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
