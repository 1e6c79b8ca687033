"""Regularisation: what helps where there is little text and many passes over it?

One remedy at a time, on the first 32 KiB of the text, which each model meets about
twelve times: weights decay, features drop out, targets are smoothed, the window is
small, or one simply stops earlier.
"""

from __future__ import annotations

import torch

from attn_tutorial.experiments.corpora import source_bytes
from attn_tutorial.experiments.language_model import BYTES, QUICK, SMALL, train_on
from attn_tutorial.experiments.models import build
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Experiment, Tuning
from attn_tutorial.experiments.tables import table

__all__ = ["EXPERIMENT", "settings", "train"]

BASE = {**SMALL, "optimizer": "muon", "lr": 0.02, "weight_decay": 0.0}
BASE |= {"steps": 400, "text_bytes": 2**15}
REMEDIES = (
    {},
    {"dropout": 0.1},
    {"dropout": 0.3},
    {"weight_decay": 0.1},
    {"weight_decay": 1.0},
    {"label_smoothing": 0.1},
    {"pattern": "local 16"},
    {"steps": 130},
)


def settings(quick: bool) -> list[Setting]:
    """No remedy, and each of the remedies alone."""
    base = {**BASE, **QUICK} if quick else BASE
    return [{**base, **remedy} for remedy in (REMEDIES[:2] if quick else REMEDIES)]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model on the beginning of the text."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    text = source_bytes("train")[: setting["text_bytes"]]
    return train_on(text, model, setting, seed)


def remedy(setting: Setting) -> str:
    """Name what a setting changes.

    Example:
        >>> remedy({**BASE, "dropout": 0.3})
        'dropout 0.3'
    """
    base = {**BASE, "lr": setting["lr"]}
    changed = [f"{k} {v}" for k, v in setting.items() if base.get(k) != v]
    return ", ".join(changed) or "none"


def report(runs: Runs) -> str:
    """Training loss and held-out bits of each remedy."""
    rows = []
    for _, part in runs.groups("pattern", "steps", *OPTIONS):
        loss = f"{part.mean('final_loss'):.3f}"
        bits = part.spread("validation_bits"), part.spread("test_bits")
        rows.append((remedy(part[0].setting), len(part), loss, *bits))
    header = ("remedy", "seeds", "last loss, nats")
    return table((*header, "validation bits", "test bits"), rows)


OPTIONS = ("dropout", "weight_decay", "label_smoothing")
EXPERIMENT = Experiment(
    name="regularisation",
    question="What helps where there is little text and many passes over it?",
    settings=settings,
    train=train,
    report=report,
    tuning=Tuning((0.01, 0.02, 0.04), "validation_bits", {"steps": 130}),
)
