"""The working tree against a revision of it: the same cases, in turn, in one run.

    python -m attn_tutorial.benchmark compare --base main

Two processes live through the whole run, one for each checkout. A case goes to one and
then to the other, round after round, so that whatever else the computer does hits both
alike, and each round has a ratio of its own. In these processes the C library keeps
what was freed: otherwise it hands memory back at each call or at none, as it happens to
lie, and a call takes up to a quarter longer where the system must clear pages for it.
Two more processes, in which large blocks are always handed back, measure memory.

On a computer that is not quiet a few of 32 cases look slower by chance, others each
time. So a case that does is measured again, with `AGAIN` times the rounds and in new
processes, whose memory lies elsewhere, and only this second measurement counts.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attn_tutorial.benchmark.cases import Case

__all__ = [
    "GRID",
    "LIMIT",
    "Change",
    "Refused",
    "checkout",
    "compare",
    "time_revisions",
]

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child.py")
LIMIT = 1.05  # slower than this by the median is a regression
LEAST = 0.3  # seconds that the calls of a round take at least
# What the C library does with freed memory, for times and for peaks.
KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
}
THRIFTY = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
AGAIN = 3  # times the rounds for a case that looked slower

GRID = [
    Case(mechanism, n, size, causal, backward, heads=2)
    for mechanism in ("local", "blocks")
    for n, size in ((1024, 16), (1024, 128), (8192, 16), (8192, 128))
    for causal in (False, True)
    for backward in (False, True)
]


class Refused(ValueError):
    """There is nothing to compare: no such revision, or too few rounds."""


@dataclass(frozen=True)
class Change:
    """One case, timed in both checkouts.

    Attributes:
        case: What was computed.
        here: Seconds of a call in the working tree, the median of each round.
        base: Seconds of a call in the other revision, in the same rounds.
        peaks: Peak bytes above the inputs, here and in the other; None if unknown.
    """

    case: Case
    here: list[float]
    base: list[float]
    peaks: tuple[int | None, int | None] = (None, None)

    @property
    def ratios(self) -> list[float]:
        """Time here over time there, of each round."""
        return [a / b for a, b in zip(self.here, self.base, strict=True)]

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def slower(self) -> bool:
        """Whether the working tree is slower by more than `LIMIT`."""
        return self.ratio > LIMIT


def compare(
    base: str,
    cases: Iterable[Case] | None = None,
    rounds: int = 7,
    say: Callable[[str], None] = print,
) -> int:
    """Time all cases, print a table, and say whether one got slower.

    Args:
        base: A git revision.
        cases: What to compute; `GRID` where None.
        rounds: Rounds of a case, after one to warm up; `AGAIN` times as many for a
            case that looked slower.
        say: Takes each line of the table.

    Returns:
        1 if the working tree is slower than `LIMIT` allows in a case, twice; else 0.

    Raises:
        Refused: If git knows no such revision, or rounds is below 7.
    """
    if rounds < 7:
        raise Refused(f"rounds must be at least 7, got {rounds}")
    cases = list(cases or GRID)
    with checkout(base) as folder:
        say(HEAD)
        slower = timed(folder, cases, rounds, say)
        if slower:
            say(f"Again, {AGAIN * rounds} rounds, in new processes:")
            slower = timed(folder, slower, AGAIN * rounds, say)
    say(f"{len(slower)} of {len(cases)} cases slower than {LIMIT:g} times {base}.")
    return int(bool(slower))


def timed(
    folder: Path, cases: list[Case], rounds: int, say: Callable[[str], None]
) -> list[Case]:
    """Time the cases, say a line of each, and give those that were slower."""
    slower = []
    for change in time_revisions(ROOT, folder, cases, rounds):
        say(line(change))
        slower += [change.case] if change.slower else []
    return slower


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A folder that holds a revision of this repository, for as long as it is used."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "base"
        git("worktree", "add", "--detach", str(place), revision)
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place))


def git(*arguments: str) -> None:
    """Run git in this repository.

    Raises:
        Refused: With what git says, if it fails.
    """
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise Refused(f"git {' '.join(arguments[:2])}: {reason[-1]}")


# Processes


class Worker:
    """A process that answers for one checkout.

    Args:
        folder: The checkout.
        settings: Environment variables that differ from this process's.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        paths = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        self.folder, self.settings = folder, os.environ | paths | settings

    def __enter__(self) -> Worker:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.settings,
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._check_package(Path(self._read()))
            stack.pop_all()  # it goes on
        return self

    def _check_package(self, package: Path) -> None:
        if self.folder.resolve() not in package.resolve().parents:
            raise Refused(f"{self.folder} has no attn_tutorial: {package} was imported")

    def ask(self, case: Case, calls: int) -> Any:
        """Median seconds of some calls; bytes at the peak of one if `calls` is 0."""
        request = {"case": asdict(case), "calls": calls}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        text = self.process.stdout.readline()
        if not text:
            raise ChildProcessError("a checkout failed; its error stands above")
        return json.loads(text)

    def close(self) -> None:
        """End the process and wait for its end."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def __exit__(self, *failure: object) -> None:
        self.close()


def time_revisions(
    here: Path, base: Path, cases: Iterable[Case], rounds: int
) -> Iterator[Change]:
    """Time cases in two checkouts in turn: here, base, base, here, here, base, ..."""
    with contextlib.ExitStack() as stack:
        timers, scales = (
            [stack.enter_context(Worker(folder, **memory)) for folder in (here, base)]
            for memory in (KEEPING, THRIFTY)
        )
        for case in cases:
            warm = [max(timer.ask(case, 1), timer.ask(case, 1)) for timer in timers]
            calls = math.ceil(LEAST / max(*warm, 1e-6))
            samples = [in_turn(timers, case, calls, i % 2) for i in range(rounds)]
            peaks = tuple(scale.ask(case, 0) for scale in scales)
            yield Change(case, *map(list, zip(*samples, strict=True)), peaks)


def in_turn(timers: list[Worker], case: Case, calls: int, last_first: int) -> list:
    """Seconds of a call of each, in the order of `timers` whoever went first."""
    order = timers[::-1] if last_first else timers
    seconds = [timer.ask(case, calls) for timer in order]
    return seconds[::-1] if last_first else seconds


# The table

HEAD = (
    f"{'case':60} {'here':>10} {'base':>10}  {'ratio':22}"
    f"{'peak here':>10} {'peak base':>10}"
)


def line(change: Change) -> str:
    """Median times, the median ratio with its lowest and highest, peak memory."""
    times = [1e3 * statistics.median(side) for side in (change.here, change.base)]
    ratios = sorted(change.ratios)
    ratio = f"{change.ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    peaks = ["?" if p is None else f"{p / 1e6:.2f} MB" for p in change.peaks]
    return (
        f"{change.case!s:60} {times[0]:>7.3f} ms {times[1]:>7.3f} ms  {ratio:22}"
        f"{peaks[0]:>10} {peaks[1]:>10}" + ("  slower" if change.slower else "")
    )
