"""One process that times one checkout of the package, a case at a time, on request.

`revisions` starts it for each of two checkouts, by its path: it imports whatever
`attn_tutorial` stands first on its path, of which it needs the public functions only.
It reads a line of JSON for each request and answers with a line.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch

import attn_tutorial as at

__all__ = ["answer", "call", "main"]


def main() -> None:
    """Say which package this is, then answer until the input ends."""
    torch.set_num_threads(1)
    clocks = beside("clocks")
    print(json.dumps(at.__file__), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), clocks)), flush=True)


def beside(name: str) -> ModuleType:
    """A module of this folder, not of the package that is timed."""
    place = Path(__file__).with_name(f"{name}.py")
    found = importlib.util.spec_from_file_location(name, place)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def answer(request: dict[str, Any], clocks: ModuleType) -> Any:
    """Seconds of a call, the median of `calls`; or bytes at its peak.

    Each request makes its inputs anew and calls once to warm up: where they happen to
    lie in memory is worth several percent, and would stay for all rounds.

    Args:
        request: `case`, fields of `Case`; `calls`, 0 for the peak of memory.
        clocks: The module of that name.
    """
    run = call(json.dumps(request["case"]))
    if request["calls"] == 0:
        return peak(run, clocks)
    run()
    clock = clocks.CpuClock()
    return median(clock.seconds(run)[clock.name] for _ in range(request["calls"]))


def peak(run: Callable[[], Any], clocks: ModuleType) -> int | None:
    """Peak bytes of a call, where the system tells."""
    try:
        return clocks.cpu_peak(run)
    except OSError:
        return None


def call(case: str) -> Callable[[], Any]:
    """A call without arguments of what a case asks for, on the same numbers."""
    known = json.loads(case)
    attend = {
        "local": functools.partial(at.local_attention, window=known["size"]),
        "blocks": functools.partial(at.sparse_attention, block_size=known["size"]),
    }[known["mechanism"]]
    shape = (1, known["heads"], known["n"], known["d"])
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, known["dtype"])
    *inputs, grad = (
        torch.randn(shape, generator=generator, dtype=dtype) for _ in range(4)
    )
    if not known["backward"]:
        return lambda: attend(*inputs, causal=known["causal"])
    inputs = [x.requires_grad_() for x in inputs]
    return lambda: torch.autograd.grad(
        attend(*inputs, causal=known["causal"]), inputs, grad
    )


if __name__ == "__main__":
    main()
