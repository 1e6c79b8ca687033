"""Regularisation: what helps where there is little text and many passes over it?

One remedy at a time, on the first 24 KiB of the text, which each model meets about
twelve times: weights decay, features drop out, targets are smoothed, the window is
small, or one simply stops earlier.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.corpora import source_bytes
from attn_tutorial.experiments.models import build
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.language_model import (
    BYTES,
    QUICK,
    SMALL,
    passages_of,
    train_on,
)
from attn_tutorial.experiments.tables import table

__all__ = ["QUESTION", "TUNING", "settings", "train"]

QUESTION = "What helps where there is little text and many passes over it?"
TUNING = Tuning((0.02, 0.04, 0.08), "validation_bits", {"steps": 100}, reach=0)

BASE = {**SMALL, "optimizer": "muon", "lr": 0.02, "weight_decay": 0.0}
BASE |= {"steps": 300, "text_bytes": 3 * 2**13}
REMEDIES = (
    {},
    {"dropout": 0.1},
    {"dropout": 0.3},
    {"weight_decay": 0.1},
    {"weight_decay": 1.0},
    {"label_smoothing": 0.1},
    {"pattern": "local 16"},
    {"steps": 100},
    {"steps": 200},
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
    result = train_on(text, model, setting, seed)
    return result | {"train_bits": bits_of(text, model, setting)}


@torch.no_grad()
def bits_of(text: Tensor, model: nn.Module, setting: Setting) -> float:
    """Mean bits a byte of passages from all over a text, with nothing dropped."""
    n, device = setting["n"], next(model.parameters()).device
    read = passages_of(text, n, setting["passages"]).to(device)
    model.eval()
    scores = model(read[:, :-1]).flatten(0, 1)
    model.train()
    return cross_entropy(scores, read[:, 1:].flatten()).item() / math.log(2)


def remedy(setting: Setting) -> str:
    """Name what a setting changes.

    Example:
        >>> remedy({**BASE, "weight_decay": 0.1}), remedy({**BASE, "steps": 100})
        ('weight decay 0.1', '100 steps')
    """
    base = {**BASE, "lr": setting["lr"]}
    changed = {k: v for k, v in setting.items() if base.get(k) != v}
    words = {"pattern": "{}", "steps": "{} steps"}
    named = [words.get(k, f"{k} {{}}").format(v) for k, v in changed.items()]
    return ", ".join(named).replace("_", " ") or "none"


def report(runs: Runs) -> str:
    """Bits of the text that each remedy was trained on, and of held-out text."""
    rows = []
    for _, part in runs.groups("pattern", "steps", *OPTIONS):
        names = ("train_bits", "validation_bits", "test_bits")
        bits = [part.spread(name) for name in names]
        first = part[0].setting
        rows.append((remedy(first), first["lr"], len(part), *bits))
    header = ("remedy", "rate", "seeds", "training bits")
    return table((*header, "validation bits", "test bits"), rows)


OPTIONS = ("dropout", "weight_decay", "label_smoothing")
