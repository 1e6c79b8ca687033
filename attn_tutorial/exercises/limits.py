"""A time limit for somebody's code, in this process.

It holds for loops in Python. A single long call into a library ends when that call
ends, and code that catches every exception can go on: hard limits need a process of
their own (``grading``).
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["TooSlow", "within"]


class TooSlow(BaseException):
    """The time is over; no ``Exception``, so that ``except Exception`` lets it pass."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Run what follows for at most so many seconds.

    Args:
        seconds: The limit, in seconds of wall-clock time.

    Raises:
        TooSlow: In the code that runs, when they are over.

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
    with _by_alarm(seconds) if alarm else _by_another_thread(seconds):
        yield


@contextmanager
def _by_alarm(seconds: float) -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, over)
    # Again and again: the first one may be caught by the code that it should stop.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_another_thread(seconds: float) -> Iterator[None]:
    thread, lock, running = threading.get_ident(), threading.Lock(), [True]

    def over() -> None:
        with lock:
            if running:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(TooSlow)
                )

    timer = threading.Timer(seconds, over)
    timer.start()
    try:
        yield
    finally:
        with lock:
            running.clear()
        timer.cancel()
