"""What the heads of a trained model do: measures, attributions and ablations.

Measures take attention weights, as ``Transformer.attention_maps`` returns them for
each layer, and describe each head by a number. Where attention points is a
description; what depends on it shows only when something is changed
(``replacement_effect``, ``without_heads``).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from attn_tutorial.checks import check_count
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "entropy",
    "gradient_size",
    "induction_score",
    "looks_back",
    "rank_correlation",
    "replacement_effect",
    "rollout",
    "sink_share",
    "without_heads",
]


def entropy(weights: Tensor) -> Tensor:
    """Entropy of each query's attention, in bits: 0 for one key, log2(m) for m equal.

    Two to its power is the *effective number of keys*: that of a query which spreads
    its attention evenly over as many.

    Args:
        weights: Attention weights, shape (..., n, n_k).

    Returns:
        Shape (..., n).

    Example:
        >>> entropy(torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])).tolist()
        [0.0, 2.0]
    """
    return torch.special.entr(weights).sum(-1) / math.log(2)


def looks_back(weights: Tensor, steps: int, *, first: int | None = None) -> Tensor:
    """Mean weight of each head on the key exactly ``steps`` before the query.

    With 0 steps it says how much a token attends to itself, with 1 how much a head is
    a *previous-token head*.

    Args:
        weights: Attention weights, shape (batch, heads, n, n).
        steps: How far back.
        first: First query that counts, at least ``steps``, which it is if None.

    Returns:
        Shape (heads,).

    Raises:
        ValueError: If there is no query with such a key.

    Example:
        >>> two_back = torch.eye(5).roll(2, 0)[None, None]  # row i: key i - 2
        >>> looks_back(two_back, 2)
        tensor([1.])
    """
    n = weights.shape[-1]
    start = max(check_count("steps", steps, least=0), _count_or_zero("first", first))
    if start >= n:
        raise ValueError(f"steps and first must be below n={n}, got {steps}, {first}")
    query = torch.arange(start, n)
    return weights[..., query, query - steps].mean((0, 2))


def _count_or_zero(name: str, value: int | None) -> int:
    return 0 if value is None else check_count(name, value, least=0)


def sink_share(weights: Tensor, *, first: int) -> Tensor:
    """Mean weight of each head on the first token: how much it is an attention sink.

    Compare it with 1 / (number of keys), which an even spread gives. A window that does
    not hold the first token gives 0 (Xiao et al., 2024, keep it for this reason).

    Args:
        weights: Attention weights, shape (batch, heads, n, n).
        first: First query that counts, far enough from the first token.

    Returns:
        Shape (heads,).

    Example:
        >>> sink_share(torch.full((1, 2, 4, 4), 0.25), first=1)
        tensor([0.2500, 0.2500])
    """
    n = weights.shape[-1]
    if check_count("first", first, least=0) >= n:
        raise ValueError(f"first must be below n={n}, got {first}")
    return weights[..., first:, 0].mean((0, 2))


def induction_score(weights: Tensor, period: int) -> Tensor:
    """Mean weight of each head on the token that came next the last time.

    The text must be a random sequence of ``period`` tokens, written down twice. From a
    token of the second copy, the one that followed it in the first is ``period - 1``
    steps back (Olsson et al., 2022).

    Args:
        weights: Attention weights for such texts, shape (batch, heads, n, n) with
            n = 2 * period.
        period: Length of the sequence that is repeated.

    Returns:
        Shape (heads,).

    Raises:
        ValueError: If n is not twice the period.
    """
    if weights.shape[-1] != 2 * check_count("period", period, least=1):
        raise ValueError(
            f"weights must have n = 2 * period = {2 * period} keys, "
            f"got shape {tuple(weights.shape)}"
        )
    return looks_back(weights, period - 1, first=period)


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Follow attention through all layers, half of it staying in place at each.

    The product of (A + I) / 2 over the layers, A being the mean over the heads: what
    share of each input would arrive at each output if tokens were only ever averaged
    (Abnar and Zuidema, 2020).

    Args:
        maps: Weights of every layer from the first, each (batch, heads, n, n).

    Returns:
        Shape (batch, n, n); each row has sum 1.
    """
    flow = torch.eye(maps[0].shape[-1]).to(maps[0])
    for weights in maps:
        flow = (weights.mean(1) @ flow + flow) / 2
    return flow


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two rows of numbers; ties share their ranks.

    Args:
        a: Numbers, shape (..., m).
        b: Numbers, shape (..., m).

    Returns:
        Shape (...,), from -1 to 1; 0 where all numbers of a row are equal.

    Example:
        >>> rank_correlation(torch.tensor([1.0, 2, 9]), torch.tensor([0.0, 5, 6]))
        tensor(1.)
    """
    x, y = _centred_ranks(a), _centred_ranks(b)
    size = (x.square().sum(-1) * y.square().sum(-1)).sqrt()
    return (x * y).sum(-1) / size.where(size > 0, 1)


def _centred_ranks(x: Tensor) -> Tensor:
    """How many numbers are below each, minus how many are above: mean 0."""
    return (x[..., :, None] - x[..., None, :]).sign().sum(-1)


def gradient_size(model: Transformer, tokens: Tensor, position: int) -> Tensor:
    """How fast the best label's score at a position changes with each input.

    The attribution that Jain and Wallace (2019) compare attention with.

    Args:
        model: A trained model, in ``eval`` mode.
        tokens: Texts, shape (batch, n).
        position: Whose label is looked at.

    Returns:
        Shape (batch, n): norm of d (highest score) / d (embedded token).
    """
    x = model.embed(tokens).detach().requires_grad_()
    hidden = x
    for block in model.blocks:
        hidden = block(hidden)
    best = model.head(model.norm(hidden[:, position])).max(-1).values
    (gradient,) = torch.autograd.grad(best.sum(), x)
    return gradient.norm(dim=-1)


@torch.no_grad()
def replacement_effect(
    model: Transformer, tokens: Tensor, position: int, shifts: Sequence[int] = (7, 13)
) -> Tensor:
    """How much an output changes if one token of the text is replaced by another.

    The other token is taken from the same text, ``shift`` places before, so that it is
    as frequent as real ones; the change is averaged over the shifts.

    Args:
        model: A trained model, in ``eval`` mode.
        tokens: One text, shape (n,).
        position: Whose label is looked at.
        shifts: Where the replacements come from.

    Returns:
        Shape (n,), between 0 and 1: entry j is the total variation between the labels'
        probabilities with and without the replacement of token j.
    """
    before = model(tokens[None])[:, position].softmax(-1)
    itself = torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
    effects = []
    for shift in shifts:
        changed = tokens.roll(shift).where(itself, tokens)  # row j: token j is replaced
        after = model(changed)[:, position].softmax(-1)
        effects.append((after - before).abs().sum(-1) / 2)
    return torch.stack(effects).mean(0)


def without_heads(model: Transformer, heads: Iterable[tuple[int, int]]) -> Transformer:
    """Copy a model and silence some of its heads: their output becomes zero.

    Of layers that share their parameters, only the one that is named is silenced.

    Args:
        model: A model of attention layers.
        heads: Pairs (layer, head), both from 0.

    Raises:
        ValueError: If there is no such layer or head.

    Example:
        >>> model = without_heads(Transformer(5, 5, d_model=4, num_heads=2), [(1, 0)])
        >>> model.blocks[1].mixer.output.weight[:, :2].abs().sum().item()
        0.0
    """
    silenced = copy.deepcopy(model)
    silenced.blocks = nn.ModuleList(copy.deepcopy(block) for block in model.blocks)
    for layer, head in heads:
        count = silenced.blocks[0].mixer.num_heads
        if not (0 <= layer < len(silenced.blocks) and 0 <= head < count):
            raise ValueError(
                f"heads must be pairs of layers below {len(silenced.blocks)} and heads "
                f"below {count}, got {(layer, head)}"
            )
        weight = silenced.blocks[layer].mixer.output.weight.data
        weight.unflatten(1, (count, -1))[:, head] = 0
    return silenced
