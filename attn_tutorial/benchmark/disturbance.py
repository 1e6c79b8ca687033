"""What else the computer did while it measured: other processes, and the host.

The *share* of a disturbance is its processor time over the wall time that our own
computing threads could have used, `wall * threads`. With one thread on two cores a
process that keeps the other core busy has a share of 1 and not of 1/2: that core would
take memory bandwidth, cache and clock rate from us, and how many idle cores stand
beside is no excuse. So a share of 0.05 bounds what the others could have taken from
us, even if they ran on our own core all the time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Share", "Usage", "counted", "share_between", "usage"]

STAT = Path("/proc/stat")
# Columns of the line "cpu": those in which a processor works. The times of guests are
# a part of the first two; "steal" is what the host gave to another machine.
WORKING = ("user", "nice", "system", "irq", "softirq")
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class Usage:
    """Seconds since some start in the past.

    Attributes:
        wall: On the wall.
        own: Processor time of this process and of its children that have ended.
        busy: Processor time of all processes on all cores.
        stolen: Time in which the host ran something else instead of this machine.
    """

    wall: float
    own: float
    busy: float
    stolen: float


@dataclass(frozen=True)
class Share:
    """Processor time that was not ours, over `wall * threads`.

    Attributes:
        others: Of other processes.
        stolen: Of the host.
    """

    others: float
    stolen: float

    @property
    def both(self) -> float:
        """The whole disturbance."""
        return self.others + self.stolen


def usage(stat: Path = STAT) -> Usage | None:
    """What was used until now; None where the system does not count it (not Linux)."""
    try:
        busy, stolen = counted(stat.read_text())
    except (OSError, ValueError, LookupError):
        return None
    ended = os.times()
    own = time.process_time() + ended.children_user + ended.children_system
    return Usage(time.perf_counter(), own, busy, stolen)


def counted(stat: str) -> tuple[float, float]:
    """Busy and stolen seconds of all cores, from the text of `/proc/stat`.

    Example:
        >>> counted("cpu 500 0 100 9000 50 0 0 20 0 0")  # in hundredths of a second
        (6.0, 0.2)
    """
    lines = stat.splitlines()
    numbers = next((line for line in lines if line.startswith("cpu ")), "")
    ticks = dict(zip(COLUMNS, map(int, numbers.split()[1:]), strict=False))
    second = os.sysconf("SC_CLK_TCK")
    return sum(ticks[name] for name in WORKING) / second, ticks["steal"] / second


def share_between(
    before: Usage | None, after: Usage | None, threads: int
) -> Share | None:
    """The share of other processes and of the host in a stretch of time.

    `others` is the processor time of all cores less our own, `stolen` what the host
    took from any core; both over the wall time times our computing threads. The system
    counts in hundredths of a second, so that in less than a second the share is rough.

    Args:
        before: At its start.
        after: At its end.
        threads: How many threads of ours computed.

    Returns:
        The share, never below 0; None if one of the two is not known.
    """
    if before is None or after is None:
        return None
    room = max(after.wall - before.wall, 1e-9) * threads
    others = (after.busy - before.busy) - (after.own - before.own)
    stolen = after.stolen - before.stolen
    return Share(max(others, 0) / room, max(stolen, 0) / room)
