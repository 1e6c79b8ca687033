"""Which known mistake, or which two of them, explain what a function returned.

A mistake is known by the exercise, or is one that any function can make: a transposed
mask, an inverted one, a wrong sign. Of two at once, the second changes what the first
returns, or both are wrong places of one mask.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from attn_tutorial.exercises.calls import outcome, same
from attn_tutorial.exercises.exercise import Function
from attn_tutorial.exercises.languages import say
from attn_tutorial.exercises.limits import CALL_SECONDS

__all__ = ["CHANGES", "recognised"]


def recognised(
    part: Function, cases: list, outcomes: list, expected: list
) -> tuple[str, str] | None:
    """The name of the mistake that explains all outcomes, or of two, with its text.

    Args:
        part: The part that asks for the function.
        cases: The arguments of its calls.
        outcomes: What somebody's function returned for each, or its ``Fault``.
        expected: What the reference returns.
    """
    known = {}
    for mistake in part.mistakes:
        theirs = [outcome(mistake.function, case, CALL_SECONDS) for case in cases]
        if _agree(outcomes, theirs, part.tolerance):
            return mistake.name, mistake.text
        known[mistake.name, mistake.text] = theirs
    by_shape = _told_by_shape(outcomes, expected, part.tolerance)
    return by_shape or _two_at_once(known, outcomes, expected, part.tolerance)


def _agree(outcomes: list, others: list, tolerance: float) -> bool:
    pairs = zip(outcomes, others, strict=True)
    return all(same(a, b, tolerance) for a, b in pairs)


def _told_by_shape(
    outcomes: list, expected: list, tolerance: float
) -> tuple[str, str] | None:
    """Mistakes that any function can make."""
    for name, (text, change) in CHANGES.items():
        changed = [change(want) for want in expected]
        differ = not _agree(changed, expected, tolerance)
        if differ and _agree(outcomes, changed, tolerance):
            return name, text
    return None


def _two_at_once(
    known: dict[tuple[str, str], list], outcomes: list, expected: list, tolerance: float
) -> tuple[str, str] | None:
    """Two mistakes that explain the outcomes together: both names, both texts.

    The second is one that any function can make, or one more of a mask's own.
    """
    shapes = {
        (n, t): [change(x) for x in expected] for n, (t, change) in CHANGES.items()
    }
    for first, theirs in (known | shapes).items():
        second = _told_by_shape(outcomes, theirs, tolerance)
        if second is not None:
            return _both(first, second)
    for (first, ones), (second, others) in combinations(known.items(), 2):
        laid = map(_laid_over, ones, others, expected)
        if _agree(outcomes, list(laid), tolerance):
            return _both(first, second)
    return None


def _both(first: tuple[str, str], second: tuple[str, str]) -> tuple[str, str]:
    texts = {"first": say(first[1]), "second": say(second[1])}
    text = say("These are two mistakes at once. {first} {second}", **texts)
    return f"{first[0]} + {second[0]}", text


def _laid_over(one: object, other: object, want: object) -> object:
    """The mask that is wrong wherever one of two is; None for what is no mask."""
    if not all(isinstance(x, Tensor) and x.dtype == torch.bool for x in (one, other)):
        return None
    if not one.shape == other.shape == want.shape:
        return None
    return want ^ ((one ^ want) | (other ^ want))


def _of_tensors(change: Callable[[Tensor], Tensor]) -> Callable[[object], object]:
    return lambda x: change(x) if isinstance(x, Tensor) else x


def _transposed(x: Tensor) -> Tensor:
    return x.mT if x.ndim >= 2 else x


def _mirrored(x: Tensor) -> Tensor:
    square = x.ndim >= 2 and x.shape[-1] == x.shape[-2]
    return x | x.mT if square and x.dtype == torch.bool else x


def _added(x: Tensor) -> Tensor:
    if x.dtype != torch.bool:
        return x
    return torch.zeros(x.shape).masked_fill(~x, -torch.inf)


def _inverted(x: Tensor) -> Tensor:
    return ~x if x.dtype == torch.bool else x


CHANGES = {
    "transposed": (
        "This is the transpose: queries and keys have changed places.",
        _of_tensors(lambda x: _transposed(x) if x.dtype == torch.bool else x),
    ),
    "result transposed": (
        "The result is transposed: its rows and columns have changed places.",
        _of_tensors(_transposed),
    ),
    "inverted": (
        "Keep and ignore are inverted: True means attend.",
        _of_tensors(_inverted),
    ),
    "mirrored": (
        "Each kept pair is kept the other way round as well: is the condition on the "
        "direction missing?",
        _of_tensors(_mirrored),
    ),
    "integers": (
        "The mask has numbers where it should have truth values: use a comparison, "
        "or .bool().",
        _of_tensors(lambda x: x.long() if x.dtype == torch.bool else x),
    ),
    "floats": (
        "The mask has numbers where it should have truth values: use a comparison, "
        "or .bool().",
        _of_tensors(lambda x: x.float() if x.dtype == torch.bool else x),
    ),
    "to be added": (
        "This is a mask to be added to the scores, of zeros and minus infinity. Here "
        "truth values were asked for: use a comparison.",
        _of_tensors(_added),
    ),
    "negative": (
        "The sign is wrong everywhere.",
        _of_tensors(lambda x: -x if x.is_floating_point() else x),
    ),
    "single precision": (
        "The values are right and their precision is lost: the result must have the "
        "dtype of the input.",
        _of_tensors(lambda x: x.float() if x.dtype == torch.float64 else x),
    ),
}
