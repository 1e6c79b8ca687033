"""Small tasks of many kinds, drawn from a seeded generator: each needs another past.

Every function takes a batch size, a length n and a generator, and returns inputs and
targets, both (batch, n). Targets are ``IGNORE`` where there is nothing to answer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from attn_tutorial.experiments.data.corpora import source_bytes, windows_of
from attn_tutorial.experiments.data.number_words import english
from attn_tutorial.networks.tasks import IGNORE

__all__ = [
    "PUZZLES",
    "Puzzle",
    "brackets",
    "copied",
    "counted_ones",
    "known_chain",
    "largest",
    "looked_up",
    "numbers",
    "program",
    "repeated",
    "segmented",
    "sorted_blocks",
    "sums",
]

Draw = Callable[[int, int, Generator], tuple[Tensor, Tensor]]

LAG = 11  # steps back to what is copied
SPAN = 12  # ones are counted among so many digits
LARGEST_OF = 6
SUMMED, BASE = 3, 4
BLOCK = 8  # a mark, and the numbers that are sorted
DEEP, KINDS = 4, 3  # of brackets
SECTION, NAMES = 16, 4  # pairs have a meaning for one section
PERIODS = (5, 14)  # shortest and longest
LEXICON, LETTERS = 24, 8
ORDER, SYMBOLS = 3, 6  # of the chain


def copied(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Say again what stood ``LAG`` steps back."""
    x = torch.randint(8, (batch, n), generator=generator)
    y = x.roll(LAG, 1)
    y[:, :LAG] = IGNORE
    return x, y


