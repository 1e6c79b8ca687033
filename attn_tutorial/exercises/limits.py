"""A time limit for somebody's code, in this process.

What counts is the processor's time, so that a busy machine makes nobody too slow. Code
that sleeps uses none; for it there is a limit by the clock, which is much longer.

Both hold for loops in Python. A single long call into a library ends when that call
ends, and code that catches every exception can go on: hard limits need a process of
their own (``grading``).
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["CALL_SECONDS", "PATIENCE", "TooLong", "TooSlow", "within"]

CALL_SECONDS = 2.0  # of processor time, for one call of somebody's function
PATIENCE = 10  # by the clock, code may take so many times its limit
LOOK = 0.05  # seconds between two looks at the time


class TooSlow(BaseException):
    """The time is over; no ``Exception``, so that ``except Exception`` lets it pass."""


class TooLong(TooSlow):
    """The time by the clock is over, and little of it was spent computing."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let what follows compute for at most so many seconds.

    Args:
        seconds: The limit, in seconds of this thread's processor time. By the clock,
            it may take ``PATIENCE`` times as long.

    Raises:
        TooSlow: In the code that runs, when they are over.
        TooLong: If they are over by the clock.

    Example:
        >>> try:
        ...     with within(0.1):
        ...         while True:
        ...             pass
        ... except TooSlow:
        ...     print("stopped")
        stopped
    """
    main = threading.current_thread() is threading.main_thread()
    alarm = main and hasattr(signal, "setitimer")
    over = _watch(seconds, alarm)
    with _by_alarm(over) if alarm else _by_another_thread(over):
        yield


def _watch(seconds: float, alarm: bool) -> Callable[[], type[TooSlow] | None]:
    """What tells, when it is asked, whether the time of this thread is over."""
    used, clock = _processor_time(alarm), time.monotonic
    stop, end = used() + seconds, clock() + PATIENCE * seconds

    def over() -> type[TooSlow] | None:
        if used() >= stop:
            return TooSlow
        return TooLong if clock() >= end else None

    return over


def _processor_time(alarm: bool) -> Callable[[], float]:
    """A clock of this thread: an alarm reads it here, and a watcher from elsewhere.

    Where no thread can read another's, it is the clock of the whole process.
    """
    if alarm:
        return time.thread_time
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock, read = time.pthread_getcpuclockid(threading.get_ident()), time.clock_gettime
    return lambda: read(clock)


@contextmanager
def _by_alarm(over: Callable[[], type[TooSlow] | None]) -> Iterator[None]:
    def look(number: int, frame: FrameType | None) -> None:
        if why := over():
            raise why

    before = signal.signal(signal.SIGALRM, look)
    # Again and again: the first one may be caught by the code that it should stop.
    signal.setitimer(signal.ITIMER_REAL, LOOK, LOOK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_another_thread(over: Callable[[], type[TooSlow] | None]) -> Iterator[None]:
    thread, lock, done = threading.get_ident(), threading.Lock(), threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            with lock:
                if not done.is_set() and (why := over()):
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread), ctypes.py_object(why)
                    )
                    return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with lock:
            done.set()
