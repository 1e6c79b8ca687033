"""Structure: what do parameters, cache bytes and operations buy?

Ways to make a Transformer smaller or cheaper, against the plain one: fewer heads of
keys and values, keys and values of low rank, one layer used again and again, fewer
layers, a narrower model, a window, and linear attention, whose state does not grow
with the text at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from attn_tutorial import patterns
from attn_tutorial.experiments.data.corpora import source_bytes
from attn_tutorial.experiments.models import build, forward_flops, kv_bytes
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.language_model import (
    BYTES,
    MUON,
    QUICK,
    SMALL,
    train_on,
)
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.dispatch import pattern_attention
from attn_tutorial.networks.layers import Rotary

__all__ = [
    "QUESTION",
    "TUNING",
    "VARIANTS",
    "LinearAttention",
    "LowRankAttention",
    "cache_bytes",
    "mixer",
    "settings",
    "token_flops",
    "train",
]

QUESTION = "What do parameters, cache bytes and operations buy?"
TUNING = Tuning(
    (0.01, 0.02, 0.04, 0.08, 0.16), "validation_bits", {"steps": 100}, reach=0
)

BASE = {**SMALL, **MUON}
VARIANTS: dict[str, Setting] = {
    "plain": {},
    "1 head of keys and values": {"num_kv_heads": 1},
    "low rank 64": {"rank": 64},
    "low rank 16": {"rank": 16},
    "low rank 64, scaled": {"rank": 64, "scaled": True},
    "low rank 16, scaled": {"rank": 16, "scaled": True},
    "layers share their weights": {"share_layers": True},
    "1 layer": {"layers": 1},
    "narrower": {"d_model": 64, "heads": 2},
    "window 16": {"pattern": "local 16"},
    "linear attention": {"linear": True},
}


class LowRankAttention(nn.Module):
    """Causal attention that remembers ``rank`` numbers of each token, and no more.

    Keys and values of all heads are rebuilt from them, so that both are products of a
    narrow matrix that they share and one of their own: the compression of DeepSeek-V2
    (DeepSeek-AI, 2024), without its separate rotary key. As the rebuilt keys turn with
    their position, they have to be rebuilt for each new token.

    Args:
        d_model: Width of the input and the output.
        num_heads: Heads of queries, and of rebuilt keys and values.
        rank: Numbers of each token that keys and values are made of.
        scaled: Whether these numbers are brought to a root mean square of 1, as in
            DeepSeek-V2, times a gain that is learned.
    """

    def __init__(
        self, d_model: int, num_heads: int, rank: int, *, scaled: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.turn = Rotary(d_model // num_heads)
        self.query = nn.Linear(d_model, d_model)
        self.compress = nn.Linear(d_model, rank)
        self.scale = nn.RMSNorm(rank) if scaled else nn.Identity()
        self.key = nn.Linear(rank, d_model)
        self.value = nn.Linear(rank, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, n, d_model) to itself; causal."""
        kept = self.scale(self.compress(x))  # (batch, n, rank): the cache
        turned = self.turn(self.query(x)), self.turn(self.key(kept))
        parts = [_split(p, self.num_heads) for p in (*turned, self.value(kept))]
        heads = pattern_attention(*parts, patterns.causal())
        return self.output(heads.transpose(1, 2).flatten(2))


class LinearAttention(nn.Module):
    """Attention without a softmax: weights phi(q) phi(k), phi = elu + 1, normalised.

    Since the weights factor, the sum over all earlier keys is a matrix of d x d
    numbers a head, however long the text (Katharopoulos et al., 2020). Queries and
    keys turn with their position, except in the norm (Su et al., 2024). Written here
    with the whole n x n matrix, which is short and fast at our lengths.

    Args:
        d_model: Width of the input and the output.
        num_heads: Heads of queries, keys and values.
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
        parts = q, k, self.turn(q), self.turn(k), self.value(x)
        q, k, turned_q, turned_k, v = (_split(p, self.num_heads) for p in parts)
        norm = (q @ k.mT).tril().sum(-1, keepdim=True)
        heads = (turned_q @ turned_k.mT).tril() @ v / norm
        return self.output(heads.transpose(1, 2).flatten(2))


def _split(x: Tensor, num_heads: int) -> Tensor:
    """Take heads apart: (batch, n, h d) to (batch, h, n, d)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def mixer(setting: Setting) -> Callable[[], nn.Module] | None:
    """What makes the layers of a setting; None for plain attention."""
    size = setting["d_model"], setting["heads"]
    if setting.get("linear"):
        return lambda: LinearAttention(*size)
    if rank := setting.get("rank"):
        scaled = setting.get("scaled", False)
        return lambda: LowRankAttention(*size, rank, scaled=scaled)
    return None


def settings(quick: bool) -> list[Setting]:
    """Every variant."""
    base = {**BASE, **QUICK} if quick else BASE
    quick_set = ("plain", "low rank 16", "linear attention")
    chosen = quick_set if quick else VARIANTS
    return [{**base, **VARIANTS[name], "variant": name} for name in chosen]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one variant; its bits, and what it costs."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True, mixer=mixer(setting)).to(device)
    result = train_on(source_bytes("train"), model, setting, seed)
    costs = {"cache_bytes": cache_bytes(setting), "token_flops": token_flops(setting)}
    return result | costs


def cache_bytes(setting: Setting) -> int:
    """Bytes that have to be kept to go on after n tokens, 4 for each number."""
    d, heads, layers = (setting[key] for key in ("d_model", "heads", "layers"))
    if setting.get("linear"):
        return 4 * layers * d * (d // heads + 1)  # a matrix a head; the sum of the keys
    if rank := setting.get("rank"):
        return 4 * layers * rank * setting["n"]
    return kv_bytes(setting)


def token_flops(setting: Setting) -> int:
    """Operations with which a model reads one of n tokens, on average.

    Eq. (4), and the last layer, of which each weight costs 2. Linear attention writes
    to its state and reads it, which costs as much as d / h pairs; the sum of the keys
    counts as one more. Elementwise work is left out, and so is that low rank rebuilds
    all earlier keys and values when it writes a token.
    """
    d, heads, n = (setting[key] for key in ("d_model", "heads", "n"))
    layers = forward_flops(setting)
    if setting.get("linear"):
        state = 4 * n * d * (d // heads + 1)
        layers = [layer._replace(attention=state) for layer in layers]
    if rank := setting.get("rank"):  # queries, output; one matrix to it, two from it
        narrow = 2 * n * (2 * d * d + 3 * d * rank)
        layers = [layer._replace(projections=narrow) for layer in layers]
    return round(sum(map(sum, layers)) / n + 2 * d * BYTES)


def report(runs: Runs) -> str:
    """Quality beside the three costs."""
    rows = []
    for group, part in runs.groups("variant"):
        first = part[0].result
        costs = [first[name] for name in ("parameters", "cache_bytes", "token_flops")]
        bits = part.spread("validation_bits"), part.spread("test_bits")
        rows.append((*group, part[0].setting["lr"], len(part), *costs, *bits))
    header = ("variant", "rate", "seeds", "parameters", "cache bytes", "FLOPs a token")
    return table((*header, "validation bits", "test bits"), rows)
