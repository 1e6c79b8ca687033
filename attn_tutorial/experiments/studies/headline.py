"""Headline: are the differences between patterns there with more seeds, in pairs?

The language models of ``language_model`` that the book speaks of most, trained as long,
with two changes. Each one's learning rate is chosen in trainings of the final length,
among rates that reach beyond the best one. And there are more seeds: a seed draws the
same batches for all of them, and the same first weights for all that have the same
shapes, so that contenders are compared seed by seed. Each further seed narrows the
intervals; ``--seeds 8`` is what they are meant for.
"""

from __future__ import annotations

import torch

from attn_tutorial.experiments.comparison import LEAST_SEEDS, interval, pairs_by_seed
from attn_tutorial.experiments.data.corpora import source_bytes
from attn_tutorial.experiments.models import build, kv_bytes
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.language_model import (
    BASE,
    BYTES,
    QUICK,
    train_on,
)
from attn_tutorial.experiments.tables import table

__all__ = ["PAIRS", "QUESTION", "TUNING", "by_seed", "settings", "train"]

QUESTION = "Which patterns differ, seed by seed, each at its best rate?"
TUNING = Tuning((0.02, 0.04, 0.08), "validation_bits")

CONTENDERS: dict[str, Setting] = {
    "full": {"pattern": "full"},
    "local 64": {"pattern": "local 64"},
    "3 x local 16, full": {"pattern": "local 16, local 16, local 16, full"},
    "local 16": {"pattern": "local 16"},
    "blocks 32": {"pattern": "blocks 32"},
    "full, 1 kv head": {"pattern": "full", "num_kv_heads": 1},
}
PAIRS = [(name, "full") for name in CONTENDERS if name != "full"]
PAIRS += [("3 x local 16, full", "full, 1 kv head")]  # at about equal cache


def settings(quick: bool) -> list[Setting]:
    """All contenders, by name."""
    base = {**BASE, **QUICK} if quick else BASE
    return [{**base, **chosen, "name": name} for name, chosen in CONTENDERS.items()]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its bits per byte, and its cache."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    result = train_on(source_bytes("train"), model, setting, seed)
    return {**result, "kv_bytes": kv_bytes(setting)}


def by_seed(runs: Runs, result: str = "test_bits") -> dict[str, list[float]]:
    """What the first of each pair has more than the second, for each common seed."""
    return pairs_by_seed(runs, PAIRS, result)


def report(runs: Runs) -> str:
    """Bits per byte of each contender, then the pairs."""
    return f"{bits(runs)}\n\n{differences(runs)}"


def bits(runs: Runs) -> str:
    """Bits per byte with their spread, the rate that was chosen, and the cache."""
    header = ("contender", "rate", "seeds", "cache KiB")
    rows = []
    for group, part in runs.groups("name", "lr"):
        cache = f"{part[0].result['kv_bytes'] / 1024:.0f}"
        spreads = (part.spread(f"{name}_bits") for name in ("validation", "test"))
        rows.append((*group, len(part), cache, *spreads))
    return table((*header, "validation bits", "test bits"), rows)


def differences(runs: Runs) -> str:
    """Test bits of each pair, seed by seed, with intervals of 95 %."""
    header = ("pair", "seeds", "bits more", "interval", "verdict")
    rows = []
    for pair, values in by_seed(runs).items():
        if len(values) >= LEAST_SEEDS:
            rows.append((pair, len(values), *interval(values).cells))
    return table(header, rows)
