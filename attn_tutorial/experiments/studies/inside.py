"""Inside: what do the heads of trained models attend to, and what hangs on it?

Two tasks, and full attention against windows on both:

- bytes: the language models of ``language_model``, a smaller size. Nobody knows what
  their heads should do, so they are only described.
- copy: a random sequence of tokens that repeats itself after a random number of steps.
  To go on, find the last time that this token stood here, and say what came next. That
  takes two layers (an *induction head* and one that it relies on), and what heads do is
  tested by silencing them.

No setting is tuned: the runs describe, and none is called better than another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.corpora import source_bytes
from attn_tutorial.experiments.models import WINDOWS, build, labels, share, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.studies import language_model
from attn_tutorial.experiments.tables import table
from attn_tutorial.instruments.distances import distance_profile
from attn_tutorial.instruments.heads import (
    entropy,
    gradient_size,
    induction_score,
    looks_back,
    rank_correlation,
    replacement_effect,
    rollout,
    sink_share,
    without_heads,
)
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.training import BatchFunction
from attn_tutorial.networks.transformer import Transformer

__all__ = ["PERIODS", "QUESTION", "draw", "probe", "settings", "train"]

QUESTION = "What do trained heads attend to, and what hangs on it?"

TOKENS = 32  # of the copying task
LEARNED = (4, 24)  # shortest and longest period in training
PERIODS = range(4, 32)  # at which accuracy is recorded
PROBE = 16  # period of the text on which copying heads are measured
BLOCKS = 20  # of steps, in which the course of a training is recorded
TEXTS = 8  # in which attributions are compared
RANGES = {
    "mean_distance": "mean distance",
    "effective_keys": "effective keys",
    "first_token": "first token",
    "previous": "token before",
    "induction": "induction",
}

WRITER = {"task": "bytes", **language_model.SMALL, **language_model.MUON}
COPIER = {"task": "copy", "n": 64, "d_model": 64, "heads": 2, "layers": 2, "batch": 16}
COPIER |= {"steps": 400, "optimizer": "adamw", "lr": 3e-3}
WRITERS = ("full", "local 16", "local 16 + global 1", "local 16, full", "blocks 32")
COPIERS = (
    ("full", 2),
    ("full", 1),
    ("local 8", 2),
    ("local 16", 2),
    ("local 1, full", 2),
    ("local 1, local 8", 2),
    ("local 1, local 16", 2),
)


def settings(quick: bool) -> list[Setting]:
    """Models of bytes, and models that copy."""
    if quick:
        small = {**language_model.QUICK, "n": 128}
        return [{**WRITER, **small}, {**COPIER, "pattern": "full", "steps": 8}]
    writers = [{**WRITER, "pattern": pattern} for pattern in WRITERS]
    copiers = [{**COPIER, "pattern": p, "layers": layers} for p, layers in COPIERS]
    return copiers + writers


def draw(
    batch: int, n: int, generator: Generator, periods: tuple[int, int] = LEARNED
) -> tuple[Tensor, Tensor]:
    """Draw sequences of different tokens that repeat, and the tokens to come.

    Args:
        batch: Number of sequences.
        n: Their length.
        generator: Source of randomness.
        periods: Shortest and longest period; each sequence draws its own.

    Returns:
        Inputs and targets, both (batch, n); targets are ``IGNORE`` up to the first
        token that is repeated, since nothing tells it.
    """
    shortest, longest = periods
    period = torch.randint(shortest, longest + 1, (batch, 1), generator=generator)
    order = torch.rand(batch, TOKENS, generator=generator).argsort(1)
    place = torch.arange(n + 1)
    text = order.gather(1, place % period)
    known = place[1:] > period
    return text[:, :-1], text[:, 1:].where(known, IGNORE)


def probe(period: int, count: int = 64, n: int | None = None) -> tuple[Tensor, Tensor]:
    """The held-out sequences of one period: two copies of it, unless n is given."""
    generator = Generator().manual_seed(10**6)
    return draw(count, n or 2 * period, generator, (period, period))


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model, and measure its heads."""
    copies = setting["task"] == "copy"
    torch.manual_seed(seed)
    vocabulary = TOKENS if copies else language_model.BYTES
    model = build(setting, vocabulary, vocabulary, causal=True).to(device)
    return (train_copier if copies else train_writer)(model, setting, seed)


