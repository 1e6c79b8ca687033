"""The package's patterns through PyTorch's FlexAttention.

FlexAttention cuts the score matrix into blocks. A table tells it which blocks to
visit, and which of them are full, so that they need no mask inside. PyTorch builds
the table from a mask of n * n; here it is computed from the pattern, block by block:

1. A rule for each pattern says whether a block is empty, partial or full, from the
   first and last position of its queries and keys (`RULES`).
2. Unions and intersections combine the states of their parts (`combine`).
3. Blocks that stay undecided are written out, a few at a time (`decide`).

What is compiled knows the shapes, and of a predicate its code and its numbers. The
table, and each tensor that the predicate holds, are arguments of the compiled routine.
A predicate of your own whose borders change from batch to batch should therefore hold
them in a tensor, and is then compiled once:

    def packed(lengths):  # what `patterns.documents` does
        number = torch.repeat_interleave(torch.tensor(lengths))  # (n,)
        return Pattern("packed", keep=lambda i, j: number[i] == number[j])
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial, reduce
from types import CellType, CodeType, FunctionType
from typing import NamedTuple

import torch
from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.checks import (
    check_count,
    check_first,
    check_key_keep,
    check_qkv,
    check_scale,
    check_window,
)
from attn_tutorial.patterns import Pattern

__all__ = ["block_mask", "block_states", "flex_attention"]

EMPTY, PARTIAL, FULL, UNDECIDED = range(4)
WRITTEN_OUT = 2**22  # pairs of undecided blocks that are in memory at once


class Span(NamedTuple):
    """First and last position of each block: queries (m_q, 1), keys (m_k,)."""

    first: Tensor
    last: Tensor


def flex_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    first: int | None = None,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    block_size: int = 128,
    compiled: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention over a pattern, computed by FlexAttention.

    The first call for a pattern and shape builds the block table and compiles a
    kernel, which takes seconds; both are kept for later calls (the 64 last used). A
    pattern that differs in nothing but the numbers of its tensors, such as `documents`
    of other lengths, uses the kernel again.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d). Where a leading axis is 1, all heads of q share
            one head of keys, which is not copied (uncompiled, it is).
        v: Values, shape (..., n_k, d_v).
        pattern: Which (query, key) pairs attend.
        first: Position of the first query on the keys' axis. None means 0, and needs as
            many queries as keys.
        key_keep: bool, (n_k,) or with the leading axes of k, False = padding, never
            attended, whatever it holds.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept, scaled scores.
        block_size: Tokens in a block of the table.
        compiled: False runs PyTorch's unfused form, which holds all n_q * n_k scores
            and ignores the block table: a check on the mask, never a fast path.

    Returns:
        Shape (..., n_q, d_v). A query with no key left gets zeros. With `return_lse`
        also (..., n_q), at least float32, -inf where no key is left.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape, or first is
            needed.
        NotImplementedError: If gradients, or compiled the log-sum-exp, are asked for
            where FlexAttention has none (CPU and MPS).
        RuntimeError: If PyTorch's FlexAttention is missing or too old.

    Example:
        >>> q = torch.randn(2, 8, 100, 16)
        >>> flex_attention(q, q, q, patterns.local(10), compiled=False).shape
        torch.Size([2, 8, 100, 16])
    """
    leading = check_qkv(q, k, v)
    check_key_keep(key_keep, k)
    n_q, n_k = q.shape[-2], k.shape[-2]
    first = check_first(first, n_q, n_k)
    check_pattern(pattern, n_q, n_k, first)
    check_kernel(q, k, v, compiled, return_lse)
    size = check_count("block_size", block_size, least=1)
    scale = check_scale(scale, q.shape[-1])
    if 0 in (*leading, n_q, n_k, v.shape[-1]):
        return nothing(q, v, leading, return_lse)
    layout = Layout.of(leading, k, v)
    tensors = arguments(layout, q, k, v, key_keep)
    if not torch.is_grad_enabled():  # FlexAttention would refuse them on the CPU
        tensors = [x if x is None else x.detach() for x in tensors]
    mask = kept_mask(pattern, versions(pattern), n_q, n_k, first, size, q.device)
    kind = (q.dtype, *(x is not None and x.shape for x in tensors), size)
    settings = Settings(signature(mask.mask_mod), kind, scale, return_lse, compiled)
    found = routine(settings)(*tensors, mask)
    if not return_lse:
        return layout.restored(found)
    output, extra = found
    lse = getattr(extra, "lse", extra)
    return layout.restored(output), layout.restored(lse)


