"""Layer search: which layers should stay full, and does a search find them?

Of four layers one or two keep full attention and the others get a window, at an equal
cache. Each placement is trained from the start. And in the trained dense model layers
are switched to the window after training, in every combination: a search that goes by
what the switch costs on the validation part picks a placement, to compare with taking
turns (as most models do) and with the best of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch

from attn_tutorial.experiments.data.corpora import source_bytes, windows_of
from attn_tutorial.experiments.models import build, kv_bytes, mean_bits, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.converting import switched
from attn_tutorial.experiments.studies.language_model import BYTES, passages
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "QUESTION",
    "TUNING",
    "TURNS",
    "full_layers",
    "listed",
    "placement",
    "recovered",
    "searched",
    "settings",
    "train",
]

QUESTION = "Which layers should stay full, and does a search find them?"
TUNING = Tuning((0.02, 0.04, 0.08), "validation_bits")

LAYERS, NEAR = 4, "local 16"
PARTS = ("validation", "test")
Layers = tuple[int, ...]  # those that stay full, from 0
EVERY: list[Layers] = [c for k in range(LAYERS + 1) for c in combinations(range(4), k)]
TURNS: dict[int, Layers] = {1: (3,), 2: (1, 3)}  # full layers where patterns take turns
BASE = {"n": 256, "d_model": 96, "heads": 3, "layers": LAYERS, "batch": 4}
BASE |= {"optimizer": "muon", "lr": 0.04, "weight_decay": 0.01}
BASE |= {"steps": 300, "passages": 128}
QUICK = {"n": 32, "d_model": 32, "heads": 2, "steps": 4, "passages": 2}


def placement(full: Sequence[int]) -> str:
    """The pattern of each layer, as records spell it.

    Example:
        >>> placement((1, 3))
        'local 16, full, local 16, full'
    """
    return ", ".join("full" if k in full else NEAR for k in range(LAYERS))


def full_layers(pattern: str) -> Layers:
    """Which layers a placement keeps full, from 0.

    Example:
        >>> full_layers("local 16, full, local 16, full")
        (1, 3)
    """
    return tuple(k for k, name in enumerate(pattern.split(", ")) if name == "full")


def listed(full: Layers) -> str:
    """Layers in words, counted from 1.

    Example:
        >>> listed((1, 3)), listed(())
        ('2 4', 'none')
    """
    return " ".join(str(k + 1) for k in full) or "none"


def settings(quick: bool) -> list[Setting]:
    """Full layers everywhere or nowhere, and one or two of them at every place."""
    base = {**BASE, **QUICK} if quick else BASE
    ends = [EVERY[-1], EVERY[0]]
    middle = [] if quick else [full for full in EVERY if len(full) in TURNS]
    return [{"pattern": placement(full), **base} for full in (*ends, *middle)]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its bits, and if it is dense those after every switch."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    known, size = source_bytes("train"), (setting["batch"], setting["n"])
    losses = train_as(setting, model, lambda g: windows_of(known, *size, g), seed)
    result = {"final_loss": losses[-1], "kv_bytes": kv_bytes(setting)}
    for part in PARTS:
        result[f"{part}_bits"] = bits(model, setting, part)
        if setting["pattern"] == placement(EVERY[-1]) and "stage" not in setting:
            result[f"{part}_switched"] = after_switches(model, setting, part)
    return result


def bits(model: Transformer, setting: Setting, part: str) -> float:
    """Mean bits of a byte of a part."""
    return mean_bits(model, passages(part, setting["n"], setting["passages"]))


def after_switches(model: Transformer, setting: Setting, part: str) -> list[float]:
    """Bits of a dense model with the layers of each of EVERY full, and no tuning."""
    found = []
    for full in EVERY:
        near = [k for k in range(LAYERS) if k not in full]
        found.append(bits(switched(model, setting, NEAR, near), setting, part))
    return found


def searched(bits_of: Sequence[float], count: int) -> Layers:
    """Give up full layers one by one, each time the one that costs least.

    Args:
        bits_of: Bits after each of the switches EVERY.
        count: Full layers that are left.

    Example:
        >>> searched([len(EVERY) - k for k in range(len(EVERY))], 2)
        (2, 3)
    """
    known = dict(zip(EVERY, bits_of, strict=True))
    left = EVERY[-1]
    while len(left) > count:
        smaller = [tuple(k for k in left if k != gone) for gone in left]
        left = min(smaller, key=known.__getitem__)
    return left


def recovered(bits_of: Sequence[float], full: Layers) -> float:
    """Share of what windows everywhere cost that these full layers make good.

    Example:
        >>> recovered([2.0] + [1.5] * 14 + [1.0], (0,))
        0.5
    """
    known = dict(zip(EVERY, bits_of, strict=True))
    most, least = known[EVERY[0]], known[EVERY[-1]]
    return (most - known[full]) / (most - least)


def report(runs: Runs) -> str:
    """Bits of each trained placement; then what the search found in dense models."""
    rows = []
    for (pattern, rate), part in runs.groups("pattern", "lr"):
        cache = f"{part[0].result['kv_bytes'] / 1024:.0f}"
        spreads = (part.spread(f"{name}_bits") for name in PARTS)
        full = listed(full_layers(pattern))
        rows.append((full, rate, len(part), cache, *spreads))
    header = ("full layers", "rate", "seeds", "cache KiB")
    header += ("validation bits", "test bits")
    return f"{table(header, rows)}\n\n{found(runs)}"


def found(runs: Runs) -> str:
    """Of each dense model: the layers that each way keeps full, and what they save."""
    rows = []
    for run in runs.where(pattern=placement(EVERY[-1])):
        chosen_by, judged_by = (run.result[f"{p}_switched"] for p in PARTS)
        for count, turns in TURNS.items():
            known = dict(zip(EVERY, judged_by, strict=True))
            several = [full for full in EVERY if len(full) == count]
            picks = (searched(chosen_by, count), turns, min(several, key=known.get))
            cells = (
                f"{listed(full)}: {recovered(judged_by, full):.2f}" for full in picks
            )
            rows.append((run.seed, count, *cells))
    header = ("seed", "full layers", "search", "taking turns", "best of all")
    return table(header, rows)
