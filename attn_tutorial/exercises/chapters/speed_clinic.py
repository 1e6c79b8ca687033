"""Exercises on attention that is not as fast as it should be."""

import math

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


def keys_paid(w, t):
    """Keys that a query pays for on tiles of t x t, two-sided, far from the ends."""
    return t + 2 * t * math.ceil(w / t)


def speedup(share, factor):
    """How much faster a step gets if a share of it runs `factor` times as fast."""
    return 1 / (1 - share + share / factor)


def grid_cases(seed):
    """Windows on both sides of multiples of the tile, with tiles."""
    yield from ((w, t) for t in (1, 2, 16, 64) for w in (0, 1, t - 1, t, t + 1, 3 * t))


def share_cases(seed):
    """Shares of a step with factors."""
    yield from ((s / 4, f) for s in range(5) for f in (1, 2, 8, 100.0 + seed))


EXERCISES = (
    Exercise(
        id="clinic-1",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="The tax of tiles on a grid",
        question=(
            r"Tiles of $64 \times 128$ (64 queries, 128 keys). How many keys "
            r"does a query pay for with $w = 100$ (`keys`), and what is the tax, to "
            r"three decimals (`tax`)? Is a tile of $128 \times 64$ (`turned`) (a) "
            r"better; (b) worse; (c) the same? Then `at.sparse_attention(q, k, v, "
            r"block_size=16)` with 128 tokens: how many pairs does `clinic.dye` "
            r"stain (`stained`), and how many of these are kept (`kept`)?"
        ),
        parts=(
            Number(
                "keys",
                384,
                {
                    320: (
                        "The greatest common divisor of 64 and 128 is 64, and it is "
                        "taken off once: 64 + 128 - 64 + 256."
                    ),
                    448: "The term - g is missing.",
                    256: "Both sides pay: 2 g ⌈w/g⌉.",
                },
            ),
            Number(
                "tax",
                384 / 201,
                {
                    1.92: "A query keeps 201 keys, its own included.",
                    384 / 101: "The window has two sides.",
                },
                within=0.0006,
            ),
            Choice(
                "turned",
                (
                    wrong("better", "The formula is symmetric in t and t'."),
                    wrong("worse", "The formula is symmetric in t and t'."),
                    right("the same", ""),
                ),
            ),
            Number(
                "stained",
                5632,
                {
                    24 * 256: "The two end blocks have one neighbour each.",
                    128 * 128: "Only the blocks that meet.",
                },
            ),
            Number("kept", 5632, {4096: "In blocks every computed pair is kept."}),
        ),
        worked="""
            from attn_tutorial.instruments import clinic

            stained = clinic.dye(lambda *x: at.sparse_attention(*x, block_size=16), 128)
            keys = 64 + 128 - 64 + 2 * 64 * math.ceil(100 / 64)
            kept = at.cost.kept_pairs(at.patterns.adjacent_blocks(16), 128)
            check(
                "clinic-1",
                keys=keys,
                tax=keys / 201,
                turned="c",
                stained=stained.sum(),
                kept=kept,
            )
        """,
        because=(
            r"$t + t' - g + 2g\lceil w/g \rceil$ keys, the same for both; blocks that "
            r"are tiles waste nothing."
        ),
    ),
    Exercise(
        id="clinic-2",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Patient 5: a window below the tile",
        question=(
            r"You may choose any window up to 200, on square tiles of 64. Which one "
            r"has the highest useful share (`best`), and what is it, to three "
            r"decimals (`share`)? How many of the windows from 1 to 200 have a share "
            r"above 65 % (`good`)?"
        ),
        parts=(
            Number(
                "best",
                192,
                {
                    200: "At 193 a new tile begins; the share falls back.",
                    64: "The share at 192 is higher.",
                    191: "192 still fits into the same tiles.",
                },
            ),
            Number(
                "share",
                385 / 448,
                {192 / 448: "The window has two sides."},
                within=0.0006,
            ),
            Number(
                "good",
                83,
                {
                    3: "There are three runs of windows; count them all.",
                    55: "Three runs: 62 to 64, 104 to 128, 146 to 200.",
                },
            ),
        ),
        worked="""
            shares = {
                w: (2 * w + 1) / (64 + 128 * math.ceil(w / 64)) for w in range(1, 201)
            }
            best = max(shares, key=shares.get)
            good = sum(share > 0.65 for share in shares.values())
            check("clinic-2", best=best, share=shares[best], good=good)
        """,
        because=(
            "Within a step of 64 the bill is constant, so that the share rises with "
            "$w$ and falls back at the next step."
        ),
    ),
    Exercise(
        id="clinic-3",
        kind="derive",
        difficulty=2,
        minutes=12,
        section="The tax of tiles on a grid",
        question=(
            r"A causal window on square tiles of $t$: how many keys does a query pay "
            r"for, away from the start (`keys`, a function of $w$ and $t$)? Which "
            r"window $w \le 256$ has the highest useful share with $t = 128$ "
            r"(`best`), and what is it in percent, to one decimal (`percent`)?"
        ),
        parts=(
            Formula(
                reference=lambda w, t: t + t * math.ceil(w / t),
                name="keys",
                cases=lambda seed: (
                    (w, t) for t in (1, 16, 128) for w in (0, 1, t, t + 1, 2 * t)
                ),
                mistakes=(
                    Mistake(
                        "two sides",
                        "A causal window pays for one side.",
                        lambda w, t: t + 2 * t * math.ceil(w / t),
                    ),
                    Mistake(
                        "own tile forgotten",
                        "The tile on the diagonal is computed too.",
                        lambda w, t: t * math.ceil(w / t),
                    ),
                    Mistake(
                        "rounded down",
                        "A window that touches a tile pays for all of it: round up.",
                        lambda w, t: t + t * (w // t),
                    ),
                    Mistake(
                        "not rounded", "Whole tiles are computed.", lambda w, t: t + w
                    ),
                ),
            ),
            Number(
                "best",
                256,
                {
                    128: "129/256 is less than 257/384.",
                    255: "256 fits into the same tiles.",
                },
            ),
            Number(
                "percent",
                66.9,
                {0.669: "In percent.", 66.7: "A query keeps w + 1 keys."},
                within=0.06,
            ),
        ),
        worked="""
            def keys(w, t):
                return t + t * math.ceil(w / t)


            best = max(range(1, 257), key=lambda w: (w + 1) / keys(w, 128))
            check(
                "clinic-3",
                keys=keys,
                best=best,
                percent=100 * (best + 1) / keys(best, 128),
            )
        """,
        because=(
            r"$1 + \lceil w/t \rceil$ columns of $t$ keys; the share rises up to "
            r"each multiple of $t$."
        ),
    ),
    Exercise(
        id="clinic-4",
        kind="diagnose",
        difficulty=2,
        minutes=12,
        section="Patient 8: the mask costs more than the attention",
        question=(
            r"Attention scores in bfloat16, to which a float32 mask of $0$ and "
            r"$-\infty$ is *added* ([a known "
            r"trap](https://github.com/huggingface/transformers/pull/16901)), "
            r"for scores of shape `(8, 512, 512)`. How many "
            r"bytes does `(scores + mask).softmax(-1)` write (`added`), and how many "
            r"`scores.masked_fill(~keep, -torch.inf).softmax(-1)` with a mask of "
            r"shape `(512, 512)` (`filled`)?"
        ),
        parts=(
            Number(
                "added",
                16_777_216,
                {
                    8_388_608: (
                        "The float32 mask promotes: the sum is float32, 4 bytes a "
                        "number."
                    ),
                    12_582_912: "The softmax of float32 numbers is float32 too.",
                },
            ),
            Number(
                "filled",
                8_650_752,
                {
                    8_388_608: "`~keep` writes 512² truth values, a byte each.",
                    16_777_216: "A boolean mask leaves bfloat16: 2 bytes a number.",
                    4_456_448: (
                        "Two tensors of scores are written: the filled ones and "
                        "their softmax."
                    ),
                },
            ),
        ),
        worked="""
            from attn_tutorial.instruments import memory

            scores = torch.randn(8, 512, 512, dtype=torch.bfloat16)
            keep = at.dense_mask(at.patterns.local(32), 512)
            mask = torch.zeros(512, 512).masked_fill(~keep, -torch.inf)
            with memory.Allocations() as added:
                (scores + mask).softmax(-1)
            with memory.Allocations() as filled:
                scores.masked_fill(~keep, -torch.inf).softmax(-1)
            check("clinic-4", added=added.bytes, filled=filled.bytes)
        """,
        because=(
            "Adding a float32 mask promotes the scores to float32, and everything "
            "after them."
        ),
    ),
    Exercise(
        id="clinic-5",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="The checklist",
        question=r"""
            Three colleagues, three sentences. What is the cause of each? (1) “0.09 ms
            with 1024 tokens, 0.09 ms with 16,384, and 0.09 ms with full attention.”
            (`first`) (2) “A window of 100 takes as long as one of 128, and 130 takes
            two thirds longer.” (`second`) (3) “Every 50th step takes a minute, whenever
            the texts get a new length; since this morning all steps are slow.”
            (`third`) The causes to choose from: (a) the clock is stopped before the
            work is done; (b) whole tiles are paid for; (c) each new length is compiled,
            up to a limit; (d) attention is a small part of the step. (The times are
            made up.)
        """,
        parts=(
            Choice(
                "first",
                (
                    right("the clock", ""),
                    wrong("tiles", "Then longer texts would take longer."),
                    wrong("compilation", "Then single calls would stand out."),
                    wrong(
                        "small part",
                        "Here attention alone is timed, and nothing takes the "
                        "same time for 16 times the work.",
                    ),
                ),
            ),
            Choice(
                "second",
                (
                    wrong(
                        "the clock", "The times differ, so that something is measured."
                    ),
                    right("tiles", ""),
                    wrong("compilation", "Then single calls would stand out."),
                    wrong("small part", "Then windows would hardly matter at all."),
                ),
            ),
            Choice(
                "third",
                (
                    wrong(
                        "the clock", "The times differ, so that something is measured."
                    ),
                    wrong("tiles", "Tiles make steps of the window, not of the day."),
                    right("compilation", ""),
                    wrong("small part", "That would not change overnight."),
                ),
            ),
        ),
        worked="""
            check("clinic-5", first="a", second="b", third="c")
        """,
        because=(
            "Synchronise before the reading; compare `cost.grid_pairs` for the "
            "windows; count `clinic.compilations` over the lengths."
        ),
    ),
    Exercise(
        id="clinic-6",
        kind="predict",
        difficulty=3,
        minutes=12,
        section="Before you write any code",
        question=(
            r"A layer has $d_\text{model} = 1024$, $n = 8192$, and a causal window "
            r"of 511 (512 keys) on tiles of $128 \times 128$. (a) By which factor do "
            r"the pairs shrink against *causal* full attention on the same tiles, to "
            r"two decimals (`pairs`)? (b) What is the largest factor by which the "
            r"whole layer's FLOPs can shrink, against causal attention computed on "
            r"the same tiles, however narrow the window, to two decimals (`layer`)?"
        ),
        parts=(
            Number(
                "pairs",
                6.71,
                {
                    6.5: "The first rows of tiles have fewer than 5 tiles.",
                    12.8: "Against causal attention, not against all pairs.",
                    8.26: "These are the kept pairs; whole tiles are computed.",
                    8.32: "A window of 511 reaches into 4 more tiles: 5 in all.",
                },
                within=0.006,
            ),
            Number(
                "layer",
                1.68,
                {
                    2.33: (
                        "Against causal attention, which computes little more than "
                        "half of the pairs."
                    ),
                    1.67: (
                        "The tiles of causal attention compute a little more than half."
                    ),
                },
                within=0.006,
            ),
        ),
        worked="""
            tiles = 64 * 65 // 2
            window = 64 * 5 - (4 + 3 + 2 + 1)
            rest = 24 * 8192 * 1024**2
            check(
                "clinic-6",
                pairs=tiles / window,
                layer=1 + tiles * 128**2 * 4 * 1024 / rest,
            )
        """,
        because=(
            "2080 tiles against 310. At most the attention vanishes, and projections "
            "and MLP stay."
        ),
    ),
    Exercise(
        id="clinic-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="The tax of tiles on a grid",
        question=(
            r"How many keys does a query pay for on square tiles? Write it for a "
            r"window with two sides."
        ),
        parts=(
            Function(
                keys_paid,
                grid_cases,
                (
                    Mistake(
                        "rounded down",
                        "A window that touches a tile pays for all of it: round up.",
                        lambda w, t: t + 2 * t * (w // t),
                    ),
                    Mistake(
                        "always one more",
                        "A window that ends with a tile does not pay for the next one.",
                        lambda w, t: t + 2 * t * (w // t + 1),
                    ),
                    Mistake(
                        "causal",
                        "The window has two sides.",
                        lambda w, t: t + t * math.ceil(w / t),
                    ),
                    Mistake(
                        "kept keys",
                        "These are the keys that are kept; a tile pays for more.",
                        lambda w, t: 2 * w + 1,
                    ),
                    Mistake(
                        "run of a tile",
                        "That is the run of keys cut to the key; on a grid whole "
                        "tiles are paid for.",
                        lambda w, t: t + 2 * w,
                    ),
                    Mistake(
                        "own tile forgotten",
                        "The tile on the diagonal is paid for too.",
                        lambda w, t: 2 * t * math.ceil(w / t),
                    ),
                ),
            ),
        ),
        because=(
            "One tile on the diagonal, and $\\lceil w/t \\rceil$ whole tiles on each "
            "side."
        ),
    ),
    Exercise(
        id="clinic-8",
        kind="implement",
        difficulty=1,
        minutes=5,
        section="Patient 11: it was not the attention",
        question=(
            r"Attention is a share of a training step. By which factor does the "
            r"*step* get faster if attention gets `factor` times as fast?"
        ),
        parts=(
            Function(
                speedup,
                share_cases,
                (
                    Mistake(
                        "average of the factors",
                        "Times add up, not factors.",
                        lambda s, f: 1 - s + s * f,
                    ),
                    Mistake(
                        "rest forgotten",
                        "The rest of the step takes as long as before.",
                        lambda s, f: f,
                    ),
                    Mistake(
                        "upside down",
                        "That is how much of the time is left; its inverse is "
                        "the factor.",
                        lambda s, f: 1 - s + s / f,
                    ),
                    Mistake(
                        "attention vanishes",
                        "That is the bound for an attention that costs nothing.",
                        lambda s, f: 1 / (1 - s) if s < 1 else 1 / 0,
                    ),
                    Mistake(
                        "share of the rest",
                        "The share is attention's, not that of the rest.",
                        lambda s, f: 1 / (s + (1 - s) / f),
                    ),
                ),
            ),
        ),
        because=(
            r"What is left of the time is $1 - \rho + \rho/\text{gain}$. Nine times "
            r"faster attention hardly helps if it was a tenth of the step."
        ),
    ),
)

QUIZ = (
    Question(
        "A window of 100 on tiles of 128 is replaced by a window of 60. What "
        "happens to the time?",
        (
            wrong("It falls by 40 %.", "Fewer keys are kept; as many are computed."),
            right(
                "Nothing.",
                "Both touch one tile on each side, and whole tiles are paid for.",
            ),
            wrong("It rises, since more is masked.", "The same tiles are masked."),
        ),
    ),
    Question(
        "How does a dye show which pairs a routine multiplies?",
        (
            right(
                "A value of NaN stains every output that multiplies it, even by 0.",
                "$0 \\cdot$ NaN is NaN: a weight of zero does not hide it.",
            ),
            wrong("By measuring the time with and without it.", "No clock is needed."),
            wrong(
                "It marks the pairs with a large weight.",
                "It marks those that are *computed*, kept or not.",
            ),
        ),
    ),
    Question(
        "Attention is a tenth of a training step and gets nine times faster. By "
        "how much does the step shrink?",
        (
            wrong(
                "By a factor of about nine.",
                "The other nine tenths take as long as before.",
            ),
            right(
                "By about 9 %, by arithmetic.",
                "$0.9 + 0.1/9 = 0.911$ of the time is left.",
            ),
            wrong("Not at all.", "A little: what attention took is nearly saved."),
        ),
    ),
    Question(
        "On a GPU a call returns after the same time for every length. What is likely?",
        (
            right(
                "The clock was stopped before the work was done.",
                "A call only queues its work: synchronise, then read the clock.",
            ),
            wrong(
                "The kernel is limited by starting it.",
                "That holds for short lengths. It cannot hold for long ones.",
            ),
            wrong("Attention is linear.", "Linear would still grow."),
        ),
    ),
    Question(
        "Twelve lengths are compiled, each by itself: eight compilations are counted, "
        "and then none. Why?",
        (
            wrong(
                "The compiler has learned what the lengths have in common.",
                "With `dynamic=False` each length is a program of its own.",
            ),
            right(
                "PyTorch has reached its limit and goes on uncompiled.",
                "With `fullgraph=True` it says so in place of going on.",
            ),
            wrong("The last four were compiled before.", "All twelve lengths differ."),
        ),
    ),
)
