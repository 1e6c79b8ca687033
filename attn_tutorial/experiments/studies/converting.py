"""Converting: what does a dense model lose when its layers are given windows?

A model of bytes is trained with full causal attention. Then its layers are switched to
a window, alone or with the first tokens kept beside it (sinks), at an equal number of
keys. Its bits are measured at once, layer by layer, and after a short tuning. There are
two controls: the dense model after the same tuning, and a model that had the window
from its first step and as many steps in all.

Every passage begins with the same byte, as the texts of large models do. The rate is
the one that ``language_model`` chose for full attention; no setting is tuned here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.corpora import fingerprint, source_bytes, windows_of
from attn_tutorial.experiments.models import build, causal_layers, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.studies.language_model import BYTES, MUON, passages
from attn_tutorial.experiments.tables import table
from attn_tutorial.instruments.heads import sink_share
from attn_tutorial.networks.transformer import Transformer

__all__ = ["KEYS", "QUESTION", "SINKS", "settings", "switched", "targets", "train"]

QUESTION = "What does a dense model lose when its layers are given windows?"

KEYS = (8, 16, 32, 64, 128)  # that a query meets, with a switch and no tuning
SINKS = 4
BEGIN = 0  # the byte with which every passage begins
BASE = {"n": 256, "d_model": 96, "heads": 3, "layers": 3, "batch": 4, "passages": 64}
BASE |= {**MUON, "lr": 0.04, "steps": 300, "keys": 16}
BASE |= {"tuning_steps": 60, "tuning_lr": 0.01}
QUICK = {"n": 64, "d_model": 32, "heads": 2, "layers": 2, "steps": 6, "passages": 2}
QUICK |= {"tuning_steps": 2}


def settings(quick: bool) -> list[Setting]:
    """The dense model that is converted, and one with the window from the start."""
    base = {**BASE, **QUICK} if quick else BASE
    window = targets(base["keys"])["window"]
    return [{"pattern": pattern, **base} for pattern in ("full", window)]


def targets(keys: int) -> dict[str, str]:
    """What a dense model is switched to, by name: each query meets so many keys.

    Example:
        >>> targets(16)
        {'window': 'local 15', 'sinks': 'prefix 4 | local 11'}
    """
    return {
        "window": f"local {keys - 1}",
        "sinks": f"prefix {SINKS} | local {keys - SINKS - 1}",
    }


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train a model, and convert it if it is dense."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    if setting["pattern"] != "full":
        steps = setting["steps"] + setting["tuning_steps"]
        fitted(model, {**setting, "steps": steps}, seed)
        return {"bits": bits(model, setting), "text": fingerprint()}
    fitted(model, setting, seed)
    result = {"bits": bits(model, setting), "text": fingerprint()}
    result["first_token"] = first_token(model, setting)
    for name, text in targets(setting["keys"]).items():
        result |= layer_by_layer(model, setting, name, text)
    result |= narrowed(model, setting)
    return result | tuned(model, setting, seed)


# Training


def fitted(model: Transformer, setting: Setting, seed: int) -> Transformer:
    """Train on passages of program text."""
    text, size = source_bytes("train"), (setting["batch"], setting["n"])

    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        inputs, wanted = windows_of(text, *size, generator)
        return begun(inputs), wanted

    train_as(setting, model, draw, seed)
    return model


def begun(inputs: Tensor) -> Tensor:
    """Passages (batch, n) whose first byte is the one that begins a text."""
    inputs = inputs.clone()
    inputs[:, 0] = BEGIN
    return inputs


def switched(
    model: Transformer, setting: Setting, text: str, layers: Iterable[int] | None = None
) -> Transformer:
    """Copy a model and give some of its layers another causal pattern.

    Args:
        model: A trained model.
        setting: Its setting.
        text: The pattern, as records spell it.
        layers: Which layers, from 0; all if None.
    """
    changed = copy.deepcopy(model)
    several = causal_layers({**setting, "pattern": text})
    for k in range(len(several)) if layers is None else layers:
        changed.blocks[k].mixer.pattern = several[k]
    return changed


def tuned(model: Transformer, setting: Setting, seed: int) -> Result:
    """Bits after the short tuning: of the dense model, and switched to each target."""
    numbers = {"steps": setting["tuning_steps"], "lr": setting["tuning_lr"]}
    short, result = {**setting, **numbers}, {}
    for name, text in {"full": "full", **targets(setting["keys"])}.items():
        changed = switched(model, setting, text)
        fitted(changed, short, seed + 500)  # batches that it has not seen
        result[f"tuned_{name}"] = bits(changed, setting)
    return result


# Measuring


@torch.no_grad()
def bits(model: Transformer, setting: Setting) -> float:
    """Mean bits of a byte of the test part, in the last three quarters of a passage.

    There a window of up to a quarter has left the first tokens behind.
    """
    text = passages("test", setting["n"], setting["passages"])
    inputs, wanted = begun(text[:, :-1]), text[:, 1:]
    device, start = next(model.parameters()).device, setting["n"] // 4
    model.eval()
    scores = torch.cat([model(x.to(device)).cpu() for x in inputs.split(16)])
    model.train()
    rest = scores[:, start:].flatten(0, 1), wanted[:, start:].flatten()
    return cross_entropy(*rest).item() / math.log(2)


@torch.no_grad()
def first_token(model: Transformer, setting: Setting) -> list[float]:
    """Mean weight of each head on the first token, layer after layer."""
    inputs = begun(passages("test", setting["n"], 8)[:, :-1])
    device = next(model.parameters()).device
    model.eval()
    maps = model.attention_maps(inputs.to(device))
    model.train()
    shares = [sink_share(weights, first=setting["n"] // 4) for weights in maps]
    return torch.cat(shares).tolist()


def layer_by_layer(
    model: Transformer, setting: Setting, name: str, text: str
) -> Result:
    """Bits with the first k layers switched, k = 0 ... L; the last k; and one alone."""
    depth = setting["layers"]
    layers = range(depth)

    def with_switched(chosen: Iterable[int]) -> float:
        return bits(switched(model, setting, text, chosen), setting)

    return {
        f"first_{name}": [with_switched(layers[:k]) for k in range(depth + 1)],
        f"last_{name}": [with_switched(layers[depth - k :]) for k in range(depth + 1)],
        f"only_{name}": [with_switched([k]) for k in layers],
    }


def narrowed(model: Transformer, setting: Setting) -> Result:
    """Bits of the dense model with all layers switched, for other numbers of keys."""
    names, result = targets(KEYS[0]), {}
    for name in names:
        patterns = [targets(keys)[name] for keys in KEYS if keys < setting["n"]]
        found = [bits(switched(model, setting, text), setting) for text in patterns]
        result[f"by_keys_{name}"] = found
    return result


# Reading the record


def last_of(runs: Runs, name: str) -> Runs:
    """The last entry of a list of every run, as its result of the same name."""
    return Runs(replace(run, result={name: run.result[name][-1]}) for run in runs)


def report(runs: Runs) -> str:
    """Before, after the switch, after the tuning; then layer by layer, and by keys."""
    dense = runs.where(pattern="full")
    parts = [before_and_after(runs, dense), by_layer(dense), by_keys(dense)]
    return "\n\n".join([*parts, first_tokens(dense)])


def before_and_after(runs: Runs, dense: Runs) -> str:
    """Bits with their spread: the dense model, and what it was converted to."""
    head = ("layers", "seeds", "trained", "switched", "tuned")
    trained, tuned = (dense.spread(name) for name in ("bits", "tuned_full"))
    rows = [("full", len(dense), trained, None, tuned)]
    known = targets(dense[0].setting["keys"])
    for name, text in known.items():
        first = f"first_{name}"
        after = last_of(dense, first).spread(first), dense.spread(f"tuned_{name}")
        rows.append((text, len(dense), None, *after))
    start = runs.where(pattern=known["window"])
    trained = start.spread("bits")
    rows.append((f"{known['window']} from the start", len(start), trained, None, None))
    return table(head, rows)


def by_layer(dense: Runs) -> str:
    """Mean bits with the first k layers switched, the last k, or layer k alone."""
    columns, rows = range(dense[0].setting["layers"] + 1), []
    for name in targets(dense[0].setting["keys"]):
        for way in ("first k", "last k", "only k"):
            found = dense.mean(f"{way.split()[0]}_{name}")
            cells = [f"{x:.4f}" for x in found] + [None] * (way == "only k")
            rows.append((f"{way}, {name}", *cells))
    return table(("layers switched, k =", *map(str, columns)), rows)


def by_keys(dense: Runs) -> str:
    """Mean bits with all layers switched and no tuning, by the number of keys."""
    found = {name: dense.mean(f"by_keys_{name}") for name in targets(KEYS[0])}
    rows = [(name, *(f"{x:.4f}" for x in bits)) for name, bits in found.items()]
    shown = KEYS[: len(rows[0]) - 1]
    return table(("keys of a query", *map(str, shown)), rows)


def first_tokens(dense: Runs) -> str:
    """Largest and mean weight of the heads of each layer on the first token."""
    heads, shares = dense[0].setting["heads"], dense.values("first_token")
    rows = []
    for k in range(dense[0].setting["layers"]):
        found = [x for seed in shares for x in seed[k * heads : (k + 1) * heads]]
        mean = sum(found) / len(found)
        rows.append((k, f"{100 * mean:.2g} %", f"{100 * max(found):.2g} %"))
    return table(("layer", "weight on the first token", "of one head, at most"), rows)
