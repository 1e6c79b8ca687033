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
from collections.abc import Callable, Iterable, Mapping
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
from attn_tutorial.instruments.limits import RISE, check_tokens, needed_context
from attn_tutorial.networks.transformer import Transformer

__all__ = ["Advice", "advise_window"]

SHARE = 0.05  # of attention that may lie outside


@dataclass(frozen=True, repr=False)
class Advice:
    """A window for each layer, with what it rests on.

    Attributes:
        windows: One window w for each layer: an equal part of the context that the
            loss needs if targets were given, else as wide as its widest head looks.
            A model that does not say how many layers it has gets one entry, for all
            of them together.
        by_head: What each head of each layer would need for its attention; 0 if it
            attends to nothing but an ignored first token.
        profiles: Share of attention at each distance, per layer, shape (heads, n);
            zeros for a head that attends to nothing but an ignored first token.
        first_token: Share of each layer's attention that goes to the first token from
            beyond its window, also if it is ignored. Where it is large, keep that
            token as a global one.
        tolerance: Share of attention that may lie outside.
        context: How many tokens to each side the loss needs; None without targets.
        ignored_first: Whether attention to the first token did not count.

    ``by_head``, ``profiles`` and ``first_token`` are empty if the model does not return
    its attention: the advice then rests on the loss alone.
    """

    windows: list[int]
    by_head: list[list[int]]
    profiles: list[Tensor]
    first_token: list[float]
    tolerance: float = SHARE
    context: int | None = None
    ignored_first: bool = False

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
            f"layer {layer}: window {window}{self._attention(layer)}"
            for layer, window in enumerate(self.windows)
        ]
        if not self.profiles and len(lines) == 1:
            lines = [f"all layers together: window {self.window}"]
        if self.context is not None:
            held = f"the loss needs {self.context} tokens of context"
        else:
            rest = ", the first token left out" if self.ignored_first else ""
            held = f"holds {1 - self.tolerance:.0%} of the attention{rest}"
        return "\n".join([*lines, held])

    def _attention(self, layer: int) -> str:
        """What is known of a layer's attention, in brackets."""
        if not self.profiles:
            return ""
        pairs = zip(self.by_head[layer], self.profiles[layer].sum(-1), strict=True)
        heads = [str(w) if total > 0 else "first token only" for w, total in pairs]
        return f" (heads {', '.join(heads)}; first token {self.first_token[layer]:.0%})"


def advise_window(
    source: Iterable[Tensor] | nn.Module | Callable[[Tensor], Tensor],
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
    well as full attention on 7 of 7 tasks where theory knows it, on 1 of 3 others, and
    on 8 of 12 that were made to test it, twice as many as any other rule. Of the six
    misses one was too narrow (a look-up, which layers did not learn to share) and five
    too wide (models that used more than they gained from). The advice from attention
    was too wide on all 12, on average 4.7 times.

    Args:
        source: Attention weights of every layer, each (batch, heads, n, n), with sum 1
            in each row; or a model that has them: a ``Transformer`` of this package, or
            one of the Hugging Face library, loaded with
            ``attn_implementation="eager"``. With targets, any model or function from
            tokens to scores will do (see ``needed_context``). Call ``eval()`` on it
            before.
        tokens: Inputs for the model, shape (batch, n), n at least 2, without padding.
            Use held-out text, and as much of it as a few hundred queries need.
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
        >>> previous = torch.eye(5)[[0, 0, 1, 2, 3]]  # row i attends to i - 1
        >>> print(advise_window([previous[None, None]]))
        layer 0: window 1 (heads 1; first token 0%)
        holds 95% of the attention
    """
    by_loss = targets is not None
    default = RISE if by_loss else SHARE
    allowed = check_number("tolerance", default if tolerance is None else tolerance)
    if not by_loss and allowed >= 1:
        raise ValueError(f"tolerance must lie in [0, 1), got {tolerance}")
    _check_source(source, tokens, by_loss)
    share = SHARE if by_loss else allowed
    if not by_loss:
        return _from_attention(_weights(source, tokens), share, skip, ignore_first)
    context = needed_context(source, tokens, targets, tolerance=allowed)
    layers = _attention(source, tokens)
    seen = layers or [None] * _num_layers(source)
    advice = Advice([], [], [], [], share)
    if layers:
        advice = _from_attention(layers, share, skip, ignore_first)
    windows = [math.ceil(context / len(seen))] * len(seen)
    return replace(advice, windows=windows, context=context)


def _check_source(source: object, tokens: Tensor | None, by_loss: bool) -> None:
    kind = type(source).__name__
    if callable(source):
        if tokens is None:
            raise TypeError("tokens must be given with a model, got None")
        check_tokens("tokens", tokens)
    elif isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable):
        raise TypeError(
            "source must be a model that can be called with tokens, or a list of "
            f"attention weights, got {kind}; load the model first, with "
            "from_pretrained or load_state_dict"
        )
    elif by_loss:
        raise TypeError(
            f"targets need a model in source, which can be asked again, got {kind}; "
            "give the model itself, or leave targets out"
        )


def _from_attention(
    layers: list[Tensor], share: float, skip: int | None, ignore_first: bool
) -> Advice:
    layers = [
        checked_weights(weights.detach(), f"weights of layer {layer}")
        for layer, weights in enumerate(layers)
    ]
    counted = [without_first(x, skip) for x in layers] if ignore_first else layers
    profiles = [distance_profile(weights, skip=skip) for weights in counted]
    by_head = [smallest_window(profile, share) for profile in profiles]
    windows = [max(heads) for heads in by_head]
    first = [to_first(x, w, skip) for x, w in zip(layers, windows, strict=True)]
    options = {"tolerance": share, "ignored_first": bool(ignore_first)}
    return Advice(windows, by_head, profiles, first, **options)


def _weights(source: Iterable[Tensor] | nn.Module, tokens: Tensor | None) -> list:
    """Attention weights of every layer, from a list or a model that returns them."""
    if callable(source):
        layers = _attention(source, tokens)
        if not layers:
            raise ValueError(
                f"source returned no attention weights, being {type(source).__name__}: "
                'load the model with attn_implementation="eager", or give targets, '
                "for which its scores are enough"
            )
        return layers
    layers = [source] if getattr(source, "ndim", 5) < 5 else list(source)
    if not layers or any(not isinstance(weights, Tensor) for weights in layers):
        kinds = [type(weights).__name__ for weights in layers]
        raise TypeError(f"source must hold a tensor for each layer, got {kinds}")
    return layers


@torch.no_grad()
def _attention(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    """Attention weights of every layer; none if the model does not return them."""
    own = isinstance(model, Transformer)
    try:
        if own:
            return model.attention_maps(tokens)
        found = _attentions_in(model(tokens, output_attentions=True), tokens.shape[-1])
    except TypeError as error:
        if ("need_weights" if own else "output_attentions") not in str(error):
            raise
        return []
    return [] if any(weights is None for weights in found) else found


def _attentions_in(output: object, n: int) -> list[Tensor | None]:
    """What is called attentions, or has their shape if the output is a tuple."""
    if not isinstance(output, tuple):
        return list(getattr(output, "attentions", None) or [])
    for part in reversed(output):
        if isinstance(part, tuple | list) and part:
            shapes = [getattr(weights, "shape", ()) for weights in part]
            if all(len(s) == 4 and s[-2:] == (n, n) for s in shapes):
                return list(part)
    return []


def _num_layers(model: object) -> int:
    """How many layers a model says it has; 1 if it does not say."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.ModuleList):
        return len(blocks)
    return getattr(getattr(model, "config", None), "num_hidden_layers", None) or 1
