"""A few cases measured on the reader's machine, in seconds and not in minutes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from attn_tutorial.benchmark import clocks, measure
from attn_tutorial.benchmark.cases import Plan
from attn_tutorial.benchmark.load import Record, Records
from attn_tutorial.benchmark.protocol import Settings
from attn_tutorial.benchmark.record import provenance

__all__ = ["here"]


def here(plans: Iterable[Plan], rounds: int = 5, budget: float = 0.5) -> Records:
    """Measure cases on this machine, on its GPU if PyTorch has one.

    Checked and interleaved like every record, but in few rounds, without peak memory
    and without the machine's ceilings: enough to draw over a figure.

    Args:
        plans: Cases, and who competes.
        rounds: Rounds at most.
        budget: Seconds of a case after which no new round starts.

    Returns:
        One run.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = clocks.clock_for(device)
    settings = Settings(rounds, 2, budget, memory=False, repeats=0)
    cases = [measure.measure_case(plan, settings, clock, device) for plan in plans]
    known = provenance(device, clock.name)
    return Records([Record("here", {"provenance": known, "cases": cases})])
