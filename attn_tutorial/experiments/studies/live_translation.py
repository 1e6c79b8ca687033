"""Translation while the speaker still speaks: how long must one wait?

Wait-k (Ma et al., 2019): the first word is written when k source tokens have arrived,
and one more arrives with each word. In the cross-attention that is a pattern: word i
meets the tokens j < i + k. The encoder must not look further ahead than it may wait:
it is causal, or looks ahead by a bounded window, which each layer adds to the wait.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.experiments.models import price
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.help_translation import (
    BASE,
    QUICK,
    held_out,
    train_translator,
    written,
)
from attn_tutorial.experiments.tables import table
from attn_tutorial.patterns import Pattern, dense_mask

__all__ = [
    "QUESTION",
    "TUNING",
    "arrived",
    "average_lag",
    "settings",
    "train",
    "waits",
]

QUESTION = "How many tokens must a translator wait, and what does haste cost?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_bits")

# What the encoder keeps, and k; "whole" waits for the end of the text.
GRID = (
    ("full", "whole"),
    ("causal", 1),
    ("causal", 3),
    ("causal", 7),
    ("local 4,0", 3),
    ("local 4,1", 3),
    ("blocks 8 & causal", 3),
)


def settings(quick: bool) -> list[Setting]:
    """Patterns of the encoder, and how many tokens the first word waits for."""
    base, grid = ({**BASE, **QUICK}, GRID[1::4]) if quick else (BASE, GRID)
    return [{"pattern": own, "wait": wait, **base} for own, wait in grid]


def waits(wait: int | str) -> Pattern:
    """What word i may meet of the source: j < i + k, or everything.

    Example:
        >>> dense_mask(waits(2), 2, 4).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 1, 0]], dtype=torch.int32)
    """
    if wait == "whole":
        return patterns.full()
    return patterns.shifted(patterns.causal(), wait - 1)


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its quality, and how far it lags behind the speaker."""
    own, cross = recorded_pattern(setting["pattern"]), waits(setting["wait"])
    model, result = train_translator(setting, seed, device, own, cross)
    some = held_out(setting, "test", setting["held_out"])
    lags = [average_lag(setting, *map(len, pair)) for pair in some]
    return {**result, **written(model, setting), "test_lag": sum(lags) / len(lags)}


def arrived(setting: Setting, n_source: int, n_target: int) -> Tensor:
    """Source tokens that must have arrived before each word is written, (n_target,).

    Found by following the patterns of all layers: the last source token from which
    any path leads to the word.

    Example:
        >>> setting = {"pattern": "causal", "wait": 2, "layers": 2}
        >>> arrived(setting, n_source=4, n_target=5).tolist()
        [2, 3, 4, 4, 4]
        >>> arrived({**setting, "pattern": "local 4,1"}, 6, 3).tolist()  # 2 layers more
        [4, 5, 6]
    """
    own, cross = recorded_pattern(setting["pattern"]), waits(setting["wait"])
    mask = dense_mask(own, n_source).float()
    read = torch.eye(n_source)
    for _ in range(setting["layers"]):
        read = ((mask @ read + read) > 0).float()
    past = dense_mask(own & patterns.causal(), n_target).float()
    now = dense_mask(cross, n_target, n_source).float() @ read
    heard = torch.zeros(n_target, n_source)
    for _ in range(setting["layers"]):
        heard = ((past @ heard + heard + now) > 0).float()
    return (heard * torch.arange(1, n_source + 1)).amax(-1).int()


def average_lag(setting: Setting, n_source: int, n_target: int) -> float:
    """Tokens by which writing lags behind an ideal interpreter (Ma et al., 2019).

    The mean of g(t) - (t - 1) n_source / n_target over the words t = 1 ... up to the
    first for which the whole source has arrived; g(t) is what has arrived.

    Example:
        >>> average_lag({"pattern": "causal", "wait": 3, "layers": 1}, 10, 10)
        3.0
        >>> average_lag({"pattern": "full", "wait": "whole", "layers": 1}, 10, 10)
        10.0
    """
    needed = arrived(setting, n_source, n_target).tolist()
    last = needed.index(n_source) if n_source in needed else n_target - 1
    ideal = n_source / n_target
    return sum(g - t * ideal for t, g in enumerate(needed[: last + 1])) / (last + 1)


def report(runs: Runs) -> str:
    """Lag against quality, with their spread."""
    rows = []
    for group, part in runs.groups("pattern", "wait"):
        bits = part.spread("validation_bits"), part.spread("test_bits")
        quality = f"{part.mean('test_lag'):.1f}", *bits, part.spread("test_chrf")
        rows.append((*group, len(part), *quality, *price(part)))
    header = ("encoder", "wait", "seeds", "lag in tokens", "validation bits")
    return table((*header, "test bits", "test chrF", "MiB", "minutes"), rows)
