"""Trajectories: does a window's lead last, or does full attention catch up?

One training per model and text, at a rate that stays constant after its rise. Again
and again a copy leaves it, lets its rate fall to zero and is measured, so that the
points of a curve are lengths of *one* training. The rate is tuned for the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial.experiments.comparison import LEAST_SEEDS, interval, seed_by_seed
from attn_tutorial.experiments.data import corpora, help_pages
from attn_tutorial.experiments.models import build, mean_bits
from attn_tutorial.experiments.records import Result, Run, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.language_model import BYTES, passages_of
from attn_tutorial.experiments.studies.writing import text_of
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.training import trajectory

__all__ = [
    "QUESTION",
    "TUNING",
    "at_length",
    "lead",
    "lengths",
    "settings",
    "text",
    "train",
]

QUESTION = "Does full attention catch up when the training goes on?"
TUNING = Tuning((0.02, 0.04, 0.08), "validation_bits")

CODE = "code"
NAMES = {
    "full": "full",
    "local 64": "local 64",
    "local 16, local 16, local 16, full": "3 x local 16, full",
}
BASE = {"n": 256, "d_model": 96, "heads": 3, "layers": 4, "batch": 4}
BASE |= {"optimizer": "muon", "lr": 0.04, "weight_decay": 0.01, "passages": 128}
BASE |= {"steps": 2000, "lengths": 5, "decay": 0.2, "warm_up": 20}
QUICK = {"n": 32, "d_model": 32, "heads": 2, "passages": 4}
QUICK |= {"steps": 48, "warm_up": 2}


def settings(quick: bool) -> list[Setting]:
    """Patterns and texts; program text first."""
    base = {**BASE, **QUICK} if quick else BASE
    texts = (CODE, help_pages.MADE_UP if quick else help_pages.HELP)
    return [{"data": data, "pattern": p, **base} for data in texts for p in NAMES]


def lengths(setting: Setting) -> list[int]:
    """Steps of the trainings, each twice as long as the one before.

    Example:
        >>> lengths({"steps": 2000, "lengths": 5})
        [125, 250, 500, 1000, 2000]
    """
    halvings = range(setting["lengths"] - 1, -1, -1)
    return [setting["steps"] // 2**k for k in halvings]


def text(data: str, part: str) -> Tensor:
    """A part of a text, uint8, (n,)."""
    return corpora.source_bytes(part) if data == CODE else text_of(data, part)


def fingerprint(data: str) -> str:
    """Twelve digits that stand for exactly this text."""
    return corpora.fingerprint() if data == CODE else help_pages.fingerprint(data)


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its bits at all lengths, the longest ones apart, too."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    known, size = text(setting["data"], "train"), (setting["batch"], setting["n"])
    keys = ("decay", "warm_up", "lr", "optimizer", "weight_decay")
    result = {"test_by_length": [], "validation_by_length": []}
    for _, end in trajectory(
        model,
        lambda g: corpora.windows_of(known, *size, g),
        lengths=lengths(setting),
        seed=seed,
        **{key: setting[key] for key in keys},
    ):
        for part in ("test", "validation"):
            result[f"{part}_by_length"].append(bits(end, setting, part))
    ends = {f"{p}_bits": result[f"{p}_by_length"][-1] for p in ("test", "validation")}
    return {**result, **ends, "text": fingerprint(setting["data"])}


def bits(model: torch.nn.Module, setting: Setting, part: str) -> float:
    """Mean bits of a byte of a part."""
    known = text(setting["data"], part)
    return mean_bits(model, passages_of(known, setting["n"], setting["passages"]))


def at_length(runs: Runs, k: int) -> Runs:
    """The same runs with their test bits at the k-th length alone."""
    return Runs(
        Run(r.setting, r.seed, {"bits": r.result["test_by_length"][k]}, r.made)
        for r in runs
    )


def lead(runs: Runs, data: str, pattern: str, k: int) -> list[float]:
    """Bits that a pattern takes more than full attention at a length, seed by seed."""
    known = at_length(runs.where(data=data), k)
    pair = (known.where(pattern=name) for name in (pattern, "full"))
    return seed_by_seed(*pair, "bits")


def report(runs: Runs) -> str:
    """Bits at each length, then what each pattern takes more than full attention."""
    steps = [f"{length} steps" for length in lengths(runs[0].setting)]
    rows, leads = [], []
    for (data, pattern, rate), part in runs.groups("data", "pattern", "lr"):
        head = (data, NAMES[pattern], rate, len(part))
        spreads = [at_length(part, k).spread("bits") for k in range(len(steps))]
        rows.append((*head, *spreads))
    for (data, pattern), part in runs.groups("data", "pattern"):
        if pattern != "full" and len(part) >= LEAST_SEEDS:
            every = [lead(runs, data, pattern, k) for k in range(len(steps))]
            leads.append((data, NAMES[pattern], *map(_words, every)))
    header = ("text", "pattern", "rate", "seeds")
    return "\n\n".join(
        [
            table((*header, *steps), rows),
            table(("text", "less full attention", *steps), leads),
        ]
    )


def _words(values: list[float]) -> str | None:
    return str(interval(values)) if len(values) >= LEAST_SEEDS else None
