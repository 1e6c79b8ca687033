"""What the experiments share: a model for a setting, its training, its measures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.cost import LayerFlops, layer_flops
from attn_tutorial.experiments.named import named_patterns
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.instruments.advice import SHARE, advise_window
from attn_tutorial.instruments.distances import gradient_profile, smallest_window
from attn_tutorial.instruments.limits import RISE, losses_with_windows
from attn_tutorial.instruments.memory import saved_bytes
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.training import BatchFunction, fit
from attn_tutorial.networks.transformer import Transformer, layer_patterns
from attn_tutorial.patterns import Pattern, dense_mask

__all__ = [
    "WINDOWS",
    "build",
    "causal_layers",
    "counted",
    "evidence",
    "forward_flops",
    "kv_bytes",
    "labels",
    "mean_bits",
    "price",
    "share",
    "train_as",
    "training_bytes",
    "training_flops",
]

WINDOWS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # at which evidence is recorded
TRAINING = ("steps", "lr", "optimizer", "weight_decay", "label_smoothing")
BUILDING = ("num_kv_heads", "dropout", "share_layers")


def _chosen(setting: Setting, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: setting[key] for key in keys if key in setting}


def build(
    setting: Setting,
    num_tokens: int,
    num_labels: int,
    *,
    causal: bool,
    kind: type[Transformer] = Transformer,
    **changes: Any,
) -> Transformer:
    """Make the Transformer of a setting, with rotary positions."""
    return kind(
        num_tokens,
        num_labels,
        setting["d_model"],
        setting["heads"],
        setting["layers"],
        pattern=named_patterns(setting["pattern"], causal=causal),
        positions="rotary",
        **_chosen(setting, BUILDING),
        **changes,
    )


def train_as(
    setting: Setting,
    model: nn.Module,
    batch_fn: BatchFunction,
    seed: int,
    **options: Any,
) -> list[float]:
    """Train a model with the numbers of a setting; returns the losses."""
    return fit(model, batch_fn, seed=seed, **_chosen(setting, TRAINING), **options)


def training_bytes(model: nn.Module, *inputs: Tensor) -> int:
    """Bytes that a forward pass over these inputs keeps for the backward pass."""
    device = next(model.parameters()).device
    inputs = tuple(x.to(device) for x in inputs)
    return saved_bytes(lambda: model(*inputs))


def price(runs: Runs) -> tuple[str, str]:
    """MiB kept for a backward pass, and the quickest training's processor minutes.

    Example:
        >>> from attn_tutorial.experiments.records import Run
        >>> price(Runs([Run({}, 0, {"training_bytes": 2**20}, {"cpu_seconds": 90})]))
        ('1', '1.5')
    """
    minutes = min(run.made["cpu_seconds"] for run in runs) / 60
    return f"{runs.mean('training_bytes') / 2**20:.0f}", f"{minutes:.1f}"


@torch.no_grad()
def labels(model: nn.Module, inputs: Tensor, batch: int = 64) -> Tensor:
    """The label that the model ranks first, at every position; on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    parts = [model(part.to(device)).argmax(-1).cpu() for part in inputs.split(batch)]
    model.train()
    return torch.cat(parts)


def share(flags: Tensor, among: Tensor) -> float | None:
    """Share of the flags that are up; None if there is nothing to look at.

    Example:
        >>> share(torch.tensor([True, False, False]), torch.tensor([True, True, False]))
        0.5
    """
    return flags[among].float().mean().item() if among.any() else None


@torch.no_grad()
def mean_bits(
    model: nn.Module, passages: Tensor, *, first: int = 0, batch: int = 16
) -> float:
    """Mean bits that a model of bytes takes for the next byte.

    Args:
        model: Maps bytes (batch, n) to scores of the next one (batch, n, 256).
        passages: Bytes with the one that follows them, (count, n + 1).
        first: Position from which on it counts.
        batch: Passages that are read at once.
    """
    device, total = next(model.parameters()).device, 0.0
    model.eval()
    for rows in passages.to(device).split(batch):
        scores, targets = model(rows[:, :-1])[:, first:], rows[:, 1 + first :]
        lost = cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")
        total += lost.item()
    model.train()
    return total / passages[:, 1 + first :].numel() / math.log(2)


