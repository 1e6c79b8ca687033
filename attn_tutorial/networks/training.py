"""The training loop that every trained chapter shares: short, seeded, CPU-sized."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode

from attn_tutorial.checks import check_count
from attn_tutorial.networks.tasks import IGNORE

__all__ = [
    "OPTIMIZERS",
    "accuracy",
    "adamw",
    "fit",
    "muon",
    "sgd",
    "trajectory",
]

BatchFunction = Callable[[Generator], tuple[Tensor, ...]]
LossFunction = Callable[[Tensor, Tensor], Tensor]
Optimizers = list[torch.optim.Optimizer]
WARM_UP = 0.05  # share of the steps in which the learning rate rises
PRODUCTS = (torch.addmm, Tensor.matmul, Tensor.__matmul__)


def adamw(model: nn.Module, lr: float, weight_decay: float = 0.01) -> Optimizers:
    """AdamW, Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    All but the rate and the decay as in PyTorch.
    """
    return [torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)]


def sgd(model: nn.Module, lr: float, weight_decay: float = 0.0) -> Optimizers:
    """Gradient descent with Nesterov's momentum of 0.9."""
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": weight_decay}
    return [torch.optim.SGD(model.parameters(), lr=lr, **options)]


def muon(model: nn.Module, lr: float, weight_decay: float = 0.01) -> Optimizers:
    """Muon for the matrices inside the layers, AdamW at lr / 10 for all else.

    Muon makes each step of a matrix orthogonal, so that all its directions move
    alike (Jordan et al., 2024). Embeddings, the last layer, gains and biases are no
    such matrices.

    Raises:
        RuntimeError: If this version of PyTorch has no ``torch.optim.Muon``.
    """
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(f"torch {torch.__version__} has no Muon: 2.9 or newer has")
    outside = {id(p) for m in model.modules() for p in _own_if_embedding(m)}
    outside |= {id(p) for name, p in model.named_parameters() if "head" in name}
    inside = [p for p in model.parameters() if p.ndim == 2 and id(p) not in outside]
    matrices = {id(p) for p in inside}
    rest = [p for p in model.parameters() if id(p) not in matrices]
    return [
        torch.optim.Muon(inside, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr / 10, weight_decay=weight_decay),
    ]


def _own_if_embedding(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters()) if isinstance(module, nn.Embedding) else []


OPTIMIZERS = {"adamw": adamw, "sgd": sgd, "muon": muon}


def fit(
    model: nn.Module,
    batch_fn: BatchFunction,
    *,
    steps: int,
    lr: float = 3e-3,
    seed: int = 0,
    optimizer: str = "adamw",
    weight_decay: float = 0.01,
    label_smoothing: float = 0.0,
    loss_fn: LossFunction | None = None,
) -> list[float]:
    """Train ``model`` to predict targets, on fresh batches, by AdamW unless told else.

    The learning rate rises for 5 % of the steps and falls to zero along a cosine;
    gradients are clipped to norm 1. Seed the model's own weights before you build it.

    Args:
        model: Called on a batch without its last tensor; returns (batch, n, labels).
        batch_fn: Takes a generator; returns inputs and, last, targets (batch, n).
        steps: Number of batches.
        lr: Highest learning rate.
        seed: Seed of the generator that draws the batches.
        optimizer: "adamw", "sgd" or "muon".
        weight_decay: How strongly weights are pulled to zero.
        label_smoothing: Share of a target that is spread over all labels.
        loss_fn: Takes scores and targets; cross-entropy at every position if None.

    Returns:
        The loss of each step.
    """
    check_count("steps", steps, least=1)
    optimizers = _optimizers(model, optimizer, lr, weight_decay)
    generator, losses = Generator().manual_seed(seed), []
    loss_fn = loss_fn or functools.partial(_each_position, smoothing=label_smoothing)
    for step in range(steps):
        batch, factor = batch_fn(generator), _schedule(step, steps)
        losses.append(_step(model, optimizers, batch, factor, loss_fn))
    return torch.stack(losses).tolist()


