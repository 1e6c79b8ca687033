"""Exercises on windows across devices."""

import attn_tutorial as at
from attn_tutorial.exercises.exercise import (
    Choice,
    Exercise,
    Formula,
    Function,
    Items,
    Mistake,
    Number,
    Question,
    right,
    wrong,
)


def halo_for_blocks(lengths, block_size):
    """Tokens that each rank fetches for adjacent blocks, a list of whole numbers.

    Rank r holds the next lengths[r] tokens of the text. Own tokens do not count.
    """
    keep = at.dense_mask(at.patterns.adjacent_blocks(block_size), sum(lengths))
    fetched, start = [], 0
    for n in lengths:
        seen = keep[start : start + n].any(0)
        fetched.append(int(seen.sum()) - n if n else 0)
        start += n
    return fetched


def halo(lengths, rank, w):
    """Tokens (before, after) its shard that a rank fetches for a window of w.

    Rank r holds the next lengths[r] tokens; two-sided, no text beyond the ends.
    """
    start = sum(lengths[:rank])
    stop, n = start + lengths[rank], sum(lengths)
    if lengths[rank] == 0:
        return 0, 0
    return min(w, start), min(w, n - stop)


def block_cuts(seed):
    """Cuts of a text into shards, with block sizes."""
    cuts = ([4], [2, 2], [4, 4], [3, 5], [4, 0, 4], [12] * 4, [16, 8, 8, 16])
    yield from ((list(cut), b) for cut in cuts for b in (1, 2, 4, 8))
    yield [5, 0, 30, 13 + seed % 7], 8


def window_cuts(seed):
    """Cuts of a text into shards, with ranks and windows."""
    for cut in (
        [4],
        [4, 4],
        [4, 4, 4],
        [10, 3, 10],
        [11, 2, 11],
        [5, 0, 5],
        [1, 1, 1, 1],
    ):
        yield from ((list(cut), r, w) for r in range(len(cut)) for w in (0, 1, 3, 5))


def neighbours_only(lengths, rank, w):
    """The halo of a colleague who asks the two ranks beside only."""
    if lengths[rank] == 0:
        return 0, 0
    before = lengths[rank - 1] if rank else 0
    after = lengths[rank + 1] if rank + 1 < len(lengths) else 0
    return min(w, before), min(w, after)


def blocks_by(seen_from):
    """Fetched tokens by another rule for what a shard sees."""

    def fetched(lengths, b):
        found, start, n = [], 0, sum(lengths)
        for length in lengths:
            found.append(seen_from(start, start + length, b, n) if length else 0)
            start += length
        return found

    return fetched


