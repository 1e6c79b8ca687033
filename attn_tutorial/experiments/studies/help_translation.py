"""Translation of a manual: what does a window cost between English and German?

An encoder and a decoder of subwords learn from the help of a program that people
translated (see ``help_pages``). The self-attentions of both are limited; the
cross-attention, which must find the words, is not, but for one contender.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.experiments.data.help_pages import HELP, MADE_UP, fingerprint, pairs
from attn_tutorial.experiments.data.subwords import MARK, PAD, Subwords
from attn_tutorial.experiments.measures import chrf
from attn_tutorial.experiments.models import price, train_as, training_bytes
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.translator import EncoderDecoder
from attn_tutorial.patterns import Pattern

__all__ = [
    "BASE",
    "QUESTION",
    "QUICK",
    "TUNING",
    "Pair",
    "batch_of",
    "encoded",
    "settings",
    "subwords",
    "train",
    "train_translator",
    "written",
]

QUESTION = "What does a window cost in translating a manual?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_bits")

Pair = tuple[list[int], list[int]]  # tokens of a text in English and in German
PARTS = ("validation", "test")
BASE = {"data": HELP, "vocabulary": 2048, "n": 48, "d_model": 96, "heads": 3}
BASE |= {"layers": 2, "batch": 32, "steps": 600, "optimizer": "muon", "lr": 0.02}
BASE |= {"held_out": 512, "translated": 96}
QUICK = {"data": MADE_UP, "vocabulary": 300, "n": 96, "d_model": 32, "heads": 2}
QUICK |= {"layers": 1, "batch": 8, "steps": 4, "held_out": 8, "translated": 2}
GRID = (
    ("full", "full"),
    ("local 4", "full"),
    ("blocks 8", "full"),
    ("local 4", "local 8"),
)
SHOWN = 4  # texts of the test part that a record holds with their translations


def settings(quick: bool) -> list[Setting]:
    """Patterns of the self-attention and of the cross-attention."""
    base, grid = ({**BASE, **QUICK}, GRID[:2]) if quick else (BASE, GRID)
    return [{"pattern": own, "cross": cross, **base} for own, cross in grid]


@functools.cache
def subwords(data: str, size: int) -> Subwords:
    """One vocabulary for both languages, learned from the training part."""
    return Subwords((text for pair in pairs(data)["train"] for text in pair), size)


@functools.cache
def encoded(data: str, part: str, size: int, n: int) -> list[Pair]:
    """The pairs of a part whose texts both have at most n tokens with their mark."""
    encode = subwords(data, size).encode
    found = [([*encode(a), MARK], [*encode(b), MARK]) for a, b in pairs(data)[part]]
    return [pair for pair in found if max(map(len, pair)) <= n]


def known(setting: Setting, part: str) -> list[Pair]:
    """The pairs of a part as a setting reads them."""
    return encoded(setting["data"], part, setting["vocabulary"], setting["n"])


def held_out(setting: Setting, part: str, count: int) -> list[Pair]:
    """Some pairs of a part, from all over it."""
    found = known(setting, part)
    return found[:: max(1, len(found) // count)][:count]


def batch_of(some: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """English tokens, German tokens after a mark, and German tokens as targets."""
    source = pad_sequence([torch.tensor(a) for a, _ in some], True, PAD)
    shifted = pad_sequence([torch.tensor([MARK, *b[:-1]]) for _, b in some], True, PAD)
    wanted = pad_sequence([torch.tensor(b) for _, b in some], True, IGNORE)
    return source, shifted, wanted


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; bits for a byte of German, and how good its translations are."""
    own, cross = map(recorded_pattern, (setting["pattern"], setting["cross"]))
    model, result = train_translator(setting, seed, device, own, cross)
    return result | written(model, setting)


def train_translator(
    setting: Setting, seed: int, device: torch.device, own: Pattern, cross: Pattern
) -> tuple[EncoderDecoder, Result]:
    """Train a model of these patterns; its bits, its memory, and what it read."""
    torch.manual_seed(seed)
    count = len(subwords(setting["data"], setting["vocabulary"]))
    size = setting["d_model"], setting["heads"], setting["layers"]
    model = EncoderDecoder(count, count, *size, pattern=own, cross=cross).to(device)
    pool = known(setting, "train")

    def batch(generator: Generator) -> tuple[Tensor, ...]:
        drawn = torch.randint(len(pool), (setting["batch"],), generator=generator)
        return batch_of([pool[i] for i in drawn.tolist()])

    losses = train_as(setting, model, batch, seed)
    result = {"final_loss": losses[-1], "text": fingerprint(setting["data"])}
    for part in PARTS:
        some = held_out(setting, part, setting["held_out"])
        result[f"{part}_bits"] = bits(model, setting, some)
    longest = sorted(pool, key=lambda pair: -len(pair[1]))[: setting["batch"]]
    kept = training_bytes(model, *batch_of(longest)[:2])
    return model, {**result, "pairs": len(pool), "training_bytes": kept}


@torch.no_grad()
def bits(model: EncoderDecoder, setting: Setting, some: list[Pair]) -> float:
    """Mean bits for a byte of the German texts, each token given those before it."""
    device = next(model.parameters()).device
    nats = 0.0
    for first in range(0, len(some), 64):
        *inputs, wanted = (x.to(device) for x in batch_of(some[first : first + 64]))
        scores = model(*inputs).flatten(0, 1)
        options = {"ignore_index": IGNORE, "reduction": "sum"}
        nats += cross_entropy(scores, wanted.flatten(), **options).item()
    spelt = subwords(setting["data"], setting["vocabulary"]).bytes
    length = sum(len(spelt[token]) + (token == MARK) for _, b in some for token in b)
    return nats / length / math.log(2)


def written(model: EncoderDecoder, setting: Setting) -> Result:
    """Translate some texts of the test part, word by word without the right answer."""
    device = next(model.parameters()).device
    some = held_out(setting, "test", setting["translated"])
    decode = subwords(setting["data"], setting["vocabulary"]).decode
    found = []
    for first in range(0, len(some), 32):
        source = batch_of(some[first : first + 32])[0].to(device)
        rows = model.translate(source, MARK, MARK, length=setting["n"]).tolist()
        found += [decode(token for token in row if token != MARK) for row in rows]
    english, german = ([decode(pair[side][:-1]) for pair in some] for side in (0, 1))
    texts = {"english": english, "german": german, "translated": found}
    shown = {name: column[:SHOWN] for name, column in texts.items()}
    return {"test_chrf": chrf(found, german), **shown}


def report(runs: Runs) -> str:
    """Bits and character F-score with their spread, and what each model costs."""
    rows = []
    for group, part in runs.groups("pattern", "cross"):
        bits = part.spread("validation_bits"), part.spread("test_bits")
        rows.append((*group, len(part), *bits, part.spread("test_chrf"), *price(part)))
    header = ("self-attention", "cross-attention", "seeds", "validation bits")
    return table((*header, "test bits", "test chrF", "MiB", "minutes"), rows)
