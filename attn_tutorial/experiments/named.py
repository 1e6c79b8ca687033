"""Layers by name: a record says in a few words which patterns a stack has."""

from __future__ import annotations

from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.patterns import Pattern

__all__ = ["named_patterns"]


def named_patterns(name: str, *, causal: bool) -> list[Pattern]:
    """Turn a name into the patterns of the layers, which take turns.

    Args:
        name: One pattern as records spell it, or several: "local 16, full".
        causal: Whether no query may look ahead.

    Raises:
        ValueError: If a part is not the text of a pattern.

    Example:
        >>> named_patterns("local 16, full", causal=False)
        [local(window=16), full()]
    """
    return [recorded_pattern(part, causal=causal) for part in name.split(", ")]
