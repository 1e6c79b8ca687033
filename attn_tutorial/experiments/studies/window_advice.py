"""Window advice: does the advice of a trained model name the window that it needs?

On the latch the need is known: with values at most g - 1 steps back, L layers need
L w >= g - 1, and the same of a block size. A model with full attention is trained and
asked; then models with windows are trained, and the smallest that does as well is the
answer to compare with.

The windows of other experiments are compared with, too. Their models with full
attention are trained again here, as far as it is needed to ask them how much context
their loss needs: that is not in their own records.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.comparison import LEAST_SEEDS
from attn_tutorial.experiments.data.corpora import source_bytes, windows_of
from attn_tutorial.experiments.data.roles import ROLES
from attn_tutorial.experiments.models import (
    build,
    counted,
    evidence,
    labels,
    share,
    train_as,
)
from attn_tutorial.experiments.records import (
    FOLDER,
    Result,
    Runs,
    Setting,
    load,
    record_path,
)
from attn_tutorial.experiments.studies import language_model, recall, tagging
from attn_tutorial.experiments.studies.latch import NOISE, VALUES
from attn_tutorial.experiments.studies.latch import draw as draw_latch
from attn_tutorial.experiments.tables import table
from attn_tutorial.experiments.window_rules import RULES, Task, score
from attn_tutorial.instruments.advice import advise_window
from attn_tutorial.instruments.distances import gradient_profile, smallest_block
from attn_tutorial.instruments.limits import (
    RISE,
    losses_with_context,
    losses_with_windows,
    narrow_layers,
    needed_context,
    with_blocks,
)
from attn_tutorial.networks.transformer import Transformer

__all__ = [
    "CONTEXTS",
    "QUESTION",
    "SOURCES",
    "latch_tasks",
    "needed",
    "other_tasks",
    "scores",
    "settings",
    "tasks",
    "train",
]

QUESTION = "Does the advice of a trained model name the window that it needs?"

GAPS = (5, 9, 17, 33)  # largest steps from one value to the next
BLOCKS = (1, 2, 4, 8, 16, 32)  # at which the loss is recorded
CONTEXTS = (0, 1, 2, 4, 8, 16, 32, 64)  # likewise
BASE = {"task": "latch", "n": 64, "d_model": 32, "heads": 2, "layers": 2}
BASE |= {"batch": 32, "steps": 250, "lr": 3e-3}
# The others: their runs, the result that decides, and its direction.
OTHERS = (
    ("recall", {"layers": 2}, "validation_accuracy", 1),
    ("tagging", {"steps": tagging.BASE["steps"]}, "validation_by_scope", 1),
    ("language_model", {"equal": "steps"}, "validation_bits", -1),
)
# Rates as tuning chose them for full attention, in recall and in language_model.
ASKED = (
    {"task": "recall", "layers": 2, **recall.SIZE, **recall.MUON, "lr": 0.04},
    {"task": "tagging", **tagging.BASE, "lr": 0.04},
    # Not the whole training: advice is wanted before all is paid for.
    {"task": "language_model", **language_model.BASE, "lr": 0.04, "steps": 300},
)


class Source(NamedTuple):
    """Where a task's sequences come from: (batch, n, generator) to (batch, n)."""

    num_tokens: int
    num_labels: int
    causal: bool
    draw: Callable[[int, int, Generator], tuple[Tensor, Tensor]]
    held_out: Callable[[int, int, Generator], tuple[Tensor, Tensor]]


