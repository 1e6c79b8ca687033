"""Two threads, and another program on one of the cores: who is held up, how much?

    python -m attn_tutorial.benchmark shared-core --out shared_core.json

Each case is measured twice in turn, with both cores free and with a process that keeps
one of them busy, several times over, by the protocol of every record. The clock is the
one on the wall: it tells what waiting costs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from attn_tutorial.benchmark import clocks, record
from attn_tutorial.benchmark.cases import Case, Plan
from attn_tutorial.benchmark.measure import measure_case
from attn_tutorial.benchmark.protocol import RUNS, Settings, Tell, silent

__all__ = ["CASES", "SETTINGS", "advantage", "busy_core", "measure", "table"]

THREADS = 2
CASES = tuple(
    Case("local", n, size) for n, size in ((4096, 64), (4096, 128), (16384, 128))
)
CONTENDERS = ("tiled", "flex 32", "flex 64", "flex 128")
# Whoever keeps the core busy is meant to disturb: that is no reason to repeat.
SETTINGS = Settings(rounds=9, budget=60, memory=False, disturbance=1.0, repeats=0)


def measure(
    cases: Iterable[Case] = CASES,
    settings: Settings = SETTINGS,
    runs: int = RUNS,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Measure every case with free cores and with a busy one.

    Args:
        cases: What is computed.
        settings: How long to measure.
        runs: How often all of it is done, with new inputs.
        tell: Is told what is being done.

    Returns:
        The record: ``provenance``, ``settings``, and under ``runs`` a list of results
        with their ``case``, ``busy`` (bool), and the seconds of each contender.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    clock, found = clocks.CpuClock(), []
    try:
        for run in range(runs):
            for case in cases:
                tell(f"run {run + 1}, {case}")
                found += [one(case, busy, settings, clock) for busy in (False, True)]
        known = record.provenance("cpu", clock.name)
    finally:
        torch.set_num_threads(before)
    return {"provenance": known, "settings": asdict(settings), "runs": found}


def one(
    case: Case, busy: bool, settings: Settings, clock: clocks.CpuClock
) -> dict[str, Any]:
    """One case, with a busy core or without."""
    with busy_core(busy):
        measured = measure_case(Plan(case, contenders=CONTENDERS), settings, clock)
    times = {r["name"]: r["seconds"][clock.name] for r in measured["results"]}
    return {"case": asdict(case), "busy": busy, "seconds": times}


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Let another process compute without end, if asked to."""
    if not busy:
        yield
        return
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def advantage(result: dict[str, Any]) -> float:
    """Time of the fastest FlexAttention over that of the tiles, by medians."""
    medians = {name: seconds["median"] for name, seconds in result["seconds"].items()}
    tiled = medians.pop("tiled")
    return min(medians.values()) / tiled


def table(data: dict[str, Any]) -> str:
    """Every case with free cores and with a busy one, as Markdown fit for a phone.

    Args:
        data: A record.
    """
    lines = [
        "| n | w | a core | tiles, ms | FlexAttention / tiles (runs) |",
        "|---|---|---|---|---|",
    ]
    for (case, busy), results in grouped(data).items():
        tiles = statistics.median(r["seconds"]["tiled"]["median"] for r in results)
        ratios = sorted(advantage(r) for r in results)
        state, ratio = "busy" if busy else "free", statistics.median(ratios)
        lines.append(
            f"| {case.n:,} | {case.size} | {state} | {1e3 * tiles:.1f} "
            f"| {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )
    return "\n".join(lines)


def grouped(data: dict[str, Any]) -> dict[tuple[Case, bool], list[dict[str, Any]]]:
    """Results of a record by case, free cores first."""
    found = {}
    for result in data["runs"]:
        key = Case(**result["case"]), result["busy"]
        found.setdefault(key, []).append(result)
    return found
