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

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial import patterns
from attn_tutorial.checks import check_count, check_number, check_window
from attn_tutorial.heads import gradient_size
from attn_tutorial.networks.layers import MultiHeadAttention
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "Advice",
    "advise_window",
    "block_share",
    "distance_profile",
    "gradient_profile",
    "losses_with_context",
    "losses_with_windows",
    "narrow",
    "narrow_layers",
    "needed_context",
    "smallest_block",
    "smallest_window",
    "with_blocks",
    "with_window",
]

SHARE = 0.05  # of attention that may lie outside
RISE = 0.02  # nats of loss that count as nothing


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
    layers = [_checked(weights.detach()) for weights in layers]
    if ignore_first:
        layers = [_without_first(weights) for weights in layers]
    profiles = [distance_profile(weights, skip=skip) for weights in layers]
    by_head = [smallest_window(profile, share) for profile in profiles]
    windows = [max(heads) for heads in by_head]
    first = [_to_first(x, w, skip) for x, w in zip(layers, windows, strict=True)]
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
        size = gradient_size(model, tokens, position).double().mean(0).cpu()  # (n,)
        profile.index_add_(0, (torch.arange(n) - position).abs(), size)
    return profile / profile.sum()


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
    return _with(model, window, lambda w: patterns.local(check_window(w)))


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
    return [_loss(limit(model, w), inputs, targets) for w in windows]


@torch.no_grad()
def _loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
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
    ahead, n = _looks_ahead(model, inputs), inputs.shape[-1]
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
def _looks_ahead(model: nn.Module, inputs: Tensor) -> bool:
    """Whether an output changes with the tokens behind it."""
    half = inputs.shape[-1] // 2
    early, late = _scores(model, inputs[:1, :half]), _scores(model, inputs[:1])
    return not torch.allclose(early, late[:, :half], rtol=1e-2, atol=1e-3)


def _scores(model: nn.Module, inputs: Tensor) -> Tensor:
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
        ahead = _looks_ahead(model, inputs)
    start = max(0, (n - queries) // 2 if ahead else n - queries)
    places = range(start, min(start + queries, n))

    def scores(place: int, context: int) -> Tensor:
        first, end = max(0, place - context), place + 1 + context * ahead
        return _scores(model, inputs[:, first:end])[:, place - first]

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
        return _loss(limit(model, chosen), inputs, targets)

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
