"""How records spell patterns, where that differs from ``patterns.parse``.

Records are kept as they were made, and those of this book were made before a pattern
had a text. Their few words of another meaning are translated here, and only here.
"""

from __future__ import annotations

import re

from attn_tutorial import patterns
from attn_tutorial.patterns import Pattern

__all__ = ["recorded_pattern"]

WORDS = {"blocks": "adjacent_blocks", "global": "global_tokens", "+": "|"}


def recorded_pattern(text: str, *, causal: bool = False) -> Pattern:
    """Read a pattern as cases and settings spell it.

    As ``patterns.parse`` does, but "blocks b" are adjacent blocks, "global g" global
    tokens, and a plus sign stands for ``|``.

    Args:
        text: Such as "full", "local 8", "blocks 32" or "local 16 + global 4".
        causal: Whether no query may look ahead.

    Raises:
        ValueError: If it is not the text of a pattern.

    Example:
        >>> recorded_pattern("blocks 32", causal=True)
        intersection(adjacent_blocks(block_size=32), causal())
        >>> str(recorded_pattern("local 16 + global 4"))
        'local 16 | global_tokens 4'
    """
    text = re.sub(r"\b(blocks|global)\b|\+", lambda word: WORDS[word[0]], text)
    pattern = patterns.parse(text)
    if not causal:
        return pattern
    if pattern == patterns.full():
        return patterns.causal()
    return pattern & patterns.causal()
