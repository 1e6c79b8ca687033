"""Patterns by name, so that a record can say in a few words what was trained."""

from __future__ import annotations

from attn_tutorial import patterns
from attn_tutorial.patterns import Pattern

__all__ = ["named_pattern", "named_patterns"]

NAMES = {
    "local": patterns.local,
    "blocks": patterns.adjacent_blocks,
    "global": patterns.global_tokens,
}


def named_patterns(name: str, *, causal: bool) -> list[Pattern]:
    """Turn a name into the patterns of the layers, which take turns.

    Args:
        name: One pattern, or several with commas between them: "local 16, full".
        causal: Whether no query may look ahead.

    Example:
        >>> named_patterns("local 16, full", causal=False)
        [local(window=16), full()]
    """
    return [named_pattern(part, causal=causal) for part in name.split(",")]


def named_pattern(name: str, *, causal: bool) -> Pattern:
    """Turn the name of one pattern into the pattern.

    Args:
        name: "full", "local w", "blocks b", "global g", or a union of such terms with
            plus signs between them: "local 16 + global 4".
        causal: Whether no query may look ahead.

    Raises:
        ValueError: If a term is none of these.

    Example:
        >>> named_pattern("blocks 32", causal=True)
        intersection(adjacent_blocks(block_size=32), causal())
        >>> named_pattern("local 16 + global 4", causal=False)
        union(local(window=16), global_tokens(count=4))
    """
    if name.strip() == "full":
        return patterns.causal() if causal else patterns.full()
    terms = [_term(term) for term in name.split("+")]
    pattern = terms[0] if len(terms) == 1 else patterns.union(*terms)
    return pattern & patterns.causal() if causal else pattern


def _term(term: str) -> Pattern:
    kind, _, number = term.strip().partition(" ")
    if kind not in NAMES or not number.isdecimal():
        raise ValueError(
            f"name must be 'full' or have terms such as 'local 8', got {term!r}"
        )
    return NAMES[kind](int(number))
