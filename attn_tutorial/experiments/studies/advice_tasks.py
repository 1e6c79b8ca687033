"""Advice on new tasks: do the rules for windows hold where they were not made?

Twelve tasks that no rule was made on, none of them a latch. Each is trained with full
attention and with every window that is a power of two, each at its own best rate. The
trained models with full attention are asked for advice, which is judged by what the
rules go by themselves: the loss on the validation part. The smallest window that costs
no more than ``RISE`` (or twice the deviation of the seeds) is the right answer. A miss
has its price: how many times too wide the window is, or what a narrow one loses.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.puzzles import PUZZLES
from attn_tutorial.experiments.models import (
    build,
    counted,
    evidence,
    share,
    train_as,
)
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.window_advice import context_evidence, scores
from attn_tutorial.experiments.tables import table
from attn_tutorial.experiments.window_rules import RULES, Task
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.transformer import Transformer

__all__ = ["QUESTION", "TUNING", "settings", "tasks", "train"]

QUESTION = "Does advice for windows hold on tasks that it was not made on?"
TUNING = Tuning((0.003, 0.006, 0.012), "validation_loss")

WIDTHS = (1, 2, 4, 8, 16, 32)
HELD_OUT = {"test": 10**6, "validation": 10**6 + 1}  # seeds
SIZE, ASKED = 256, 32  # held-out sequences, and those that advice is made from
BASE = {"n": 64, "d_model": 32, "heads": 2, "layers": 2, "batch": 32, "steps": 400}
BASE |= {"lr": 0.006}
QUICK = {"n": 32, "batch": 4, "steps": 3}


def settings(quick: bool) -> list[Setting]:
    """Each task with full attention and with every window."""
    if quick:
        chosen = ("copy", "sort", "program")
        base, widths = {**BASE, **QUICK}, WIDTHS[:1]
    else:
        chosen, base, widths = tuple(PUZZLES), BASE, WIDTHS
    patterns = ("full", *(f"local {w}" for w in widths))
    return [{"task": t, "pattern": p, **base} for t in chosen for p in patterns]


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its losses, and its evidence if it has full attention."""
    torch.manual_seed(seed)
    puzzle, size = PUZZLES[setting["task"]], (setting["batch"], setting["n"])
    sizes = puzzle.num_tokens, puzzle.num_labels
    model = build(setting, *sizes, causal=puzzle.causal).to(device)
    losses = train_as(setting, model, lambda g: puzzle.draw(*size, g), seed)
    result = {"final_loss": losses[-1]}
    for part, held_out in HELD_OUT.items():
        drawn = held_out_of(setting, Generator().manual_seed(held_out))
        result |= judged(model, part, *drawn)
    if setting["pattern"] == "full" and "stage" not in setting:
        asked = tuple(x[:ASKED].to(device) for x in drawn)
        result |= evidence(model, *asked) | context_evidence(model, *asked)
    return result


def held_out_of(setting: Setting, generator: Generator) -> tuple[Tensor, Tensor]:
    """Sequences that no training draws: (SIZE, n) each."""
    puzzle = PUZZLES[setting["task"]]
    return (puzzle.held_out or puzzle.draw)(SIZE, setting["n"], generator)


@torch.no_grad()
def judged(model: Transformer, part: str, inputs: Tensor, targets: Tensor) -> Result:
    """Loss in nats and accuracy, where a target counts."""
    device = next(model.parameters()).device
    model.eval()
    scores = model(inputs.to(device)).cpu()
    model.train()
    flat = scores.flatten(0, 1), targets.flatten()
    right = scores.argmax(-1) == targets
    return {
        f"{part}_loss": cross_entropy(*flat, ignore_index=IGNORE).item(),
        f"{part}_accuracy": share(right, counted(targets)),
    }


def tasks(runs: Runs) -> list[Task]:
    """What is recorded with full attention and with windows, by task."""
    every = [
        Task(name, part, quality="validation_loss", sign=-1)
        for (name,), part in runs.groups("task")
    ]
    return [task for task in every if task.full and task.sizes]


def report(runs: Runs) -> str:
    """Losses by window, what each rule says of each task, and the scores."""
    known = tasks(runs)
    return f"{losses(known)}\n\n{verdicts(known)}\n\n{scores(known)}"


def losses(known: list[Task]) -> str:
    """Validation loss with full attention, and what each window adds to it."""
    widths = sorted({size for task in known for size in task.sizes})
    rows = []
    for task in known:
        more = (f"{task.lost(w):+.3f}" if w in task.sizes else None for w in widths)
        seeds, full = len(task.full), task.full.spread(task.quality)
        right = task.full.mean("validation_accuracy")
        rows.append((task.name, seeds, f"{right:.2f}", full, *more))
    header = ("task", "seeds", "right", "loss, full", *(f"w = {w}" for w in widths))
    return table(header, rows)


def verdicts(known: list[Task]) -> str:
    """The smallest window that does as well, and what each rule advises."""
    rows = [
        ("smallest as good", *(task.smallest_as_good() for task in known)),
        *((rule, *(task.outcome(rule) for task in known)) for rule in RULES),
    ]
    return table(("rule", *(task.name for task in known)), rows)
