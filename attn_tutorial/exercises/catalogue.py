"""Mistakes that many exercises share: of masks, of windows, of attention.

Each is a function that makes the mistake, with its name and what is said about it.
``Mistake`` objects for masks take the number of tokens and the mask's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from attn_tutorial.exercises.exercise import Mistake

__all__ = [
    "ATTENTION",
    "CAUSAL_ATTENTION",
    "CAUSAL_WINDOW",
    "WINDOW",
    "attention_cases",
    "causal_weights",
    "mask",
    "same_length_cases",
    "window_cases",
    "wrong_mask",
]

Predicate = Callable[..., Tensor]


def mask(predicate: Predicate) -> Callable[..., Tensor]:
    """The mask of a predicate on (i, j, n) and parameters, bool (n, n)."""

    def made(n: int, *parameters: int) -> Tensor:
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        return predicate(i, j, n, *parameters) & (i == i) & (j == j)

    return made


def wrong_mask(name: str, text: str, predicate: Predicate) -> Mistake:
    """A mistake that is another predicate."""
    return Mistake(name, text, mask(predicate))


def window_cases(seed: int) -> Iterator[tuple[int, int]]:
    """Numbers of tokens with windows, from none to wider than the text."""
    yield from ((n, w) for n in range(1, 9) for w in (0, 1, 2, 3, n - 1, n + 3))
    yield (0, 2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        n = int(torch.randint(9, 40, (1,), generator=generator))
        yield n, int(torch.randint(0, n, (1,), generator=generator))


def causal_weights(seed: int) -> Iterator[tuple[Tensor]]:
    """Weights (n, n) of causal attention, whose rows sum to 1."""
    yield (torch.ones(1, 1),)
    yield (torch.tensor([[1.0, 0.0], [0.25, 0.75]]),)
    generator = torch.Generator().manual_seed(seed)
    for n in (3, 6):
        scores = torch.randn(n, n, generator=generator).double()
        future = torch.ones(n, n).triu(1).bool()
        yield (scores.masked_fill(future, -torch.inf).softmax(-1),)


# Windows, |i - j| <= w.


def _slice(i: Tensor, j: Tensor, n: int, w: int) -> Tensor:
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[-w:w] = True
    return chosen[None, :]


def _inward(i: Tensor, j: Tensor, n: int, w: int) -> Tensor:
    start = (i - w).clamp(max=n - 2 * w - 1).clamp(min=0)
    return (j >= start) & (j <= start + 2 * w)


WINDOW = (
    wrong_mask(
        "one key too few",
        "This looks only w - 1 keys to each side: a key w away is kept, so the "
        "comparison is `<=`.",
        lambda i, j, n, w: (i - j).abs() < w,
    ),
    wrong_mask(
        "one key too many",
        "This keeps w + 1 keys to each side, one too many.",
        lambda i, j, n, w: (i - j).abs() <= w + 1,
    ),
    wrong_mask(
        "half open",
        "This keeps w keys on one side and w - 1 on the other: a range in Python "
        "leaves out its end.",
        lambda i, j, n, w: (j >= i - w) & (j < i + w),
    ),
    wrong_mask(
        "itself forgotten",
        "The query's own key is missing: the distance 0 is within every window.",
        lambda i, j, n, w: ((i - j).abs() <= w) & (i != j),
    ),
    wrong_mask(
        "one side",
        "This looks back only; the window has two sides.",
        lambda i, j, n, w: (j <= i) & (i - j <= w),
    ),
    wrong_mask(
        "absolute value forgotten",
        "Without the absolute value every later key is kept: i - j is negative there.",
        lambda i, j, n, w: i - j <= w,
    ),
    wrong_mask(
        "window in all",
        "This takes w for the whole width; here w is the reach to each side.",
        lambda i, j, n, w: (i - j).abs() <= w // 2,
    ),
    wrong_mask(
        "edges wrapped",
        "The edges are wrapped: the first tokens see the last ones, as on a ring.",
        lambda i, j, n, w: ((i - j) % n <= w) | ((j - i) % n <= w) if n else i < j,
    ),
    wrong_mask(
        "edges moved inward",
        "At the ends the window is moved inward, so that every query has 2w + 1 keys; "
        "it should be cut off.",
        _inward,
    ),
    wrong_mask(
        "a slice of columns",
        "This is the slice [:, -w:w]: the same columns for every row. A window moves "
        "with its query.",
        _slice,
    ),
)

# Causal windows, i - w <= j <= i.

CAUSAL_WINDOW = (
    wrong_mask(
        "one key too few",
        "This keeps w - 1 keys to the left, one too few.",
        lambda i, j, n, w: (j <= i) & (i - j < w),
    ),
    wrong_mask(
        "one key too many",
        "This keeps w + 1 keys to the left, one too many.",
        lambda i, j, n, w: (j <= i) & (i - j <= w + 1),
    ),
    wrong_mask(
        "causal forgotten",
        "This has two sides: it sees w keys of the future.",
        lambda i, j, n, w: (i - j).abs() <= w,
    ),
    wrong_mask(
        "all of the future",
        "This bounds the past and not the future: i - j is negative for later keys, "
        "and so they are all kept.",
        lambda i, j, n, w: i - j <= w,
    ),
    wrong_mask(
        "window forgotten",
        "This is causal and has no window: it sees all of the past.",
        lambda i, j, n, w: j <= i,
    ),
    wrong_mask(
        "future leaked by one",
        "The future leaks by one: each position sees the next one.",
        lambda i, j, n, w: (j <= i + 1) & (i - j <= w),
    ),
    wrong_mask(
        "itself forgotten",
        "The query's own key is missing: j <= i includes i.",
        lambda i, j, n, w: (j < i) & (i - j <= w),
    ),
    wrong_mask(
        "edges wrapped",
        "The edges are wrapped: the first tokens see the last ones, as on a ring.",
        lambda i, j, n, w: (i - j) % n <= w if n else i < j,
    ),
)


# Attention.


def _normal(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def _attention_inputs(
    seed: int, sizes: Iterable[tuple[tuple[int, ...], int, int, int, int]]
) -> Iterator[tuple[Tensor, ...]]:
    """Inputs of shapes (*batch, n_q, d), (*batch, n_k, d), (*batch, n_k, d_v)."""
    for number, (batch, n_q, n_k, d, d_v) in enumerate(sizes):
        shapes = (*batch, n_q, d), (*batch, n_k, d), (*batch, n_k, d_v)
        dtype = (torch.float64, torch.float32)[number % 2]
        yield tuple(_normal(1000 * seed + number, *shapes, dtype=dtype))


def attention_cases(seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values: few and many, with batch axes, one with huge scores."""
    yield torch.ones(1, 1), torch.zeros(2, 1), torch.tensor([[0.0], [1.0]])
    sizes = [((), 1, 2, 1, 1), ((), 2, 2, 4, 4), ((), 3, 3, 4, 2), ((), 3, 5, 9, 2)]
    sizes += [((2,), 3, 3, 4, 4), ((2, 3), 3, 5, 4, 2), ((), 0, 4, 3, 3)]
    yield from _attention_inputs(seed, sizes)
    q, k, v = _normal(seed, (3, 4), (4, 4), (4, 2), dtype=torch.float32)
    yield 200 * q, 200 * k, v


