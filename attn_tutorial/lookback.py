"""What of the past a causal pattern still needs, and the pattern seen from later on.

A decoder that has read many tokens need not keep them all: later queries meet the
first few for ever, perhaps, and the last few. Its axes may then begin later too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.checks import check_window
from attn_tutorial.patterns import Pattern

__all__ = ["ALL", "Needs", "causal_needs", "moved", "needs", "period"]

ALL = math.inf  # keys without end


@dataclass(frozen=True)
class Needs:
    """What the queries of a pattern meet: the first ``sinks`` keys, and a window.

    Attributes:
        sinks: The keys 0 ... sinks - 1 may be met for ever.
        back: Any other key that query i meets is at most so far behind it; -1: none.
        ahead: No key that query i meets is farther ahead; at most 0 if causal.
    """

    sinks: float
    back: float
    ahead: float

    def __or__(self, other: Needs) -> Needs:
        """Return what is met by either."""
        pairs = zip(self._parts, other._parts, strict=True)
        return Needs(*(max(pair) for pair in pairs))

    def __and__(self, other: Needs) -> Needs:
        """Return what is met by both; sinks of one may lie in the other's window."""
        sinks = min(self.sinks, other.sinks)
        both = [min(self.back, other.back)]
        both += [b.back for a, b in ((self, other), (other, self)) if a.sinks > sinks]
        return Needs(sinks, max(both), min(self.ahead, other.ahead))

    @property
    def _parts(self) -> tuple[float, float, float]:
        return self.sinks, self.back, self.ahead


EVERYTHING = Needs(ALL, ALL, ALL)


def needs(pattern: Pattern) -> Needs:
    """The keys that the queries of a causal pattern can meet, and no fewer.

    Exact for windows, blocks, prefixes and global tokens under ``causal()``, and their
    unions. Of a reader's own predicate nothing is known, so that every key is needed.

    Example:
        >>> needs((patterns.prefix(4) | patterns.local(16)) & patterns.causal())
        Needs(sinks=4, back=16, ahead=0)
        >>> needs(patterns.blocks(8) & patterns.causal())
        Needs(sinks=0, back=7, ahead=0)
    """
    if pattern.is_foreign:
        return EVERYTHING
    if not pattern.parts:
        rule = NEEDS.get(pattern.name, lambda **_: EVERYTHING)
        return rule(**dict(pattern.parameters))
    parts = map(needs, pattern.parts)
    if pattern.name == "shifted":
        met, first = next(parts), pattern["first"]
        return Needs(met.sinks, max(met.back - first, -1), met.ahead + first)
    return reduce(Needs.__or__ if pattern.name == "union" else Needs.__and__, parts)


def causal_needs(pattern: Pattern) -> Needs:
    """The same, of a pattern that must not look ahead.

    Raises:
        TypeError: If it is none of ``attn_tutorial.patterns``.
        ValueError: If it looks ahead.
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be an attn_tutorial pattern, got {pattern!r}")
    met = needs(pattern)
    if met.ahead > 0:
        raise ValueError(
            f"pattern must not look ahead, got {pattern!r}: "
            "write pattern & patterns.causal()"
        )
    return met


def _needs_window(window: int | tuple[int, int], step: int = 1) -> Needs:
    left, right = check_window(window)
    return Needs(0, left * step, right * step)


def _needs_documents(lengths: tuple[int, ...]) -> Needs:
    return Needs(0, max(lengths) - 1, max(lengths) - 1)


# Patterns that are not here meet everything. A global token meets more than the sinks
# only ahead of it.
NEEDS: dict[str, Callable[..., Needs]] = {
    "causal": lambda: Needs(ALL, ALL, 0),
    "local": _needs_window,
    "dilated": _needs_window,
    "blocks": lambda block_size: Needs(0, block_size - 1, block_size - 1),
    "adjacent_blocks": lambda block_size: Needs(
        0, 2 * block_size - 1, 2 * block_size - 1
    ),
    "documents": _needs_documents,
    "prefix": lambda count: Needs(count, -1, count - 1),
    "global_tokens": lambda count: Needs(count, -1, ALL if count else -1),
}


# Patterns on axes that begin later


def moved(pattern: Pattern, base: int, sinks: int = 0) -> Pattern:
    """The same pattern where queries and keys are counted from position ``base``.

    Args:
        pattern: A causal pattern; keep(i, j) of the result is its keep(i + base, j +
            base).
        base: Where the axes begin.
        sinks: So many first keys are left out: tokens that are global, and no more than
            these, no longer count.

    Example:
        >>> moved((patterns.prefix(4) | patterns.local(16)) & patterns.causal(), 8, 4)
        intersection(local(window=16), causal())
    """
    if pattern.is_foreign or not (pattern.parts or pattern.name in MOVED):
        return _beyond(pattern, base)
    if pattern.name == "shifted":  # its queries may stand before their axis
        same = moved(pattern.parts[0], base) == pattern.parts[0]
        return pattern if same else _beyond(pattern, base)
    if not pattern.parts:
        return MOVED[pattern.name](pattern, base, sinks)
    parts = [moved(part, base, sinks) for part in pattern.parts]
    if pattern.name == "intersection":
        return patterns.intersection(*parts)
    some = [part for part in parts if part != patterns.prefix(0)]
    return patterns.union(*some) if len(some) > 1 else (some or parts)[0]


def _beyond(pattern: Pattern, base: int) -> Pattern:
    """Any pattern, moved: a predicate of which nothing else is known."""
    keep = partial(_keep_moved, pattern=pattern, base=base)
    return Pattern("moved", keep=keep) if base else pattern


def _keep_moved(i: Tensor, j: Tensor, pattern: Pattern, base: int) -> Tensor:
    return pattern.keep(i + base, j + base)


def _moved_blocks(pattern: Pattern, base: int, sinks: int) -> Pattern:
    return _beyond(pattern, base) if base % pattern["block_size"] else pattern


def _moved_count(pattern: Pattern, base: int, sinks: int) -> Pattern:
    count = pattern["count"]
    if count <= sinks:
        return patterns.prefix(0)
    return getattr(patterns, pattern.name)(max(count - base, 0))


def _moved_documents(pattern: Pattern, base: int, sinks: int) -> Pattern:
    left = []
    for length in pattern["lengths"]:
        left.append(max(length - base, 0))
        base = max(base - length, 0)
    return patterns.documents(left)


def _same(pattern: Pattern, base: int, sinks: int) -> Pattern:
    return pattern


MOVED: dict[str, Callable[[Pattern, int, int], Pattern]] = {
    **dict.fromkeys(("full", "causal", "local", "dilated", "strided"), _same),
    **dict.fromkeys(("blocks", "adjacent_blocks"), _moved_blocks),
    **dict.fromkeys(("prefix", "global_tokens"), _moved_count),
    "documents": _moved_documents,
}


def period(pattern: Pattern) -> int:
    """Where a pattern begins anew: the common multiple of its blocks; 1 without any.

    Example:
        >>> period(patterns.blocks(4) | patterns.adjacent_blocks(6))
        12
    """
    own = dict(pattern.parameters).get("block_size", 1)
    return math.lcm(own, *map(period, pattern.parts))
