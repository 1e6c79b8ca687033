"""Tagging: how much of a program must one see to name the role of each byte?

Labels come from Python's parser (see ``roles``). The accuracy on names whose role
depends on the function or the file around them is where a window should hurt.
"""

from __future__ import annotations

import functools

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.data.corpora import part_of, source_files
from attn_tutorial.experiments.data.roles import BY_SCOPE, ROLES, roles
from attn_tutorial.experiments.models import build, evidence, labels, share, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table

__all__ = ["QUESTION", "TUNING", "labelled", "settings", "train"]

QUESTION = "How much of a program must one see to name the role of each byte?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error", {"steps": 100}, reach=0)

BASE = {"n": 256, "d_model": 96, "heads": 3, "layers": 3, "batch": 8, "steps": 400}
BASE |= {"optimizer": "muon", "lr": 0.02, "weight_decay": 0.01, "passages": 240}
WINDOWED = ("local 2", "local 4", "local 8", "local 32", "blocks 32")


def settings(quick: bool) -> list[Setting]:
    """Patterns at equal steps."""
    if quick:
        small = {**BASE, "n": 64, "d_model": 32, "heads": 2, "layers": 2}
        small |= {"steps": 8, "passages": 8}
        return [{"pattern": p, **small} for p in ("full", "local 4")]
    return [{"pattern": p, **BASE} for p in ("full", *WINDOWED)]


@functools.cache
def labelled(part: str) -> tuple[Tensor, Tensor]:
    """Bytes and roles of all ASCII programs of a part, one after the other: (2, n)."""
    number = {role: i for i, role in enumerate(ROLES)}
    texts, found = [], []
    for name, text in source_files().items():
        if part_of(name) == part and text.isascii() and b"\f" not in text:
            texts.append(text)
            found += [number[role] for role in roles(text.decode("ascii"))]
    text = torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8)
    return text, torch.tensor(found, dtype=torch.uint8)


def draw(part: str, batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Passages of n bytes and the roles of their bytes, both (batch, n)."""
    text, found = labelled(part)
    starts = torch.randint(len(text) - n + 1, (batch, 1), generator=generator)
    place = starts + torch.arange(n)
    return text[place].long(), found[place].long()


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; accuracy on the validation and on the test part."""
    torch.manual_seed(seed)
    model = build(setting, 256, len(ROLES), causal=False).to(device)
    size = setting["batch"], setting["n"]
    losses = train_as(setting, model, lambda g: draw("train", *size, g), seed)
    result = {"final_loss": losses[-1]}
    for part in ("validation", "test"):
        inputs, targets = draw(part, setting["passages"], size[1], _fixed())
        result |= accuracy_by_role(part, labels(model, inputs), targets)
    if setting["pattern"] == "full" and "stage" not in setting:
        result |= evidence(model, *draw("validation", 16, setting["n"], _fixed()))
    return result


def _fixed() -> Generator:
    return Generator().manual_seed(10**6)


def accuracy_by_role(part: str, found: Tensor, targets: Tensor) -> Result:
    """Error on all bytes, and accuracy on all, on names by scope, on each role."""
    right, everywhere = found == targets, torch.ones_like(targets, dtype=torch.bool)
    by_scope = torch.isin(targets, torch.tensor([ROLES.index(r) for r in BY_SCOPE]))
    by_role = [share(right, targets == role) for role in range(len(ROLES))]
    accuracy = share(right, everywhere)
    return {
        f"{part}_error": 1 - accuracy,
        f"{part}_accuracy": accuracy,
        f"{part}_by_scope": share(right, by_scope),
        f"{part}_by_role": by_role,
    }


def report(runs: Runs) -> str:
    """Accuracy with its spread, on all bytes and on names that need their scope."""
    rows = [
        (
            *group,
            len(part),
            part.spread("validation_accuracy"),
            part.spread("test_accuracy"),
            part.spread("validation_by_scope"),
            part.spread("test_by_scope"),
        )
        for group, part in runs.groups("pattern", "steps")
    ]
    header = ("pattern", "steps", "seeds", "validation", "test")
    return table((*header, "names, validation", "names, test"), rows)
