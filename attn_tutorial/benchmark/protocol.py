"""The protocol of a measurement: how many rounds, and what is measured again.

All contenders of a case run in turn, in random order, round after round: at least
`least` rounds, then further ones until `budget` seconds are spent. Two rules say what
is measured again, at most `repeats` times, and marked if that does not help.

**Disturbed.** A case is disturbed if other processes and the host took more than the
share `disturbance` (`benchmark.disturbance` defines it) while its rounds ran. All its
rounds are repeated, and the try with the lowest share counts.

**Scattered.** A contender is scattered if the middle half of its rounds spans more than
the share `spread` of their median. With seven rounds the median has a standard error of
about 0.35 of that span, so that a limit of 0.15 stands for one of 5 %, the smallest
difference that this book speaks of. One stalled call of seven neither moves the median
nor trips the rule; two or more do trip it. The contender's rounds are repeated, beside
the large matrix product, and the try with the lowest spread counts.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attn_tutorial.benchmark import clocks, disturbance
from attn_tutorial.benchmark.disturbance import Share, Usage

__all__ = [
    "LEAST",
    "RUNS",
    "Settings",
    "scatter",
    "silent",
    "steadied",
    "summaries",
    "summary",
    "timed",
    "timing",
    "undisturbed",
]

LEAST = 7  # rounds of a contender that a record has at least
RUNS = 5  # independent runs behind a published number
MATMUL = "matmul"  # the large matrix product among the contenders

Runs = dict[str, Callable]
Samples = dict[str, list[dict[str, float]]]
Tell = Callable[[str], None]
Count = Callable[[], Usage | None]


@dataclass(frozen=True)
class Settings:
    """How long to measure, and when again. Records hold all of it.

    Attributes:
        rounds: Rounds at most.
        least: Rounds at least.
        budget: Seconds of a case after which no new round starts.
        limit: Seconds that one call may take; slower contenders are left out.
        memory: Whether peak memory is measured.
        disturbance: Share of others and of the host above which a case is repeated.
        spread: Interquartile range over median above which a contender is repeated.
        repeats: How often either is measured again at most.
    """

    rounds: int = 100
    least: int = LEAST
    budget: float = 0.7
    limit: float = 12.0
    memory: bool = True
    disturbance: float = 0.05
    spread: float = 0.15
    repeats: int = 2

    def calm(self, share: Share | None) -> bool:
        """Whether the others took little enough; True where nobody can say."""
        return share is None or share.both <= self.disturbance


def silent(text: str) -> None:
    """Tell nobody what is being done."""


# Rounds


def timed(
    runs: Runs, settings: Settings, clock: clocks.Clock, tell: Tell = silent
) -> Samples:
    """Seconds of each call: all in turn, in random order, round after round."""
    samples = {name: [] for name in runs}
    start = time.perf_counter()
    for number in range(settings.rounds):
        late = time.perf_counter() - start > settings.budget
        if late and number >= settings.least:
            break
        for name in random.sample(list(runs), len(runs)):
            tell(f"round {number + 1}, {name}")
            samples[name].append(clock.seconds(runs[name]))
    return samples


def watched(
    runs: Runs, settings: Settings, clock: clocks.Clock, tell: Tell, usage: Count
) -> tuple[Samples, Share | None]:
    """Rounds, and the share that others and the host had in their time."""
    threads = 1 if clock.name == "device" else torch.get_num_threads()
    before = usage()
    samples = timed(runs, settings, clock, tell)
    return samples, disturbance.share_between(before, usage(), threads)


# Measured again


def undisturbed(
    runs: Runs,
    settings: Settings,
    clock: clocks.Clock,
    tell: Tell = silent,
    usage: Count = disturbance.usage,
) -> tuple[Samples, dict]:
    """Rounds in which others took little, or the calmest of a few tries.

    Args:
        runs: Calls without arguments, by name.
        settings: How long, and what is too much.
        clock: What measures the seconds.
        tell: Is told what is being done.
        usage: Counts processor time.

    Returns:
        Samples by name, and what a record says of the disturbance.
    """
    tries = []
    while len(tries) <= settings.repeats:
        tries.append(watched(runs, settings, clock, tell, usage))
        if settings.calm(tries[-1][1]):
            break
        tell("disturbed")
    samples, share = min(tries, key=lambda one: one[1].both if one[1] else 0.0)
    return samples, {
        "others": None if share is None else round(share.others, 4),
        "stolen": None if share is None else round(share.stolen, 4),
        "tries": len(tries),
        "disturbed": not settings.calm(share),
    }


def steadied(
    runs: Runs,
    samples: Samples,
    settings: Settings,
    clock: clocks.Clock,
    tell: Tell = silent,
    usage: Count = disturbance.usage,
) -> dict[str, int]:
    """Measure again whose rounds spread too far, and keep the better rounds.

    Args:
        runs: Calls without arguments, by name.
        samples: Their rounds, replaced where others are steadier and undisturbed.
        settings: How long, and what is too much.
        clock: What measures the seconds.
        tell: Is told what is being done.
        usage: Counts processor time.

    Returns:
        How often each was measured.
    """
    tries, kind = dict.fromkeys(runs, 1), clock.name
    for _ in range(settings.repeats):
        wide = [n for n in runs if scatter(samples[n], kind) > settings.spread]
        if not wide:
            break
        tell(f"scattered: {', '.join(wide)}")
        chosen = {name: runs[name] for name in runs if name in (*wide, MATMUL)}
        again, share = watched(chosen, settings, clock, tell, usage)
        for name in wide:
            tries[name] += 1
            better = scatter(again[name], kind) < scatter(samples[name], kind)
            if better and settings.calm(share):
                samples[name] = again[name]
    return tries


# What records hold of the rounds


def scatter(samples: list[dict[str, float]], kind: str) -> float:
    """Interquartile range over median, of one kind of seconds."""
    if len(samples) < 2:
        return 0.0
    low, middle, high = quartiles([one[kind] for one in samples])
    return (high - low) / middle


def timing(
    samples: list[dict[str, float]], tries: int, settings: Settings, kind: str
) -> dict:
    """Rounds and seconds as records have them, and whether they are scattered.

    Args:
        samples: The rounds of one contender.
        tries: How often it was measured.
        settings: What is too much.
        kind: The kind of seconds that comparisons use.
    """
    spread = scatter(samples, kind)
    return {
        "rounds": len(samples),
        "seconds": summaries(samples),
        "spread": round(spread, 4),
        "tries": tries,
        "scattered": spread > settings.spread,
    }


def summaries(samples: list[dict[str, float]]) -> dict[str, dict]:
    """Median, quartiles and minimum of each kind of seconds."""
    return {kind: summary([s[kind] for s in samples]) for kind in samples[0]}


def summary(values: list[float]) -> dict:
    """Median, quartiles and minimum, to five digits.

    Example:
        >>> summary([5.0, 1.0, 2.0, 3.0, 4.0])
        {'median': 3.0, 'quartiles': [2.0, 4.0], 'minimum': 1.0}
    """
    low, middle, high = map(five_digits, quartiles(values))
    return {
        "median": middle,
        "quartiles": [low, high],
        "minimum": five_digits(min(values)),
    }


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median and upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive")


def five_digits(value: float) -> float:
    """Round to what a measurement is worth."""
    return float(f"{value:.5g}")
