"""What a trained model loses when its layers or its text get shorter."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial import patterns
from attn_tutorial.checks import check_radius
from attn_tutorial.networks.layers import MultiHeadAttention
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "losses_with_context",
    "losses_with_windows",
    "narrow",
    "narrow_layers",
    "needed_context",
    "with_blocks",
    "with_window",
]

RISE = 0.02  # nats of loss that count as nothing


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
    return _with(model, window, lambda w: patterns.local(check_radius(w)))


def with_blocks(model: Transformer, block_size: int | list[int]) -> Transformer:
    """Copy a trained model and let its layers see adjacent blocks only.

    Args:
        model: A model of attention layers.
        block_size: One size for all layers, or one for each.

    Returns:
        A model in which each layer keeps ``its pattern & adjacent_blocks(b)``.
    """
    return _with(model, block_size, patterns.adjacent_blocks)


def _with(
    model: Transformer,
    sizes: int | list[int],
    pattern_of: Callable[[int], patterns.Pattern],
) -> Transformer:
    limited = copy.deepcopy(model)
    layers = [m for m in limited.modules() if isinstance(m, MultiHeadAttention)]
    several = [sizes] * len(layers) if isinstance(sizes, int) else list(sizes)
    if len(several) != len(layers):
        raise ValueError(f"window must have {len(layers)} entries, got {sizes}")
    for layer, size in zip(layers, several, strict=True):
        layer.pattern = _within(layer.pattern, pattern_of(size))
    return limited


def _within(pattern: patterns.Pattern | None, near: patterns.Pattern):
    """Intersect, in the form that the fast routines know."""
    if pattern is None or pattern == patterns.full():
        return near
    return near & pattern


@torch.no_grad()
def losses_with_windows(
    model: Transformer,
    inputs: Tensor,
    targets: Tensor,
    windows: Iterable[int],
    *,
    limit: Callable[[Transformer, int], Transformer] = with_window,
) -> list[float]:
    """Loss of a trained model under each window, without training again.

    Args:
        model: A model of attention layers.
        inputs: Tokens, shape (batch, n).
        targets: Labels, shape (batch, n); ``IGNORE`` is left out.
        windows: Which windows to try.
        limit: ``with_window``, or ``with_blocks`` to try block sizes instead.

    Returns:
        Mean cross-entropy in nats, for each window.
    """
    return [mean_loss(limit(model, w), inputs, targets) for w in windows]


@torch.no_grad()
def mean_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean cross-entropy in nats."""
    scores = model(inputs).flatten(0, -2)
    return cross_entropy(scores, targets.flatten(), ignore_index=IGNORE).item()


