"""Optimisers: which one learns most in the same steps, each at its best rate?

Every optimiser gets the same number of learning rates, a factor of about three apart,
and the same seeds. The best rate is chosen by the validation part; the whole sweep is
recorded, so that one also sees how much a wrong rate costs.
"""

from __future__ import annotations

import torch

from attn_tutorial.experiments.data.corpora import source_bytes
from attn_tutorial.experiments.models import build
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.studies.language_model import (
    BYTES,
    QUICK,
    SMALL,
    train_on,
)
from attn_tutorial.experiments.tables import table

__all__ = ["QUESTION", "best_rates", "settings", "train"]

QUESTION = "Which optimiser learns most in the same steps, each at its best rate?"

RATES = {
    "sgd": (0.03, 0.1, 0.3, 1.0, 3.0),
    "adamw": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "muon": (3e-3, 1e-2, 3e-2, 0.1, 0.3),
}


def settings(quick: bool) -> list[Setting]:
    """Every optimiser at each of its rates."""
    base = {**SMALL, **QUICK} if quick else SMALL
    return [
        {**base, "optimizer": name, "lr": lr, "weight_decay": 0.0}
        for name, rates in RATES.items()
        for lr in (rates[2:3] if quick else rates)
    ]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; a loss that is no number any more counts as 8 bits a byte."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    result = train_on(source_bytes("train"), model, setting, seed)
    return {key: _finite(value) for key, value in result.items()}


def _finite(value: object) -> object:
    """Replace what is no number, alone or in a list, by the bits of a blind guess."""
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value if not isinstance(value, float) or abs(value) < 1e6 else 8.0


def best_rates(runs: Runs) -> dict[str, Runs]:
    """The runs of each optimiser at the rate with the best mean validation bits."""
    best = {}
    for (name,), part in runs.groups("optimizer"):
        tried = [found for _, found in part.groups("lr")]
        best[name] = min(tried, key=lambda found: found.mean("validation_bits"))
    return best


def report(runs: Runs) -> str:
    """The whole sweep, then each optimiser at its best."""
    sweep = [
        (*group, len(part), part.spread("validation_bits"))
        for group, part in runs.groups("optimizer", "lr")
    ]
    best = [
        (name, part[0].setting["lr"], len(part), part.spread("test_bits"))
        for name, part in best_rates(runs).items()
    ]
    header = ("optimiser", "rate", "seeds")
    tables = (
        table((*header, "validation bits"), sweep),
        table((*header, "test bits"), best),
    )
    return "\n\n".join(tables)
