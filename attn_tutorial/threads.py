"""Heads over threads: each thread computes whole heads, and none waits for another.

Left to itself, PyTorch shares every single product between its threads, and they wait
for each other after each one. That is fine while every thread has a core. Where another
program keeps a core busy, all wait, product by product, for the thread that shares it.
Here each thread computes its heads alone, and they wait once, at the end.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

__all__ = ["over_heads", "useful_threads"]

# Numbers of the queries for each thread from which it pays. Measured with two threads:
# below, Python's own work, of which one thread at a time can do any, weighs more than
# the waiting. From here on they take 0.85 to 1.1 times as long on an idle computer, and
# about half as long where another program keeps one of two cores busy.
LEAST_NUMBERS = 2**20
# Share of the threads that must have heads: 5 heads keep 4 threads busy for 5 / 8.
LEAST_BUSY = 0.8


def over_heads(
    function: Callable[..., tuple[Tensor, ...]],
    empty: Callable[[], tuple[Tensor, ...]],
    tensors: tuple[Tensor | None, ...],
    *rest: object,
) -> tuple[Tensor, ...]:
    """Call ``function(*tensors, *rest)``, a few heads at a time where that pays.

    Args:
        function: Computes every head by itself, ``into`` outputs if it is given some.
        empty: Makes the outputs, without numbers in them.
        tensors: Inputs, heads first; the first are the queries.
        rest: What all heads share.

    Returns:
        What the function returns: heads first.
    """
    threads = useful_threads(tensors[0])
    if threads == 1:
        return function(*tensors, *rest)
    whole, inference = empty(), torch.is_inference_mode_enabled()

    def compute(heads: slice) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            some = (x if x is None else x[heads] for x in tensors)
            function(*some, *rest, into=tuple(x[heads] for x in whole))

    list(workers(threads).map(compute, portions(len(tensors[0]), threads)))
    return whole


def portions(heads: int, count: int) -> list[slice]:
    """Cut heads into so many portions, as equal as can be.

    >>> portions(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    bounds = [heads * part // count for part in range(count + 1)]
    return [slice(*both) for both in itertools.pairwise(bounds)]


def useful_threads(q: Tensor) -> int:
    """How many threads of our own the heads of q, (S, ...), are worth: 1 is none."""
    threads = torch.get_num_threads()
    if threads == 1 or q.device.type != "cpu" or q.numel() < LEAST_NUMBERS * threads:
        return 1
    busy = len(q) / (math.ceil(len(q) / threads) * threads)
    return 1 if busy < LEAST_BUSY or is_watched() else threads


def is_watched() -> bool:
    """Whether something follows this thread's operations, and would miss another's."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd._profiler_enabled()
    )


@functools.cache
def workers(threads: int) -> ThreadPoolExecutor:
    """Threads that compute alone: each calls PyTorch with one thread."""
    pool = ThreadPoolExecutor(threads, "heads", compute_alone)
    all_there = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(all_there.wait)
    all_there.wait()
    torch.set_num_threads(
        threads
    )  # the last call is also what later threads begin with
    return pool


def compute_alone() -> None:
    """Let products of this thread have no other."""
    torch.get_num_threads()  # a thread's first call sets the number: it comes first
    torch.set_num_threads(1)


# A child process inherits the pool, but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)
