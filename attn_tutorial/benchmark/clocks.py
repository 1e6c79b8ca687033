"""How time and memory are measured, on a CPU and on a CUDA device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

__all__ = ["Clock", "CpuClock", "CudaClock", "clock_for", "cpu_peak", "cuda_peak"]


class Clock(Protocol):
    """Measures one call in one or more kinds of seconds.

    Attributes:
        name: The kind of seconds that comparisons use.
    """

    name: str

    def seconds(self, run: Callable) -> dict[str, float]:
        """Run once and return seconds by kind."""


class CpuClock:
    """Seconds on the wall, and seconds that this process's threads worked.

    With one thread comparisons use the latter: what other programs do disturbs it
    least.
    """

    def __init__(self) -> None:
        self.name = "processor" if torch.get_num_threads() == 1 else "wall"

    def seconds(self, run: Callable) -> dict[str, float]:
        """Run once; both kinds of seconds."""
        wall, processor = time.perf_counter(), time.process_time()
        run()
        return {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
        }


class CudaClock:
    """Seconds between two CUDA events, and on the wall, with a cold L2 cache.

    Before each call a buffer larger than the cache is overwritten. The device is busy
    with that while Python issues the call, so that a launch costs no time that the
    device would not wait in earnest. The wall's seconds include the overwriting.

    Args:
        cuda: `torch.cuda`, or a stand-in for it in tests.
        flushed: Bytes that are overwritten.
        device: Where the buffer lies.
    """

    name = "device"

    def __init__(
        self, cuda=torch.cuda, flushed: int = 2**28, device: str = "cuda"
    ) -> None:
        self.cuda = cuda
        self.buffer = torch.empty(flushed, dtype=torch.uint8, device=device)

    def seconds(self, run: Callable) -> dict[str, float]:
        """Run once and wait until the device is done."""
        start, end = (self.cuda.Event(enable_timing=True) for _ in range(2))
        self.cuda.synchronize()
        self.buffer.zero_()
        wall = time.perf_counter()
        start.record()
        run()
        end.record()
        self.cuda.synchronize()
        return {
            "wall": time.perf_counter() - wall,
            "device": start.elapsed_time(end) / 1e3,  # milliseconds
        }


def clock_for(device: str) -> Clock:
    """The clock of a device."""
    return CudaClock() if device == "cuda" else CpuClock()


def cuda_peak(run: Callable, cuda=torch.cuda) -> int:
    """Bytes that CUDA's allocator held at the peak of a call, above those before."""
    gc.collect()
    cuda.synchronize()
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    results = run()  # held, so that the results count
    cuda.synchronize()
    peak = cuda.max_memory_allocated()
    del results
    return peak - before


PROCESS = Path("/proc/self")


def cpu_peak(run: Callable, warm: Callable | None = None) -> int:
    """Bytes that this process held at the peak of a call, above those before.

    A first call, which loads libraries and compiles, is not counted. Meant for a
    process of its own in which large tensors go back to the system when they die.

    Args:
        run: What is measured.
        warm: The first call, if it is to be a shorter one; ``run`` if None.

    Raises:
        OSError: If the system cannot reset the high-water mark (Linux can).
    """
    (warm or run)()
    gc.collect()
    (PROCESS / "clear_refs").write_text("5")  # high-water mark := present size
    before = high_water_mark()
    results = run()  # held, so that the results count
    peak = high_water_mark()
    del results
    return peak - before


def high_water_mark() -> int:
    """Largest size of this process so far, in bytes."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))