EXERCISES = (
    Exercise(
        id="devices-1",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Without a window: all-gather and ring",
        question=(
            r"Cut $n = 65{,}536$ tokens over $G = 8$ ranks, with $w = 256$ and 8 heads "
            r"of width $d = d_v = 64$ in float32. How many bytes does a rank in the "
            r"middle send forward (`middle`)? The first rank (`first`)? A rank of a "
            r"ring (`ring`)? From which length $n$ on, a multiple of 8, does the ring "
            r"send at least a thousand times what the halo sends (`length`)?"
        ),
        parts=(
            Number(
                "middle",
                2_097_152,
                {
                    1_048_576: "Both neighbours need its edge.",
                    524_288: "Four bytes a number, and keys and values both.",
                    4_194_304: (
                        "Forward, keys and values travel; their gradients come later."
                    ),
                },
            ),
            Number("first", 1_048_576, {2_097_152: "It has one neighbour."}),
            Number(
                "ring",
                234_881_024,
                {
                    268_435_456: (
                        "A ring of 8 takes 7 steps: the last shard comes home by "
                        "itself."
                    )
                },
            ),
            Number(
                "length",
                585_144,
                {
                    512_000: "A ring sends (G - 1)/G of the text.",
                    585_136: "Just below 1000.",
                    585_143: "A multiple of 8 was asked for.",
                },
            ),
        ),
        worked="""
            unit = 8 * (64 + 64) * 4
            length = next(n for n in range(8, 10**6, 8) if 7 * n / 8 / 512 >= 1000)
            check(
                "devices-1",
                middle=2 * 256 * unit,
                first=256 * unit,
                ring=7 * (65536 // 8) * unit,
                length=length,
            )
        """,
        because="4096 bytes a token; the halo is $2w$ tokens whatever $n$ and $G$ are.",
    ),
    Exercise(
        id="devices-2",
        kind="predict",
        difficulty=1,
        minutes=8,
        section="Shards need not be equal",
        question=(
            r"Shards of 10, 3 and 10 tokens, $w = 5$. How many tokens does each rank "
            r"receive from each rank, forward? Give three lists of three, the "
            r"receiving rank's first: `rank_0`, `rank_1`, `rank_2`."
        ),
        parts=(
            Items(
                "rank_0",
                (0, 3, 2),
                {
                    (
                        0,
                        3,
                        0,
                    ): "Rank 1 has three tokens only; the window looks past it.",
                    (0, 5, 0): "Rank 1 has three tokens only.",
                },
            ),
            Items(
                "rank_1",
                (5, 0, 5),
                {(10, 0, 10): "A window of 5 needs 5 from each side."},
            ),
            Items(
                "rank_2",
                (2, 3, 0),
                {
                    (
                        0,
                        3,
                        0,
                    ): "Rank 1 has three tokens only; the window looks past it.",
                    (0, 5, 0): "Rank 1 has three tokens only.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.backends.halo import plan_halo

            plans = [
                plan_halo([10, 3, 10], rank, at.patterns.local(5)) for rank in range(3)
            ]
            a, b, c = ([len(part) for part in plan.received] for plan in plans)
            check("devices-2", rank_0=a, rank_1=b, rank_2=c)
        """,
        because=(
            "A shard that is shorter than the window is not the end of what its "
            "neighbour sees."
        ),
    ),
    Exercise(
        id="devices-3",
        kind="diagnose",
        difficulty=2,
        minutes=12,
        section="Shards need not be equal",
        question=(
            r"A colleague's exchange takes “the last $w$ keys of the rank before me "
            r"and the first $w$ of the rank after me”, as slices `[-w:]` and `[:w]`, "
            r"and treats what it gets as adjacent to its shard. Tests with 4 shards "
            r"of 16 tokens and $w \le 16$ pass. Which rows are wrong for shards of "
            r"11, 2 and 11 with $w = 4$ (`rows`, a list)? Which comparison finds it "
            r"(`finds`): (a) of the shapes; (b) of the mean of the output; (c) row "
            r"by row with one process?"
        ),
        parts=(
            Items(
                "rows",
                (9, 10, 13, 14),
                {
                    (10, 13): "Query 9 should see up to 13, which is on rank 2.",
                    (
                        8,
                        9,
                        10,
                        13,
                        14,
                        15,
                    ): "Query 8 sees up to 12, which is on rank 1.",
                    (9, 10): "Rank 2 misses the keys 9 and 10 likewise.",
                    (11, 12): "The rank in the middle gets all that it needs.",
                },
            ),
            Choice(
                "finds",
                (
                    wrong("shapes", "The shapes are right."),
                    wrong("mean", "It moves by next to nothing."),
                    right("row by row", ""),
                ),
            ),
        ),
        worked="""
            rows = [
                i
                for i in range(24)
                if (i < 11 and i + 4 >= 13) or (i >= 13 and i - 4 < 11)
            ]
            check("devices-3", rows=rows, finds="c")
        """,
        because=(
            "Any cut in which an inner shard is shorter than $w$ shows it: a slice "
            "of a short shard is silently short."
        ),
    ),
    Exercise(
        id="devices-4",
        kind="derive",
        difficulty=3,
        minutes=15,
        section="What a shard lacks",
        question=(
            r"A stack of $L$ windowed layers exchanges $w$ tokens to each side in "
            r"every layer. Alternatively fetch one halo of $Lw$ tokens of the "
            r"*input* once, and compute the layers on it without any exchange. As "
            r"functions of $L$ and $w$: how many tokens does a rank in the middle "
            r"receive in the first plan (`each`), and in the second (`once`)? How "
            r"many token-layers are computed more than needed in the second "
            r"(`extra`)?"
        ),
        parts=(
            Formula(
                reference=lambda L, w: 2 * L * w,
                name="each",
                cases=lambda seed: ((L, w) for L in (1, 2, 5) for w in (1, 4)),
                mistakes=(
                    Mistake("one side", "From both sides.", lambda L, w: L * w),
                    Mistake("one layer", "In every layer.", lambda L, w: 2 * w),
                ),
            ),
            Formula(
                reference=lambda L, w: 2 * L * w,
                name="once",
                cases=lambda seed: ((L, w) for L in (1, 2, 5) for w in (1, 4)),
                mistakes=(
                    Mistake("one side", "From both sides.", lambda L, w: L * w),
                    Mistake(
                        "one window",
                        "The halo must hold what all layers will need.",
                        lambda L, w: 2 * w,
                    ),
                ),
            ),
            Formula(
                reference=lambda L, w: L * (L - 1) * w,
                name="extra",
                cases=lambda seed: ((L, w) for L in (1, 2, 5) for w in (1, 4)),
                mistakes=(
                    Mistake(
                        "all layers on the whole halo",
                        "After layer l only (L - l) w tokens on each side are "
                        "still needed.",
                        lambda L, w: 2 * L * L * w,
                    ),
                    Mistake(
                        "one side", "On both sides.", lambda L, w: L * (L - 1) * w / 2
                    ),
                    Mistake(
                        "last layer too",
                        "The last layer computes nothing beyond the shard.",
                        lambda L, w: L * (L + 1) * w,
                    ),
                ),
            ),
        ),
        worked="""
            check(
                "devices-4",
                each=lambda L, w: 2 * L * w,
                once=lambda L, w: 2 * L * w,
                extra=lambda L, w: sum(
                    2 * (L - layer) * w for layer in range(1, L + 1)
                ),
            )
        """,
        because=(
            "As many tokens in one message instead of $L$ that wait, at the price of "
            "$L(L-1)w$ token-layers. Choose it when messages are slow to start and "
            "$Lw$ is small against the shard."
        ),
    ),
    Exercise(
        id="devices-5",
        kind="implement",
        difficulty=2,
        minutes=15,
        section="Shards need not be equal",
        question=(
            r"Write `halo_for_blocks(lengths, block_size)`, from `at.dense_mask` and "
            r"nothing else. For cuts of 48 tokens into 4 shards of which none is "
            r"empty, what is the smallest total, for $b = 8$ (`total`)?"
        ),
        parts=(
            Function(
                halo_for_blocks,
                block_cuts,
                (
                    Mistake(
                        "own tokens counted",
                        "Own tokens need not be fetched.",
                        blocks_by(
                            lambda a, z, b, n: (
                                min(n, (-(-z // b) + 1) * b) - max(0, (a // b - 1) * b)
                            )
                        ),
                    ),
                    Mistake(
                        "a window",
                        "That is a window of b around the shard; blocks are "
                        "fetched whole.",
                        blocks_by(lambda a, z, b, n: min(a, b) + min(n - z, b)),
                    ),
                    Mistake(
                        "own block forgotten",
                        "A block that is cut by the border has to be completed "
                        "as well.",
                        blocks_by(
                            lambda a, z, b, n: (
                                min(b, max(0, a // b * b))
                                + min(b, max(0, n - -(-z // b) * b))
                            )
                        ),
                    ),
                    Mistake(
                        "before only",
                        "The tokens after the shard are missing.",
                        blocks_by(lambda a, z, b, n: a - max(0, (a // b - 1) * b)),
                    ),
                    Mistake(
                        "after only",
                        "The tokens before the shard are missing.",
                        blocks_by(lambda a, z, b, n: min(n, (-(-z // b) + 1) * b) - z),
                    ),
                ),
            ),
            Number(
                "total",
                48,
                {
                    64: "With whole blocks at every cut a border costs two blocks.",
                    24: "Each border costs one block in each direction.",
                    72: "A cut inside a block costs one block more.",
                },
            ),
        ),
        worked="""
            check(
                "devices-5",
                halo_for_blocks=halo_for_blocks,
                total=sum(halo_for_blocks([16, 8, 8, 16], 8)),
            )
        """,
        because=(
            "A rank fetches the keys that any of its queries keeps, less its own."
        ),
    ),
    Exercise(
        id="devices-6",
        kind="derive",
        difficulty=2,
        minutes=10,
        section="Without a window: all-gather and ring",
        question=(
            r"Causal *full* attention on $G$ equal contiguous shards: how many pairs "
            r"does rank $r$ compute, as a function of $r$ and of the length $n/G$ of a "
            r"shard (`pairs`)? What is the last rank's share against the average for "
            r"$G = 64$ and long shards, to two decimals (`ratio`)? Is a causal window "
            r"with $w \le n/G$ (`window`) (a) as uneven; (b) even, but for the first "
            r"rank; (c) uneven the other way?"
        ),
        parts=(
            Formula(
                reference=lambda r, c: r * c * c + c * (c + 1) // 2,
                name="pairs",
                cases=lambda seed: ((r, c) for r in (0, 1, 2, 7) for c in (1, 2, 16)),
                mistakes=(
                    Mistake(
                        "own triangle forgotten",
                        "A rank also computes its own triangle.",
                        lambda r, c: r * c * c,
                    ),
                    Mistake(
                        "own square",
                        "Causally its own square is a triangle.",
                        lambda r, c: (r + 1) * c * c,
                    ),
                    Mistake(
                        "counted from 1",
                        "Ranks are counted from 0: rank 0 meets no other shard.",
                        lambda r, c: (r - 1) * c * c + c * (c + 1) // 2,
                    ),
                    Mistake(
                        "diagonal forgotten",
                        "A query sees itself.",
                        lambda r, c: r * c * c + c * (c - 1) // 2,
                    ),
                ),
            ),
            Number(
                "ratio",
                1.98,
                {
                    2.0: "That is the limit for many ranks: (2 G - 1)/G.",
                    1.97: "(2 G - 1)/G.",
                },
                within=0.006,
            ),
            Choice(
                "window",
                (
                    wrong(
                        "as uneven", "Past the first w, each query keeps w + 1 keys."
                    ),
                    right("even", ""),
                    wrong("the other way", "The first rank has a little less to do."),
                ),
            ),
        ),
        worked="""
            check(
                "devices-6",
                pairs=lambda r, c: r * c**2 + c * (c + 1) // 2,
                ratio=(2 * 64 - 1) / 64,
                window="b",
            )
        """,
        because=(
            "The run lasts as long as its slowest rank: nearly twice what even work "
            "would take. A window is balanced by itself."
        ),
    ),
    Exercise(
        id="devices-7",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="What a shard lacks",
        question=(
            r"How many tokens does a rank fetch from before its shard, and how many "
            r"from after it? Shards may be short, or empty."
        ),
        parts=(
            Function(
                halo,
                window_cuts,
                (
                    Mistake(
                        "neighbours only",
                        "This asks the two ranks beside only; a short one does "
                        "not hold all that is needed.",
                        neighbours_only,
                    ),
                    Mistake(
                        "beyond the ends",
                        "Beyond the ends of the text there is nothing to fetch.",
                        lambda n, r, w: (w, w) if n[r] else (0, 0),
                    ),
                    Mistake(
                        "empty shards",
                        "A rank without queries needs no keys.",
                        lambda n, r, w: (min(w, sum(n[:r])), min(w, sum(n[r + 1 :]))),
                    ),
                    Mistake(
                        "causal",
                        "The window looks ahead too.",
                        lambda n, r, w: (min(w, sum(n[:r])), 0) if n[r] else (0, 0),
                    ),
                    Mistake(
                        "sides swapped",
                        "Before and after have changed places.",
                        lambda n, r, w: halo(n, r, w)[::-1],
                    ),
                    Mistake(
                        "all of the rest",
                        "The window has no effect: this fetches the whole text.",
                        lambda n, r, w: (
                            (sum(n[:r]), sum(n[r + 1 :])) if n[r] else (0, 0)
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "At most $w$ on each side, and no more than there is; whose tokens they "
            "are is another question."
        ),
    ),
)

QUIZ = (
    Question(
        "A text is spread over 64 devices instead of 8, with the same window. "
        "What does a rank in the middle send?",
        (
            wrong("Eight times as much.", "Its edges are as long as before."),
            right(
                "As much as before.",
                "$2w$ tokens, whatever $n$ and $G$ are, as long as $w$ tokens stand "
                "before its shard and after it.",
            ),
            wrong("An eighth.", "Its shard is shorter; its edges are not."),
        ),
    ),
    Question(
        "Why must gradients travel too?",
        (
            right(
                "Keys of the halo get gradients on the rank that borrowed them.",
                "They have to be added where the keys live, or the $w$ keys on each "
                "side of a border learn the wrong thing silently.",
            ),
            wrong(
                "To keep the weights equal.",
                "They do as well, in another exchange, which is not about attention.",
            ),
            wrong(
                "They need not; forward is enough.",
                "Outputs would be right, and training wrong at the borders.",
            ),
        ),
    ),
    Question(
        "A shard is shorter than the window. What changes?",
        (
            wrong(
                "Nothing: the neighbour sends what it has.",
                "Then the far part of the window is missing, without an error.",
            ),
            right(
                "A rank also needs tokens from beyond its neighbour.",
                "Plan by positions, not by neighbours.",
            ),
            wrong("Attention becomes full.", "The window is as it was."),
        ),
    ),
    Question(
        "Causal full attention on equal contiguous shards. Who works most?",
        (
            wrong("The first rank.", "Its queries see the least."),
            right(
                "The last one.",
                "Its queries see all shards, and the run lasts as long as its slowest "
                "rank.",
            ),
            wrong("All work the same.", "They would if all queries saw all shards."),
        ),
    ),
    Question(
        "When can computing hide the transfer?",
        (
            right(
                "When a shard is long against operations per byte of the machine.",
                "Work grows with the shard; for a window the bytes do not.",
            ),
            wrong("Always.", "A short shard has little work and the same edges."),
            wrong(
                "Only for a ring.",
                "For halo and ring alike: the window saves bytes and operations "
                "by the same factor.",
            ),
        ),
    ),
)
