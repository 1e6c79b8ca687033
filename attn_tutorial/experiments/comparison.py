"""Are two contenders different, or is it the seeds? One rule for all chapters.

The rule is made for three seeds. Of pairs of contenders that are the same, it still
calls one in twenty-five different (if the seeds scatter like a normal distribution), so
that a page with 25 comparisons should expect one to be wrong. And it overlooks most
differences of less than two standard deviations. With more seeds it is stricter.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from attn_tutorial.experiments.records import Runs

__all__ = ["LEAST_SEEDS", "apart", "clear_difference", "difference", "judgement"]

LEAST_SEEDS = 3


def apart(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two sets of measurements differ clearly.

    They do if both of these hold:

    - all of the one lie on one side of all of the other, and
    - their means are more than twice the larger standard deviation apart.

    Fewer than three measurements on either side show nothing. The answer "no" does not
    say that two contenders are equal, only that so few seeds cannot tell them apart.

    Args:
        first: One number for each seed.
        second: One number for each seed of the other.

    Example:
        >>> apart([1.91, 1.92, 1.93], [1.96, 1.97, 1.98])
        True
        >>> apart([1.91, 1.92, 1.99], [1.95, 1.97, 1.98])
        False
        >>> apart([0.1, 0.2], [0.8, 0.9])
        False
    """
    if min(len(first), len(second)) < LEAST_SEEDS:
        return False
    below = max(first) < min(second)
    above = min(first) > max(second)
    distance = abs(statistics.fmean(first) - statistics.fmean(second))
    spread = max(statistics.stdev(first), statistics.stdev(second))
    return (below or above) and distance > 2 * spread


def clear_difference(a: Runs, b: Runs, result: str) -> bool:
    """Whether the runs of two settings differ clearly in one result, see ``apart``.

    Args:
        a: Runs of one setting, one for each seed.
        b: Runs of the other setting.
        result: Name of a result that is a number.

    Example:
        >>> from attn_tutorial.experiments.records import Run
        >>> a = Runs(Run({}, s, {"bits": 2.1 + s / 100}, {}) for s in range(3))
        >>> b = Runs(Run({}, s, {"bits": 2.2 + s / 100}, {}) for s in range(3))
        >>> clear_difference(a, b, "bits"), clear_difference(a, a, "bits")
        (True, False)
    """
    return apart(a.values(result), b.values(result))


def difference(a: Runs, b: Runs, result: str, digits: int = 3) -> str:
    """Say by how much the mean of a result of ``a`` exceeds that of ``b``.

    Args:
        a: Runs of one setting, one for each seed.
        b: Runs of the other setting.
        result: Name of a result that is a number.
        digits: Decimals of the difference.

    Returns:
        The difference of the means with its sign, then "clear", or "within the spread"
        where these seeds cannot tell the two settings apart.

    Example:
        >>> from attn_tutorial.experiments.records import Run
        >>> a = Runs(Run({}, s, {"bits": 1.9 + s / 100}, {}) for s in range(3))
        >>> b = Runs(Run({}, s, {"bits": 1.905 + s / 100}, {}) for s in range(3))
        >>> difference(a, b, "bits")
        '-0.005 (within the spread)'
    """
    found = a.mean(result) - b.mean(result)
    word = "clear" if clear_difference(a, b, result) else "within the spread"
    return f"{found:+.{digits}f} ({word})"


def judgement(a: Runs, b: Runs, result: str, *, more_is_better: bool) -> str:
    """Say whether ``a`` is "better" or "worse" than ``b``, or "not clear".

    Args:
        a: Runs of one setting, one for each seed.
        b: Runs of the other setting.
        result: Name of a result that is a number.
        more_is_better: True for an accuracy, False for a loss.

    Example:
        >>> from attn_tutorial.experiments.records import Run
        >>> a = Runs(Run({}, s, {"bits": 1.8 + s / 100}, {}) for s in range(3))
        >>> b = Runs(Run({}, s, {"bits": 1.9 + s / 100}, {}) for s in range(3))
        >>> judgement(a, b, "bits", more_is_better=False)
        'better'
    """
    if not clear_difference(a, b, result):
        return "not clear"
    more = a.mean(result) > b.mean(result)
    return "better" if more == more_is_better else "worse"
