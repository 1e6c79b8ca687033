"""Exercises on local attention."""

import torch

import attn_tutorial as at
from attn_tutorial.exercises.catalogue import (
    CAUSAL_WINDOW,
    WINDOW,
    mask,
    same_length_cases,
    window_cases,
)
from attn_tutorial.exercises.exercise import (
    Choice,
    Exercise,
    Formula,
    Function,
    Mistake,
    Number,
    Question,
    right,
    wrong,
)


def causal_tiles(q, k, v, window, tile):
    """Causal window attention by tiles of queries, each against its run of keys."""
    position, output = torch.arange(q.shape[-2]), []
    for start in range(0, q.shape[-2], tile):
        rows = slice(start, start + tile)
        run = slice(max(0, start - window), start + tile)
        gap = position[rows, None] - position[run]
        keep = (gap >= 0) & (gap <= window)
        tile_q, run_k, run_v = q[..., rows, :], k[..., run, :], v[..., run, :]
        output.append(at.attention(tile_q, run_k, run_v, keep))
    return torch.cat(output, dim=-2)


def window_mask(n, w):
    """True where query i may meet key j, |i - j| <= w; bool of shape (n, n)."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return (i - j).abs() <= w


def causal_window(n, w):
    """True where query i sees itself and the w keys before it; bool (n, n)."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return (j <= i) & (i - j <= w)


def window_attention(q, k, v, w):
    """Attention over the keys at most w away; q, k, v are (..., n, d), no mask.

    For each query, slice its keys and values, and attend to these only.
    """
    output = []
    for i in range(q.shape[-2]):
        near = slice(max(0, i - w), i + w + 1)
        scores = q[..., i : i + 1, :] @ k[..., near, :].mT / q.shape[-1] ** 0.5
        output.append(scores.softmax(-1) @ v[..., near, :])
    return torch.cat(output, dim=-2)


def kept_pairs(n, w):
    """Pairs that a two-sided window keeps among n tokens: a closed form, any w >= 0."""
    w = min(w, max(n - 1, 0))
    return n * (2 * w + 1) - w * (w + 1)


def cases_with_windows(seed):
    """Inputs with windows, from 0 to wider than the text."""
    for q, k, v in same_length_cases(seed):
        for w in (0, 1, 2, 7):
            yield q, k, v, w


def cases_with_tiles(seed):
    """Inputs with windows and tiles, some ragged."""
    for (q, k, v), (w, tile) in zip(
        same_length_cases(seed),
        ((1, 2), (0, 1), (1, 1), (1, 2), (2, 2), (3, 3), (1, 4), (5, 4)),
        strict=True,
    ):
        yield q, k, v, w, tile


def by_mask(predicate, after=False):
    """Window attention with a mask that is wrong, or right and applied too late."""

    def attend(q, k, v, w):
        keep = mask(predicate)(q.shape[-2], w)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if after:
            return scores.softmax(-1).masked_fill(~keep, 0.0) @ v
        return scores.masked_fill(~keep, -torch.inf).softmax(-1) @ v

    return attend


def padded(q, k, v, w):
    """Window attention in which keys and values of zeros stand beyond the ends."""
    k, v = (torch.nn.functional.pad(x, (0, 0, w, w)) for x in (k, v))
    keep = torch.arange(k.shape[-2]) - torch.arange(q.shape[-2])[:, None]
    scores = q @ k.mT / q.shape[-1] ** 0.5
    scores = scores.masked_fill((keep < 0) | (keep > 2 * w), -torch.inf)
    return scores.softmax(-1) @ v


def negative_start(q, k, v, w):
    """The slice i - w : i + w + 1, whose start is negative near the beginning."""
    output = []
    for i in range(q.shape[-2]):
        keys, values = k[..., i - w : i + w + 1, :], v[..., i - w : i + w + 1, :]
        scores = q[..., i : i + 1, :] @ keys.mT / q.shape[-1] ** 0.5
        output.append(scores.softmax(-1) @ values)
    return torch.cat(output, dim=-2)


