"""What a trained model loses when its layers or its text get shorter."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial import patterns
from attn_tutorial.checks import check_count, check_number, check_window
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
ROUNDING = 1e-5  # of the largest score; more in half precision
LEAST_LOG = -30.0  # scores that far below the best one of a token do not count


def with_window(model: Transformer, window: int | list[int]) -> Transformer:
    """Copy a trained model and give its layers a window, without training again.

    Args:
        model: A model of attention layers.
        window: One window for all layers, or one for each.

    Returns:
        A model in which each layer keeps ``its pattern & local(window)``. Layers that
        share their parameters still do, each with its own window.

    Example:
        >>> model = with_window(Transformer(5, 5, num_layers=2), 3)
        >>> model.blocks[0].mixer.pattern
        local(window=3)
    """
    return _with(model, "window", window, lambda w: patterns.local(check_window(w)))


def with_blocks(model: Transformer, block_size: int | list[int]) -> Transformer:
    """Copy a trained model and let its layers see adjacent blocks only.

    Args:
        model: A model of attention layers.
        block_size: One size for all layers, or one for each.

    Returns:
        A model in which each layer keeps ``its pattern & adjacent_blocks(b)``.
    """
    return _with(model, "block_size", block_size, patterns.adjacent_blocks)


def _with(
    model: Transformer,
    name: str,
    sizes: int | list[int],
    pattern_of: Callable[[int], patterns.Pattern],
) -> Transformer:
    limited = _own_blocks(copy.deepcopy(model))
    layers = [m for m in limited.modules() if isinstance(m, MultiHeadAttention)]
    if not layers:
        raise TypeError(
            "model must have layers of this package's MultiHeadAttention, got "
            f"{type(model).__name__}; set the window in its own library"
        )
    several = _one_each(name, sizes, len(layers))
    if len(several) != len(layers):
        raise ValueError(f"{name} must have {len(layers)} entries, got {sizes}")
    for layer, size in zip(layers, several, strict=True):
        layer.pattern = _within(layer.pattern, pattern_of(size))
    return limited


def _own_blocks(model: nn.Module) -> nn.Module:
    """Make layers that are one block into several, which share its parameters."""
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.ModuleList):
        shared = [{id(p): p for p in block.parameters()} for block in blocks]
        pairs = zip(blocks, shared, strict=True)
        model.blocks = nn.ModuleList(
            copy.deepcopy(block, kept) for block, kept in pairs
        )
    return model


def _one_each(name: str, sizes: int | list[int], layers: int) -> list[int]:
    if isinstance(sizes, tuple):
        raise TypeError(
            f"{name} must be a number or a list with an entry for each layer, got "
            f"{sizes}: write [{sizes}] * {layers} if it is one layer's"
        )
    try:
        return list(sizes)
    except TypeError:  # one number, of Python, NumPy or PyTorch
        return [sizes] * layers


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
    check_tokens("inputs", inputs)
    check_targets(targets, inputs)
    return _loss(scores_of(model, inputs), _counted(targets, range(inputs.shape[-1])))


def check_tokens(name: str, tokens: Tensor) -> None:
    """Check integers of shape (batch, n) with two tokens or more in each text."""
    if not isinstance(tokens, Tensor):
        kind = type(tokens).__name__
        raise TypeError(
            f"{name} must be a torch.Tensor of token ids, got {kind}; of a "
            "tokenizer's answer, take input_ids"
        )
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"{name} must have an integer dtype, got {tokens.dtype}")
    if tokens.ndim != 2 or len(tokens) == 0:
        shape = tuple(tokens.shape)
        raise ValueError(f"{name} must have shape (batch, n), got {shape}")
    if tokens.shape[-1] < 2:
        raise ValueError(
            f"{name} must be texts of 2 tokens or more, got shape "
            f"{tuple(tokens.shape)}: a single token says nothing about a window"
        )


def check_targets(targets: Tensor, inputs: Tensor) -> None:
    """Check labels, one for each token."""
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        kind = getattr(targets, "dtype", type(targets).__name__)
        raise TypeError(f"targets must be a tensor of integers, got {kind}")
    if targets.shape != inputs.shape:
        raise ValueError(
            f"targets must have the shape of the tokens, {tuple(inputs.shape)}, "
            f"got {tuple(targets.shape)}"
        )


def _counted(targets: Tensor, places: range) -> Tensor:
    """Targets at these places, shape (batch, places), if one of them counts."""
    wanted = targets[:, places[0] : places[-1] + 1]
    if (wanted == IGNORE).all():
        raise ValueError(
            f"targets must have a label where the loss is taken, got IGNORE ({IGNORE}) "
            f"at all positions from {places[0]} to {places[-1]}: give labels there, or "
            "let needed_context look at more positions with queries"
        )
    return wanted


def _loss(scores: Tensor, wanted: Tensor) -> float:
    """Mean cross-entropy of scores (batch, n, labels), in nats, if it is a number."""
    wanted = wanted.to(scores.device).long()
    labels = scores.shape[-1]
    wrong = wanted[(wanted != IGNORE) & ((wanted < 0) | (wanted >= labels))]
    if wrong.numel():
        raise ValueError(
            f"targets must be {IGNORE} or lie below the number of labels that the "
            f"model scores, {labels}, got {wrong[0].item()}"
        )
    scores = scores.float() if scores.itemsize < 4 else scores
    options = {"ignore_index": IGNORE}
    loss = cross_entropy(scores.flatten(0, 1), wanted.flatten(), **options).item()
    if math.isnan(loss):
        raise ValueError(
            f"model must have scores without NaN, got a loss of {loss}: look for NaN "
            "in its parameters, and for queries that attend to nothing"
        )
    return loss


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

    Raises:
        TypeError, ValueError: If an argument has the wrong type, shape or size, no
            label counts at these positions, or the loss is not finite.
    """
    tolerance = check_number("tolerance", tolerance)
    ahead, n = looks_ahead(model, inputs), inputs.shape[-1]
    contexts = _contexts(n // 2 if ahead else n - 1)

    def loss(context: int) -> float:
        options = {"queries": queries, "ahead": ahead}
        return losses_with_context(model, inputs, targets, [context], **options)[0]

    allowed = loss(contexts[-1]) + tolerance
    if math.isinf(allowed):
        raise ValueError(
            f"model must have a finite loss on the whole text, got {allowed}: give no "
            "targets that it rules out"
        )
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
    """Whether a token's scores change if tokens behind it are replaced, in any text.

    The texts keep their length, since rounding may change with it. One token is
    replaced, and that with all the following ones, at the second place (the first
    scores may be all that look ahead), in the middle and at the end, and in two ways
    (a model need not tell all tokens apart).

    Args:
        model: As in ``needed_context``.
        inputs: Tokens, shape (batch, n).

    Raises:
        ValueError: If the scores of the same texts differ from call to call, or there
            is only token 0, and nothing to replace it by.
    """
    check_tokens("inputs", inputs)
    scores = scores_of(model, inputs)
    n, before = inputs.shape[-1], _lifted(scores)
    rounding = max(ROUNDING, 3 * torch.finfo(scores.dtype).eps) * _size(before)

    def changed(texts: Tensor, end: int) -> bool:
        after = _lifted(scores_of(model, texts))
        return bool(((after - before)[:, :end].abs() > rounding).any())

    if changed(inputs, n):
        raise ValueError(
            "model must give the same scores for the same texts, got others in a "
            "second call: call eval() on it, which ends dropout"
        )
    return any(changed(texts, place) for texts, place in _replaced(inputs))


def _replaced(inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Texts with other tokens from some place on, and that place."""
    n = inputs.shape[-1]
    others = _other_tokens(inputs)
    places = sorted({1, n // 2, n - 1}, reverse=True)
    for place in places:
        for other in others:
            for end in (n, place + 1):
                kept = torch.arange(n, device=inputs.device)
                here = (kept >= place) & (kept < end)
                yield other.where(here, inputs), place


def _other_tokens(inputs: Tensor) -> list[Tensor]:
    """For each token, the next and the previous one of those that the texts hold."""
    known, index = inputs.unique(return_inverse=True)
    if len(known) > 1:
        return [known[(index + step) % len(known)] for step in (1, -1)]
    if known.item() == 0:
        raise ValueError(
            "inputs must hold two different tokens or more, to see whether the model "
            "looks ahead, got token 0 only; use other texts"
        )
    return [torch.zeros_like(inputs)]  # every vocabulary has a token 0


def _lifted(scores: Tensor) -> Tensor:
    """Scores in float32; those of labels without a chance (-inf) are raised to it."""
    scores = scores.float()
    return scores.maximum(scores.amax(-1, keepdim=True) + LEAST_LOG)


def _size(lifted: Tensor) -> Tensor:
    """The largest score, up or down, of a label that has a chance."""
    chance = lifted > lifted.amax(-1, keepdim=True) + LEAST_LOG
    return lifted.abs().where(chance, 0).max()


def scores_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The model's scores for tokens (batch, n): shape (batch, n, labels)."""
    if not callable(model):
        raise TypeError(
            "model must be a module or a function, which can be called with tokens, "
            f"got {type(model).__name__}; load the model first"
        )
    output = model(inputs)
    scores = getattr(output, "logits", output)
    scores = scores[0] if isinstance(scores, tuple | list) and scores else scores
    shape = tuple(getattr(scores, "shape", ()))
    if len(shape) != 3 or shape[:2] != tuple(inputs.shape):
        raise ValueError(
            "model must return scores of shape (batch, n, labels) for tokens of shape "
            f"{tuple(inputs.shape)}, alone, as logits or first in a tuple, got "
            f"{type(output).__name__} with shape {shape}; a model without a head needs "
            "one, such as that of AutoModelForCausalLM or AutoModelForMaskedLM"
        )
    return scores


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

    Raises:
        TypeError, ValueError: As in ``needed_context``.
    """
    check_tokens("inputs", inputs)
    check_targets(targets, inputs)
    if ahead is None:
        ahead = looks_ahead(model, inputs)
    places = _places(inputs.shape[-1], queries, ahead)
    wanted = _counted(targets, places)

    def scores(place: int, context: int) -> Tensor:
        first, end = max(0, place - context), place + 1 + context * ahead
        return scores_of(model, inputs[:, first:end])[:, place - first]

    contexts = [check_count("contexts", c, least=0) for c in contexts]
    found = (torch.stack([scores(p, c) for p in places], 1) for c in contexts)
    return [_loss(part, wanted) for part in found]


def _places(n: int, queries: int, ahead: bool) -> range:
    """The last positions of n, or those in the middle."""
    queries = check_count("queries", queries, least=1)
    start = max(0, (n - queries) // 2 if ahead else n - queries)
    return range(start, min(start + queries, n))


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
