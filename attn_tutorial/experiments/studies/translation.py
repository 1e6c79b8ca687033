"""Translation: which of the attentions of an encoder-decoder can do with a window?

Letters of two English numbers are turned into letters of the German ones. The
cross-attention may carry what a window in the self-attention cannot, so that it is
limited as well: to source letters whose place is close to one's own.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.experiments.data.number_words import english, german
from attn_tutorial.experiments.models import counted, train_as
from attn_tutorial.experiments.records import Result, Runs, Setting
from attn_tutorial.experiments.runner import Tuning
from attn_tutorial.experiments.tables import table
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.translator import EncoderDecoder

__all__ = ["QUESTION", "TUNING", "draw", "part_of_pair", "settings", "train"]

QUESTION = "Which attentions of an encoder-decoder can do with a window?"
TUNING = Tuning((0.01, 0.02, 0.04), "validation_error", {"steps": 60}, reach=0)

SIGNS = "\0\1 -abcdefghijklmnopqrstuvwxyzMßöü,"  # filling, start and end, letters
PAD, MARK = 0, 1
PARTS = ("validation", "test")
BASE = {"d_model": 64, "heads": 2, "layers": 2, "batch": 32, "steps": 300}
BASE |= {"optimizer": "muon", "lr": 0.02, "digits": 6, "numbers": 2, "held_out": 512}
GRID = (
    ("full", "full"),
    ("local 4", "full"),
    ("blocks 16", "full"),
    ("full", "local 16"),
)


def settings(quick: bool) -> list[Setting]:
    """Patterns of the self-attention and of the cross-attention."""
    small = {"d_model": 32, "heads": 2, "layers": 1, "batch": 8, "steps": 8}
    small |= {"digits": 2, "numbers": 1, "held_out": 16}
    base, grid = ({**BASE, **small}, GRID[1:3]) if quick else (BASE, GRID)
    return [{"pattern": own, "cross": cross, **base} for own, cross in grid]


def part_of_pair(numbers: list[int]) -> str:
    """Say which part a pair belongs to, by the last digit of its sum: a tenth each.

    A pair is new to a test, but not each of its numbers.
    """
    key = sum(number * 31**i for i, number in enumerate(numbers)) % 10
    return dict(enumerate(PARTS)).get(key, "train")


def draw_numbers(setting: Setting, part: str, generator: Generator) -> list[int]:
    """Numbers of a part, whose count of digits is drawn first."""
    while True:
        size = (setting["numbers"],)
        digits = torch.randint(1, setting["digits"] + 1, size, generator=generator)
        top = [10**d for d in digits.tolist()]
        numbers = [int(torch.randint(t, (), generator=generator)) for t in top]
        if part_of_pair(numbers) == part:
            return numbers


def draw(
    setting: Setting, part: str, count: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """English letters, German letters shifted by one, and German letters as targets."""
    pairs = [draw_numbers(setting, part, generator) for _ in range(count)]
    source = [encode(", ".join(map(english, pair))) for pair in pairs]
    target = [encode(", ".join(map(german, pair))) for pair in pairs]
    shifted = pad_sequence([text[:-1] for text in target], batch_first=True)
    wanted = pad_sequence([text[1:] for text in target], True, IGNORE)
    return pad_sequence(source, batch_first=True), shifted, wanted


def encode(text: str) -> Tensor:
    """Numbers of the letters between two marks."""
    return torch.tensor([MARK, *(SIGNS.index(sign) for sign in text), MARK])


def train(setting: Setting, seed: int, device: torch.device) -> Result:
    """Train one model; share of pairs that it translates without a mistake."""
    torch.manual_seed(seed)
    model = make(setting).to(device)

    def batch(generator: Generator) -> tuple[Tensor, ...]:
        return draw(setting, "train", setting["batch"], generator)

    losses = train_as(setting, model, batch, seed)
    result = {"final_loss": losses[-1]}
    for part in PARTS:
        held_out = Generator().manual_seed(10**6)
        data = draw(setting, part, setting["held_out"], held_out)
        result |= share_translated(model, part, data)
    return result


def make(setting: Setting) -> EncoderDecoder:
    """The model of a setting."""
    names = setting["pattern"], setting["cross"]
    own, cross = map(recorded_pattern, names)
    size = setting["d_model"], setting["heads"], setting["layers"]
    return EncoderDecoder(len(SIGNS), len(SIGNS), *size, pattern=own, cross=cross)


@torch.no_grad()
def share_translated(
    model: EncoderDecoder, part: str, data: tuple[Tensor, Tensor, Tensor]
) -> Result:
    """Share of letters, and of whole texts, for which every letter ranks first.

    A text that is right letter by letter, each given the right ones before it, is
    the text that the model writes on its own.
    """
    device = next(model.parameters()).device
    pieces = zip(*(x.to(device).split(64) for x in data), strict=True)
    right = [(model(a, b).argmax(-1) == c) | ~counted(c) for a, b, c in pieces]
    whole = torch.cat([r.all(-1) for r in right]).float().mean().item()
    wrong = sum((~r).sum().item() for r in right)
    letters = 1 - wrong / counted(data[2]).sum().item()
    return {f"{part}_exact": whole, f"{part}_letters": letters} | (
        {"validation_error": 1 - letters} if part == "validation" else {}
    )


def report(runs: Runs) -> str:
    """Share of whole texts and of letters that are right, with their spread."""
    rows = [
        (
            *group,
            len(part),
            part.spread("validation_exact"),
            part.spread("test_exact"),
            part.spread("test_letters"),
        )
        for group, part in runs.groups("pattern", "cross")
    ]
    header = ("self-attention", "cross-attention", "seeds")
    return table((*header, "validation, whole", "test, whole", "test, letters"), rows)