def early_stop(q, k, v, w):
    """The slice i - w : i + w, which leaves the last key out."""
    output = []
    for i in range(q.shape[-2]):
        near = slice(max(0, i - w), i + w)
        scores = q[..., i : i + 1, :] @ k[..., near, :].mT / q.shape[-1] ** 0.5
        output.append(scores.softmax(-1) @ v[..., near, :])
    return torch.cat(output, dim=-2)


def tiles_with(predicate, start=lambda first, w: max(0, first - w), stop=0):
    """Causal tiles with another mask, or another run of keys."""

    def attend(q, k, v, window, tile):
        position, output = torch.arange(q.shape[-2]), []
        for first in range(0, q.shape[-2], tile):
            rows = slice(first, first + tile)
            run = slice(start(first, window), first + tile + stop)
            keep = predicate(position[rows, None] - position[run], window)
            output.append(
                at.attention(q[..., rows, :], k[..., run, :], v[..., run, :], keep)
            )
        return torch.cat(output, dim=-2)

    return attend


EXERCISES = (
    Exercise(
        id="local-1",
        kind="predict",
        difficulty=1,
        minutes=4,
        section="What it costs",
        question=(
            r"A text has $n = 1000$ tokens, and the window is $w = 10$. How many pairs "
            r"are kept (`pairs`), and how many FLOPs does one head of width $d = 64$ "
            r"need for them (`flops`)?"
        ),
        parts=(
            Number(
                "pairs",
                20_890,
                {
                    1000 * 21: (
                        "The ends are missing: the first and the last 10 tokens have "
                        "fewer keys."
                    ),
                    1000 * 20 - 110: "A query meets itself too: 2w + 1 keys.",
                    1000 * 11
                    - 55: "That is the causal window; this one has two sides.",
                    1000 * 21 - 55: (
                        "There are two ends, and a triangle of w (w + 1) / 2 is "
                        "missing at each."
                    ),
                    1_000_000: "That is full attention.",
                },
            ),
            Number(
                "flops",
                5_347_840,
                {
                    2 * 64 * 20_890: "Scores and averages cost 2 d each: 4 d a pair.",
                    64 * 20_890: (
                        "A multiply-add counts as two operations, and there are two "
                        "products."
                    ),
                    4 * 64 * 21_000: "The ends are missing.",
                },
            ),
        ),
        worked="""
            pairs = 1000 * 21 - 10 * 11
            check("local-1", pairs=pairs, flops=4 * 64 * pairs)
        """,
        because=r"$n(2w + 1) - w(w + 1)$ pairs, and $4d$ FLOPs for each.",
    ),
    Exercise(
        id="local-2",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="Third version: tiles",
        question=(
            r"What is the tile tax, by the formula $(2w + t)/(2w + 1)$, for $w = "
            r"128$ and tiles of 64, to three decimals (`tax`)? Which is the largest "
            r"tile that is a power of 2 and keeps it at or below 1.5 (`tile`)?"
        ),
        parts=(
            Number(
                "tax",
                320 / 257,
                {
                    1.25: "A query keeps 2w + 1 keys; 256 leaves out its own.",
                    192 / 129: "That is w = 64.",
                    257 / 320: "Upside down: computed over kept.",
                },
                within=0.0006,
            ),
            Number(
                "tile",
                128,
                {
                    64: "128 still keeps the tax below 1.5.",
                    256: "Its tax is 512 / 257, nearly 2.",
                    129: "A power of 2 was asked for.",
                },
            ),
        ),
        worked="""
            tax = (256 + 64) / 257
            tile = max(2**p for p in range(10) if (256 + 2**p) / 257 <= 1.5)
            check("local-2", tax=tax, tile=tile)
        """,
        because="$(256 + t)/257 \\le 1.5$ means $t \\le 129.5$.",
    ),
    Exercise(
        id="local-3",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="The causal form",
        question=(
            r"Derive the number of pairs that a causal window keeps, for $w \le n - "
            r"1$ (`pairs`, a function of $n$ and $w$). How many for $n = 4096$ and "
            r"$w = 255$ (`number`)?"
        ),
        parts=(
            Formula(
                reference=lambda n, w: n * (w + 1) - w * (w + 1) // 2,
                name="pairs",
                cases=lambda seed: ((n, w) for n in range(1, 12) for w in range(n)),
                mistakes=(
                    Mistake(
                        "end forgotten",
                        "Every query is given w + 1 keys; the first ones have fewer.",
                        lambda n, w: n * (w + 1),
                    ),
                    Mistake(
                        "two sides",
                        "That is the window with two sides.",
                        lambda n, w: n * (2 * w + 1) - w * (w + 1),
                    ),
                    Mistake(
                        "two ends",
                        "A causal window lacks keys at the start only: one "
                        "triangle, not two.",
                        lambda n, w: n * (w + 1) - w * (w + 1),
                    ),
                    Mistake(
                        "itself forgotten",
                        "A query sees itself too.",
                        lambda n, w: n * w - w * (w + 1) // 2,
                    ),
                    Mistake(
                        "small triangle",
                        "Row 0 lacks w keys, row 1 lacks w - 1: the triangle has "
                        "w (w + 1) / 2 cells.",
                        lambda n, w: n * (w + 1) - w * (w - 1) // 2,
                    ),
                    Mistake(
                        "half",
                        "Half of the window with two sides counts the diagonal "
                        "by half.",
                        lambda n, w: (n * (2 * w + 1) - w * (w + 1)) / 2,
                    ),
                ),
            ),
            Number(
                "number",
                1_015_936,
                {
                    4096 * 256: "The start is missing.",
                    4096 * 511 - 255 * 256: "That is the window with two sides.",
                    4096 * 256 - 255 * 256: "One triangle is missing, not two.",
                },
            ),
        ),
        worked="""
            def pairs(n, w):
                return n * (w + 1) - w * (w + 1) // 2


            check("local-3", pairs=pairs, number=pairs(4096, 255))
        """,
        because=(
            "Every query has $w + 1$ keys, but for one triangle of $w(w+1)/2$ cells "
            "at the start."
        ),
    ),
    Exercise(
        id="local-4",
        kind="implement",
        difficulty=2,
        minutes=15,
        section="Tiles in code",
        question=(
            r"Change `by_tiles` into `causal_tiles`; two lines change. How many "
            r"FLOPs does `counted` report for `q, k, v` of shape `(24, 8)`, a window "
            r"of 3 and tiles of 8 (`flops`)?"
        ),
        parts=(
            Function(
                causal_tiles,
                cases_with_tiles,
                (
                    Mistake(
                        "causal forgotten",
                        "The mask still has two sides, inside the run.",
                        tiles_with(lambda gap, w: gap.abs() <= w),
                    ),
                    Mistake(
                        "absolute value dropped",
                        "The gap is negative for later keys of the tile, and "
                        "they are all kept.",
                        tiles_with(lambda gap, w: gap <= w),
                    ),
                    Mistake(
                        "one key too few",
                        "A key w back is kept: the comparison is `<=`.",
                        tiles_with(lambda gap, w: (gap >= 0) & (gap < w)),
                    ),
                    Mistake(
                        "one key too many",
                        "The mask keeps w + 1 keys to the left, where the run "
                        "has them.",
                        tiles_with(lambda gap, w: (gap >= 0) & (gap <= w + 1)),
                    ),
                    Mistake(
                        "itself forgotten",
                        "A gap of 0 is the query itself, and it is kept.",
                        tiles_with(lambda gap, w: (gap > 0) & (gap <= w)),
                    ),
                    Mistake(
                        "run too short",
                        "The run begins with the tile, so that the keys before "
                        "it are lost.",
                        tiles_with(
                            lambda gap, w: (gap >= 0) & (gap <= w),
                            start=lambda first, w: first,
                        ),
                    ),
                    Mistake(
                        "run one short",
                        "The run begins one key too late.",
                        tiles_with(
                            lambda gap, w: (gap >= 0) & (gap <= w),
                            start=lambda first, w: max(0, first - w + 1),
                        ),
                    ),
                ),
            ),
            Number(
                "flops",
                7680,
                {
                    4
                    * 8
                    * (
                        8 * (11 + 14 + 11)
                    ): "These are the runs of two sides: 11, 14 and 11 keys.",
                    4 * 8 * 90: "These are the kept pairs; a tile computes more.",
                    4 * 8 * 24 * 24: "That is full attention.",
                    3840: "There are two products: 4 d a pair.",
                },
            ),
        ),
        worked="""
            check("local-4", causal_tiles=causal_tiles, flops=4 * 8 * 8 * (8 + 11 + 11))
        """,
        because=(
            "The run ends with the tile, and the mask looks back only: runs of 8, 11 "
            "and 11 keys."
        ),
    ),
    Exercise(
        id="local-5",
        kind="diagnose",
        difficulty=1,
        minutes=6,
        section="The causal form",
        question=r"""
            A colleague wants a causal window of $w = 3$ and writes

            ```python
            i = torch.arange(12)[:, None]
            j = torch.arange(12)[None, :]
            keep = i - j <= 3
            keep = keep & (j >= i)
            ```

            Token 5 sees token 9. Which line is wrong (`line`, counted from 1)? How many
            keys has row 5 now (`now`), and how many should it have (`should`)?
        """,
        parts=(
            Number(
                "line",
                4,
                {
                    3: (
                        "That line bounds the past, as it should. The next one is to "
                        "forbid the future."
                    ),
                    1: "Queries are rows: that is right.",
                    2: "Keys are columns: that is right.",
                },
            ),
            Number(
                "now",
                7,
                {
                    6: "Row 5 keeps 5 to 11, itself included.",
                    4: "That is what it should have.",
                    10: "Keys 2 to 4 are removed by the last line.",
                },
            ),
            Number(
                "should",
                4,
                {3: "Itself and three before it.", 7: "That is what it has now."},
            ),
        ),
        worked="""
            i, j = torch.arange(12)[:, None], torch.arange(12)[None, :]
            now = (i - j <= 3) & (j >= i)
            should = (i - j <= 3) & (j <= i)
            check("local-5", line=4, now=now[5].sum(), should=should[5].sum())
        """,
        because=(
            "The last line keeps the future and forbids the past. Right is `keep & "
            "(j <= i)`."
        ),
    ),
    Exercise(
        id="local-6",
        kind="predict",
        difficulty=2,
        minutes=6,
        section="Depth",
        question=(
            r"(a) How many layers with $w = 64$, two-sided, does it take until every "
            r"one of 8192 tokens can influence every other (`layers`)? (b) A model "
            r"has 12 layers. What is the smallest window that connects all 8192 "
            r"tokens (`window`)? (c) A causal stack of 12 layers with $w = 64$: how "
            r"many tokens can influence the last one (`tokens`)?"
        ),
        parts=(
            Number(
                "layers",
                128,
                {
                    64: (
                        "The two ends are 8191 apart, and each layer adds 64 in one "
                        "direction."
                    ),
                    127: "127 layers reach 8128 tokens; 8191 are needed.",
                },
            ),
            Number(
                "window",
                683,
                {
                    682: "12 times 682 is 8184, fewer than 8191.",
                    342: "Both ends must hear each other: w counts one direction.",
                },
            ),
            Number(
                "tokens",
                769,
                {768: "It can influence itself too.", 1537: "That is two-sided."},
            ),
        ),
        worked="""
            layers, window = math.ceil(8191 / 64), math.ceil(8191 / 12)
            check("local-6", layers=layers, window=window, tokens=12 * 64 + 1)
        """,
        because=(
            r"Each layer adds $w$ on each side: $\lceil (n - 1)/w \rceil$ layers, "
            r"and $Lw + 1$ tokens in the causal form."
        ),
    ),
    Exercise(
        id="local-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="What was meant",
        question=(
            r"Write the mask of a window with two sides. It must hold for $w = 0$, "
            r"for $w \ge n$ and for no tokens at all."
        ),
        parts=(Function(window_mask, window_cases, WINDOW),),
        because=(
            "One comparison of distances; the edges need nothing, since there is "
            "nothing beyond them."
        ),
    ),
    Exercise(
        id="local-8",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="The causal form",
        question=(
            r"Write the mask of a causal window: each token sees itself and the $w$ "
            r"tokens before it."
        ),
        parts=(Function(causal_window, window_cases, CAUSAL_WINDOW),),
        because="$i - w \\le j \\le i$: away from the start $w + 1$ keys.",
    ),
    Exercise(
        id="local-9",
        kind="implement",
        difficulty=2,
        minutes=15,
        section="First version: a loop",
        question=(
            r"Write window attention as a loop over the queries that never touches a "
            r"key outside the window."
        ),
        parts=(
            Function(
                window_attention,
                cases_with_windows,
                (
                    Mistake(
                        "last key lost",
                        "The last key of each window is lost: the end of a slice "
                        "is left out.",
                        early_stop,
                    ),
                    Mistake(
                        "edges padded",
                        "Beyond the ends there are zeros with the score 0, and "
                        "exp(0) is 1: they take part of the weight.",
                        padded,
                    ),
                    Mistake(
                        "negative start",
                        "The start of the slice is negative for the first "
                        "queries, and counts from the end: say max(0, i - w).",
                        negative_start,
                    ),
                    Mistake(
                        "softmax before masking",
                        "The weights are cut off after the softmax, so that they "
                        "no longer sum to 1.",
                        by_mask(lambda i, j, n, w: (i - j).abs() <= w, after=True),
                    ),
                    Mistake(
                        "one side",
                        "This looks back only.",
                        by_mask(lambda i, j, n, w: (j <= i) & (i - j <= w)),
                    ),
                    Mistake(
                        "one key too many",
                        "This meets w + 1 keys on each side.",
                        by_mask(lambda i, j, n, w: (i - j).abs() <= w + 1),
                    ),
                    Mistake(
                        "window forgotten",
                        "This is full attention: the window has no effect.",
                        by_mask(lambda i, j, n, w: (i - j).abs() <= n),
                    ),
                    Mistake(
                        "not divided",
                        "The scores are not divided by the root of the width.",
                        lambda q, k, v, w: window_attention(
                            q * q.shape[-1] ** 0.5, k, v, w
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "`k[max(0, i - w) : i + w + 1]` is the slice that moves with its query."
        ),
    ),
    Exercise(
        id="local-10",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="What was meant",
        question=(
            r"Write the number of kept pairs in closed form, for every $w \ge 0$, "
            r"also beyond the length."
        ),
        parts=(
            Function(
                kept_pairs,
                window_cases,
                (
                    Mistake(
                        "ends forgotten",
                        "The ends are missing: the first and the last w tokens "
                        "have fewer keys.",
                        lambda n, w: n * (2 * w + 1),
                    ),
                    Mistake(
                        "wide windows",
                        "For w >= n the formula runs on past the text; there all "
                        "n² pairs are kept.",
                        lambda n, w: n * (2 * w + 1) - w * (w + 1),
                    ),
                    Mistake(
                        "causal",
                        "That is the causal window.",
                        lambda n, w: (
                            n * (min(w, n - 1) + 1)
                            - min(w, n - 1) * (min(w, n - 1) + 1) // 2
                            if n
                            else 0
                        ),
                    ),
                    Mistake(
                        "one end",
                        "There are two ends, and a triangle is missing at each.",
                        lambda n, w: (
                            n * (2 * min(w, n - 1) + 1)
                            - min(w, n - 1) * (min(w, n - 1) + 1) // 2
                            if n
                            else 0
                        ),
                    ),
                    Mistake(
                        "capped at the square",
                        "For wide windows this is cut off at n²; a bit earlier "
                        "it is already wrong.",
                        lambda n, w: min(n * n, n * (2 * w + 1)),
                    ),
                ),
            ),
        ),
        because="$n(2w+1) - w(w+1)$ with $w$ cut off at $n - 1$.",
    ),
    Exercise(
        id="local-11",
        kind="diagnose",
        difficulty=2,
        minutes=6,
        section="The causal form",
        question=r"""
            Training with a new mask goes splendidly: the loss falls far below that of
            full attention. When the model writes by itself, it writes nonsense. Which
            mask is it, for a window meant to be causal with $w = 4$: (a) `(j <= i) & (i
            - j < 4)`; (b) `(i - j).abs() <= 4`; (c) `(j <= i) & (i - j <= 5)`; (d) `(j
            < i) & (i - j <= 4)`?
        """,
        parts=(
            Choice(
                "mask",
                (
                    wrong(
                        "too few",
                        "One key too few costs a little. It does not make a loss fall.",
                    ),
                    right("two sides", ""),
                    wrong(
                        "too many",
                        "One key too many, and it lies in the past: no harm in "
                        "writing.",
                    ),
                    wrong(
                        "itself missing",
                        "The first token has no key at all, which gives NaN or "
                        "zeros, and no splendid loss.",
                    ),
                ),
            ),
        ),
        worked="""
            check("local-11", "b")
        """,
        because=(
            "(b): a mask with two sides shows the answer in training: the next token. "
            "When the model writes, there is no next token yet."
        ),
    ),
)

QUIZ = (
    Question(
        "Eight tokens, $w = 2$. What does the slice `[:, -2:2]` of the scores select?",
        (
            wrong(
                "The two columns on each side of the diagonal.",
                "A slice is a rectangle: the same columns for every row.",
            ),
            wrong(
                "The last two columns and the first two.",
                "A slice does not wrap around.",
            ),
            right("Nothing.", "It starts at column 6 and stops before column 2."),
        ),
    ),
    Question(
        "How many keys does a query in the middle of a long text meet with a "
        "causal window of $w = 100$?",
        (
            wrong("100.", "These are the keys before it. It meets itself too."),
            right("101.", "Itself and the 100 before it."),
            wrong("201.", "That is the window with two sides."),
        ),
    ),
    Question(
        "Full attention with a mask that forbids nine tenths of the pairs: what "
        "does the mask save?",
        (
            wrong(
                "Nine tenths of the operations.",
                "All scores are computed, and then most of them overwritten.",
            ),
            right(
                "Nothing.",
                "It changes the answer, not the bill; it even adds the traffic "
                "of the mask.",
            ),
            wrong("The memory of the scores.", "The matrix of all pairs is there."),
        ),
    ),
    Question(
        "The tiles are made twice as tall, with the same window. What happens?",
        (
            right(
                "Each product is larger, and more of it is in vain.",
                "The tax $(2w + t)/(2w + 1)$ rises with $t$; whether it pays "
                "depends on the machine.",
            ),
            wrong(
                "Fewer pairs are computed.",
                "A taller tile meets a longer run, and its corners are masked.",
            ),
            wrong(
                "The result changes a little.",
                "A mask trims every tile: the kept pairs are the same.",
            ),
        ),
    ),
    Question(
        "A stack of 6 causal layers with $w = 32$. A fact stands 200 tokens "
        "back. What can the last token know of it?",
        (
            wrong(
                "A little: the influence fades with distance.",
                "It does, up to the reach. Beyond it there is none.",
            ),
            right(
                "Nothing.",
                "The reach is $6 \\cdot 32 = 192$ tokens back; outside it every "
                "derivative is zero.",
            ),
            wrong(
                "Everything, if the layers pass it on.",
                "There are too few of them to pass it on so far.",
            ),
        ),
    ),
)
