"""Sinks: does a learned sink rescue a narrow window?

In a window the first token is soon out of sight, and a head that wants to look at
nothing has nowhere to look. A sink is such a place: a learned number in the softmax's
denominator (OpenAI, 2025), or the first token, kept beside the window (Xiao et al.,
2024). Models are trained on short passages, each with the same first byte, and read
passages four times as long, too. Those that were trained with a sink also read without
it, as with a cache that throws the first token away. Meant for ``--seeds 8``.
"""

from __future__ import annotations

import copy
from itertools import cycle

import torch
from torch import Generator, Tensor, nn

from attn_tutorial.experiments.comparison import LEAST_SEEDS, interval, pairs_by_seed
from attn_tutorial.experiments.data.corpora import fingerprint, source_bytes, windows_of
from attn_tutorial.experiments.models import build, causal_layers, mean_bits, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.converting import begun, switched
from attn_tutorial.experiments.studies.language_model import BYTES, passages
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.sinks import SinkAttention

__all__ = ["PAIRS", "QUESTION", "TUNING", "by_seed", "settings", "train"]

QUESTION = "Does a learned sink rescue a narrow window?"
TUNING = Tuning((0.02, 0.04, 0.08), "validation_bits")

LONGER = 4  # times the length of training
BASE = {"n": 128, "d_model": 96, "heads": 3, "layers": 3, "batch": 8, "steps": 400}
BASE |= {"optimizer": "muon", "lr": 0.04, "weight_decay": 0.01, "passages": 128}
QUICK = {"n": 32, "d_model": 32, "heads": 2, "layers": 2, "steps": 4, "passages": 2}
CONTENDERS: dict[str, Setting] = {
    "full": {"pattern": "full"},
    "local 16": {"pattern": "local 16"},
    "local 16, sink": {"pattern": "local 16", "sink": True},
    "local 15 and the first": {"pattern": "prefix 1 | local 15"},
    "local 64": {"pattern": "local 64"},
    "local 64, sink": {"pattern": "local 64", "sink": True},
}
PAIRS = (
    ("local 16, sink", "local 16"),
    ("local 15 and the first", "local 16"),
    ("local 16, sink", "local 15 and the first"),
    ("local 64, sink", "local 64"),
    ("local 16", "full"),
    ("local 16, sink", "full"),
    ("local 16, sink", "local 64, sink"),
)
RESULTS = ("test_bits", "test_bits_longer")
WITHOUT = ("local 16, sink", "local 15 and the first", "local 64, sink")


def settings(quick: bool) -> list[Setting]:
    """All contenders, by name."""
    base = {**BASE, **QUICK} if quick else BASE
    return [{**base, **chosen, "name": name} for name, chosen in CONTENDERS.items()]


def model_of(setting: Setting) -> nn.Module:
    """A model of bytes, with learned sinks if the setting says so."""
    if not setting.get("sink"):
        return build(setting, BYTES, BYTES, causal=True)
    size = setting["d_model"], setting["heads"]
    layers = cycle(causal_layers(setting))
    return build(
        setting,
        BYTES,
        BYTES,
        causal=True,
        mixer=lambda: SinkAttention(*size, next(layers), rotary=True),
    )


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its bits at the length of training and beyond it."""
    torch.manual_seed(seed)
    model = model_of(setting).to(device)
    known, size = source_bytes("train"), (setting["batch"], setting["n"])

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        inputs, targets = windows_of(known, *size, generator)
        return begun(inputs), targets

    losses = train_as(setting, model, draw, seed)
    result = {"final_loss": losses[-1], "text": fingerprint()}
    for part in ("validation", "test"):
        result |= bits(model, setting, part)
    if setting["name"] in WITHOUT and "stage" not in setting:
        bare = bits(without_sink(model, setting), setting, "test")
        result |= {f"{name}_without": value for name, value in bare.items()}
    if setting.get("sink"):
        found = [block.mixer.sink.detach().cpu() for block in model.blocks]
        result["sinks"] = torch.cat(found).tolist()
    return result


def without_sink(model: nn.Module, setting: Setting) -> nn.Module:
    """Copy a model, without its sinks or the first token beside its window."""
    if not setting.get("sink"):
        return switched(model, setting, "local 15")
    bare = copy.deepcopy(model)
    for block in bare.blocks:
        block.mixer.sink.data.fill_(-torch.inf)
    return bare


def bits(model: nn.Module, setting: Setting, part: str) -> Result:
    """Bits of a byte in passages as in training; and beyond that, in longer ones."""
    n, count = setting["n"], setting["passages"]
    short, longer = (begun_passages(part, k * n, count) for k in (1, LONGER))
    return {
        f"{part}_bits": mean_bits(model, short),
        f"{part}_bits_longer": mean_bits(model, longer, first=n, batch=8),
    }


def begun_passages(part: str, n: int, count: int) -> Tensor:
    """Passages of n + 1 bytes from all over a part, each with the same first byte."""
    return begun(passages(part, n, count))


def by_seed(runs: Runs, result: str) -> dict[str, list[float]]:
    """What the first of each pair has more than the second, for each common seed."""
    return pairs_by_seed(runs, PAIRS, result)


def report(runs: Runs) -> str:
    """Bits of each contender at both lengths, then the pairs, seed by seed."""
    n = runs[0].setting["n"]
    rows = [
        (*group, len(part), *(part.spread(name) for name in RESULTS))
        for group, part in runs.groups("name", "lr")
    ]
    header = ("contender", "rate", "seeds", f"bits to {n}", f"from {n} to {LONGER * n}")
    return "\n\n".join((table(header, rows), differences(runs), bare(runs)))


def differences(runs: Runs) -> str:
    """The pairs with their intervals, at both lengths."""
    known = [by_seed(runs, name) for name in RESULTS]
    rows = []
    for pair, values in known[0].items():
        if len(values) >= LEAST_SEEDS:
            found = (str(interval(several[pair])) for several in known)
            rows.append((pair, len(values), *found))
    return table(("pair", "seeds", "at the length of training", "beyond it"), rows)


def bare(runs: Runs) -> str:
    """Bits of the models with sinks, with them and without."""
    columns = [f"{name}{end}" for name in RESULTS for end in ("", "_without")]
    rows = [
        (*group, len(part), *(part.spread(name) for name in columns))
        for group, part in runs.groups("name")
        if group[0] in WITHOUT
    ]
    return table(("contender", "seeds", "bits", "without", "beyond", "without"), rows)
