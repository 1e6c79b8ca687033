"""Entities: how far must one look to find the names in a sentence?

In the help of a program, people marked what is an entry of a menu, a name on the
screen, code, or a key. The marks are taken away and must be found again: where each
begins and ends, and its kind.
"""

from __future__ import annotations

import functools

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.data.help_pages import (
    HELP,
    MADE_UP,
    MARKS,
    Paragraph,
    fingerprint,
    texts,
)
from attn_tutorial.experiments.measures import Span, marks_f1
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

__all__ = ["QUESTION", "TUNING", "labelled", "settings", "spans", "train"]

QUESTION = "How far must one look to find the names in a sentence?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error")

PARTS = ("validation", "test")
LABELS = 1 + 2 * len(MARKS)  # none; then for each kind its first byte, and the others
BASE = {"data": HELP, "n": 256, "d_model": 96, "heads": 3, "layers": 3, "batch": 8}
BASE |= {"steps": 600, "optimizer": "muon", "lr": 0.02, "passages": 160}
QUICK = {"data": MADE_UP, "n": 64, "d_model": 32, "heads": 2, "layers": 1}
QUICK |= {"steps": 6, "passages": 4}
WINDOWED = ("local 4", "local 16", "blocks 32")


def settings(quick: bool) -> list[Setting]:
    """Patterns at equal steps."""
    base, rest = ({**BASE, **QUICK}, WINDOWED[:1]) if quick else (BASE, WINDOWED)
    return [{"pattern": p, **base} for p in ("full", *rest)]


@functools.cache
def labelled(data: str, part: str) -> tuple[Tensor, Tensor]:
    """Bytes of the paragraphs with marks, one a line, and their labels: uint8, (n,).

    A paragraph that is marked as a whole shows no sentence and is left out.
    """
    text, found = bytearray(), bytearray()
    for paragraph in texts(data)[part]:
        whole = ((0, len(paragraph.text)),)
        if paragraph.marks and tuple(m[:2] for m in paragraph.marks) != whole:
            text += paragraph.text.encode() + b"\n"
            found += labels_of(paragraph) + b"\0"
    return tuple(torch.frombuffer(x, dtype=torch.uint8) for x in (text, found))


def labels_of(paragraph: Paragraph) -> bytearray:
    """The label of each byte of a paragraph.

    Example:
        >>> list(labels_of(Paragraph("page", "name", "a key", ((2, 5, "key"),))))
        [0, 0, 7, 8, 8]
    """
    found = bytearray(len(paragraph.text.encode()))
    for first, end, kind in paragraph.marks:
        start, stop = (len(paragraph.text[:i].encode()) for i in (first, end))
        label = 1 + 2 * MARKS.index(kind)
        found[start:stop] = bytes([label] + [label + 1] * (stop - start - 1))
    return found


def spans(labels: Tensor) -> set[Span]:
    """The marks that labels (n,) say: first byte, end and kind.

    A mark begins at a first byte, or where another label of its kind was not before.

    Example:
        >>> sorted(spans(torch.tensor([0, 7, 8, 0, 1, 1, 2])))
        [(1, 3, 'key'), (4, 5, 'menu'), (5, 7, 'menu')]
    """
    found, before, start = set(), 0, 0
    for place, label in enumerate([*labels.tolist(), 0]):
        goes_on = label and label % 2 == 0 and (label - 1) // 2 == (before - 1) // 2
        if not goes_on:
            if before:
                found.add((start, place, MARKS[(before - 1) // 2]))
            start = place
        before = label
    return found


def draw(data: str, part: str, batch: int, n: int, generator: Generator) -> tuple:
    """Passages of n bytes and the labels of their bytes, both (batch, n)."""
    text, found = labelled(data, part)
    starts = torch.randint(len(text) - n + 1, (batch, 1), generator=generator)
    place = starts + torch.arange(n)
    return text[place].long(), found[place].long()


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; how many marks it finds in the validation and the test part."""
    torch.manual_seed(seed)
    model = build(setting, 256, LABELS, causal=False).to(device)
    data, size = setting["data"], (setting["batch"], setting["n"])
    losses = train_as(setting, model, lambda g: draw(data, "train", *size, g), seed)
    result = {"final_loss": losses[-1], "text": fingerprint(data)}
    for part in PARTS:
        fixed = Generator().manual_seed(10**6)
        inputs, targets = draw(data, part, setting["passages"], size[1], fixed)
        result |= marks_found(part, labels(model, inputs), targets)
    inputs, _ = draw(data, "validation", *size, Generator().manual_seed(0))
    return result | {"training_bytes": training_bytes(model, inputs)}


def marks_found(part: str, found: Tensor, targets: Tensor) -> Result:
    """F-score of all marks and of each kind, and the share of wrong bytes."""
    sets = [list(map(spans, rows)) for rows in (found, targets)]
    by_kind = []
    for kind in MARKS:
        only = [[{s for s in row if s[2] == kind} for row in rows] for rows in sets]
        by_kind.append(marks_f1(*only))
    return {
        f"{part}_f1": marks_f1(*sets),
        f"{part}_f1_by_kind": by_kind,
        f"{part}_error": (found != targets).float().mean().item(),
    }


def report(runs: Runs) -> str:
    """F-scores with their spread, of all marks and of each kind."""
    rows = []
    for group, part in runs.groups("pattern"):
        by_kind = (f"{score:.3f}" for score in part.mean("test_f1_by_kind"))
        scores = part.spread("validation_f1"), part.spread("test_f1"), *by_kind
        rows.append((*group, len(part), *scores, *price(part)))
    header = ("pattern", "seeds", "validation F1", "test F1", *MARKS)
    return table((*header, "MiB", "minutes"), rows)
