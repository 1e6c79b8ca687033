"""Ask a black box which keys a query meets, and name what it does.

A few rows and columns suggest names. Each name is then checked at many more places
before it is given, in a short text at all of them. What fits no name is unknown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attn_tutorial import patterns as P
from attn_tutorial.checks import check_count
from attn_tutorial.conventions.shapes import band, shape_of, words_of
from attn_tutorial.conventions.table import CONVENTIONS
from attn_tutorial.conventions.translate import convert
from attn_tutorial.patterns import FAR, Pattern, dense_mask

__all__ = ["Identified", "identify"]

SMALL = 4096  # texts as short as this are compared at all places
DOCUMENTS = 64  # texts of more documents than this are not walked through


@dataclass(frozen=True)
class Identified:
    """What a black box was found to do.

    Attributes:
        pattern: Its pattern, or None if it fits none that is known here.
        n: The positions 0 ... n - 1 that it was asked about.
        places: Pairs of a query and a key at which the pattern was compared with it;
            where there is none, all that were asked.
        alignment: For an attention function, where queries stand if there are fewer
            than keys: "top-left", "bottom-right", "either" if it makes no difference,
            "unknown", or "refused" if it raises an error. None for a predicate.
    """

    pattern: Pattern | None
    n: int
    places: int
    alignment: str | None = None

    @property
    def words(self) -> str:
        """Say what was found, how far it was checked, and how others write it."""
        if self.pattern is None:
            return (
                f"Unknown: no pattern of attn_tutorial fits positions below {self.n:,}"
            )
        share = "all" if self.places >= self.n**2 else f"{self.places:,} of the"
        name = str(self.pattern)
        said = words_of(self.pattern)
        if str(FAR) not in name:  # as the text of an open end
            said = f"{name}: {said}"
        checked = f"compared at {share} {self.n**2:,} pairs of positions"
        aligned = (
            f". Fewer queries than keys: {self.alignment}" if self.alignment else ""
        )
        return f"{said} ({checked}){aligned}"

    @property
    def values(self) -> dict[str, object]:
        """The value that means the same in other libraries, where there is one."""
        if self.pattern is None or shape_of(self.pattern) is None:
            return {}
        found = {}
        for name in CONVENTIONS:
            try:
                found[name] = convert(self.pattern, to=name)
            except ValueError:
                continue
        return found


def identify(keep: Callable, n: int | None = None) -> Identified:
    """Name the pattern of a predicate, of a mask function, or of an attention function.

    Asked are positions below ``n``: in a text of up to 4,096 tokens every pair, so that
    the name is right there; in a longer one 128 whole rows and columns at both ends and
    in between, and of every query the keys near it and those at the window's edges. A
    window that reaches beyond n cannot be told from none.

    Args:
        keep: ``keep(i, j)`` on integer tensors that broadcast, ``mask_mod(b, h, i, j)``
            as FlexAttention has it, or ``attention(q, k, v)`` on (1, 1, n, d) tensors.
        n: Positions to ask; 16,384 if None, and 192 for an attention function, which
            has to compute all pairs.

    Returns:
        What was found. Its ``pattern`` is None if nothing known fits.

    Raises:
        TypeError: If it is not callable with 2, 3 or 4 arguments, or answers something
            else than bool.
        ValueError: If it fails at positions below n.

    Example:
        >>> found = identify(lambda i, j: (j <= i) & (i - j < 4096))
        >>> found.pattern
        local(window=(4095, 0))
        >>> found.values["flash_attn.window_size"]
        (4095, 0)
        >>> identify(lambda i, j: (i + j) % 7 == 0).words
        'Unknown: no pattern of attn_tutorial fits positions below 16,384'
    """
    count = _arguments(keep)
    n = (192 if count == 3 else 16384) if n is None else n
    n = check_count("n", n, least=4)
    if count == 3:
        return _of_attention(keep, n)
    box = _Box(keep if count == 2 else _without_heads(keep), n)
    return _named(box)


def _arguments(keep: Callable) -> int:
    """Number of arguments that must be given."""
    try:
        parameters = inspect.signature(keep).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(
            f"keep must be a function of (i, j), (b, h, i, j) or (q, k, v), "
            f"got {keep!r}"
        ) from None
    needed = [
        p
        for p in parameters
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) not in (2, 3, 4):
        raise TypeError(
            "keep must need 2 arguments (i, j), 3 (q, k, v) or 4 (b, h, i, j), got "
            f"{keep!r} with {len(needed)}"
        )
    return len(needed)


def _without_heads(mask_mod: Callable) -> Callable:
    zero = torch.tensor(0)
    return lambda i, j: mask_mod(zero, zero, i, j)


@dataclass
class _Box:
    """A predicate on positions below n, that counts what it is asked."""

    keep: Callable
    n: int
    places: int = 0
    known: dict = field(default_factory=dict)

    def ask(self, i: Tensor, j: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(i.shape, j.shape)
        try:
            answer = self.keep(i, j)
        except (IndexError, RuntimeError) as error:
            raise ValueError(
                f"keep failed at positions below n={self.n}: {error}; give the n up to "
                "which it is defined"
            ) from error
        except TypeError as error:
            raise TypeError(
                f"keep must answer for two position tensors, got {self.keep!r}: "
                f"{error}; if it is an attention function, leave it (q, k, v) alone, "
                "as functools.partial(at.local_attention, window=w) does"
            ) from error
        if not isinstance(answer, Tensor) or answer.dtype != torch.bool:
            raise TypeError(f"keep must answer a bool tensor, got {answer!r}")
        self.places += shape.numel()
        return answer.expand(shape)

    def row(self, query: int) -> Tensor:
        """The keys of one query, (n,)."""
        if ("row", query) not in self.known:
            found = self.ask(torch.tensor([query]), torch.arange(self.n))
            self.known["row", query] = found
        return self.known["row", query]

    def column(self, key: int) -> Tensor:
        """The queries of one key, (n,)."""
        if ("column", key) not in self.known:
            found = self.ask(torch.arange(self.n), torch.tensor([key]))
            self.known["column", key] = found
        return self.known["column", key]


def _named(box: _Box) -> Identified:
    for pattern in _suggested(box):
        if _fits_what_is_known(box, pattern):
            box.places = 0
            if _fits_everywhere(box, pattern):
                return Identified(pattern, box.n, box.places)
    return Identified(None, box.n, box.places)


def _fits_what_is_known(box: _Box, pattern: Pattern) -> bool:
    everywhere = torch.arange(box.n)
    for (side, position), answer in box.known.items():
        here = torch.tensor([position])
        pair = (here, everywhere) if side == "row" else (everywhere, here)
        if not torch.equal(pattern.keep(*pair).expand(box.n), answer):
            return False
    return True


def _fits_everywhere(box: _Box, pattern: Pattern) -> bool:
    """At all pairs of a short text; of a long one in rows, columns and diagonals."""
    places = _all_pairs(box.n) if box.n <= SMALL else _some_pairs(box)
    return all(torch.equal(box.ask(i, j), pattern.keep(i, j)) for i, j in places)


def _all_pairs(n: int) -> Iterator[tuple[Tensor, Tensor]]:
    keys = torch.arange(n)
    for rows in keys.split(max(1, 2**20 // n)):
        yield rows[:, None], keys[None, :]


def _some_pairs(box: _Box) -> Iterator[tuple[Tensor, Tensor]]:
    """Whole rows and columns; and of every query the keys near it and at its edges."""
    everywhere, some = torch.arange(box.n), _chosen(box.n)
    for i in some.split(32):
        yield i[:, None], everywhere[None, :]
        yield everywhere[:, None], i[None, :]
    for offset in _offsets(box):
        i = everywhere[max(0, -offset) : box.n - max(0, offset)]
        if len(i):
            yield i, i + offset


def _chosen(n: int) -> Tensor:
    """Positions at both ends of a text, and some in between."""
    generator = torch.Generator().manual_seed(n)
    between = torch.randperm(n - 64, generator=generator)[:64] + 32
    ends = torch.cat([torch.arange(32), torch.arange(n - 32, n)])
    return torch.cat([ends, between]).unique()


def _offsets(box: _Box) -> list[int]:
    """Distances to look at: where the known rows change, and powers of 2."""
    found = {sign * 2**k for k in range(box.n.bit_length()) for sign in (-1, 1)} | {0}
    for (side, position), answer in box.known.items():
        if side == "row":
            changes = (answer[1:] != answer[:-1]).nonzero().flatten()[:64] - position
            found |= {int(place) + by for place in changes for by in (0, 1)}
    return sorted(found)


# Suggestions, the simplest first.


def _suggested(box: _Box) -> Iterator[Pattern]:
    """Patterns that the first and last rows and columns allow."""
    first, last = box.row(0), box.row(box.n - 1)
    box.row(box.n // 2)
    right, left = _run(first) - 1, _run(last.flip(0)) - 1
    yield from _windows(box.n, left, right)
    yield from _in_blocks(_run(box.column(0)))
    yield from _with_first_keys(_run(last), left, right)
    yield from _with_gaps(box.n, first, last.flip(0))
    yield from _texts(box)


def _run(row: Tensor) -> int:
    """Length of the run of True with which a row begins."""
    gaps = (~row).nonzero()
    return int(gaps[0]) if len(gaps) else len(row)


def _windows(n: int, left: int, right: int) -> Iterator[Pattern]:
    if min(left, right) >= 0:
        ends = [None if end >= n - 1 else end for end in (left, right)]
        yield band(*ends)


def _in_blocks(seen: int) -> Iterator[Pattern]:
    """Key 0 is seen by a block of queries, or by two."""
    for make, size in ((P.blocks, seen), (P.adjacent_blocks, seen // 2)):
        if size:
            yield make(size)
            yield make(size) & P.causal()


def _with_first_keys(first: int, left: int, right: int) -> Iterator[Pattern]:
    """Sinks, prefixes and global tokens: the last query sees the first keys."""
    yield P.prefix(first)
    if not first or left < 0:
        return
    window = P.local((left, 0))
    yield (P.prefix(first) | window) & P.causal()
    yield P.prefix(right + 1) | P.causal()
    yield P.global_tokens(first) | P.local(left)
    yield P.prefix(first) | P.local(left)
    yield P.prefix(first) | window


def _with_gaps(n: int, ahead: Tensor, back: Tensor) -> Iterator[Pattern]:
    """Every step-th key, counted from the query: ahead of query 0, back of the last."""
    places = back.nonzero().flatten()
    if len(places) < 2 or places[0] != 0 or places[1] < 2:
        return
    step = int(places[1])
    sides = [int(side.sum()) - 1 for side in (back, ahead)]
    if sides[0] == (n - 1) // step:
        yield P.strided(step)
        yield P.strided(step) & P.causal()
    if min(sides) >= 0:
        yield P.dilated(tuple(sides), step)


def _texts(box: _Box) -> Iterator[Pattern]:
    """Several documents end to end: who sees a document's first token is in it."""
    start, lengths = 0, []
    while start < box.n and len(lengths) < DOCUMENTS:
        length = _run(box.column(start)[start:])
        if not length:
            return
        lengths.append(length)
        start += length
    if start >= box.n:
        yield P.documents(lengths)
        yield P.documents(lengths) & P.causal()


