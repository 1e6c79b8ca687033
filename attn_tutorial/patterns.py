"""Attention patterns: predicates that say which query meets which key.

Eq. (12): a pattern is a function of positions, keep(i, j) -> bool, and patterns
combine as sets do: union (or, ``|``) and intersection (and, ``&``).

A pattern is called as FlexAttention calls its ``mask_mod``: ``pattern(b, h, q_idx,
kv_idx)`` on integer tensors that broadcast. The same object draws the picture, masks
the dense reference, and is what every fast path is tested against. As text it is
``str(pattern)``, such as "local 16 & causal", from which ``parse`` makes a pattern
that keeps the same pairs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from attn_tutorial.checks import check_count, check_position, check_window

__all__ = [
    "Pattern",
    "adjacent_blocks",
    "blocks",
    "causal",
    "dense_mask",
    "dilated",
    "documents",
    "full",
    "global_tokens",
    "intersection",
    "local",
    "parse",
    "prefix",
    "random_blocks",
    "run",
    "shifted",
    "strided",
    "union",
]

Predicate = Callable[[Tensor, Tensor], Tensor]
Value = int | tuple[int, ...]
FAR = 2**62  # no position is as large, and sums of two of them fit into 64 bits


@dataclass(frozen=True, eq=False)
class Pattern:
    """A named predicate on (query position, key position).

    The package's own patterns are equal if their names, parameters and parts are. A
    reader's own, ``Pattern("mine", keep=predicate)``, are equal if their predicates
    are the same object: two of them may have one name.

    Attributes:
        name: The function that made it.
        parameters: Its arguments, as (name, value) pairs.
        parts: The patterns that it is made of (union, intersection and shifted).
        keep: The predicate on broadcastable index tensors.
        max_length: Longest sequence it is defined for, or None.
        token: What stands for a pattern that has no text, since a reader wrote a part
            of it; operators take no objects. "" for all others.
    """

    name: str
    parameters: tuple[tuple[str, Value], ...] = ()
    parts: tuple[Pattern, ...] = ()
    keep: Predicate = field(repr=False, kw_only=True)
    max_length: int | None = field(default=None, kw_only=True)
    token: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.name in __all__ and self.is_foreign:
            raise ValueError(
                f"name must not be that of another pattern, got {self.name!r}"
            )
        if self.is_foreign or any(part.token for part in self.parts):
            object.__setattr__(self, "token", f"pattern {next(NUMBERS)}")
            FOREIGN[self.token] = self

    def __setstate__(self, state: dict) -> None:
        """A copy, or what comes out of a file, gets a token of its own."""
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def is_foreign(self) -> bool:
        """Whether a reader wrote its predicate, of which nothing else is known."""
        return not (isinstance(self.keep, partial) and self.keep.func in PREDICATES)

    def __call__(self, b: object, h: object, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
        """Return keep(q_idx, kv_idx); the batch and head indices are not used."""
        return self.keep(q_idx, kv_idx)

    def __or__(self, other: Pattern) -> Pattern:
        return union(self, other)

    def __and__(self, other: Pattern) -> Pattern:
        return intersection(self, other)

    def __getitem__(self, parameter: str) -> Value:
        return dict(self.parameters)[parameter]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        own = self.keep if self.is_foreign else None
        return self.name, self.parameters, self.parts, own

    def __repr__(self) -> str:
        values = [f"{name}={value}" for name, value in self.parameters]
        return f"{self.name}({', '.join(values + [repr(p) for p in self.parts])})"

    def __str__(self) -> str:
        """Write it as the text that ``parse`` reads, such as "local 16 & causal"."""
        if self.name in SIGNS:
            return f" {SIGNS[self.name]} ".join(map(_operand, self.parts))
        words = [self.name, *(_written(value) for _, value in self.parameters)]
        return " ".join(words + [f"({part})" for part in self.parts])


SIGNS = {"union": "|", "intersection": "&"}
NUMBERS = itertools.count()
FOREIGN: WeakValueDictionary[str, Pattern] = WeakValueDictionary()


def _operand(part: Pattern) -> str:
    several = part.name in SIGNS and len(part.parts) > 1
    return f"({part})" if several else str(part)


def _written(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    return ",".join(map(str, value)) + ("," if len(value) == 1 else "")


# The predicates. Functions of their own, so that a pattern can be stored (pickled).


def _keep_full(i: Tensor, j: Tensor) -> Tensor:
    return (i == i) & (j == j)


def _keep_causal(i: Tensor, j: Tensor) -> Tensor:
    return j <= i


def _keep_near(i: Tensor, j: Tensor, window: int) -> Tensor:
    return (i - j).abs() <= window


def _keep_local(i: Tensor, j: Tensor, left: int, right: int) -> Tensor:
    return (j >= i - left) & (j <= i + right)


def _keep_blocks(i: Tensor, j: Tensor, size: int, beside: int) -> Tensor:
    return (i // size - j // size).abs() <= beside


def _keep_global(i: Tensor, j: Tensor, count: int) -> Tensor:
    return (i < count) | (j < count)


def _keep_prefix(i: Tensor, j: Tensor, count: int) -> Tensor:
    return (i == i) & (j < count)


def _keep_dilated(i: Tensor, j: Tensor, left: int, right: int, step: int) -> Tensor:
    return _keep_local(i, j, left, right) & ((i - j) % step == 0)


def _keep_strided(i: Tensor, j: Tensor, stride: int) -> Tensor:
    return (i - j) % stride == 0


def _keep_random(i: Tensor, j: Tensor, table: Tensor, size: int) -> Tensor:
    return table.to(i.device)[i // size, j // size]


def _keep_documents(i: Tensor, j: Tensor, ends: Tensor) -> Tensor:
    ends = ends.to(i.device)
    number = partial(torch.bucketize, boundaries=ends, right=True)
    inside = (i >= 0) & (j >= 0) & (i < ends[-1]) & (j < ends[-1])
    return inside & (number(i) == number(j))


def _keep_shifted(i: Tensor, j: Tensor, pattern: Pattern, first: int) -> Tensor:
    return pattern.keep(i + first, j)


def _keep_any(i: Tensor, j: Tensor, patterns: tuple[Pattern, ...]) -> Tensor:
    return reduce(torch.logical_or, (p.keep(i, j) for p in patterns))


def _keep_all(i: Tensor, j: Tensor, patterns: tuple[Pattern, ...]) -> Tensor:
    return reduce(torch.logical_and, (p.keep(i, j) for p in patterns))


PREDICATES = {value for name, value in globals().items() if name.startswith("_keep_")}


def full() -> Pattern:
    """Every query meets every key."""
    return Pattern("full", keep=partial(_keep_full))


def causal() -> Pattern:
    """No query looks ahead: keep j <= i."""
    return Pattern("causal", keep=partial(_keep_causal))


def local(window: int | tuple[int, int]) -> Pattern:
    """Keep the keys at most ``window`` positions away: |i - j| <= w.

    A query in the interior meets 2w + 1 keys; with w = 0 it meets itself only. A pair
    (left, right) keeps i - left <= j <= i + right.

    Example:
        >>> local(1), local((2, 0))
        (local(window=1), local(window=(2, 0)))
        >>> dense_mask(local(1), 4).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    left, right = check_window(window)
    if left == right:
        keep = partial(_keep_near, window=min(left, FAR))
        return Pattern("local", (("window", left),), keep=keep)
    keep = partial(_keep_local, left=min(left, FAR), right=min(right, FAR))
    return Pattern("local", (("window", (left, right)),), keep=keep)