def same_length_cases(seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values of one length: few and many, with batch axes."""
    yield torch.ones(3, 1), torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [2.0]])
    sizes = [((), n, n, 4, 2) for n in (1, 2, 3, 5)]
    sizes += [((2,), 4, 4, 4, 4), ((2, 3), 5, 5, 4, 2), ((), 9, 9, 3, 3)]
    yield from _attention_inputs(seed, sizes)


def _attend(scores: Tensor, v: Tensor, axis: int = -1) -> Tensor:
    return scores.softmax(axis) @ v


def _no_shift(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q @ k.mT / q.shape[-1] ** 0.5).exp()
    return weights / weights.sum(-1, keepdim=True) @ v


def _unnormalised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5) @ v


ATTENTION = (
    Mistake(
        "not divided",
        "The scores are not divided by the root of the width.",
        lambda q, k, v: _attend(q @ k.mT, v),
    ),
    Mistake(
        "divided by d",
        "The scores are divided by the width itself, and not by its root.",
        lambda q, k, v: _attend(q @ k.mT / q.shape[-1], v),
    ),
    Mistake(
        "multiplied",
        "The scores are multiplied by the root of the width, not divided.",
        lambda q, k, v: _attend(q @ k.mT * q.shape[-1] ** 0.5, v),
    ),
    Mistake(
        "width of the values",
        "The scores are divided by the root of the values' width; what was summed over "
        "is the width of the keys.",
        lambda q, k, v: _attend(q @ k.mT / v.shape[-1] ** 0.5, v),
    ),
    Mistake(
        "divided by the length",
        "The scores are divided by the root of the number of keys; what was summed "
        "over is the width.",
        lambda q, k, v: _attend(q @ k.mT / k.shape[-2] ** 0.5, v),
    ),
    Mistake(
        "softmax over the queries",
        "The softmax runs over the queries. The weights of one query must sum to 1, so "
        "it runs over the keys, the last axis.",
        lambda q, k, v: _attend(q @ k.mT / q.shape[-1] ** 0.5, v, axis=-2),
    ),
    Mistake(
        "axis counted from the front",
        "The axis of the softmax is counted from the front, so that it is another one "
        "as soon as there is a batch: say -1.",
        lambda q, k, v: _attend(q @ k.mT / q.shape[-1] ** 0.5, v, axis=1),
    ),
    Mistake(
        "first axis",
        "The softmax runs over the first axis: over the queries, or with a batch over "
        "the texts. It runs over the keys, the last axis: say -1.",
        lambda q, k, v: _attend(q @ k.mT / q.shape[-1] ** 0.5, v, axis=0),
    ),
    Mistake(
        "no softmax",
        "There is no softmax: the scores themselves weigh the values.",
        _unnormalised,
    ),
    Mistake(
        "no shift",
        "Large scores overflow: exp(89) is infinite in float32. Take the largest "
        "score off first, as `softmax` does.",
        _no_shift,
    ),
    Mistake(
        "queries and keys swapped",
        "Queries and keys have changed places: row i of the scores belongs to query i.",
        lambda q, k, v: _attend(k @ q.mT / q.shape[-1] ** 0.5, v),
    ),
    Mistake(
        "keys for values",
        "The weights average the keys, and not the values.",
        lambda q, k, v: _attend(q @ k.mT / q.shape[-1] ** 0.5, k),
    ),
)


def _with_mask(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Callable[[Tensor, Tensor], Tensor],
    axis: int = -1,
) -> Tensor:
    i, j = torch.arange(q.shape[-2])[:, None], torch.arange(k.shape[-2])[None, :]
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return _attend(scores.masked_fill(~keep(i, j), -torch.inf), v, axis)


def _masked_after(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).tril() @ v


def _scores_of_zero(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attend((q @ k.mT / q.shape[-1] ** 0.5).tril(), v)


CAUSAL_ATTENTION = (
    Mistake(
        "causal forgotten",
        "Every token sees the future: the mask has no effect.",
        lambda q, k, v: _with_mask(q, k, v, lambda i, j: (i == i) & (j == j)),
    ),
    Mistake(
        "softmax before masking",
        "The weights are masked after the softmax, so that the rows no longer sum to "
        "1: mask the scores with minus infinity.",
        _masked_after,
    ),
    Mistake(
        "scores of zero",
        "Masked scores are 0 (or the smallest positive number, `tiny`), and exp(0) is "
        "1: the future still gets weight. Fill in minus infinity.",
        _scores_of_zero,
    ),
    Mistake(
        "keep and ignore inverted",
        "Keep and ignore are inverted: each token sees the future only, and the last "
        "one nothing, which gives NaN.",
        lambda q, k, v: _with_mask(q, k, v, lambda i, j: j > i),
    ),
    Mistake(
        "triangle upside down",
        "The triangle is upside down: each token sees itself and the future.",
        lambda q, k, v: _with_mask(q, k, v, lambda i, j: j >= i),
    ),
    Mistake(
        "future leaked by one",
        "The future leaks by one: each token sees the next one.",
        lambda q, k, v: _with_mask(q, k, v, lambda i, j: j <= i + 1),
    ),
    Mistake(
        "NaN on empty rows",
        "A token does not see itself, so that the first one sees nothing: its softmax "
        "is 0/0, NaN.",
        lambda q, k, v: _with_mask(q, k, v, lambda i, j: j < i),
    ),
    Mistake(
        "not divided",
        "The scores are not divided by the root of the width.",
        lambda q, k, v: _with_mask(q * q.shape[-1] ** 0.5, k, v, lambda i, j: j <= i),
    ),
    Mistake(
        "divided by d",
        "The scores are divided by the width itself, and not by its root.",
        lambda q, k, v: _with_mask(q / q.shape[-1] ** 0.5, k, v, lambda i, j: j <= i),
    ),
    Mistake(
        "softmax over the queries",
        "The softmax runs over the queries. The weights of one query must sum to 1, so "
        "it runs over the keys, the last axis.",
        lambda q, k, v: _with_mask(q, k, v, lambda i, j: j <= i, axis=-2),
    ),
)