def _recall(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    return recall.draw(batch, n, generator)[:2]


def _text(part: str) -> Callable[[int, int, Generator], tuple[Tensor, Tensor]]:
    return lambda batch, n, generator: windows_of(
        source_bytes(part), batch, n, generator
    )


def _roles(part: str) -> Callable[[int, int, Generator], tuple[Tensor, Tensor]]:
    return lambda batch, n, generator: tagging.draw(part, batch, n, generator)


SOURCES = {
    "recall": Source(
        recall.KEYS + recall.VALUES, recall.VALUES, True, _recall, _recall
    ),
    "tagging": Source(256, len(ROLES), False, _roles("train"), _roles("validation")),
    "language_model": Source(256, 256, True, _text("train"), _text("validation")),
}


def settings(quick: bool) -> list[Setting]:
    """Full attention, and windows and blocks around the size that theory names."""
    if quick:
        base = {**BASE, "max_gap": 5, "n": 32, "batch": 8, "steps": 8}
        return [{**base, "pattern": p} for p in ("full", "local 2", "blocks 2")]
    found = []
    for gap in GAPS:
        need = needed(gap, BASE["layers"])
        several = [need // 2, need, 2 * need]
        patterns = ["full", *(f"local {w}" for w in several)]
        if need > 2:
            patterns += [f"blocks {b}" for b in several]
        found += [{**BASE, "max_gap": gap, "pattern": p} for p in patterns]
    return found + [{**setting, "pattern": "full"} for setting in ASKED]


def needed(max_gap: int, layers: int) -> int:
    """The window that the latch needs, by Eq. (10), and the block size.

    Example:
        >>> needed(17, layers=2)
        8
    """
    return math.ceil((max_gap - 1) / layers)


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its quality, or the context that it needs, or both."""
    torch.manual_seed(seed)
    if setting["task"] == "latch":
        return _train_latch(setting, seed, device)
    source = SOURCES[setting["task"]]
    model = build(setting, *source[:2], causal=source.causal).to(device)
    size = setting["batch"], setting["n"]
    losses = train_as(setting, model, lambda g: source.draw(*size, g), seed)
    held_out = source.held_out(32, setting["n"], Generator().manual_seed(10**6 + 1))
    return {"final_loss": losses[-1], **context_evidence(model, *held_out)}


def _train_latch(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train a model on the latch; its accuracy, and its evidence if it is full."""
    model = build(setting, VALUES + NOISE, VALUES, causal=True).to(device)
    size = setting["batch"], setting["n"], setting["max_gap"]
    losses = train_as(setting, model, lambda g: draw_latch(*size, g), seed)
    result = {"final_loss": losses[-1]}
    for part, held_out in (("test", 10**6), ("validation", 10**6 + 1)):
        generator = Generator().manual_seed(held_out)
        inputs, targets = draw_latch(256, *size[1:], generator)
        right = labels(model, inputs) == targets
        result[f"{part}_accuracy"] = share(right, counted(targets))
    if setting["pattern"] == "full":
        inputs, targets = inputs[:32].to(device), targets[:32].to(device)
        result |= evidence(model, inputs, targets)
        result |= context_evidence(model, inputs, targets)
        result |= block_evidence(model, inputs, targets)
    return result


def context_evidence(model: Transformer, inputs: Tensor, targets: Tensor) -> Result:
    """The context that a loss needs, the loss at CONTEXTS, and narrowed windows."""
    device = next(model.parameters()).device
    held_out = inputs.to(device), targets.to(device)
    model.eval()
    return {
        "needed_context": needed_context(model, *held_out),
        "loss_with_context": losses_with_context(model, *held_out, CONTEXTS),
        "narrowed": narrow_layers(model, *held_out),
    }


def block_evidence(model: Transformer, inputs: Tensor, targets: Tensor) -> Result:
    """What a model says about block sizes, and its profiles, averaged over all heads.

    Blocks by attention keep 95 % of it; by the loss, they cost at most RISE.
    """
    advice = advise_window(model, inputs)
    mean = torch.stack([profile.mean(0) for profile in advice.profiles]).mean(0)
    imposed = {"limit": with_blocks}
    losses = losses_with_windows(model, inputs, targets, BLOCKS, **imposed)
    # The widest blocks of BLOCKS leave no pair out of a text of 64.
    good = [loss <= losses[-1] + RISE for loss in losses]
    return {
        "attention_by_distance": mean.tolist(),
        "gradient_by_distance": gradient_profile(model, inputs).tolist(),
        "loss_with_blocks": losses,
        "blocks_by_loss": BLOCKS[good.index(True)],
        "blocks_by_attention": advice.block_sizes,
        "blocks_by_mean_attention": smallest_block(mean[None], advice.tolerance)[0],
        "narrowed_blocks": narrow_layers(model, inputs, targets, **imposed),
    }


def latch_tasks(runs: Runs) -> list[Task]:
    """The latches with different largest gaps, and the kinds of patterns."""
    latch = runs.where(task="latch")
    names = {"local": "latch {}", "adjacent_blocks": "latch {}, blocks"}
    found = [
        Task(name.format(gap), part, known=needed(gap, layers), kind=kind)
        for kind, name in names.items()
        for (gap, layers), part in latch.groups("max_gap", "layers")
    ]
    return [task for task in found if task.full and task.sizes]


def other_tasks(runs: Runs, folder: Path = FOLDER) -> list[Task]:
    """Tasks of other experiments, as far as they are recorded with all seeds."""
    found = []
    for name, chosen, quality, sign in OTHERS:
        if record_path(name, folder).exists():
            recorded = load(name, folder).final.where(**chosen)
            asked = runs.where(task=name)
            title = name.replace("_", " ")
            found.append(Task(title, recorded, quality, sign, asked=asked))
    return [task for task in found if _is_complete(task)]


def _is_complete(task: Task) -> bool:
    """Whether full attention and every window were trained with enough seeds."""
    seeds = [len(task.full), *map(len, task.sizes.values())]
    return len(seeds) > 1 and min(seeds) >= LEAST_SEEDS


def tasks(runs: Runs, folder: Path = FOLDER) -> list[Task]:
    """All tasks: where theory knows the answer, and where only training does."""
    return [*latch_tasks(runs), *other_tasks(runs, folder)]


def report(runs: Runs) -> str:
    """What theory needs, what training shows, what each rule says, and its score."""
    known = tasks(runs)
    rows = [
        ("by theory", *(task.known for task in known)),
        ("smallest as good", *(task.smallest_as_good() for task in known)),
        *((rule, *(task.outcome(rule) for task in known)) for rule in RULES),
    ]
    names = [task.name for task in known]
    return f"{table(('rule', *names), rows)}\n\n{scores(known)}"


def scores(known: list[Task]) -> str:
    """Hits and misses of every rule, and what the misses cost.

    How many times too wide is the geometric mean over the tasks where it is; what is
    lost is the most that any too narrow advice costs.
    """
    rows = []
    for rule in RULES:
        found = score(known, rule)
        wide, narrow = str(len(found.wide)), str(len(found.narrow))
        if found.wide:
            wide += f" ({statistics.geometric_mean(found.wide):.1f}x)"
        if found.narrow:
            narrow += f" ({max(found.narrow):.3f})"
        rows.append((rule, found, wide, narrow))
    header = ("rule", "hits", "too wide (times)", "too narrow (lost)")
    return table(header, rows)