# Attention functions.


def _of_attention(attention: Callable, n: int) -> Identified:
    """Name it at one length, check the name at a second, and ask where it aligns."""
    mask = _mask_of(attention, n, n)
    found = _named(_Box(lambda i, j: mask[i, j], n))
    if found.pattern is None:
        return found
    half = n // 2
    if not torch.equal(
        _mask_of(attention, half, half), dense_mask(found.pattern, half)
    ):
        return Identified(None, n, found.places)
    aligned = _alignment(attention, found.pattern, half, n)
    return Identified(found.pattern, n, found.places + half**2, aligned)


def _mask_of(attention: Callable, n_q: int, n_k: int) -> Tensor:
    """Which keys have weight, (n_q, n_k), by values that tell keys apart."""
    q, k = torch.zeros(1, 1, n_q, n_k), torch.zeros(1, 1, n_k, n_k)
    with torch.no_grad():
        output = attention(q, k, torch.eye(n_k)[None, None])
    if not isinstance(output, Tensor) or output.numel() != n_q * n_k:
        raise TypeError(
            f"keep(q, k, v) must answer a tensor of shape (1, 1, {n_q}, {n_k}), "
            f"got {getattr(output, 'shape', output)!r}"
        )
    return output.reshape(n_q, n_k) > 0


def _alignment(attention: Callable, pattern: Pattern, n_q: int, n_k: int) -> str:
    try:
        mask = _mask_of(attention, n_q, n_k)
    except Exception:  # whatever a library raises where it wants equal lengths
        return "refused"
    together = {"top-left": 0, "bottom-right": n_k - n_q}
    fits = [
        name
        for name, first in together.items()
        if torch.equal(mask, dense_mask(pattern, n_q, n_k, first=first))
    ]
    return {0: "unknown", 1: (fits or [""])[0], 2: "either"}[len(fits)]
