"""The plainest form of a pattern: where its keys begin, where they end, what is cut.

Two patterns that are written differently can be the same set of pairs: ``local(3) &
causal()`` and ``local((3, 0))``. Those of windows and blocks have one plain form, by
which they are compared, put into words and found in other libraries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from attn_tutorial.patterns import FAR, Pattern

__all__ = ["Shape", "band", "keys_of", "shape_of", "words_of"]


@dataclass(frozen=True)
class Shape:
    """A window, blocks, or both; None stands for no end.

    Attributes:
        left: Keys before the query that it meets, or None for all of them.
        right: Keys after it that it meets, or None for all of them.
        block: Size of the blocks; 0 if there are none.
        beside: Blocks on each side of a query's own that it meets too.
        sinks: First keys that every query meets as well, if they are not ahead of it.
    """

    left: int | None = None
    right: int | None = None
    block: int = 0
    beside: int = 0
    sinks: int = 0


def band(left: int | None, right: int | None) -> Pattern:
    """The pattern of keys from ``left`` before to ``right`` after; None: no end.

    Example:
        >>> band(4, 0), band(None, 0), band(None, None)
        (local(window=(4, 0)), causal(), full())
    """
    from attn_tutorial import patterns

    if (left, right) == (None, None):
        return patterns.full()
    if (left, right) == (None, 0):
        return patterns.causal()
    ends = tuple(FAR if end is None else end for end in (left, right))
    return patterns.local(ends)


def shape_of(pattern: Pattern) -> Shape | None:
    """The plain form of a pattern, or None if it has none.

    Example:
        >>> from attn_tutorial.patterns import causal, local, parse
        >>> shape_of(local(3) & causal()) == shape_of(local((3, 0)))
        True
        >>> shape_of(parse("(prefix 2 | local 5) & causal"))
        Shape(left=5, right=0, block=0, beside=0, sinks=2)
    """
    if pattern.is_foreign:
        return None
    if pattern.name == "union":
        return _only(pattern)
    if pattern.name == "intersection":
        return _intersected(pattern.parts)
    read = SIMPLE.get(pattern.name)
    return read(**dict(pattern.parameters)) if read else None


def _local(window: int | tuple[int, int]) -> Shape:
    ends = window if isinstance(window, tuple) else (window, window)
    return Shape(*(None if end >= FAR else end for end in ends))


SIMPLE = {
    "full": Shape,
    "causal": lambda: Shape(right=0),
    "local": _local,
    "blocks": lambda block_size: Shape(block=block_size),
    "adjacent_blocks": lambda block_size: Shape(block=block_size, beside=1),
}


def _only(union: Pattern) -> Shape | None:
    """A union of one, or of equals."""
    shapes = {shape_of(part) for part in union.parts}
    return shapes.pop() if len(shapes) == 1 else None


def _intersected(parts: tuple[Pattern, ...]) -> Shape | None:
    """All parts at once; sinks in at most one of them, and only causality beside it."""
    windows = [_with_sinks(part) for part in parts]
    found = [window for window in windows if window]
    shape = Shape()
    for part, window in zip(parts, windows, strict=True):
        other = Shape() if window else shape_of(part)
        shape = _both(shape, other) if shape and other and not other.sinks else None
    if not found or shape is None:
        return shape and _trimmed(shape)
    if len(found) > 1 or shape != Shape(right=0):
        return None
    left = found[0].left
    return replace(found[0], right=0, sinks=0 if left is None else found[0].sinks)


def _with_sinks(part: Pattern) -> Shape | None:
    """The window of ``prefix(p) | window``, with the first p keys as its sinks."""
    if part.name != "union" or len(part.parts) != 2:
        return None
    first, second = sorted(part.parts, key=lambda p: p.name != "prefix")
    shape = shape_of(second)
    if first.name != "prefix" or shape is None or shape.block or shape.sinks:
        return None
    return replace(shape, sinks=first["count"])


def _both(a: Shape, b: Shape) -> Shape | None:
    if a.block and b.block and (a.block, a.beside) != (b.block, b.beside):
        return None
    ends = [_nearer(a.left, b.left), _nearer(a.right, b.right)]
    blocks = a if a.block else b
    return Shape(*ends, blocks.block, blocks.beside)


def _nearer(a: int | None, b: int | None) -> int | None:
    return min((end for end in (a, b) if end is not None), default=None)


def _trimmed(shape: Shape) -> Shape:
    """Without ends that the blocks imply, or blocks that the ends imply."""
    if not shape.block:
        return shape
    beside = shape.block * shape.beside
    if max(_far(shape.left), _far(shape.right)) <= beside:
        return Shape(shape.left, shape.right)
    reach = beside + shape.block - 1
    left, right = (
        None if end is not None and end >= reach else end
        for end in (shape.left, shape.right)
    )
    return replace(shape, left=left, right=right)


def keys_of(shape: Shape) -> str:
    """How many keys a query meets far from both ends of the text.

    Example:
        >>> keys_of(Shape(3, 0)), keys_of(Shape(block=8, right=0)), keys_of(Shape())
        ('4', '1 to 8', 'all')
    """
    if shape.block:
        return _keys_of_blocks(shape)
    if shape.left is None or shape.right is None:
        return "all before it" if shape.right == 0 else "all"
    return f"{shape.left + 1 + shape.right + shape.sinks:,}"


def _keys_of_blocks(shape: Shape) -> str:
    counts = [
        min(_far(shape.left), shape.block * shape.beside + place)
        + 1
        + min(_far(shape.right), shape.block * (shape.beside + 1) - 1 - place)
        for place in {0, shape.block - 1}
    ]
    if _far(shape.left) == _far(shape.right) == FAR:
        return f"{shape.block * (2 * shape.beside + 1):,}"
    if shape.left is None and shape.right == 0:
        return f"{min(counts):,} to {max(counts):,}"
    return f"at most {shape.block * (2 * shape.beside + 1):,}"


def _far(end: int | None) -> int:
    return FAR if end is None else end


def words_of(pattern: Pattern) -> str:
    """What a query meets under a pattern, in words.

    Example:
        >>> from attn_tutorial.patterns import blocks, causal, local
        >>> words_of(local((3, 0)))
        'a query meets itself and 3 keys before it: 4 keys'
        >>> words_of(blocks(8) & causal())
        'a query meets its own block of 8 keys, none after it: 1 to 8 keys'
    """
    shape = shape_of(pattern)
    if shape is None:
        return f"a query meets the keys of the pattern {pattern}"
    if shape.block:
        return _words_of_blocks(shape)
    if (shape.left, shape.right) == (None, None):
        return "every query meets every key"
    sinks = f", and the first {shape.sinks} keys" if shape.sinks else ""
    return f"a query meets {_sides(shape)}{sinks}: {_number(shape)}"


def _number(shape: Shape) -> str:
    count = keys_of(shape)
    return count if count.startswith("all") else f"{count} key" + "s" * (count != "1")


def _sides(shape: Shape) -> str:
    ends = {"before": shape.left, "after": shape.right}
    if shape.left == shape.right:
        return (
            f"itself and {shape.left:,} keys on each side" if shape.left else "itself"
        )
    parts = [_side(end, word) for word, end in ends.items() if end != 0]
    return (
        " and ".join(["itself", *parts])
        if len(parts) < 2
        else (f"itself, {parts[0]} and {parts[1]}")
    )


def _side(end: int | None, word: str) -> str:
    number = "all" if end is None else f"{end:,}"
    return f"{number} key{'s' * (end != 1)} {word} it"


def _words_of_blocks(shape: Shape) -> str:
    own = f"its own block of {shape.block:,} keys"
    own += " and the two beside it" * bool(shape.beside)
    cuts = [
        f"none {'more than ' * bool(end)}{f'{end:,} ' * bool(end)}{word} it"
        for word, end in (("before", shape.left), ("after", shape.right))
        if end is not None
    ]
    return f"a query meets {', '.join([own, *cuts])}: {keys_of(shape)} keys"
