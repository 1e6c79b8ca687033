"""All experiments, the ones that matter most first."""

from __future__ import annotations

from attn_tutorial.experiments.latch import EXPERIMENT as LATCH
from attn_tutorial.experiments.runner import Experiment

__all__ = ["EXPERIMENTS"]

EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (LATCH,)}
