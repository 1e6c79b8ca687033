"""Language model: does a window cost bits on real text, and at which equal cost?

Models of bytes read program text (see ``corpora``) and are compared in three ways:

- equal steps: the same number of bytes seen in training,
- equal FLOPs: the sparse models train as long as the full one computes,
- equal cache: the full model is made to keep as few bytes of keys and values as a
  window does, by a short context or by one head of keys and values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.corpora import fingerprint, source_bytes, windows_of
from attn_tutorial.experiments.models import (
    build,
    evidence,
    kv_bytes,
    train_as,
    training_flops,
)
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table

__all__ = ["QUESTION", "SMALL", "TUNING", "settings", "train", "train_on"]

QUESTION = "Does a window cost bits on real text, at equal steps, FLOPs or cache?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_bits", {"steps": 150}, reach=0)

BYTES = 256
LENGTH = 512  # of the passages that are evaluated
BANDS = ((0, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512))
SIZE = {"n": 512, "d_model": 128, "heads": 4, "layers": 4, "batch": 4}
MUON = {"optimizer": "muon", "lr": 0.02, "weight_decay": 0.01}
BASE = {**SIZE, **MUON, "steps": 480, "passages": 128}
# What the experiments on training and structure share.
SMALL = {"pattern": "full", "n": 256, "d_model": 96, "heads": 3, "layers": 3}
SMALL |= {"batch": 4, "steps": 200, "passages": 64}
QUICK = {"n": 64, "d_model": 32, "heads": 2, "layers": 2, "steps": 8, "passages": 2}
PATTERNS = (
    "full",
    "local 4",
    "local 16",
    "local 64",
    "blocks 32",
    "local 16 + global 4",
    "local 16, full",
    "local 16, local 16, local 16, full",
)


def settings(quick: bool) -> list[Setting]:
    """All contenders; ``equal`` names what they have in common with full attention."""
    if quick:
        small = {**BASE, **QUICK}
        return [{"pattern": p, "equal": "steps", **small} for p in ("full", "local 4")]
    alike = [{"pattern": p, "equal": "steps", **BASE} for p in PATTERNS]
    same_work = [equal_flops(s) for s in alike if s["pattern"] in ("local 16",)]
    short = {**BASE, "pattern": "full", "n": 64, "batch": 32}
    grouped = {**BASE, "pattern": "full", "num_kv_heads": 1}
    return alike + same_work + [{**s, "equal": "cache"} for s in (short, grouped)]


def equal_flops(setting: Setting) -> Setting:
    """Give a setting as many steps as full attention could pay for."""
    full = training_flops({**setting, "pattern": "full"})
    steps = round(setting["steps"] * full / training_flops(setting))
    return {**setting, "steps": steps, "equal": "FLOPs"}


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its bits per byte, its costs, and what it says of windows."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    result = train_on(source_bytes("train"), model, setting, seed)
    costs = {"kv_bytes": kv_bytes(setting), "flops": training_flops(setting)}
    if is_plain(setting):
        text = passages("validation", setting["n"], 8)
        costs |= evidence(model, text[:, :-1], text[:, 1:])
    return result | costs


def train_on(text: Tensor, model: nn.Module, setting: Setting, seed: int) -> Result:
    """Train a model on a text; bits per byte of the validation and the test part."""
    size = setting["batch"], setting["n"]
    losses = train_as(setting, model, lambda g: windows_of(text, *size, g), seed)
    validation = bits_by_position(model, setting, "validation")
    test = bits_by_position(model, setting, "test")
    return {
        "final_loss": losses[-1],
        "validation_bits": validation.mean().item(),
        "test_bits": test.mean().item(),
        "test_bits_by_band": in_bands(test),
        "parameters": sum(p.numel() for p in model.parameters()),
        "text": fingerprint(),
    }


def is_plain(setting: Setting) -> bool:
    """Whether a model is the one with full attention that windows are advised for."""
    full = setting["pattern"] == "full" and setting["equal"] == "steps"
    return full and "stage" not in setting


def passages(part: str, n: int, count: int) -> Tensor:
    """Passages of n + 1 bytes from all over a part, (count, n + 1)."""
    return passages_of(source_bytes(part), n, count)


def passages_of(text: Tensor, n: int, count: int) -> Tensor:
    """Passages of n + 1 bytes from all over a text, (count, n + 1)."""
    starts = torch.linspace(0, len(text) - n - 1, count).long()
    return text[starts[:, None] + torch.arange(n + 1)].long()


@torch.no_grad()
def bits_by_position(model: nn.Module, setting: Setting, part: str) -> Tensor:
    """Mean bits that each position of a passage takes, shape (LENGTH,).

    All models predict the same bytes. One that was trained on a shorter context reads
    a passage in pieces of that length.
    """
    text = passages(part, LENGTH, setting["passages"])
    inputs, targets = text[:, :-1].unflatten(1, (-1, setting["n"])), text[:, 1:]
    device = next(model.parameters()).device
    model.eval()
    parts = [model(x.to(device)).cpu() for x in inputs.flatten(0, 1).split(16)]
    model.train()
    scores = torch.cat(parts).reshape(-1, BYTES)
    nats = cross_entropy(scores, targets.flatten(), reduction="none")
    return nats.view(targets.shape).mean(0) / math.log(2)


def in_bands(bits: Tensor) -> list[float]:
    """Mean bits in bands of positions, as far as there are any."""
    return [bits[a:b].mean().item() for a, b in BANDS if a < len(bits)]


def report(runs: Runs) -> str:
    """Bits per byte with their spread, and what each model costs."""
    header = ("equal", "pattern", "n", "kv heads", "steps", "seeds")
    costs = ("parameters", "cache KiB", "TFLOPs", "minutes")
    rows = []
    keys = ("equal", "pattern", "n", "num_kv_heads", "steps")
    for group, part in runs.groups(*keys):
        first, minutes = part[0].result, [r.made["seconds"] / 60 for r in part]
        cost = (first["kv_bytes"] / 1024, first["flops"] / 1e12, min(minutes))
        bits = part.spread("validation_bits"), part.spread("test_bits")
        numbers = (first["parameters"], *(f"{c:.1f}" for c in cost))
        rows.append((*group, len(part), *bits, *numbers))
    return table((*header, "validation bits", "test bits", *costs), rows)
