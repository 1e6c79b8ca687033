"""Random predicates, put to ``identify``: named right, named wrong, or not named.

python tests/identify_census.py 100             10,000 of them, a hundred a seed
python tests/identify_census.py 20 --first 40   those of seeds 40 ... 59
python tests/identify_census.py 20 --out FILE   and add the counts to a record
"""

from __future__ import annotations

import random
from collections import Counter

import torch
from pieces import run

from attn_tutorial import patterns as P
from attn_tutorial.conventions import identify
from attn_tutorial.patterns import dense_mask

WHAT = "Random predicates put to conventions.identify, a hundred a seed: how many were "
WHAT += "named right, named wrong or not at all; missed are plain patterns without a "
WHAT += "name"
A_SEED = 100


def flipped(keep, n, draw):
    """One pair is the other way round."""
    a, b = draw.randrange(n), draw.randrange(n)
    return lambda i, j: keep(i, j) ^ ((i == a) & (j == b))


def row_off(keep, n, draw):
    """One query meets one key more or less far."""
    row, by = draw.choice([0, 1, n - 1, draw.randrange(n)]), draw.choice([-1, 1])
    return lambda i, j: keep(i + by * (i == row), j)


def later_off(keep, n, draw):
    """From some query on everything is off by one."""
    row, by = draw.randrange(1, n), draw.choice([-1, 1])
    return lambda i, j: keep(i + by * (i >= row), j)


def moved(keep, n, draw):
    """All queries stand a little elsewhere, as in blocks with an offset."""
    by = draw.randrange(1, 9)
    return lambda i, j: keep(i + by, j + by)


def clamped(keep, n, draw):
    """At the edges the query stays where the middle begins, as in NATTEN."""
    edge = draw.randrange(1, n // 3)
    return lambda i, j: keep(i.clamp(edge, n - 1 - edge), j)


def with_global(keep, n, draw):
    """One token in the middle is global."""
    token = draw.randrange(n)
    return lambda i, j: keep(i, j) | (i == token) | (j == token)


def without_itself(keep, n, draw):
    return lambda i, j: keep(i, j) & (i != j)


def with_gaps(keep, n, draw):
    step = draw.randrange(2, 5)
    return lambda i, j: keep(i, j) & ((i - j) % step == 0)


def backwards(keep, n, draw):
    return lambda i, j: keep(n - 1 - i, n - 1 - j)


def turned(keep, n, draw):
    return lambda i, j: keep(j, i)


def of_the_end(keep, n, draw):
    """The last tokens are global too, as BigBird's last block."""
    count = draw.randrange(1, 9)
    return lambda i, j: keep(i, j) | (i >= n - count) | (j >= n - count)


CHANGES = [flipped, row_off, later_off, moved, clamped, with_global, without_itself]
CHANGES += [with_gaps, backwards, turned, of_the_end]


def drawn_pattern(n, draw):
    """A pattern of any kind, of a random size."""
    w, r, b = draw.randrange(n), draw.randrange(n // 2), draw.randrange(1, n)
    few = draw.randrange(1, 9)
    lengths = [draw.randrange(1, n) for _ in range(draw.randrange(1, 6))]
    lengths.append(max(1, n - sum(lengths)))
    kinds = [
        *[P.local((w, 0)), P.local(w), P.local((w, r)), P.local((0, w)), P.causal()],
        *[P.blocks(b), P.blocks(b) & P.causal(), P.adjacent_blocks(b), P.full()],
        *[P.adjacent_blocks(b) & P.causal(), P.prefix(few), P.strided(few)],
        *[(P.prefix(few) | P.local((w, 0))) & P.causal(), P.prefix(few) | P.causal()],
        *[P.global_tokens(few) | P.local(r), P.dilated((r // few, r // few), few)],
        *[P.documents(lengths), P.documents(lengths) & P.causal()],
    ]
    return draw.choice(kinds)


def drawn(n, draw):
    """A predicate: a pattern, one that is nearly one, two together, or noise."""
    pattern = drawn_pattern(n, draw)
    kind = draw.randrange(10)
    if kind < 2:
        return pattern.keep, True
    if kind < 7:
        return draw.choice(CHANGES)(pattern.keep, n, draw), False
    if kind < 9:
        other = drawn_pattern(n, draw)
        return draw.choice([pattern | other, pattern & other]).keep, False
    share = draw.choice([0.0, 0.01, 0.5, 0.99])
    table = torch.rand(n, n, generator=torch.Generator().manual_seed(kind)) < share
    return lambda i, j: table[i, j], False


def truth(keep, n):
    places = torch.arange(n)
    return keep(places[:, None], places[None, :]).expand(n, n)


def census(number, seed, sizes=(8, 160)):
    """Draw predicates; count those named right, wrong, and not; plain ones missed."""
    draw = random.Random(seed)
    counts = {"right": 0, "wrong": 0, "unknown": 0, "missed": 0}
    for _ in range(number):
        n = draw.randrange(*sizes)
        keep, plain = drawn(n, draw)
        found = identify(keep, n)
        if found.pattern is None:
            counts["unknown"] += 1
            counts["missed"] += plain
        else:
            same = torch.equal(dense_mask(found.pattern, n), truth(keep, n))
            counts["right" if same else "wrong"] += 1
    return counts


def counted(first, count):
    """The counts of some seeds together."""
    counts = Counter()
    for seed in range(first, first + count):
        counts.update(census(A_SEED, seed))
        if counts["wrong"]:
            raise SystemExit(f"seed {seed}: {dict(counts)}")
    return dict(counts)


if __name__ == "__main__":
    run(__doc__, {"what": WHAT, "a_seed": A_SEED}, "counts", counted)
