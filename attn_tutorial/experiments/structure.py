"""Structure: what do parameters, cache bytes and time buy?

Ways to make a Transformer smaller or cheaper, against the plain one: fewer heads of
keys and values, one layer used again and again, a narrower model, a window, and linear
attention, whose state does not grow with the text at all.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from attn_tutorial.experiments.corpora import source_bytes
from attn_tutorial.experiments.language_model import BYTES, QUICK, SMALL, train_on
from attn_tutorial.experiments.models import build, kv_bytes
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Experiment, Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.modules import Rotary

__all__ = ["EXPERIMENT", "LinearAttention", "settings", "train"]

BASE = {**SMALL, "optimizer": "muon", "lr": 0.02, "weight_decay": 0.01}
VARIANTS = {
    "plain": {},
    "1 head of keys and values": {"num_kv_heads": 1},
    "layers share their weights": {"share_layers": True},
    "narrower": {"d_model": 64, "heads": 2},
    "window 16": {"pattern": "local 16"},
    "linear attention": {"linear": True},
}


class LinearAttention(nn.Module):
    """Attention without a softmax: weights phi(q) phi(k), phi = elu + 1, normalised.

    Since the weights factor, the sum over all earlier keys is a matrix of d x d
    numbers a head, however long the text (Katharopoulos et al., 2020). Queries and
    keys turn with their position, except in the norm (Su et al., 2024). Written here
    with the whole n x n matrix, which is short and fast at our lengths.
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.turn = Rotary(d_model // num_heads)
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, n, d_model) to itself; causal."""
        q, k = (elu(part(x)) + 1 for part in (self.query, self.key))
        v, norm = self._split(self.value(x)), self._split(q) @ self._split(k).mT
        weights = self._split(self.turn(q)) @ self._split(self.turn(k)).mT
        heads = weights.tril() @ v / norm.tril().sum(-1, keepdim=True)
        return self.output(heads.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def settings(quick: bool) -> list[Setting]:
    """Every variant."""
    base = {**BASE, **QUICK} if quick else BASE
    chosen = ("plain", "linear attention") if quick else VARIANTS
    return [{**base, **VARIANTS[name], "variant": name} for name in chosen]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one variant; its bits, its size and the time of its training."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    model = build(setting, BYTES, BYTES, causal=True, mixer=mixer(setting)).to(device)
    result = train_on(source_bytes("train"), model, setting, seed)
    seconds = time.perf_counter() - started
    return result | {"cache_bytes": cache_bytes(setting), "wall_seconds": seconds}


def mixer(setting: Setting):
    """What makes the layers, if it is not softmax attention."""
    if not setting.get("linear"):
        return None
    return lambda: LinearAttention(setting["d_model"], setting["heads"])


def cache_bytes(setting: Setting) -> int:
    """What has to be kept to go on after n tokens."""
    if not setting.get("linear"):
        return kv_bytes(setting)
    width = setting["d_model"] // setting["heads"]
    numbers = setting["heads"] * width * (width + 1)  # and the sum of the keys
    return 4 * setting["layers"] * numbers


def report(runs: Runs) -> str:
    """Quality beside the three costs."""
    rows = []
    for group, part in runs.groups("variant"):
        first, seconds = part[0].result, part.lowest("wall_seconds")
        costs = (first["parameters"], first["cache_bytes"], f"{seconds:.0f}")
        bits = part.spread("validation_bits"), part.spread("test_bits")
        rows.append((*group, len(part), *costs, *bits))
    header = ("variant", "seeds", "parameters", "cache bytes", "seconds")
    return table((*header, "validation bits", "test bits"), rows)


EXPERIMENT = Experiment(
    name="structure",
    question="What do parameters, cache bytes and time buy?",
    settings=settings,
    train=train,
    report=report,
    tuning=Tuning((0.01, 0.02, 0.04), "validation_bits", {"steps": 100}),
)
