"""A line of life: what is being measured, while it is being measured.

On a terminal the line is written anew every second. Elsewhere, such as in a file, a
plain line comes every half minute. Results go to the standard output, the line of life
to the standard error.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from attn_tutorial.benchmark.estimate import clock_time

__all__ = ["Life"]


class Life:
    """Says what is being done from a thread of its own, since one call takes seconds.

    Args:
        total: How many cases there are.
        expected: Seconds that all of them take, or 0 if nobody knows.
        stream: Where the line goes; the standard error if left out.
        every: Seconds between two lines; 1 on a terminal and 30 elsewhere.
    """

    def __init__(
        self,
        total: int,
        expected: float = 0.0,
        stream: TextIO | None = None,
        every: float | None = None,
    ) -> None:
        self.total, self.expected = total, expected
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.every = every or (1.0 if self.terminal else 30.0)
        self.number, self.case, self.doing = 0, "", "starting"
        self.start, self.lock, self.end = time.monotonic(), threading.Lock(), None

    def begin(self, case: object) -> None:
        """A case begins."""
        self.number, self.case, self.doing = self.number + 1, f" {case}:", "inputs"

    def tell(self, doing: str) -> None:
        """Something else is being done."""
        self.doing = doing

    def line(self) -> str:
        """The line as it is now.

        Example:
            >>> Life(96, expected=900).line()
            '[0/96, 0:00 of about 15:00] starting'
        """
        passed = clock_time(time.monotonic() - self.start)
        about = f" of about {clock_time(self.expected)}" if self.expected else ""
        return f"[{self.number}/{self.total}, {passed}{about}]{self.case} {self.doing}"

    def say(self, text: str) -> None:
        """Print a result, not into the middle of the line."""
        with self.lock:
            self._clear()
            print(text, flush=True)

    def _clear(self) -> None:
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def _write(self) -> None:
        with self.lock:
            self._clear()
            width = 100 if self.terminal else None
            self.stream.write(self.line()[:width] + ("" if self.terminal else "\n"))
            self.stream.flush()

    def _live(self) -> None:
        while not self.end.wait(self.every):
            self._write()

    def __enter__(self) -> Life:
        self.start, self.end = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self._write()
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.end.set()
        self.thread.join()
        self._clear()
