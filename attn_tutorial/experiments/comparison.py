"""Are two contenders different, or is it the seeds? Two rules for all chapters.

``paired`` is for contenders that were trained from the same seeds on the same batches:
what a seed does to both cancels in their difference. It gives an interval, too.

``apart`` does not use that contenders share their seeds. Of three seeds that have
nothing in common it still calls one pair of equals in twenty-five different (if the
seeds scatter like a normal distribution), so that a page with 25 comparisons should
expect one to be wrong. Where seeds share batches, as in all studies here, its false
alarms are rarer. It overlooks most differences of less than two standard deviations,
and with more seeds it is stricter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attn_tutorial.experiments.records import Runs

__all__ = [
    "LEAST_SEEDS",
    "Paired",
    "apart",
    "clear_difference",
    "difference",
    "interval",
    "judgement",
    "paired",
    "pairs_by_seed",
    "seed_by_seed",
]

LEAST_SEEDS = 3
# Student's t with 2 to 14 degrees of freedom: 95 % lie between -t and t.
STUDENT = (4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
STUDENT += (2.2010, 2.1788, 2.1604, 2.1448)


@dataclass(frozen=True)
class Paired:
    """By how much one contender exceeds another, seed by seed.

    Attributes:
        mean: Mean of the differences.
        low: Lower end of the interval.
        high: Upper end of the interval.
        seeds: How many pairs there are.

    Example:
        >>> print(Paired(-0.021, -0.036, -0.006, seeds=8))
        -0.021 [-0.036, -0.006] (clear)
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """Say "clear" if the interval is all on one side of 0, else "not clear"."""
        return "not clear" if self.low <= 0 <= self.high else "clear"

    @property
    def cells(self) -> tuple[str, str, str]:
        """Mean, interval and verdict, for a table."""
        ends = f"[{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.mean:+.3f}", ends, self.verdict

    def __str__(self) -> str:
        mean, ends, verdict = self.cells
        return f"{mean} {ends} ({verdict})"


def interval(differences: Sequence[float]) -> Paired:
    """The mean of paired differences with its interval of 95 % by Student's t.

    The interval holds the true mean in 95 % of all cases if the differences scatter
    like a normal distribution. So a pair of equals is called different in 5 % of the
    cases, with any number of seeds. What the number of seeds changes is how often a
    true difference is noticed (with normal differences):

    ======  ============================  =============================
    seeds   as large as their deviation   as large as twice that
    ======  ============================  =============================
    3       18 %                          47 %
    5       40 %                          91 %
    8       68 %                          99.8 %
    ======  ============================  =============================

    Args:
        differences: One number for each seed, 3 to 15 of them.

    Raises:
        ValueError: If there are fewer or more.

    Example:
        >>> interval([-0.03, -0.02, -0.01])
        Paired(mean=-0.02, low=-0.0448, high=0.0048, seeds=3)
    """
    count = len(differences)
    if not LEAST_SEEDS <= count < LEAST_SEEDS + len(STUDENT):
        most = LEAST_SEEDS + len(STUDENT) - 1
        raise ValueError(
            f"differences must be {LEAST_SEEDS} to {most} numbers, got {count}"
        )
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    reach = STUDENT[count - LEAST_SEEDS] * error
    ends = [round(x, 4) for x in (mean, mean - reach, mean + reach)]
    return Paired(*ends, count)


def paired(first: Runs, second: Runs, result: str) -> Paired:
    """By how much ``first`` exceeds ``second`` in a result, with its interval.

    Args:
        first: Runs of one setting, one for each seed.
        second: Runs of the other, from the same seeds on the same batches.
        result: Name of a result that is a number.

    Raises:
        ValueError: If they share fewer than three seeds, or one has a seed twice.

    Example:
        >>> from attn_tutorial.experiments.records import Run
        >>> def runs(*bits):
        ...     return Runs(Run({}, s, {"bits": b}, {}) for s, b in enumerate(bits))
        >>> print(paired(runs(1.9, 1.8, 1.7), runs(1.94, 1.85, 1.75), "bits"))
        -0.047 [-0.061, -0.032] (clear)
    """
    return interval(seed_by_seed(first, second, result))


def seed_by_seed(first: Runs, second: Runs, result: str) -> list[float]:
    """A result of ``first`` less that of ``second``, for each seed that both have.

    Raises:
        ValueError: If one of them has a seed twice.
    """
    one, other = (_by_seed(runs, result) for runs in (first, second))
    return [one[seed] - other[seed] for seed in sorted(one) if seed in other]


def pairs_by_seed(
    runs: Runs, pairs: Iterable[tuple[str, str]], result: str
) -> dict[str, list[float]]:
    """What the first of each pair has more than the second, for each common seed.

    Args:
        runs: Runs whose settings have a ``name``.
        pairs: Names of contenders; a pair that is not among the runs is left out.
        result: Name of a result that is a number.

    Returns:
        "first less second" -> differences, in order of the seeds.
    """
    parts = {name: part for (name,), part in runs.groups("name")}
    return {
        f"{first} less {second}": seed_by_seed(parts[first], parts[second], result)
        for first, second in pairs
        if first in parts and second in parts
    }


def _by_seed(runs: Runs, result: str) -> dict[int, float]:
    found = {run.seed: run.result[result] for run in runs}
    if len(found) < len(runs):
        raise ValueError(f"runs must have each seed once, got {len(runs)} runs")
    return found


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