def nothing(
    q: Tensor, v: Tensor, leading: tuple[int, ...], return_lse: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """What attention returns where there is no query, no key or no value."""
    rows = (*leading, q.shape[-2])
    output = q.new_zeros(*rows, v.shape[-1])
    if not return_lse:
        return output
    exact = torch.promote_types(q.dtype, torch.float32)
    return output, q.new_full(rows, -math.inf, dtype=exact)


def block_mask(
    pattern: Pattern,
    n_q: int,
    n_k: int | None = None,
    *,
    first: int | None = None,
    block_size: int = 128,
    device: torch.device | str | None = None,
):
    """A pattern as FlexAttention wants it: its block table and its `mask_mod`.

    Holds some tables of (n_q / block_size) * (n_k / block_size) integers, never
    anything of n_q * n_k. The `mask_mod` is always there: the unfused form of
    FlexAttention reads nothing else.

    Args:
        pattern: Which (query, key) pairs attend.
        n_q: Number of queries.
        n_k: Number of keys; n_q if None.
        first: Position of the first query on the keys' axis. None means 0, and needs as
            many queries as keys.
        block_size: Tokens in a block.
        device: Where the table is made; the CPU if None.

    Returns:
        The `BlockMask` that `torch.nn.attention.flex_attention` takes.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, is below 1, or a
            length is beyond what the pattern is defined for, or first is needed.
        RuntimeError: If PyTorch's FlexAttention is missing or too old.

    Example:
        >>> mask = block_mask(patterns.adjacent_blocks(64), 256, block_size=64)
        >>> mask.kv_num_blocks.tolist(), mask.full_kv_num_blocks.tolist()
        ([[[0, 0, 0, 0]]], [[[2, 3, 3, 2]]])
    """
    states = block_states(
        pattern, n_q, n_k, first=first, block_size=block_size, device=device
    )
    n_k = n_q if n_k is None else n_k
    return flex_module().BlockMask.from_kv_blocks(
        *listed(states == PARTIAL),
        *listed(states == FULL),
        BLOCK_SIZE=block_size,
        mask_mod=mask_mod(pattern, n_k, first or 0, states.device),
        seq_lengths=(n_q, n_k),
    )


def block_states(
    pattern: Pattern,
    n_q: int,
    n_k: int | None = None,
    *,
    first: int | None = None,
    block_size: int = 128,
    device: torch.device | str | None = None,
) -> Tensor:
    """Say of each block of the score matrix how many of its pairs attend.

    Args:
        pattern: Which (query, key) pairs attend.
        n_q: Number of queries.
        n_k: Number of keys; n_q if None.
        first: Position of the first query on the keys' axis. None means 0, and needs as
            many queries as keys.
        block_size: Tokens in a block; a block that reaches beyond the last query or key
            is never full.
        device: Where the table is made; the CPU if None.

    Returns:
        uint8, shape (m_q, m_k) for m = ceil(n / block_size); 0 where a block is empty,
        1 where it is partial, 2 where it is full.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, is below 1, or a
            length is beyond what the pattern is defined for, or first is needed.

    Example:
        >>> block_states(patterns.causal(), 6, block_size=2)
        tensor([[1, 0, 0],
                [2, 1, 0],
                [2, 2, 1]], dtype=torch.uint8)
        >>> block_states(patterns.causal(), 2, 6, first=4, block_size=2)
        tensor([[2, 2, 1]], dtype=torch.uint8)
    """
    n_q = check_count("n_q", n_q, least=1)
    n_k = n_q if n_k is None else check_count("n_k", n_k, least=1)
    first = check_first(first, n_q, n_k)
    size = check_count("block_size", block_size, least=1)
    check_pattern(pattern, n_q, n_k, first)
    device = torch.device("cpu" if device is None else device)
    i, j = spans(n_q, size, device), spans(n_k, size, device)
    i = Span(*(x[:, None] + first for x in i))
    states = classify(pattern, i, j)
    decide(states, ready(pattern, n_k, device), (n_q, n_k), first, size)
    if n_q % size:
        states[-1].clamp_(max=PARTIAL)
    if n_k % size:
        states[:, -1].clamp_(max=PARTIAL)
    return states


def spans(n: int, size: int, device: torch.device) -> Span:
    """Spans of the blocks of n positions, each (m,).

    In 64 bits: a window may be larger than any number of 32.
    """
    first = torch.arange(0, n, size, dtype=torch.int64, device=device)
    return Span(first, (first + size - 1).clamp(max=n - 1))


# The states of blocks


def classify(pattern: Pattern, i: Span, j: Span) -> Tensor:
    """State of each block as far as rules tell, (m_q, m_k)."""
    if not pattern.is_foreign and pattern.name == "shifted":
        i = Span(*(x + pattern["first"] for x in i))
        return classify(*pattern.parts, i, j)
    if not pattern.is_foreign and pattern.name in COMBINED:
        parts = [classify(part, i, j) for part in pattern.parts]
        return reduce(COMBINED[pattern.name], parts)
    if pattern.is_foreign or pattern.name not in RULES:
        shape = (len(i.first), len(j.first))
        return i.first.new_full(shape, UNDECIDED, dtype=torch.uint8)
    some, every = RULES[pattern.name](i, j, **dict(pattern.parameters))
    return some.byte() + every.byte()


def combine(a: Tensor, b: Tensor, neutral: int, absorbing: int) -> Tensor:
    """States of a union (neutral: empty, absorbing: full) or an intersection.

    A neutral part leaves the other as it is, an absorbing part decides. Two partial
    parts may overlap in any way, so that their blocks stay undecided.
    """
    both = torch.full_like(a, UNDECIDED)
    both = torch.where(a == neutral, b, torch.where(b == neutral, a, both))
    return both.masked_fill_((a == absorbing) | (b == absorbing), absorbing)


COMBINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "union": partial(combine, neutral=EMPTY, absorbing=FULL),
    "intersection": partial(combine, neutral=FULL, absorbing=EMPTY),
}