def adjacent_blocks(block_size: int) -> Pattern:
    """Keep a query's own block and the two beside it: |i // b - j // b| <= 1.

    Example:
        >>> dense_mask(adjacent_blocks(1), 3).int()
        tensor([[1, 1, 0],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    size = check_count("block_size", block_size, least=1)
    keep = partial(_keep_blocks, size=min(size, FAR), beside=1)
    return Pattern("adjacent_blocks", (("block_size", size),), keep=keep)


def blocks(block_size: int) -> Pattern:
    """Keep a query's own block and no other: i // b == j // b.

    With ``causal()`` these are the chunks of Llama 4.

    Example:
        >>> dense_mask(blocks(2), 3).int()
        tensor([[1, 1, 0],
                [1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """
    size = check_count("block_size", block_size, least=1)
    keep = partial(_keep_blocks, size=min(size, FAR), beside=0)
    return Pattern("blocks", (("block_size", size),), keep=keep)


def documents(lengths: tuple[int, ...]) -> Pattern:
    """Keep pairs of one document, where several lie end to end in one sequence.

    Args:
        lengths: Tokens of each document, in order. Positions beyond their sum belong
            to none and meet nothing.

    Example:
        >>> dense_mask(documents([1, 2]), 4).int()
        tensor([[1, 0, 0, 0],
                [0, 1, 1, 0],
                [0, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    if isinstance(lengths, int | str) or not hasattr(lengths, "__iter__"):
        raise TypeError(f"lengths must be several integers, got {lengths!r}")
    sizes = tuple(check_count("lengths", n, least=0) for n in lengths)
    if not sizes or sum(sizes) > FAR:
        raise ValueError(f"lengths must name 1 to 2**62 tokens, got {lengths!r}")
    ends = torch.tensor(sizes, dtype=torch.int64, device="cpu").cumsum(0)
    keep = partial(_keep_documents, ends=ends)
    return Pattern("documents", (("lengths", sizes),), keep=keep)


def prefix(count: int) -> Pattern:
    """Keep the first ``count`` keys for every query: j < p.

    With ``| causal()`` it is a prefix language model; with ``| local(w)`` and
    ``& causal()`` the prefix are attention sinks.
    """
    count = check_count("count", count, least=0)
    keep = partial(_keep_prefix, count=min(count, FAR))
    return Pattern("prefix", (("count", count),), keep=keep)


def shifted(pattern: Pattern, first: int) -> Pattern:
    """The same pattern for queries that begin at position ``first`` of the keys.

    Keep (i, j) where the pattern keeps (i + first, j): what a query of a chunk, or one
    new query against a cache, meets.

    Example:
        >>> dense_mask(shifted(causal(), 2), 2, 4).int()
        tensor([[1, 1, 1, 0],
                [1, 1, 1, 1]], dtype=torch.int32)
    """
    check_pattern("pattern", pattern)
    first = check_position("first", first)
    return Pattern(
        "shifted",
        (("first", first),),
        (pattern,),
        keep=partial(_keep_shifted, pattern=pattern, first=first),
        max_length=pattern.max_length,
    )


def global_tokens(count: int) -> Pattern:
    """The first ``count`` tokens meet everyone: keep i < g or j < g."""
    count = check_count("count", count, least=0)
    keep = partial(_keep_global, count=min(count, FAR))
    return Pattern("global_tokens", (("count", count),), keep=keep)


def dilated(window: int | tuple[int, int], step: int) -> Pattern:
    """A window with gaps: keep |i - j| <= w * step where step divides i - j.

    As many keys as ``local(window)``, spread over ``step`` times the distance.
    """
    left, right = check_window(window)
    step = check_count("step", step, least=1)
    value = left if left == right else (left, right)
    reach = {"left": min(left * step, FAR), "right": min(right * step, FAR)}
    keep = partial(_keep_dilated, **reach, step=min(step, FAR))
    return Pattern("dilated", (("window", value), ("step", step)), keep=keep)


def strided(stride: int) -> Pattern:
    """Every ``stride``-th key, counted from the query: keep where stride | i - j.

    With ``causal() & (local(stride) | strided(stride))`` this is the strided
    pattern of the Sparse Transformer (Child et al., 2019).
    """
    stride = check_count("stride", stride, least=1)
    keep = partial(_keep_strided, stride=min(stride, FAR))
    return Pattern("strided", (("stride", stride),), keep=keep)


def random_blocks(
    block_size: int, num_blocks: int, count: int, seed: int = 0
) -> Pattern:
    """Each block of queries meets ``count`` blocks of keys, drawn once by ``seed``.

    The random part of BigBird (Zaheer et al., 2020). Defined for at most
    ``num_blocks * block_size`` tokens, since the draw needs the number of blocks.
    """
    size = check_count("block_size", block_size, least=1)
    number = check_count("num_blocks", num_blocks, least=1)
    count = check_count("count", count, least=0)
    if count > number:
        raise ValueError(f"count must be at most num_blocks={number}, got {count}")
    seed = check_count("seed", seed, least=0)
    if seed >= 2**64:
        raise ValueError(f"seed must be below 2**64, got {seed}")
    table = _drawn(number, count, seed)
    sizes = {"block_size": size, "num_blocks": number, "count": count, "seed": seed}
    return Pattern(
        "random_blocks",
        tuple(sizes.items()),
        keep=partial(_keep_random, table=table, size=min(size, FAR)),
        max_length=size * number,
    )


def _drawn(number: int, count: int, seed: int) -> Tensor:
    """Draw the table of blocks, (number, number), whatever the default dtype."""
    generator = torch.Generator("cpu").manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
    drawn = torch.rand(number, number, **options).argsort(1)[:, :count]
    table = torch.zeros(number, number, dtype=torch.bool, device="cpu")
    return table.scatter_(1, drawn, True)


def union(*patterns: Pattern) -> Pattern:
    """Keep a pair that any of the patterns keeps. Eq. (12).

    Example:
        >>> union(local(2), global_tokens(1))
        union(local(window=2), global_tokens(count=1))
    """
    return _combine("union", patterns, _keep_any)


def intersection(*patterns: Pattern) -> Pattern:
    """Keep a pair that all of the patterns keep. Eq. (12).

    Example:
        >>> causal() & local(2)
        intersection(causal(), local(window=2))
    """
    return _combine("intersection", patterns, _keep_all)


def _combine(name: str, patterns: tuple[Pattern, ...], keep: Callable) -> Pattern:
    if not patterns:
        raise ValueError(f"{name} needs at least one pattern, got none")
    for pattern in patterns:
        check_pattern("patterns", pattern)
    limits = [p.max_length for p in patterns if p.max_length is not None]
    return Pattern(
        name,
        parts=patterns,
        keep=partial(keep, patterns=patterns),
        max_length=min(limits, default=None),
    )


def check_pattern(name: str, pattern: Pattern) -> None:
    """Refuse what is no pattern."""
    if not isinstance(pattern, Pattern):
        raise TypeError(f"{name} must be attn_tutorial patterns, got {pattern!r}")


def kept(pattern: Pattern, i: Tensor, j: Tensor) -> Tensor:
    """What a pattern answers at positions that broadcast; refuse what is no mask."""
    answer = pattern.keep(i, j)
    if not isinstance(answer, Tensor) or answer.dtype != torch.bool:
        raise TypeError(
            f"keep of {pattern!r} must answer a bool tensor, got {answer!r}"
        )
    return answer


# Text


def parse(text: str) -> Pattern:
    """Read a pattern from its text: names, numbers, ``&``, ``|`` and brackets.

    ``&`` binds more tightly than ``|``. Several numbers for one parameter are joined
    by commas: "local 3,5" looks 3 back and 5 ahead.

    Raises:
        TypeError, ValueError: If it is not a text, or not one of a pattern.

    Example:
        >>> parse("local 16 & causal")
        intersection(local(window=16), causal())
        >>> str(parse("(prefix 4 | local 16,0) & causal"))
        '(prefix 4 | local 16,0) & causal'
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {text!r}")
    words = re.findall(r"[a-z_]+|-?\d[\d,]*|[()&|]|\S", text)
    pattern = _read_sum(words, text)
    if words:
        raise _unreadable(text, words[0])
    return pattern


def _unreadable(text: str, word: str) -> ValueError:
    return ValueError(
        f'text must be a pattern such as "local 16 & causal", got {text!r}: '
        f"{word!r} was not understood"
    )


def _read_sum(words: list[str], text: str, sign: str = "|") -> Pattern:
    def read() -> Pattern:
        if sign == "|":
            return _read_sum(words, text, "&")
        return _read_term(words, text)

    parts = [read()]
    while words and words[0] == sign:
        words.pop(0)
        parts.append(read())
    combine = union if sign == "|" else intersection
    return combine(*parts) if len(parts) > 1 else parts[0]


def _read_term(words: list[str], text: str) -> Pattern:
    word = words.pop(0) if words else ""
    if word == "(":
        return _read_inside(words, text)
    if word not in __all__ or word in (*SIGNS, "Pattern", "dense_mask", "parse", "run"):
        raise _unreadable(text, word)
    values = []
    while words and re.fullmatch(r"-?\d[\d,]*", words[0]):
        numbers = tuple(int(number) for number in words[0].split(",") if number)
        values.append(numbers if "," in words.pop(0) else numbers[0])
    if word == "shifted" and words and words.pop(0) == "(":
        values.insert(0, _read_inside(words, text))
    try:
        return globals()[word](*values)
    except TypeError as error:
        raise ValueError(f"{text!r} is not a pattern: {error}") from None


def _read_inside(words: list[str], text: str) -> Pattern:
    pattern = _read_sum(words, text)
    if not words or words.pop(0) != ")":
        raise _unreadable(text, "(")
    return pattern


# Runs of keys


def run(pattern: Pattern, queries: range, n: int) -> range:
    """The keys that some neighbouring queries meet: one contiguous run of n keys.

    From the first key that any of the queries keeps to the last. Exact for the
    patterns whose queries each meet one run of keys (full, causal, local, blocks,
    documents, prefix) and their intersections; for others it is a run that holds all
    the keys, and may hold more.

    Args:
        pattern: Which (query, key) pairs to keep.
        queries: Positions of the queries, on the keys' axis.
        n: Number of keys, at positions 0 ... n - 1.

    Example:
        >>> run(local(3), range(8, 12), n=14)
        range(5, 14)
        >>> run(adjacent_blocks(4) & causal(), range(9, 10), n=100)
        range(4, 10)
    """
    check_pattern("pattern", pattern)
    if not queries:
        return range(0)
    first, last = _ends(pattern, queries[0], queries[-1], n)
    first, last = max(0, first), min(n - 1, last)
    return range(first, last + 1) if first <= last else range(0)


def _ends(pattern: Pattern, a: int, b: int, n: int) -> tuple[int, int]:
    """First and last key of the queries a ... b; first > last where there is none."""
    of_parts = [_ends(p, *_moved(pattern, a, b), n) for p in pattern.parts]
    if pattern.name == "union":
        some = [(first, last) for first, last in of_parts if first <= last]
        return min((f for f, _ in some), default=1), max(
            (e for _, e in some), default=0
        )
    if pattern.parts:
        return max(f for f, _ in of_parts), min(e for _, e in of_parts)
    rule = None if pattern.is_foreign else ENDS.get(pattern.name)
    return rule(a, b, **dict(pattern.parameters)) if rule else (0, n - 1)


def _moved(pattern: Pattern, a: int, b: int) -> tuple[int, int]:
    first = pattern["first"] if pattern.name == "shifted" else 0
    return a + first, b + first


def _ends_local(
    a: int, b: int, window: int | tuple[int, int], step: int = 1
) -> tuple[int, int]:
    left, right = check_window(window)
    return a - left * step, b + right * step


def _ends_documents(a: int, b: int, lengths: tuple[int, ...]) -> tuple[int, int]:
    start, first, last = 0, None, -1
    for length in lengths:
        end = start + length
        if length and start <= b and a < end:
            first, last = start if first is None else first, end - 1
        start = end
    return (0, -1) if first is None else (first, last)


ENDS: dict[str, Callable[..., tuple[int, int]]] = {
    "causal": lambda a, b: (0, b),
    "local": _ends_local,
    "dilated": _ends_local,
    "adjacent_blocks": lambda a, b, block_size: (
        (a // block_size - 1) * block_size,
        (b // block_size + 2) * block_size - 1,
    ),
    "blocks": lambda a, b, block_size: (
        a // block_size * block_size,
        (b // block_size + 1) * block_size - 1,
    ),
    "documents": _ends_documents,
    "prefix": lambda a, b, count: (0, count - 1),
    "global_tokens": lambda a, b, count: (0, FAR if a < count else count - 1),
}


def check_length(pattern: Pattern, n_q: int, n_k: int, first: int = 0) -> None:
    """Refuse lengths beyond those that the pattern is defined for."""
    limit = pattern.max_length
    for name, n in (("n_q", first + n_q), ("n_k", n_k)):
        if limit is not None and n > limit:
            raise ValueError(f"{name} must be at most {limit} for {pattern!r}, got {n}")


def dense_mask(
    pattern: Pattern,
    n_q: int,
    n_k: int | None = None,
    device: torch.device | str | None = None,
    *,
    first: int = 0,
) -> Tensor:
    """Write a pattern out as a matrix, for pictures and for the dense reference.

    Args:
        pattern: Which (query, key) pairs to keep.
        n_q: Number of queries, at positions first ... first + n_q - 1.
        n_k: Number of keys, at positions 0 ... n_k - 1; n_q if None.
        device: Where the mask is made; the CPU if None.
        first: Position of the first query on the keys' axis.

    Returns:
        Bool mask, shape (n_q, n_k); True = attend.

    Raises:
        TypeError, ValueError: If an argument has the wrong type, is negative, or is
            longer than the pattern is defined for.

    Example:
        >>> dense_mask(causal(), 2, 3)
        tensor([[ True, False, False],
                [ True,  True, False]])
        >>> dense_mask(causal(), 1, 3, first=1)
        tensor([[ True,  True, False]])
    """
    check_pattern("pattern", pattern)
    n_q = check_count("n_q", n_q, least=0)
    n_k = n_q if n_k is None else check_count("n_k", n_k, least=0)
    first = check_position("first", first)
    check_length(pattern, n_q, n_k, first)
    device = "cpu" if device is None else device
    i = torch.arange(first, first + n_q, device=device)[:, None]
    j = torch.arange(n_k, device=device)[None, :]
    return kept(pattern, i, j).expand(n_q, n_k)