def train_copier(model: Transformer, setting: Setting, seed: int) -> Result:
    """Train a model to copy; its accuracy by period, and what its heads do."""
    best_scores: list[tuple[float, float]] = []
    losses = train_as(setting, model, watched(model, setting, best_scores), seed)
    course = torch.tensor(losses).tensor_split(len(best_scores))
    best_induction, best_previous = zip(*best_scores, strict=True)
    accuracy = []
    for period in PERIODS:
        inputs, targets = probe(period, count=32, n=setting["n"])
        accuracy.append(share(labels(model, inputs) == targets, targets != IGNORE))
    inputs, targets = (part.to(device_of(model)) for part in probe(PROBE))
    model.eval()
    before = inputs[:, :PROBE]  # the first copy, in which there is nothing to find
    result = {
        "final_loss": losses[-1],
        "losses": [part.mean().item() for part in course],
        "best_induction": list(best_induction),
        "best_previous": list(best_previous),
        "accuracy_by_period": accuracy,
        "first_token_in_first_copy": measures(model, before)["first_token"],
    }
    result |= measures(model, inputs) | silenced(model, inputs, targets)
    result["induction"] = per_head(model, inputs, lambda w: induction_score(w, PROBE))
    return result | rank_agreement(model, inputs[:TEXTS])


def watched(
    model: Transformer, setting: Setting, scores: list[tuple[float, float]]
) -> BatchFunction:
    """Batches to copy. On the way, the scores of the best heads are noted in a list."""
    step, every = itertools.count(), math.ceil(setting["steps"] / BLOCKS)
    text, _ = probe(PROBE, count=16)

    def batch(generator: Generator) -> tuple[Tensor, Tensor]:
        if next(step) % every == 0:
            inputs = text.to(device_of(model))
            induction = per_head(model, inputs, lambda w: induction_score(w, PROBE))
            previous = per_head(model, inputs, lambda w: looks_back(w, 1))
            scores.append((max(induction), max(previous)))
        return draw(setting["batch"], setting["n"], generator)

    return batch