def counted_ones(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Count the ones among the last ``SPAN`` digits, this one included."""
    x = torch.randint(2, (batch, n), generator=generator)
    return x, _runs(x, SPAN).sum(-1)


def largest(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name the largest of the last ``LARGEST_OF`` numbers, this one included."""
    x = torch.randint(16, (batch, n), generator=generator)
    return x, _runs(x, LARGEST_OF).amax(-1)


def sums(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Add the last ``SUMMED`` digits and keep the last digit of it, in ``BASE``."""
    x = torch.randint(BASE, (batch, n), generator=generator)
    return x, _runs(x, SUMMED).sum(-1) % BASE


def _runs(x: Tensor, size: int) -> Tensor:
    """The last ``size`` entries at each position, zeros before the first."""
    before = torch.cat([torch.zeros_like(x[:, : size - 1]), x], 1)
    return before.unfold(1, size, 1)  # (batch, n, size)


def sorted_blocks(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Write the numbers of each block in order.

    A block of ``BLOCK`` tokens begins with a mark, the token 10, since a model with
    rotary positions knows distances and no places.
    """
    x = torch.randint(10, (batch, n // BLOCK, BLOCK), generator=generator)
    x[..., 0] = 10
    mark = torch.full_like(x[..., :1], IGNORE)
    y = torch.cat([mark, x[..., 1:].sort(-1).values], -1)
    return x.flatten(1), y.flatten(1)


def brackets(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name the innermost bracket that is open, 0 if none is.

    Tokens 0 ... ``KINDS`` - 1 open a bracket, the next ``KINDS`` close it, and
    2 ``KINDS`` is a letter. At most ``DEEP`` are open.
    """
    choice = torch.randint(3, (batch, n), generator=generator).tolist()
    kinds = torch.randint(KINDS, (batch, n), generator=generator).tolist()
    x, y = [], []
    for row in range(batch):
        opened: list[int] = []
        x.append([])
        y.append([])
        for what, kind in zip(choice[row], kinds[row], strict=True):
            x[-1].append(_bracket(opened, what, kind))
            y[-1].append(opened[-1] + 1 if opened else 0)
    return torch.tensor(x), torch.tensor(y)


def _bracket(opened: list[int], what: int, kind: int) -> int:
    """Open, close or neither; changes the brackets that are open."""
    if what == 0 and len(opened) < DEEP:
        opened.append(kind)
        return kind
    if what == 1 and opened:
        return KINDS + opened.pop()
    return 2 * KINDS


def looked_up(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name what stood behind this key before, in the same section.

    Keys (0 ... ``NAMES`` - 1) and values take turns. In each section of ``SECTION``
    tokens the keys have other values.
    """
    pairs, each = n // 2, SECTION // 2
    keys = torch.randint(NAMES, (batch, pairs), generator=generator)
    sections = torch.arange(pairs) // each
    meanings = torch.randint(
        8, (batch, int(sections[-1]) + 1, NAMES), generator=generator
    )
    values = meanings[torch.arange(batch)[:, None], sections, keys]
    earlier = (keys[:, :, None] == keys[:, None]) & (sections[:, None] == sections)
    known = earlier.tril(-1).any(-1)
    x = torch.stack([keys, NAMES + values], -1).flatten(1)
    answers = values.masked_fill(~known, IGNORE)
    return x, torch.stack([answers, torch.full_like(answers, IGNORE)], -1).flatten(1)


def repeated(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Go on with a pattern that repeats; its period is another in each text."""
    periods = torch.randint(PERIODS[0], PERIODS[1] + 1, (batch, 1), generator=generator)
    x = torch.randint(8, (batch, n + 1), generator=generator)
    x = x.gather(1, torch.arange(n + 1) % periods)
    new = torch.arange(1, n + 1) < 2 * periods  # the first time round, and once more
    return x[:, :-1], x[:, 1:].masked_fill(new, IGNORE)


def known_chain(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name the next symbol of a chain that goes by the last ``ORDER`` ones.

    After most triples one symbol is likely: chances are those of a fixed table.
    """
    x = torch.randint(SYMBOLS, (batch, n + 1), generator=generator)
    chances = torch.rand(batch, n + 1, generator=generator)
    places = SYMBOLS ** torch.arange(ORDER)
    for i in range(ORDER, n + 1):
        likely = _chain()[(x[:, i - ORDER : i] * places).sum(-1)]
        x[:, i] = torch.where(chances[:, i] < 0.8, likely, x[:, i])
    return x[:, :-1], x[:, 1:]


@functools.cache
def _chain() -> Tensor:
    """The likely symbol after each triple, the same for all texts."""
    draw = Generator().manual_seed(3)
    return torch.randint(SYMBOLS, (SYMBOLS**ORDER,), generator=draw)


def segmented(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mark where the words begin, in a text without spaces."""
    x = torch.empty(batch, n, dtype=torch.long)
    y = torch.zeros_like(x)
    chosen = torch.randint(LEXICON, (batch, n), generator=generator).tolist()
    for row, words in enumerate(chosen):
        letters = [letter for word in words for letter in _lexicon()[word]]
        starts = [k == 0 for word in words for k in range(len(_lexicon()[word]))]
        cut = int(torch.randint(4, (), generator=generator))  # begins inside a word
        x[row] = torch.tensor(letters[cut : cut + n])
        y[row] = torch.tensor(starts[cut : cut + n])
    return x, y


@functools.cache
def _lexicon() -> tuple[tuple[int, ...], ...]:
    """Words of 2 to 6 letters, the same for all texts."""
    draw = Generator().manual_seed(6)
    sizes = torch.randint(2, 7, (LEXICON,), generator=draw).tolist()
    return tuple(
        tuple(torch.randint(LETTERS, (k,), generator=draw).tolist()) for k in sizes
    )


def program(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name the next byte of a program; of the part that trains."""
    return windows_of(source_bytes("train"), batch, n, generator)


def held_out_program(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name the next byte of a program; of the part that decides."""
    return windows_of(source_bytes("validation"), batch, n, generator)


def numbers(batch: int, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Name the next letter of numbers below a million, in English words."""
    drawn = torch.randint(10**6, (batch, n // 8), generator=generator).tolist()
    texts = [", ".join(map(english, row)).encode()[: n + 1] for row in drawn]
    x = torch.tensor([list(text) for text in texts])
    return x[:, :-1], x[:, 1:]


class Puzzle(NamedTuple):
    """A task: how to draw it, and the model that it needs.

    Attributes:
        draw: Draws batches to train on.
        num_tokens: Tokens that its inputs have.
        num_labels: Labels that its targets have.
        causal: Whether the model may not look ahead.
        held_out: Draws what is not trained on; ``draw`` with another seed if None.
    """

    draw: Draw
    num_tokens: int
    num_labels: int
    causal: bool = True
    held_out: Draw | None = None


PUZZLES: dict[str, Puzzle] = {
    "copy": Puzzle(copied, 8, 8),
    "count": Puzzle(counted_ones, 2, SPAN + 1),
    "largest": Puzzle(largest, 16, 16),
    "sum": Puzzle(sums, BASE, BASE),
    "brackets": Puzzle(brackets, 2 * KINDS + 1, KINDS + 1),
    "look up": Puzzle(looked_up, NAMES + 8, 8),
    "repeat": Puzzle(repeated, 8, 8),
    "chain": Puzzle(known_chain, SYMBOLS, SYMBOLS),
    "sort": Puzzle(sorted_blocks, 11, 10, causal=False),
    "segment": Puzzle(segmented, LETTERS, 2, causal=False),
    "program": Puzzle(program, 256, 256, held_out=held_out_program),
    "numbers": Puzzle(numbers, 128, 128),
}