def causal_layers(setting: Setting) -> list[Pattern]:
    """The causal pattern of every layer."""
    several = named_patterns(setting["pattern"], causal=True)
    return layer_patterns(several, setting["layers"])


def kv_width(setting: Setting) -> int:
    """Numbers in a token's keys, of all heads that have their own."""
    kv_heads = setting.get("num_kv_heads", setting["heads"])
    return setting["d_model"] // setting["heads"] * kv_heads


def kv_bytes(setting: Setting) -> int:
    """Bytes of keys and values that generating the next token needs, in all layers.

    A layer keeps what one query can meet, w + 1 tokens for a window. Counts 4 bytes a
    number, and n tokens of context.
    """
    masks = [dense_mask(pattern, setting["n"]) for pattern in causal_layers(setting)]
    kept = sum(int(mask.sum(-1).max()) for mask in masks)
    return kept * 2 * kv_width(setting) * 4


def forward_flops(setting: Setting) -> list[LayerFlops]:
    """Operations of each layer on n tokens, with narrower keys for grouped heads."""
    size, width = (setting["n"], setting["d_model"]), kv_width(setting)
    return [layer_flops(p, *size, kv_width=width) for p in causal_layers(setting)]


def training_flops(setting: Setting) -> int:
    """Operations of a whole training that keeps to the pattern's pairs.

    Forward, Eq. (4) for each layer; the backward pass counts twice that. Embedding and
    last layer are left out.
    """
    forward = sum(map(sum, forward_flops(setting)))
    return 3 * forward * setting["batch"] * setting["steps"]


def evidence(model: Transformer, inputs: Tensor, targets: Tensor) -> Result:
    """What a model with full attention says about the window that it needs.

    Returns:
        For each of WINDOWS: the share of attention (mean over heads and layers) and of
        gradient within it, and the loss if it is imposed after training. And the
        windows that are advised: from attention and gradient at a tolerance of SHARE,
        and the smallest whose loss is at most RISE above that without a window.
    """
    device = next(model.parameters()).device
    inputs, targets = inputs.to(device), targets.to(device)
    model.eval()
    advice = advise_window(model, inputs)
    gradient = gradient_profile(model, inputs)
    losses = losses_with_windows(model, inputs, targets, WINDOWS)
    model.train()
    mean = torch.stack([profile.mean(0) for profile in advice.profiles]).mean(0)
    return {
        "attention_within": _within(mean),
        "gradient_within": _within(gradient),
        "loss_with_window": losses,
        "advised_by_attention": advice.windows,
        "advised_by_mean_attention": smallest_window(mean[None], advice.tolerance)[0],
        "advised_by_gradient": _from_gradient(gradient, len(model.blocks)),
        "advised_by_loss": _from_losses(losses),
        "first_token": advice.first_token,
    }


def _from_gradient(profile: Tensor, layers: int) -> int:
    """Window whose reach holds all but SHARE of what comes from other positions."""
    others = profile.clone()
    others[0] = 0
    (distance,) = smallest_window((others / others.sum())[None], SHARE)
    return math.ceil(distance / layers)


def _from_losses(losses: list[float]) -> int:
    """Smallest window with hardly more loss than the widest, which is no window."""
    good = [loss <= losses[-1] + RISE for loss in losses]
    return WINDOWS[good.index(True)]


def _within(profile: Tensor) -> list[float]:
    total = profile.cumsum(0)
    return [total[min(w, len(total) - 1)].item() for w in WINDOWS]


def counted(targets: Tensor) -> Tensor:
    """Where a target counts."""
    return targets != IGNORE