def trajectory(
    model: nn.Module,
    batch_fn: BatchFunction,
    *,
    lengths: Sequence[int],
    decay: float = 0.2,
    warm_up: int = 20,
    lr: float = 3e-3,
    seed: int = 0,
    optimizer: str = "adamw",
    weight_decay: float = 0.01,
) -> Iterator[tuple[int, nn.Module]]:
    """Train once, and say what trainings of several lengths would have ended with.

    The learning rate rises for ``warm_up`` steps and then stays (Hägele et al., 2024).
    For each length, a copy leaves the way when only the last ``decay`` of it is left:
    it goes on from the same weights, the same state of the optimizer and of the
    generator of batches, while its rate falls to zero along a line. What it ends with
    is what a training of that length alone ends with. ``model`` itself never decays.

    Args:
        model: As in ``fit``; trained in place.
        batch_fn: As in ``fit``.
        lengths: Steps of each training, its decay included.
        decay: Share of a length in which the rate falls.
        warm_up: Steps in which the rate rises; at most those before the first decay.
        lr: Highest learning rate.
        seed: As in ``fit``.
        optimizer: As in ``fit``.
        weight_decay: As in ``fit``.

    Yields:
        Each length, from the shortest on, and the model that it ends with.

    Raises:
        ValueError: If the first decay would begin before the rate has risen.
    """
    check_count("warm_up", warm_up, least=0)
    optimizers = _optimizers(model, optimizer, lr, weight_decay)
    generator, done = Generator().manual_seed(seed), 0
    for length in sorted(lengths):
        falling = round(decay * length)
        if length - falling < warm_up:
            raise ValueError(
                f"warm_up must be at most {length - falling}, where the decay of "
                f"length {length} begins, got {warm_up}"
            )
        for step in range(done, length - falling):
            factor = min(1.0, (step + 1) / max(1, warm_up))
            _step(model, optimizers, batch_fn(generator), factor)
        done = length - falling
        branch = copy.deepcopy((model, optimizers))
        batches = Generator().set_state(generator.get_state())
        for step in range(falling):
            _step(*branch, batch_fn(batches), 1 - (step + 1) / (falling + 1))
        yield length, branch[0]


def _optimizers(model: nn.Module, name: str, lr: float, decay: float) -> Optimizers:
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {list(OPTIMIZERS)}, got {name!r}")
    return OPTIMIZERS[name](model, lr, decay)


def _step(
    model: nn.Module,
    optimizers: Optimizers,
    batch: tuple[Tensor, ...],
    factor: float,
    loss_fn: LossFunction | None = None,
) -> Tensor:
    """Take a step at ``factor`` times the highest rates; returns the loss before it."""
    device = next(model.parameters()).device
    *inputs, targets = (x.to(device) for x in batch)
    loss = (loss_fn or _each_position)(model(*inputs), targets)
    model.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    _advance(optimizers, factor)
    return loss.detach()


def _each_position(scores: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of all positions that count."""
    options = {"ignore_index": IGNORE, "label_smoothing": smoothing}
    return cross_entropy(scores.flatten(0, -2), targets.flatten(), **options)


def _advance(optimizers: Optimizers, factor: float) -> None:
    """Take one step at ``factor`` times the highest learning rates."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("highest", group["lr"])
            group["lr"] = group["highest"] * factor
        with _RoundedProducts():
            optimizer.step()


class _RoundedProducts(TorchFunctionMode):
    """On a CPU, products of bfloat16 matrices are made in float32, then rounded.

    ``torch.optim.Muon`` asks for bfloat16, and gets the same numbers within their
    rounding. A CPU without units for bfloat16 would need ten times as long for them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in PRODUCTS and all(_is_coarse(x) for x in args):
            return func(*(x.float() for x in args), **(kwargs or {})).bfloat16()
        return func(*args, **(kwargs or {}))


def _is_coarse(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu"


def _schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: a linear rise, then half a cosine down to 0."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


@torch.no_grad()
def accuracy(model: nn.Module, batch_fn: BatchFunction, *, seed: int = 1) -> float:
    """Share of the targets that the model ranks first, on one batch.

    Args:
        model: As in ``fit``.
        batch_fn: As in ``fit``.
        seed: Seed of the batch; use another one than in ``fit``.
    """
    device = next(model.parameters(), torch.empty(0)).device
    batch = batch_fn(Generator().manual_seed(seed))
    *inputs, targets = (x.to(device) for x in batch)
    right = model(*inputs).argmax(-1) == targets
    counted = targets != IGNORE
    return (right[counted].sum() / counted.sum()).item()
