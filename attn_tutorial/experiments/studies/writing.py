"""Text generation: does a model with a window write worse, and what does it keep?

Models of bytes read the English help of a program and go on writing. What they write
is judged by bits on text that people wrote, by how many of its words exist, and by how
much of it says again what was said before.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from attn_tutorial.experiments.data.corpora import windows_of
from attn_tutorial.experiments.data.help_pages import HELP, MADE_UP, fingerprint, texts
from attn_tutorial.experiments.measures import repeated
from attn_tutorial.experiments.models import (
    build,
    kv_bytes,
    price,
    train_as,
    training_bytes,
    training_flops,
)
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.studies.language_model import passages_of
from attn_tutorial.experiments.tables import table

__all__ = ["QUESTION", "TUNING", "go_on", "settings", "text_of", "train"]

QUESTION = "Does a model with a window write worse, and what must it keep?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_bits")

BYTES = 256
PARTS = ("validation", "test")
BASE = {"data": HELP, "n": 256, "d_model": 96, "heads": 3, "layers": 3, "batch": 8}
BASE |= {"steps": 600, "optimizer": "muon", "lr": 0.02, "passages": 96}
BASE |= {"texts": 16, "prompt": 64, "written": 192}
QUICK = {"data": MADE_UP, "n": 64, "d_model": 32, "heads": 2, "layers": 1}
QUICK |= {"steps": 4, "passages": 4, "texts": 2, "prompt": 16, "written": 8}
WINDOWED = ("local 4", "local 16", "blocks 32")
WARMTH = 0.7  # temperature of what is drawn
AGAIN = 16  # bytes that say again what was said
SHOWN = 2  # texts that a record holds


def settings(quick: bool) -> list[Setting]:
    """Patterns at equal steps."""
    base, rest = ({**BASE, **QUICK}, WINDOWED[:1]) if quick else (BASE, WINDOWED)
    return [{"pattern": p, **base} for p in ("full", *rest)]


@functools.cache
def text_of(data: str, part: str) -> Tensor:
    """All paragraphs of a part, one a line: uint8, (n,)."""
    lines = "\n".join(paragraph.text for paragraph in texts(data)[part])
    return torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8)


@functools.cache
def words_of(data: str) -> frozenset[str]:
    """The words of the training part."""
    return frozenset(bytes(text_of(data, "train").tolist()).decode().split())


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; its bits, its costs, and what it writes."""
    torch.manual_seed(seed)
    model = build(setting, BYTES, BYTES, causal=True).to(device)
    data, size = setting["data"], (setting["batch"], setting["n"])
    text = text_of(data, "train")
    losses = train_as(setting, model, lambda g: windows_of(text, *size, g), seed)
    result = {"final_loss": losses[-1], "text": fingerprint(data)}
    for part in PARTS:
        result[f"{part}_bits"] = bits(model, setting, part)
    kept = training_bytes(model, passages_of(text, size[1] - 1, size[0]))
    costs = {"kv_bytes": kv_bytes(setting), "flops": training_flops(setting)}
    return result | costs | {"training_bytes": kept} | judged(model, setting, seed)


@torch.no_grad()
def bits(model: nn.Module, setting: Setting, part: str) -> float:
    """Mean bits for a byte of passages from all over a part."""
    device = next(model.parameters()).device
    text = text_of(setting["data"], part)
    passages = passages_of(text, setting["n"], setting["passages"]).to(device)
    pieces = [model(rows[:, :-1]) for rows in passages.split(16)]
    scores, targets = torch.cat(pieces).flatten(0, 1), passages[:, 1:].flatten()
    return cross_entropy(scores, targets).item() / math.log(2)


@torch.no_grad()
def go_on(
    model: nn.Module, prompts: Tensor, count: int, n: int, generator: Generator
) -> Tensor:
    """Draw bytes after prompts (batch, m), given the last n: shape (batch, count)."""
    text = prompts
    for _ in range(count):
        scores = model(text[:, -n:])[:, -1].cpu() / WARMTH
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        text = torch.cat([text, drawn.to(text)], 1)
    return text[:, prompts.shape[1] :]


def judged(model: nn.Module, setting: Setting, seed: int) -> Result:
    """Go on with texts of the test part: words that exist, and repetitions.

    The last word of a text may be cut off and does not count, nor does the first,
    which goes on with one of the prompt.
    """
    device = next(model.parameters()).device
    text = text_of(setting["data"], "test")
    prompts = passages_of(text, setting["prompt"] - 1, setting["texts"]).to(device)
    generator = Generator().manual_seed(seed)
    drawn = go_on(model, prompts, setting["written"], setting["n"], generator)
    known = words_of(setting["data"])
    texts = [bytes(row).decode(errors="replace") for row in drawn.tolist()]
    words = [word for text in texts for word in text.split()[1:-1]]
    exist = sum(word in known for word in words) / max(1, len(words))
    again = sum(repeated(text, AGAIN) for text in texts) / len(texts)
    starts = [bytes(row).decode(errors="replace") for row in prompts.tolist()]
    shown = {"prompts": starts[:SHOWN], "written": texts[:SHOWN]}
    return {"words_that_exist": exist, "repeated": again, **shown}


def report(runs: Runs) -> str:
    """Bits with their spread, what was written, and what each model costs."""
    rows = []
    for group, part in runs.groups("pattern"):
        names = ("validation_bits", "test_bits", "words_that_exist", "repeated")
        costs = f"{part.mean('kv_bytes') / 2**10:.0f}", *price(part)
        rows.append((*group, len(part), *map(part.spread, names), *costs))
    header = ("pattern", "seeds", "validation bits", "test bits", "words that exist")
    return table((*header, "said again", "cache KiB", "MiB", "minutes"), rows)
