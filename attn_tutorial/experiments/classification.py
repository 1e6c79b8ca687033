"""Classification: which of twelve languages is a message written in?

Messages of a program, as volunteers translated them. A message and all its
translations belong to one part, so that no test message was met in another language.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.corpora import LANGUAGES, messages
from attn_tutorial.experiments.models import build, labels, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Experiment, Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.modules import Transformer

__all__ = ["EXPERIMENT", "MeanOverText", "settings", "train"]

BASE = {"n": 128, "d_model": 64, "heads": 2, "layers": 2, "batch": 32, "steps": 300}
BASE |= {"optimizer": "muon", "lr": 0.02, "weight_decay": 0.01, "dropout": 0.1}
PATTERNS = ("full", "local 1", "local 2", "local 8", "local 32", "blocks 8")


def settings(quick: bool) -> list[Setting]:
    """Patterns at equal steps."""
    small = {"n": 48, "d_model": 32, "heads": 2, "layers": 1, "batch": 16, "steps": 8}
    base = {**BASE, **small} if quick else BASE
    return [{"pattern": p, **base} for p in (PATTERNS[:2] if quick else PATTERNS)]


class MeanOverText(Transformer):
    """Names one label for a text: the mean of what its bytes vote for; 0 is no byte."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch, n) to scores (batch, 1, labels)."""
        keep = tokens != 0
        votes = super().forward(tokens, key_keep=keep) * keep[..., None]
        return votes.sum(1, keepdim=True) / keep.sum(1)[:, None, None]


def padded(found: list[tuple[bytes, int]], n: int) -> tuple[Tensor, Tensor]:
    """The first n bytes of each message, and its language: (batch, n), (batch, 1)."""
    texts = torch.zeros(len(found), n, dtype=torch.long)
    for row, (text, _) in zip(texts, found, strict=True):
        row[: len(text)] = torch.tensor(list(text[:n]))
    return texts, torch.tensor([[language] for _, language in found])


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; accuracy on the validation and on the test part."""
    torch.manual_seed(seed)
    model = build(setting, 256, len(LANGUAGES), causal=False, kind=MeanOverText)
    model.to(device)
    texts, languages = padded(messages("train"), setting["n"])

    def batch(generator: Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(texts), (setting["batch"],), generator=generator)
        return texts[chosen], languages[chosen]

    losses = train_as(setting, model, batch, seed)
    result = {"final_loss": losses[-1]}
    for part in ("validation", "test"):
        held_out, answers = padded(messages(part), setting["n"])
        right = labels(model, held_out) == answers
        result[f"{part}_accuracy"] = right.float().mean().item()
    result["validation_error"] = 1 - result["validation_accuracy"]
    return result


def report(runs: Runs) -> str:
    """Accuracy with its spread."""
    rows = [
        (
            *group,
            len(part),
            part.spread("validation_accuracy"),
            part.spread("test_accuracy"),
        )
        for group, part in runs.groups("pattern")
    ]
    return table(("pattern", "seeds", "validation", "test"), rows)


EXPERIMENT = Experiment(
    name="classification",
    question="How far must one see to tell the language of a message?",
    settings=settings,
    train=train,
    report=report,
    tuning=Tuning((0.01, 0.02, 0.04), "validation_error", {"steps": 100}),
)
