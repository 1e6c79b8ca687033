"""Step time: how long does a training step of each structure take?

A clock on a computer that others use too says little. So the variants take turns, one
step each, and what counts is the time of a step over that of the plain model's step of
the same round: both met the same noise. The median over the rounds is recorded, and
another seed is another process of turns, in another order.
"""

from __future__ import annotations

import random
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.corpora import source_bytes, windows_of
from attn_tutorial.experiments.models import build
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.studies import structure
from attn_tutorial.experiments.studies.language_model import BYTES, QUICK
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.training import OPTIMIZERS, Optimizers

__all__ = ["QUESTION", "ratios", "settings", "train"]

QUESTION = "How long does a training step of each structure take?"


def settings(quick: bool) -> list[Setting]:
    """One setting: all variants together, for some rounds."""
    unused = ("steps", "passages")
    base = {k: v for k, v in structure.BASE.items() if k not in unused}
    if quick:
        base |= {k: v for k, v in QUICK.items() if k not in unused}
    return [{**base, "rounds": 3 if quick else 25}]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Let all variants take turns; how long their steps took."""
    torch.manual_seed(seed)
    names = list(structure.VARIANTS)
    models = {name: _model(setting, name, device) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    generator, turns = torch.Generator().manual_seed(seed), random.Random(seed)
    for round_number in range(setting["rounds"] + 1):
        size = setting["batch"], setting["n"]
        batch = windows_of(source_bytes("train"), *size, generator)
        batch = [x.to(device) for x in batch]
        for name in turns.sample(names, len(names)):
            seconds = _seconds(*models[name], *batch)
            if round_number:  # the first one warms up
                times[name].append(seconds)
    return {
        "variants": names,
        "milliseconds": [1000 * statistics.median(times[name]) for name in names],
        "seconds_over_plain": [_ratio(times[n], times["plain"]) for n in names],
    }


def _model(
    setting: Setting, name: str, device: torch.device
) -> tuple[nn.Module, Optimizers]:
    chosen = {**setting, **structure.VARIANTS[name]}
    mixer = structure.mixer(chosen)
    model = build(chosen, BYTES, BYTES, causal=True, mixer=mixer).to(device)
    return model, OPTIMIZERS[setting["optimizer"]](model, setting["lr"])


def _seconds(
    model: nn.Module, optimizers: Optimizers, inputs: Tensor, targets: Tensor
) -> float:
    """Train one step; how long it took."""
    started = time.perf_counter()
    scores = model(inputs).flatten(0, -2)
    model.zero_grad()
    cross_entropy(scores, targets.flatten()).backward()
    for optimizer in optimizers:
        optimizer.step()
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _ratio(seconds: list[float], plain: list[float]) -> float:
    """Median over the rounds of one variant's time over the plain one's."""
    return statistics.median(a / b for a, b in zip(seconds, plain, strict=True))


def ratios(runs: Runs) -> dict[str, list[float]]:
    """Time of a step over that of the plain model, for each variant; one a seed.

    Example:
        >>> from attn_tutorial.experiments.records import Run
        >>> found = {"variants": ["plain", "1 layer"], "seconds_over_plain": [1, 0.4]}
        >>> ratios(Runs([Run({}, 0, found, {})]))
        {'plain': [1], '1 layer': [0.4]}
    """
    columns = zip(*runs.values("seconds_over_plain"), strict=True)
    return dict(zip(runs[0].result["variants"], map(list, columns), strict=True))


def report(runs: Runs) -> str:
    """Each variant's range over the processes."""
    rows = [
        (name, len(found), f"{min(found):.2f} to {max(found):.2f}")
        for name, found in ratios(runs).items()
    ]
    return table(("variant", "seeds", "time of a step over plain"), rows)