def needed_context(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    tolerance: float = RISE,
    queries: int = 16,
) -> int:
    """Find how many tokens beside a query a trained model needs for its loss.

    The text is cut to c tokens before the query, and as many behind it if the model
    looks ahead. The smallest c whose loss is hardly more than that of the whole text is
    found by bisection; above 32 tokens, to one part in sixteen.

    For a model that does not look ahead this is like asking at an early position, as
    in training. What is shown begins at position 0, which confuses a model with
    absolute positions that never saw short texts.

    Args:
        model: A trained model: from tokens (batch, n) to scores (batch, n, labels), or
            to an object with ``logits``.
        inputs: Tokens, shape (batch, n), without padding.
        targets: Labels, shape (batch, n); ``IGNORE`` is left out.
        tolerance: How much the loss may rise, in nats.
        queries: At how many positions the loss is taken: the last ones, or those in
            the middle if the model looks ahead.

    Returns:
        c, at most n - 1 (n // 2 if the model looks ahead).
    """
    ahead, n = looks_ahead(model, inputs), inputs.shape[-1]
    contexts = _contexts(n // 2 if ahead else n - 1)

    def loss(context: int) -> float:
        options = {"queries": queries, "ahead": ahead}
        return losses_with_context(model, inputs, targets, [context], **options)[0]

    allowed = loss(contexts[-1]) + tolerance
    last = len(contexts) - 1
    first = bisect_left(contexts, True, hi=last, key=lambda c: loss(c) <= allowed)
    return contexts[first]


def _contexts(widest: int) -> list[int]:
    """0, 1, ... 32, and then in steps of one sixteenth."""
    sizes = [0]
    while sizes[-1] < widest:
        sizes.append(min(widest, sizes[-1] + max(1, sizes[-1] // 16)))
    return sizes


@torch.no_grad()
def looks_ahead(model: nn.Module, inputs: Tensor) -> bool:
    """Whether an output changes with the tokens behind it."""
    half = inputs.shape[-1] // 2
    early, late = scores_of(model, inputs[:1, :half]), scores_of(model, inputs[:1])
    return not torch.allclose(early, late[:, :half], rtol=1e-2, atol=1e-3)


def scores_of(model: nn.Module, inputs: Tensor) -> Tensor:
    output = model(inputs)
    return getattr(output, "logits", output)


@torch.no_grad()
def losses_with_context(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    contexts: Iterable[int],
    *,
    queries: int = 16,
    ahead: bool | None = None,
) -> list[float]:
    """Loss of a trained model that is shown only the tokens next to each query.

    Args:
        model: As in ``needed_context``.
        inputs: Tokens, shape (batch, n).
        targets: Labels, shape (batch, n); ``IGNORE`` is left out.
        contexts: How many tokens before the query to show.
        queries: As in ``needed_context``.
        ahead: Whether to show as many tokens behind the query, too; if None, whether
            the model looks ahead.

    Returns:
        Mean cross-entropy in nats, for each context.
    """
    n = inputs.shape[-1]
    if ahead is None:
        ahead = looks_ahead(model, inputs)
    start = max(0, (n - queries) // 2 if ahead else n - queries)
    places = range(start, min(start + queries, n))

    def scores(place: int, context: int) -> Tensor:
        first, end = max(0, place - context), place + 1 + context * ahead
        return scores_of(model, inputs[:, first:end])[:, place - first]

    wanted = targets[:, places[0] : places[-1] + 1].flatten()
    found = [torch.stack([scores(p, c) for p in places], 1) for c in contexts]
    return [
        cross_entropy(part.flatten(0, 1), wanted, ignore_index=IGNORE).item()
        for part in found
    ]


def narrow_layers(
    model: Transformer,
    inputs: Tensor,
    targets: Tensor,
    *,
    tolerance: float = RISE,
    limit: Callable[[Transformer, list[int]], Transformer] = with_window,
) -> list[int]:
    """Give each layer, without training again, the smallest window the loss allows.

    Args:
        model: A trained model.
        inputs: Tokens, shape (batch, n).
        targets: Labels, shape (batch, n); ``IGNORE`` is left out.
        tolerance: How much the loss may rise in all, in nats.
        limit: ``with_window``, or ``with_blocks`` to find block sizes instead.

    Returns:
        A window for each layer.
    """
    sizes = range(0 if limit is with_window else 1, inputs.shape[-1])

    def loss(chosen: list[int]) -> float:
        return mean_loss(limit(model, chosen), inputs, targets)

    return narrow(loss, sizes, len(model.blocks), tolerance)


def narrow(
    loss: Callable[[list[int]], float],
    sizes: Sequence[int],
    layers: int,
    tolerance: float,
) -> list[int]:
    """Narrow one layer after the other, from the first on, as far as a loss allows.

    The first of L layers may use a part 1 / L of the tolerance, the first two 2 / L,
    and so on. Each size is found by bisection, in log2(sizes) evaluations, as if a
    wider layer never were worse.

    Args:
        loss: The loss for a list of sizes, one for each layer.
        sizes: What to choose from, in rising order; the last limits nothing.
        layers: L.
        tolerance: How much the loss may rise in all.

    Example:
        >>> narrow(lambda w: float(sum(w) < 5), range(9), layers=2, tolerance=0.1)
        [0, 5]
    """
    found = [sizes[-1]] * layers
    start = loss(found)
    for layer in range(layers):
        allowed = start + tolerance * (layer + 1) / layers

        def good(size: int, layer: int = layer, allowed: float = allowed) -> bool:
            return loss([*found[:layer], size, *found[layer + 1 :]]) <= allowed

        found[layer] = sizes[bisect_left(sizes, True, hi=len(sizes) - 1, key=good)]
    return found
