"""From another library's window to ours, in words, and back."""

from __future__ import annotations

from functools import partial

from attn_tutorial.conventions.shapes import Shape, shape_of, words_of
from attn_tutorial.conventions.table import CONVENTIONS, Convention
from attn_tutorial.patterns import Pattern, dense_mask

__all__ = ["convert", "describe"]

KNOWN = {
    "run": "compared with the library itself",
    "read": "read in its source",
    "documented": "as its documentation says",
}


def describe(name: str, value: object) -> str:
    """Say in words what a parameter's value means.

    Args:
        name: A convention, such as "hf.sliding_window": a key of ``CONVENTIONS``.
        value: What the library is given.

    Raises:
        TypeError, ValueError: If there is no such convention, or no such value.

    Example:
        >>> print(describe("hf.sliding_window", 4096))
        Hugging Face: Mistral, Mixtral, Phi-3, Gemma 2 and 3, gpt-oss, Cohere 2, OLMo 3,
        Qwen with its gates open, sliding_window=4096: a query meets itself and 4,095
        keys before it: 4,096 keys. Ours: local 4095,0. With fewer queries than keys
        they end together (bottom-right). Known: compared with the library itself
        (transformers 5.23.0). None is no window.
    """
    row = _row("name", name)
    pattern = row.pattern(value)
    said = f"{row.family}, {row.parameter}={value}: {_meaning(row, pattern)}"
    note = f" {row.note[0].upper()}{row.note[1:]}." if row.note and pattern else ""
    known = f"Known: {KNOWN[row.evidence]} ({row.source})."
    return f"{said} {LENGTHS[row.alignment]} {known}{note}"


LENGTHS = {
    "top-left": "With fewer queries than keys they start together (top-left).",
    "bottom-right": "With fewer queries than keys they end together (bottom-right).",
    "equal lengths only": "There are as many queries as keys.",
}


def _meaning(row: Convention, pattern: Pattern | None) -> str:
    if pattern is None:
        return f"a query meets {row.keys}. Ours: none, since {row.note}."
    return f"{words_of(pattern)}. Ours: {pattern}."


def _row(argument: str, name: str) -> Convention:
    if name not in CONVENTIONS:
        raise ValueError(f"{argument} must be one of {list(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]


def convert(pattern: Pattern, to: str) -> object:
    """The value that makes another library compute a pattern of ours.

    Args:
        pattern: What is to be computed.
        to: A convention, such as "flash_attn.window_size": a key of ``CONVENTIONS``.

    Returns:
        The parameter's value. For "torch.sdpa.attn_mask", which needs the lengths, a
        function of n_q and n_k that returns the mask.

    Raises:
        TypeError: If it is not a pattern.
        ValueError: If no value of the parameter means this pattern; the text says why.

    Example:
        >>> from attn_tutorial.patterns import causal, local
        >>> convert(local(4095) & causal(), to="hf.sliding_window")
        4096
        >>> convert(local(256), to="flash_attn.window_size")
        (256, 256)
        >>> convert(local(256), to="hf.sliding_window")
        Traceback (most recent call last):
        ...
        ValueError: hf.sliding_window has no value that means local 256: 16 means
        local 15,0, and other values differ from it in their size alone
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be an attn_tutorial pattern, got {pattern!r}")
    row = _row("to", to)
    if row.name == "torch.sdpa.attn_mask":
        return partial(dense_mask, pattern)
    if row.name == "torch.flex.mask_mod":
        return pattern
    if row.make is None:
        raise ValueError(f"{to} has no value that means {pattern}: {row.note}")
    return _searched(row, pattern)


def _searched(row: Convention, pattern: Pattern) -> object:
    """Try the values that could mean it, and keep the first that does."""
    shape = shape_of(pattern)
    for value in _candidates(shape) if shape else ():
        try:
            found = row.make(value)
        except (TypeError, ValueError):
            continue
        if shape_of(found) == shape:
            return value
    raise ValueError(
        f"{row.name} has no value that means {pattern}: {row.example} means "
        f"{row.make(row.example)}, and other values differ from it in their size alone"
    )


def _candidates(shape: Shape) -> list[object]:
    """Values that could mean a plain form, in the order in which one would say them."""
    ends = [-1 if end is None else end for end in (shape.left, shape.right)]
    left = ends[0]
    numbers = [left, left + 1, 2 * left, 2 * left + 2] if left >= 0 else [None, -1]
    pairs = [tuple(ends), (left + 1 + shape.sinks, shape.sinks)]
    return [shape.block, *numbers, *pairs, True, False]
