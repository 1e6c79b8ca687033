"""Speech recognition: how much sound must one hear to write its letters?

Two actors say lines of a game, and a synthesiser says the same lines (see ``speech``).
The model names a letter or none every 30 ms, and learns from the lines' letters alone,
without being told when each is spoken.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from attn_tutorial.experiments.data.speech import (
    ACTED,
    FEATURES,
    LETTERS,
    MADE_UP,
    SYNTHESISED,
    Clip,
    clips,
    fingerprint,
    letters_of,
)
from attn_tutorial.experiments.measures import error_rate
from attn_tutorial.experiments.models import price, train_as, training_bytes
from attn_tutorial.experiments.named import named_patterns
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.readers import Recogniser, best_path, letters_loss
from attn_tutorial.networks.tasks import IGNORE

__all__ = ["QUESTION", "TUNING", "batch_of", "heard", "settings", "train"]

QUESTION = "How much sound must one hear to write its letters?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error")

PARTS = ("validation", "test")
BASE = {"d_model": 96, "heads": 3, "layers": 4, "dropout": 0.1, "batch": 8}
BASE |= {"steps": 800, "optimizer": "muon", "lr": 0.02}
QUICK = {"d_model": 32, "heads": 2, "layers": 1, "steps": 4}
WINDOWED = ("local 4", "local 16", "blocks 16")
SHOWN = 4  # lines of the test part that a record holds with what was heard


def settings(quick: bool) -> list[Setting]:
    """Patterns at equal steps; two of them for the synthesised voice, too."""
    if quick:
        base = {"data": MADE_UP, **BASE, **QUICK}
        return [{"pattern": p, **base} for p in ("full", WINDOWED[0])]
    grid = [(p, ACTED) for p in ("full", *WINDOWED)]
    grid += [(p, SYNTHESISED) for p in ("full", "local 16")]
    return [{"pattern": p, "data": voice, **BASE} for p, voice in grid]


def batch_of(some: list[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Features (batch, n, FEATURES), which are no padding, and letters (batch, m)."""
    sound = pad_sequence([clip.features for clip in some], batch_first=True)
    length = torch.tensor([len(clip.features) for clip in some])
    keep = torch.arange(sound.shape[1]) < length[:, None]
    rows = [letters_of(clip.words) for clip in some]
    return sound, keep, pad_sequence(rows, True, IGNORE)


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; letters and words that it hears wrongly."""
    torch.manual_seed(seed)
    model = make(setting).to(device)
    known = clips(setting["data"])

    def batch(generator: Generator) -> tuple[Tensor, ...]:
        size = (setting["batch"],)
        drawn = torch.randint(len(known["train"]), size, generator=generator)
        return batch_of([known["train"][i] for i in drawn.tolist()])

    losses = train_as(setting, model, batch, seed, loss_fn=letters_loss)
    result = {"final_loss": losses[-1], "text": fingerprint(setting["data"])}
    for part in PARTS:
        result |= errors(part, known[part], heard(model, known[part]))
    longest = sorted(known["train"], key=lambda clip: -len(clip.features))
    inputs = batch_of(longest[: setting["batch"]])[:2]
    return result | {"training_bytes": training_bytes(model, *inputs)}


def make(setting: Setting) -> Recogniser:
    """The model of a setting."""
    size = setting["d_model"], setting["heads"], setting["layers"]
    near = named_patterns(setting["pattern"], causal=False)
    options = {"positions": "rotary", "dropout": setting["dropout"]}
    return Recogniser(FEATURES, len(LETTERS), *size, pattern=near, **options)


@torch.no_grad()
def heard(model: Recogniser, some: list[Clip], batch: int = 32) -> list[str]:
    """The words that a model hears in clips, each the best letter of its moment."""
    device = next(model.parameters()).device
    model.eval()
    found = []
    for first in range(0, len(some), batch):
        sound, keep, _ = batch_of(some[first : first + batch])
        rows = best_path(model(sound.to(device), keep.to(device)).cpu())
        found += ["".join(LETTERS[letter - 1] for letter in row) for row in rows]
    model.train()
    return found


def errors(part: str, some: list[Clip], found: list[str]) -> Result:
    """Rates of wrong letters and of wrong words, and a few lines as they were heard."""
    wanted = [clip.words for clip in some]
    words = ([text.split() for text in texts] for texts in (found, wanted))
    rates = {
        f"{part}_error": error_rate(found, wanted),
        f"{part}_word_error": error_rate(*words),
    }
    if part != "test":
        return rates
    shown = {"said": wanted[:SHOWN], "heard": found[:SHOWN]}
    return rates | {"clips": len(some), **shown}


def report(runs: Runs) -> str:
    """Wrong letters and words with their spread, and what each model costs."""
    rows = []
    for group, part in runs.groups("data", "pattern"):
        names = ("validation_error", "test_error", "test_word_error")
        rows.append((*group, len(part), *map(part.spread, names), *price(part)))
    header = ("voice", "pattern", "seeds", "validation, letters", "test, letters")
    return table((*header, "test, words", "MiB", "minutes"), rows)