def train_writer(model: Transformer, setting: Setting, seed: int) -> Result:
    """Train a model of bytes; its bits, and what its heads do."""
    n = setting["n"]
    result = language_model.train_on(source_bytes("train"), model, setting, seed)
    text = language_model.passages("validation", n, 16).to(device_of(model))
    model.eval()
    result |= measures(model, text[:, :-1])
    result |= silenced(model, text[:, :-1], text[:, 1:])
    shuffled = text[:, torch.randperm(n // 4, generator=Generator().manual_seed(0))]
    twice = shuffled.repeat(1, 2)
    result["induction"] = per_head(model, twice, lambda w: induction_score(w, n // 4))
    result |= bits_of_copies(model, twice)
    return result | rank_agreement(model, text[:TEXTS, : n // 4])


def device_of(model: nn.Module) -> torch.device:
    """Where a model is."""
    return next(model.parameters()).device


@torch.no_grad()
def per_head(
    model: Transformer, inputs: Tensor, measure: Callable[[Tensor], Tensor]
) -> list:
    """One measure of every head, layer after layer."""
    maps = model.attention_maps(inputs)
    return torch.cat([measure(weights) for weights in maps]).flatten().tolist()


def measures(model: Transformer, inputs: Tensor) -> Result:
    """Describe every head, by the queries in the second half of the inputs.

    Returns:
        Lists over the heads, layer after layer: the mean distance of what it attends
        to; the share within each of WINDOWS below n (a run of them for each head); its
        entropy in bits, the effective number of keys, and how many keys there are; and
        its mean weight on the first token, on the query itself and on the token before.
    """
    n = inputs.shape[-1]
    half = n // 2
    distance = torch.arange(n, dtype=torch.float64)
    measured = {
        "mean_distance": lambda w: distance_profile(w) @ distance,
        "within": lambda w: distance_profile(w).cumsum(-1)[:, [*windows_below(n)]],
        "entropy": lambda w: entropy(w)[..., half:].mean((0, 2)),
        "effective_keys": lambda w: entropy(w)[..., half:].exp2().mean((0, 2)),
        "available_keys": lambda w: (
            (w > 0)[..., half:, :].sum(-1).double().mean((0, 2))
        ),
        "first_token": lambda w: sink_share(w, first=half),
        "itself": lambda w: looks_back(w, 0, first=half),
        "previous": lambda w: looks_back(w, 1, first=half),
    }
    return {name: per_head(model, inputs, f) for name, f in measured.items()}


def windows_below(n: int) -> list[int]:
    """Those of WINDOWS that a text of n tokens has."""
    return [w for w in WINDOWS if w < n]


def silenced(model: Transformer, inputs: Tensor, targets: Tensor) -> Result:
    """Loss in nats with all heads, without each, and without each layer's heads."""
    layers = [
        [(layer, head) for head in range(block.mixer.num_heads)]
        for layer, block in enumerate(model.blocks)
    ]
    each = [[head] for layer in layers for head in layer]

    def losses(several: list) -> list[float]:
        return [loss(without_heads(model, heads), inputs, targets) for heads in several]

    (whole,) = losses([[]])
    found = {"loss_without": losses(each), "loss_without_layer": losses(layers)}
    return {"loss": whole, **found}


@torch.no_grad()
def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Mean cross-entropy in nats."""
    scores = model(inputs).flatten(0, 1)
    return cross_entropy(scores, targets.flatten(), ignore_index=IGNORE).item()


@torch.no_grad()
def bits_of_copies(model: nn.Module, twice: Tensor) -> Result:
    """Bits per byte in the first copy of a text, and in the second."""
    scores, wanted = model(twice[:, :-1]).mT, twice[:, 1:]
    bits = cross_entropy(scores, wanted, reduction="none").mean(0) / math.log(2)
    period = twice.shape[1] // 2
    first, second = bits[: period - 1], bits[period:]
    return {
        "first_copy_bits": first.mean().item(),
        "second_copy_bits": second.mean().item(),
    }


def rank_agreement(model: Transformer, texts: Tensor) -> Result:
    """Compare what attention, its rollout and the gradient say of the last output.

    The control is nearness, which ranks the tokens by their place alone.

    What they are compared with is the effect of replacing each token before it. The
    last token itself is left out: that it matters most would be no news.

    Returns:
        Lists over the texts: the rank correlation of each with the effect, and of
        attention with the gradient; and shares of texts in which the token it ranks
        first is the one whose replacement matters most.
    """
    place = texts.shape[1] - 1
    effects = [replacement_effect(model, text, place)[:place] for text in texts]
    effect = torch.stack(effects)  # (texts, place)
    maps = model.attention_maps(texts)
    mean = torch.stack([weights.mean(1) for weights in maps]).mean(0)
    said = {
        "attention": mean[:, place, :place].detach(),
        "rollout": rollout(maps)[:, place, :place].detach(),
        "gradient": gradient_size(model, texts, place)[:, :place],
        "nearness": torch.arange(place).expand_as(effect).to(effect),
    }
    found = {
        f"{k}_effect": rank_correlation(v, effect).tolist() for k, v in said.items()
    }
    both = rank_correlation(said["attention"], said["gradient"])
    best = effect.argmax(-1)
    right = {
        f"{k}_first": share(v.argmax(-1) == best, best >= 0) for k, v in said.items()
    }
    return found | {"attention_gradient": both.tolist()} | right


def report(runs: Runs) -> str:
    """What the models can do, and the range of their heads, over all seeds."""
    parts = []
    for (task,), part in runs.groups("task"):
        score = "loss" if task == "copy" else "test_bits"
        header = ("task", "pattern", "layers", "seeds", score, *RANGES.values())
        rows = [
            (task, *group, len(some), some.spread(score), *ranges(some))
            for group, some in part.groups("pattern", "layers")
        ]
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def ranges(runs: Runs) -> list[str]:
    """Smallest and largest of each measure, over all heads and seeds."""
    found = [[x for heads in runs.values(name) for x in heads] for name in RANGES]
    return [f"{min(heads):.3g} to {max(heads):.3g}" for heads in found]
