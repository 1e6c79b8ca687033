"""Classification: how much must one see of a paragraph to tell what it is about?

A paragraph of a program's help belongs to one of its parts: the spreadsheet, the
database, formulas. Words tell, more than their order does.
"""

from __future__ import annotations

import functools

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from attn_tutorial.experiments.data.help_pages import HELP, MADE_UP, fingerprint, texts
from attn_tutorial.experiments.data.subwords import PAD, Subwords
from attn_tutorial.experiments.models import (
    build,
    labels,
    price,
    train_as,
    training_bytes,
)
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.readers import Classifier

__all__ = ["QUESTION", "TUNING", "balanced", "known", "settings", "train"]

QUESTION = "How much of a paragraph must one see to tell what it is about?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error")

PARTS = ("validation", "test")
BASE = {"data": HELP, "vocabulary": 2048, "n": 64, "d_model": 96, "heads": 3}
BASE |= {"layers": 3, "batch": 32, "steps": 1000, "optimizer": "muon", "lr": 0.02}
BASE |= {"letters": 30}
QUICK = {"data": MADE_UP, "vocabulary": 300, "d_model": 32, "heads": 2}
QUICK |= {"layers": 1, "batch": 8, "steps": 6, "letters": 12}
WINDOWED = ("local 2", "local 8", "blocks 8")


def settings(quick: bool) -> list[Setting]:
    """Patterns at equal steps."""
    base, rest = ({**BASE, **QUICK}, WINDOWED[:1]) if quick else (BASE, WINDOWED)
    return [{"pattern": p, **base} for p in ("full", *rest)]


@functools.cache
def subwords(data: str, size: int) -> Subwords:
    """A vocabulary that is learned from the training part."""
    return Subwords((p.text for p in texts(data)["train"]), size)


@functools.cache
def topics(data: str) -> list[str]:
    """The parts of the program, in the order of their names."""
    return sorted({p.page.partition("/")[0] for p in texts(data)["train"]})


@functools.cache
def known(data: str, part: str, size: int, n: int, letters: int) -> tuple[Tensor, ...]:
    """Tokens of the paragraphs with enough letters, (count, n), and topics, (count, 1).

    Longer paragraphs are cut after n tokens.
    """
    some = [p for p in texts(data)[part] if len(p.text) >= letters]
    encode, number = subwords(data, size).encode, topics(data).index
    rows = [torch.tensor(encode(p.text)[:n]) for p in some]
    found = [number(p.page.partition("/")[0]) for p in some]
    return pad_sequence(rows, True, PAD), torch.tensor(found)[:, None]


def of_setting(setting: Setting, part: str) -> tuple[Tensor, ...]:
    """The paragraphs of a part as a setting reads them."""
    size = setting["vocabulary"], setting["n"], setting["letters"]
    return known(setting["data"], part, *size)


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; accuracy on the validation and on the test part."""
    torch.manual_seed(seed)
    data = setting["data"]
    sizes = len(subwords(data, setting["vocabulary"])), len(topics(data))
    model = build(setting, *sizes, causal=False, kind=Classifier).to(device)
    inputs, targets = of_setting(setting, "train")

    def batch(generator: Generator) -> tuple[Tensor, Tensor]:
        size = (setting["batch"],)
        drawn = torch.randint(len(inputs), size, generator=generator)
        some = inputs[drawn]
        return some[:, : (some != PAD).sum(-1).max()], targets[drawn]

    losses = train_as(setting, model, batch, seed)
    result = {"final_loss": losses[-1], "text": fingerprint(data)}
    for part in PARTS:
        result |= accuracies(model, part, *of_setting(setting, part))
    kept = training_bytes(model, inputs[: setting["batch"]])
    return result | {"topics": topics(data), "training_bytes": kept}


def accuracies(model: Classifier, part: str, inputs: Tensor, targets: Tensor) -> Result:
    """Error and accuracy on all paragraphs, and the mean accuracy of the topics."""
    found = labels(model, inputs)
    right = (found == targets).float().mean().item()
    result = {f"{part}_error": 1 - right, f"{part}_accuracy": right}
    return result | {f"{part}_balanced": balanced(found, targets)}


def balanced(found: Tensor, targets: Tensor) -> float:
    """Mean over the topics of the accuracy on their paragraphs.

    Example:
        >>> found, targets = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1])
        >>> balanced(found, targets)  # one of two topics is always right
        0.5
    """
    right = (found == targets).float()
    shares = [right[targets == topic].mean() for topic in targets.unique()]
    return torch.stack(shares).mean().item()


def report(runs: Runs) -> str:
    """Accuracy with its spread, over paragraphs and over topics."""
    rows = []
    for group, part in runs.groups("pattern"):
        names = ("validation_accuracy", "test_accuracy", "test_balanced")
        rows.append((*group, len(part), *map(part.spread, names), *price(part)))
    header = ("pattern", "seeds", "validation", "test", "test, mean of topics")
    return table((*header, "MiB", "minutes"), rows)
