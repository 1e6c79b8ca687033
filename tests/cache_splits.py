"""Random splits of a text into calls of a cache, against attention without one.

    python tests/cache_splits.py 100000             so many splits, from seed 0
    python tests/cache_splits.py 1000 --first 5000  those of seeds 5000 ... 5999
    python tests/cache_splits.py 5000 --out FILE    and add them to a record

The reference is written from the definition, in float64: a list of the keys that each
query keeps by a rule of its own, their exponentials, their sum.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from pieces import run
from torch import Tensor

from attn_tutorial import patterns as P
from attn_tutorial.cache import RollingCache

MOST = 1e-13
WHAT = "Random splits of texts into calls of RollingCache, in float64, against a "
WHAT += "reference without a cache: of each kind of pattern how many splits, and the "
WHAT += "largest difference of an output"


class Case(NamedTuple):
    """A pattern, and the rule by which query i keeps key j."""

    name: str
    pattern: P.Pattern
    keep: Callable[[int, int], bool]


def near(w: int) -> Case:
    return Case("window", P.causal() & P.local(w), lambda i, j: i - w <= j <= i)


def left(w: int) -> Case:
    return Case("left", P.local((w, 0)), lambda i, j: 0 <= i - j <= w)


def blocks(b: int) -> Case:
    return Case(
        "blocks", P.blocks(b) & P.causal(), lambda i, j: j <= i and i // b == j // b
    )


def adjacent(b: int) -> Case:
    pattern = P.causal() & P.adjacent_blocks(b)
    return Case("adjacent", pattern, lambda i, j: j <= i and i // b - j // b <= 1)


def dilated(w: int, step: int) -> Case:
    kept = [step * x for x in range(w + 1)]
    return Case("dilated", P.dilated((w, 0), step), lambda i, j: i - j in kept)


def growing(draw: random.Random) -> Case:
    stride = draw.randint(1, 4)
    own = P.Pattern("own", keep=lambda i, j: (3 * i + j) % 4 != 1)
    return draw.choice(
        [
            Case("causal", P.causal(), lambda i, j: j <= i),
            Case(
                "strided",
                P.strided(stride) & P.causal(),
                lambda i, j: j <= i and (i - j) % stride == 0,
            ),
            Case("own", own & P.causal(), lambda i, j: j <= i and (3 * i + j) % 4 != 1),
            Case(
                "own in a window",
                own & P.local(5) & P.causal(),
                lambda i, j: i - 5 <= j <= i and (3 * i + j) % 4 != 1,
            ),
        ]
    )


def documents(draw: random.Random) -> Case:
    lengths = [draw.randint(0, 9) for _ in range(draw.randint(1, 9))]
    of = [number for number, n in enumerate(lengths) for _ in range(n)]

    def keep(i: int, j: int) -> bool:
        return 0 <= i < len(of) and j < len(of) and j <= i and of[i] == of[j]

    return Case("documents", P.documents(lengths) & P.causal(), keep)


def with_sinks(draw: random.Random, case: Case) -> Case:
    """Let every query meet the first tokens too; the sign of a prefix or of tokens."""
    count = draw.randint(0, 6)
    first = draw.choice([P.prefix, P.global_tokens])(count)
    both = draw.choice([first | case.pattern, case.pattern | first]) & P.causal()

    def keep(i: int, j: int) -> bool:
        return case.keep(i, j) or (j < count and j <= i)

    return Case(f"{case.name} and sinks", both, keep)


def shifted(draw: random.Random, case: Case) -> Case:
    """Let each query meet what one further on, or further back, would."""
    by = draw.randint(-6, 3)

    def keep(i: int, j: int) -> bool:
        return j <= i and case.keep(i + by, j)

    pattern = P.shifted(case.pattern, by) & P.causal()
    return Case(f"{case.name}, shifted", pattern, keep)


def any_case(draw: random.Random) -> Case:
    size = draw.choice([0, 1, 2, 3, 5, 8, 16])
    makers = (
        lambda: near(size),
        lambda: left(size),
        lambda: blocks(size + 1),
        lambda: adjacent(size + 1),
        lambda: dilated(size, draw.randint(1, 4)),
        lambda: growing(draw),
        lambda: documents(draw),
    )
    case = draw.choice(makers)()
    if draw.random() < 0.1:
        case = shifted(draw, case)
    return with_sinks(draw, case) if draw.random() < 0.4 else case


def table(keep: Callable, n: int) -> Tensor:
    """Which of n queries meets which key, pair by pair: bool, (n, n)."""
    met = [[keep(i, j) for j in range(n)] for i in range(n)]
    return torch.tensor(met, dtype=torch.bool).reshape(n, n)


def reference(q: Tensor, k: Tensor, v: Tensor, met: Tensor) -> Tensor:
    """One row's attention: q (heads, n, d), k (kv_heads, n, d), by the definition."""
    groups = q.shape[0] // k.shape[0]
    rows = []
    for head in range(q.shape[0]):
        scores = q[head] @ k[head // groups].T / q.shape[-1] ** 0.5
        powers = torch.where(met, scores.exp(), 0.0)
        total = powers.sum(-1, keepdim=True)
        rows.append(powers @ v[head // groups] / total.where(total > 0, 1.0))
    return torch.stack(rows)


class Text(NamedTuple):
    """Queries, keys and values of a row, each (heads, n, d), and its result."""

    q: Tensor
    k: Tensor
    v: Tensor
    wanted: Tensor


def any_chunks(draw: random.Random, rows: int) -> list[list[int]]:
    """New tokens of each row, call by call: prompts, parts of prompts, single steps."""
    alike = draw.random() < 0.5
    calls = []
    for _ in range(draw.randint(1, 8)):
        most = draw.choice([1, 1, 2, 5, 12, 30])
        if draw.random() < 0.3:  # a run of decode steps
            calls += [[1] * rows for _ in range(draw.randint(1, 12))]
        elif alike:
            calls.append([draw.randint(0, most)] * rows)
        else:
            calls.append([draw.randint(0, most) for _ in range(rows)])
    if draw.random() < 0.1:  # longer than several tiles of the fast routines
        calls.insert(draw.randint(0, 1), [draw.randint(60, 120)] * rows)
    return calls


def any_texts(draw: random.Random, lengths: list[int], keep: Callable) -> list[Text]:
    kv_heads, groups = draw.randint(1, 3), draw.randint(1, 3)
    d, d_v = draw.randint(1, 5), draw.randint(1, 5)
    source = torch.Generator("cpu").manual_seed(draw.randrange(2**32))

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=source)

    texts, met = [], table(keep, max(lengths))
    for n in lengths:
        q, k = noise(kv_heads * groups, n, d), noise(kv_heads, n, d)
        v = noise(kv_heads, n, d_v)
        texts.append(Text(q, k, v, reference(q, k, v, met[:n, :n])))
    return texts


def padded(parts: list[Tensor], width: int) -> Tensor:
    """Stack what rows bring, with NaN behind it."""
    whole = parts[0].new_full(
        (len(parts), len(parts[0]), width, parts[0].shape[-1]), torch.nan
    )
    for row, part in enumerate(parts):
        whole[row, :, : part.shape[1]] = part
    return whole


def error_of_call(cache, texts: list[Text], seen: list[int], new: list[int], extra=0):
    """Attend once; the largest difference, infinite where padding is not 0."""
    width = max(new) + extra
    ends = [a + b for a, b in zip(seen, new, strict=True)]
    cuts = [slice(a, b) for a, b in zip(seen, ends, strict=True)]
    qkv = (
        padded([text[x][:, cut] for text, cut in zip(texts, cuts, strict=True)], width)
        for x in range(3)
    )
    ragged = extra or min(new) < width
    output = cache.attend(*qkv, torch.tensor(new) if ragged else None)
    worst = 0.0
    for row, (text, cut) in enumerate(zip(texts, cuts, strict=True)):
        n = cut.stop - cut.start
        if output[row, :, n:].ne(0).any():
            return float("inf")
        off = (output[row, :, :n] - text.wanted[:, cut]).abs()
        worst = max(worst, off.nan_to_num(nan=float("inf")).amax().item() if n else 0)
    return worst


def split(seed: int, make: Callable = RollingCache) -> tuple[str, float]:
    """One random split: the kind of its pattern, and its largest error."""
    draw = random.Random(seed)
    case = any_case(draw)
    calls = any_chunks(draw, rows := draw.randint(1, 3))
    lengths = [sum(row) for row in zip(*calls, strict=True)]
    texts, cache = any_texts(draw, lengths, case.keep), make(case.pattern)
    seen, worst = [0] * rows, 0.0
    for new in calls:
        extra = draw.randint(0, 2) if draw.random() < 0.2 else 0
        worst = max(worst, error_of_call(cache, texts, seen, new, extra))
        seen = [a + b for a, b in zip(seen, new, strict=True)]
    assert cache.lengths.tolist() == seen
    return case.name, worst


def tried(first: int, count: int) -> dict:
    """Try some seeds: how many of each kind, and the largest error of each kind."""
    kinds: dict[str, list] = {}
    for seed in range(first, first + count):
        kind, error = split(seed)
        if error > MOST:
            raise SystemExit(f"seed {seed}, {kind}: error {error:.1e}")
        known = kinds.setdefault(kind, [0, 0.0])
        kinds[kind] = [known[0] + 1, max(known[1], float(f"{error:.1e}"))]
    return dict(sorted(kinds.items()))


if __name__ == "__main__":
    run(__doc__, {"what": WHAT, "allowed": MOST}, "kinds", tried)