def decide(
    states: Tensor, pattern: Pattern, lengths: tuple[int, int], first: int, size: int
) -> None:
    """Write undecided blocks out, at most as many at once as a row of blocks has."""
    places = (states == UNDECIDED).nonzero(as_tuple=True)
    at_once = max(1, min(max(states.shape), WRITTEN_OUT // size**2))
    inside = torch.arange(size, device=states.device)
    for r, c in zip(*(x.split(at_once) for x in places), strict=True):
        i, j = (
            (x[:, None] * size + inside).clamp(max=n - 1)
            for x, n in zip((r, c), lengths, strict=True)
        )
        keep = patterns.kept(pattern, first + i[:, :, None], j[:, None, :])
        keep = keep.expand(len(r), size, size).flatten(1)
        states[r, c] = keep.any(1).byte() + keep.all(1).byte()


# A rule returns two tables: is any pair of the block kept, and are all of them?


def full_rule(i: Span, j: Span) -> tuple[Tensor, Tensor]:
    """Every block is full."""
    every = (i.first <= i.last) & (j.first <= j.last)
    return every, every


def causal_rule(i: Span, j: Span) -> tuple[Tensor, Tensor]:
    """Keys at or before the query: j <= i for some pair, and for all pairs."""
    return j.first <= i.last, j.last <= i.first


def local_rule(
    i: Span, j: Span, window: int | tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The offsets j - i of a block are a run of integers: does it meet the window's?"""
    left, right = (min(side, patterns.FAR) for side in check_window(window))
    least, most = j.first - i.last, j.last - i.first
    return (least <= right) & (most >= -left), (least >= -left) & (most <= right)


def adjacent_rule(i: Span, j: Span, block_size: int) -> tuple[Tensor, Tensor]:
    """A window of one, counted in the pattern's own blocks."""
    return local_rule(*in_blocks(i, j, block_size), window=1)


def blocks_rule(i: Span, j: Span, block_size: int) -> tuple[Tensor, Tensor]:
    """A window of zero, counted in the pattern's own blocks."""
    return local_rule(*in_blocks(i, j, block_size), window=0)


def in_blocks(i: Span, j: Span, block_size: int) -> tuple[Span, Span]:
    """The same spans, counted in blocks."""
    size = min(block_size, patterns.FAR)
    return tuple(Span(x.first // size, x.last // size) for x in (i, j))


def documents_rule(i: Span, j: Span, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A window of zero, counted in documents; nothing outside of them."""
    ends = torch.tensor(lengths, device=j.first.device).cumsum(0)
    number = partial(torch.bucketize, boundaries=ends, right=True)
    inside = [
        Span(x.first.clamp(min=0), x.last.clamp(max=ends[-1] - 1)) for x in (i, j)
    ]
    some, every = local_rule(*(Span(*map(number, x)) for x in inside), window=0)
    for x, kept in zip((i, j), inside, strict=True):
        some = some & (kept.first <= kept.last)
        every = every & (kept.first == x.first) & (kept.last == x.last)
    return some, some & every


def prefix_rule(i: Span, j: Span, count: int) -> tuple[Tensor, Tensor]:
    """The first, and the last key of the block are in the prefix."""
    every = full_rule(i, j)[0]
    count = min(count, patterns.FAR)
    return every & (j.first < count), every & (j.last < count)


def global_rule(i: Span, j: Span, count: int) -> tuple[Tensor, Tensor]:
    """The first, and the last query or key of the block are global."""
    count = min(count, patterns.FAR)
    some = (i.first < count) | (j.first < count)
    return some, (i.last < count) | (j.last < count)


RULES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "full": full_rule,
    "causal": causal_rule,
    "local": local_rule,
    "adjacent_blocks": adjacent_rule,
    "blocks": blocks_rule,
    "documents": documents_rule,
    "prefix": prefix_rule,
    "global_tokens": global_rule,
}


def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Count the chosen blocks of each row, (1, 1, m_q), and list them, (..., m_k)."""
    columns = chosen.byte().argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1)[None, None].int(), columns[None, None].int()


# Leading axes


class Layout(NamedTuple):
    """How leading axes become two, batch and heads.

    Axes in which keys are 1 and queries are not become heads that share a key head.
    """

    leading: tuple[int, ...]  # of the output
    of_keys: tuple[int, ...]
    order: tuple[int, ...]  # axes of the batch, then those of the heads
    batch: int  # how many axes are the batch's

    @classmethod
    def of(cls, leading: tuple[int, ...], k: Tensor, v: Tensor) -> Layout:
        """Find the axes that share keys; without any, the last one has the heads."""
        of_keys = tuple(torch.broadcast_shapes(k.shape[:-2], v.shape[:-2]))
        axes = range(len(leading))
        own = [a for a in axes if of_keys[a] == leading[a]]
        shared = [a for a in axes if of_keys[a] != leading[a]]
        batch = len(own) if shared else len(own[:-1])
        return cls(leading, of_keys, (*own, *shared), batch)

    def queries(self, x: Tensor) -> Tensor:
        """Turn (..., n, d) into (batch, heads, n, d)."""
        return self._flat(x, self.leading)

    def keys(self, x: Tensor) -> Tensor:
        """The same for what belongs to keys: (batch, 1, n, d) where heads share."""
        return self._flat(x, self.of_keys)

    def _flat(self, x: Tensor, leading: tuple[int, ...]) -> Tensor:
        sizes = [leading[a] for a in self.order]
        split = (math.prod(sizes[: self.batch]), math.prod(sizes[self.batch :]))
        x = x.expand(*leading, *x.shape[-2:]).permute(*self.order, -2, -1)
        return x.reshape(*split, *x.shape[-2:])

    def restored(self, x: Tensor) -> Tensor:
        """Turn (batch, heads, n, ...) into (..., n, ...)."""
        x = x.reshape(*(self.leading[a] for a in self.order), *x.shape[2:])
        return x.movedim(tuple(range(len(self.order))), self.order)


def arguments(
    layout: Layout, q: Tensor, k: Tensor, v: Tensor, key_keep: Tensor | None
) -> list[Tensor | None]:
    """Queries, keys, values and padding as FlexAttention takes them."""
    if key_keep is not None:  # 0 * NaN is NaN: padding counts as 0
        k, v = (torch.where(key_keep[..., None], x, 0.0) for x in (k, v))
    flat = [layout.queries(q), layout.keys(k), layout.keys(v)]
    if key_keep is not None:
        key_keep = layout.keys(key_keep[..., None])[..., 0]
        key_keep = key_keep.expand(*flat[0].shape[:2], -1)
    return [*flat, key_keep]


# Predicates, as a kernel wants them


def mask_mod(pattern: Pattern, n_k: int, first: int, device: torch.device) -> Callable:
    """The predicate for queries from `first` on; the pattern itself, where it will do.

    Kernels count positions in 32 bits, which a large window would overflow.
    """
    pattern = ready(pattern, n_k, device)
    numbers = [abs(x) for x in contents(pattern) if isinstance(x, int) and x]
    if first == 0 and math.prod(numbers) < 2**31:
        return pattern
    start = torch.tensor(first, device=device)  # not a number: it is not compiled in

    def keep(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return pattern.keep(i.long() + start, j.long())

    return keep


def ready(value: object, n_k: int, device: torch.device) -> object:
    """The same predicate with its tensors on the device, and documents as a table.

    A table of n_k numbers has the same shape for any documents.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if not isinstance(value, Pattern | partial | FunctionType | tuple):
        return value
    if isinstance(value, Pattern) and value.name == "documents":
        return of_documents(value["lengths"], n_k, device)
    held = holds(value)
    changed = [ready(x, n_k, device) for x in held]
    same = all(a is b for a, b in zip(held, changed, strict=True))
    return value if same else rebuilt(value, changed)


def of_documents(lengths: tuple[int, ...], n_k: int, device: torch.device) -> Pattern:
    """Documents by the first and last position of each key's own."""
    ends = torch.tensor(lengths, device=device).cumsum(0)
    position = torch.arange(n_k, device=device)
    number = torch.bucketize(position, ends, right=True).clamp(max=len(ends) - 1)
    last = ends[number] - 1
    begin = ends[number] - torch.tensor(lengths, device=device)[number]
    last = torch.where(position <= last, last, begin - 1)  # beyond all documents

    def keep(i: Tensor, j: Tensor) -> Tensor:
        return (i >= begin[j]) & (i <= last[j])

    return Pattern("key documents", keep=keep)


def holds(value: object) -> list:
    """What a predicate is made of: functions, numbers and tensors."""
    if isinstance(value, Pattern):
        return [value.keep]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        named = (value.__kwdefaults__ or {}).values()
        return [*cells, *(value.__defaults__ or ()), *named]
    return list(value) if isinstance(value, tuple) else []


def rebuilt(value: object, held: list) -> object:
    """The same predicate, made of something else."""
    if isinstance(value, Pattern):
        return replace(value, keep=held[0], parts=(), parameters=())
    if isinstance(value, partial):
        places = 1 + len(value.args)
        named = dict(zip(value.keywords, held[places:], strict=True))
        return partial(held[0], *held[1:places], **named)
    if isinstance(value, tuple):
        return tuple(held)
    cells, defaults = len(value.__closure__ or ()), len(value.__defaults__ or ())
    made = FunctionType(
        value.__code__,
        value.__globals__,
        value.__name__,
        tuple(held[cells : cells + defaults]),
        tuple(map(CellType, held[:cells])),
    )
    names = value.__kwdefaults__ or {}
    made.__kwdefaults__ = dict(zip(names, held[cells + defaults :], strict=True))
    return made


def contents(value: object) -> Iterator[object]:
    """All code, numbers and tensors of a predicate, in an order of their own."""
    held = holds(value)
    if isinstance(value, FunctionType):
        yield value.__code__
        yield from (x for x in value.__code__.co_consts if isinstance(x, int))
    elif isinstance(value, Pattern | partial | tuple):
        yield len(held) if isinstance(value, tuple) else type(value)
    else:
        yield value
    for x in held:
        yield from contents(x)


# PyTorch's function, compiled once for each use


class Settings(NamedTuple):
    """What a compiled routine is made for."""

    signature: tuple
    kind: tuple
    scale: float
    return_lse: bool
    compiled: bool


class ByIdentity:
    """Makes any object a key; it equals no other object."""

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def signature(predicate: Callable) -> tuple:
    """What of a predicate is compiled: all but the numbers in its tensors."""

    def compiled(x: object) -> object:
        if isinstance(x, Tensor):
            return x.shape, x.stride(), x.dtype, x.device
        simple = x is None or isinstance(x, bool | int | float | str | CodeType | type)
        return (type(x), x) if simple else ByIdentity(x)

    return tuple(map(compiled, contents(predicate)))


def versions(pattern: Pattern) -> tuple:
    """A mark of the tensors that a reader's predicates hold: they may be written to."""
    if not pattern.is_foreign:
        return sum(map(versions, pattern.parts), ())
    tensors = [x for x in contents(pattern) if isinstance(x, Tensor)]
    return tuple(
        (ByIdentity(x), None if x.is_inference() else x._version) for x in tensors
    )


@lru_cache(maxsize=64)
def kept_mask(
    pattern: Pattern,
    versions: tuple,
    n_q: int,
    n_k: int,
    first: int,
    size: int,
    device: torch.device,
):
    """The block table and `mask_mod`, made once for each pattern and its `versions`."""
    with torch.inference_mode(False):  # the table may serve a backward pass later
        return block_mask(
            pattern, n_q, n_k, first=first, block_size=size, device=device
        )


@lru_cache(maxsize=64)
def routine(settings: Settings) -> Callable:
    """FlexAttention for inputs and predicates of one kind.

    PyTorch stops compiling a function after eight kinds of inputs. Each routine is
    therefore a function of its own.
    """
    flex, scale = flex_module().flex_attention, settings.scale
    extra = lse_option() if settings.return_lse else {}

    def attend(q: Tensor, k: Tensor, v: Tensor, key_keep: Tensor | None, mask: object):
        def without_padding(score, b, h, i, j):
            return torch.where(key_keep[b, h, j], score, -float("inf"))

        options = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1], **extra}
        change = None if key_keep is None else without_padding
        return flex(q, k, v, score_mod=change, block_mask=mask, **options)

    backend = "inductor" if settings.compiled else "eager"
    return torch.compile(with_own_code(attend), backend=backend, dynamic=False)


def lse_option() -> dict:
    """How this PyTorch is asked for the log-sum-exp."""
    request = getattr(flex_module(), "AuxRequest", None)
    return (
        {"return_lse": True} if request is None else {"return_aux": request(lse=True)}
    )


def with_own_code(function: Callable) -> Callable:
    """Copy a function and its code, since PyTorch counts what it compiles by code."""
    code, values = function.__code__.replace(), function.__globals__
    return FunctionType(code, values, function.__name__, None, function.__closure__)


# Checks


def check_pattern(pattern: Pattern, n_q: int, n_k: int, first: int) -> None:
    """Check that it is a pattern, and one that is defined for so many tokens."""
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be an attn_tutorial pattern, got {pattern!r}")
    patterns.check_length(pattern, n_q, n_k, first)


def check_kernel(
    q: Tensor, k: Tensor, v: Tensor, compiled: bool, return_lse: bool
) -> None:
    """Refuse what FlexAttention has no kernel for, before it is compiled."""
    if compiled and q.dtype == torch.float64:
        raise TypeError(
            "q must be float32, float16 or bfloat16 for a compiled kernel, "
            f"got {q.dtype}"
        )
    device = q.device.type
    if device not in ("cpu", "mps"):
        return
    for name, x in (("q", q), ("k", k), ("v", v)):
        if torch.is_grad_enabled() and x.requires_grad:
            raise NotImplementedError(
                f"FlexAttention has no backward pass on {device}, but {name} "
                f"requires grad: pass {name}.detach(), or use at.local_attention or "
                "at.sparse_attention, which have one"
            )
    if compiled and return_lse:
        raise NotImplementedError(
            f"return_lse must be False for a compiled kernel on {device}, where "
            "FlexAttention has no log-sum-exp: pass compiled=False, or use "
            "at.local_attention or at.sparse_attention"
        )


def flex_module():
    """`torch.nn.attention.flex_attention`, if it has what is needed here."""
    version = f"this is PyTorch {torch.__version__}"
    try:
        from torch.nn.attention import flex_attention as module
    except ImportError:
        raise RuntimeError(f"FlexAttention needs PyTorch 2.5; {version}") from None
    accepted = inspect.signature(module.BlockMask.from_kv_blocks).parameters
    if "seq_lengths" not in accepted:
        raise RuntimeError(
            "FlexAttention needs a PyTorch whose BlockMask.from_kv_blocks takes "
            f"seq_lengths; {version}: install a newer one"
        )
    return module
