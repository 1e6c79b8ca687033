"""Exercises on masks, tiles and kernels."""

import torch

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


def key_range(start, stop, w, n):
    """Keys (first, end) that the queries start to stop - 1 meet in a window of w.

    `end` is left out, as in a slice; there are n tokens.
    """
    return max(0, start - w), min(n, stop + w)


def met_by_all(start, stop, w, n):
    """Keys (first, end) that *each* query from start to stop - 1 meets, end left out.

    (0, 0) if there is none.
    """
    first, end = max(0, stop - 1 - w), min(n, start + w + 1)
    return (first, end) if first < end else (0, 0)


def tile_state(keep):
    """0 if a tile of a mask keeps no pair, 2 if it keeps all, 1 otherwise."""
    return 0 if not keep.any() else 2 if keep.all() else 1


def tiles_of(seed):
    """Tiles of queries, windows and lengths."""
    for n, rows in ((4, 2), (8, 2), (8, 4), (12, 4), (20, 5)):
        for start in range(0, n, rows):
            yield from ((start, min(n, start + rows), w, n) for w in (0, 1, 3, n))


def small_tiles(seed):
    """Tiles of masks, empty ones, full ones and all between."""
    yield (torch.zeros(1, 1, dtype=torch.bool),)
    yield (torch.ones(1, 1, dtype=torch.bool),)
    yield (torch.tensor([[True, False]]),)
    yield (torch.tensor([[False, True]]),)
    yield (torch.tensor([[False, True], [True, True]]),)
    yield (torch.tensor([[True, False], [False, False]]),)
    yield (torch.tensor([[False, False], [False, True]]),)
    yield (torch.tensor([[True, False], [False, True]]),)
    yield (torch.zeros(2, 3, dtype=torch.bool),)
    yield (torch.ones(2, 3, dtype=torch.bool),)


EXERCISES = (
    Exercise(
        id="kernels-1",
        kind="predict",
        difficulty=3,
        minutes=15,
        section="The bytes of a schedule",
        question=(
            r"Take one head with $n = 1024$ and $d = 64$ in half precision ($\beta = "
            r"2$), a window of $w = 64$, and tiles of $64 \times 64$ on a grid. How "
            r"many keys do the tiles of queries visit in all, $\sum_l \kappa_l$ "
            r"(`visited`)? How many bytes are moved, $\beta h d\,(2n + 2\sum_l "
            r"\kappa_l)$ (`bytes`)? How many FLOPs are executed (`flops`), and what is "
            r"the intensity, to one decimal (`intensity`)?"
        ),
        parts=(
            Number(
                "visited",
                2944,
                {
                    16 * 192: "The tiles at the two ends visit 2 tiles of keys, not 3.",
                    46: "These are tiles; keys were asked for.",
                    16 * 128: "A tile visits its own and one on each side.",
                },
            ),
            Number(
                "bytes",
                1_015_808,
                {
                    507_904: "Two bytes a number.",
                    2
                    * 64
                    * (
                        1024 + 2 * 2944
                    ): "Queries are read and outputs are written: 2 n.",
                },
            ),
            Number(
                "flops",
                48_234_496,
                {
                    24_117_248: "Two products: 4 d a pair.",
                    4 * 64 * 1024 * 1024: "That is full attention.",
                },
            ),
            Number(
                "intensity",
                47.5,
                {64.0: "That is the limit 2 t / β, without queries and outputs."},
                within=0.06,
            ),
        ),
        worked="""
            visited = 14 * 192 + 2 * 128
            moved, executed = 2 * 64 * (2 * 1024 + 2 * visited), 4 * 64 * 64 * visited
            check(
                "kernels-1",
                visited=visited,
                bytes=moved,
                flops=executed,
                intensity=executed / moved,
            )
        """,
        because=(
            r"Each tile of queries visits its own tile and the two beside it; the "
            r"limit $2t/\beta = 64$ is missed by the factor $\sum_l \kappa_l / (n + "
            r"\sum_l \kappa_l)$."
        ),
    ),
    Exercise(
        id="kernels-2",
        kind="predict",
        difficulty=2,
        minutes=12,
        section="What happens inside: a simulator",
        question=(
            r"Take $n = 2048$ tokens and $w = 128$. How many tiles are skipped, "
            r"partial and full on a grid of $128 \times 128$ (`large`, a list of "
            r"three), and on a grid of $64 \times 64$ (`small`)? What is the tile tax "
            r"of each, to three decimals (`taxes`, a list of two)?"
        ),
        parts=(
            Items(
                "large",
                (210, 30, 16),
                {
                    (
                        210,
                        46,
                        0,
                    ): "A tile on the diagonal holds distances up to 127, and is full.",
                    (
                        210,
                        16,
                        30,
                    ): "The diagonal is full; its neighbours hold distances up to 255.",
                    (16, 30, 210): "Skipped, partial, full.",
                },
            ),
            Items(
                "small",
                (870, 60, 94),
                {
                    (
                        870,
                        122,
                        32,
                    ): "The neighbours of the diagonal hold distances up to 127: full.",
                    (94, 60, 870): "Skipped, partial, full.",
                },
            ),
            Items(
                "taxes",
                (1.478, 1.237),
                {
                    (
                        1.237,
                        1.478,
                    ): (
                        "The other way round: smaller tiles follow the band more "
                        "closely."
                    )
                },
                within=0.0006,
            ),
        ),
        worked="""
            kept = 2048 * 257 - 128 * 129
            taxes = [46 * 128**2 / kept, 154 * 64**2 / kept]
            check("kernels-2", large=[210, 30, 16], small=[870, 60, 94], taxes=taxes)
        """,
        because=(
            "On the large grid the diagonal is full and its neighbours partial; on "
            "the small one also the neighbours are full, and those two away partial."
        ),
    ),
    Exercise(
        id="kernels-3",
        kind="derive",
        difficulty=3,
        minutes=15,
        section="The bytes of a schedule",
        question=(
            r"A kernel could walk the other way round: each program owns a tile of "
            r"*keys* and values, loads it once, and visits the tiles of queries; for "
            r"each visit it must load the queries, and load and store their running "
            r"output. Leave the running softmax's two numbers out of it. How many "
            r"bytes does it move, as a function of $\beta$, $h$, $d$, $n$ and the "
            r"number of queries that all its tiles of keys visit together (`bytes`)? "
            r"And for the numbers of kernels-1 (`number`)?"
        ),
        parts=(
            Formula(
                reference=lambda beta, h, d, n, M: beta * h * d * (2 * n + 3 * M),
                name="bytes",
                cases=lambda seed: (
                    (b, h, d, n, M)
                    for b, h in ((1, 1), (2, 1), (2, 8))
                    for d, n, M in ((1, 1, 1), (64, 1024, 2944), (16, 64, 100))
                ),
                mistakes=(
                    Mistake(
                        "as before",
                        "That is the walk over keys; here an output is loaded "
                        "and stored at every visit.",
                        lambda b, h, d, n, M: b * h * d * (2 * n + 2 * M),
                    ),
                    Mistake(
                        "output only stored",
                        "The running output is loaded *and* stored at each visit.",
                        lambda b, h, d, n, M: b * h * d * (3 * n + 2 * M),
                    ),
                    Mistake(
                        "keys and values at every visit",
                        "Keys and values come in once.",
                        lambda b, h, d, n, M: b * h * d * (2 * n + 5 * M),
                    ),
                    Mistake(
                        "one input",
                        "Keys *and* values: 2 n d numbers.",
                        lambda b, h, d, n, M: b * h * d * (n + 3 * M),
                    ),
                ),
            ),
            Number(
                "number",
                1_392_640,
                {
                    1_015_808: "That is the walk over keys.",
                    696_320: "Two bytes a number.",
                },
            ),
        ),
        worked="""
            def moved(beta, h, d, n, M):
                return beta * h * d * (2 * n + 3 * M)


            check("kernels-3", bytes=moved, number=moved(2, 1, 64, 1024, 2944))
        """,
        because=(
            "The output of a query is not written once, but once for every tile of "
            "keys that it meets. For $dK$ and $dV$ the roles are exchanged, and this "
            "is the right way round."
        ),
    ),
    Exercise(
        id="kernels-4",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Which keys do I meet?",
        question=(
            r"A text of $n = 4096$ tokens is cut into tiles of 128 queries by 64 keys. "
            r"How many of the visited tiles are full, so that a kernel need not mask "
            r"them, for $w = 256$ (`wide`), for $w = 64$ (`narrow`), and for adjacent "
            r"blocks of 256 (`blocks`)?"
        ),
        parts=(
            Number(
                "wide",
                188,
                {
                    308: "These are all visited tiles.",
                    120: "These are the partial ones.",
                },
            ),
            Number(
                "narrow",
                0,
                {
                    126: (
                        "These are all visited tiles: no key is met by enough of the "
                        "128 queries."
                    ),
                    32: "A full tile needs 64 keys that all 128 queries meet.",
                },
            ),
            Number(
                "blocks",
                368,
                {
                    0: "Blocks of 256 are multiples of the tiles: nothing is cut.",
                    184: "A block of 256 queries has two rows of tiles.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.instruments import simulator

            P = at.patterns
            full = []
            for pattern in (P.local(256), P.local(64), P.adjacent_blocks(256)):
                tiles = simulator.tiles(pattern, 4096, rows=128, columns=64)
                full.append((simulator.tile_states(tiles) == simulator.FULL).sum())
            check("kernels-4", wide=full[0], narrow=full[1], blocks=full[2])
        """,
        because=(
            "A key is met by all 128 queries of a tile only if $2w + 1 > 127$; "
            "blocks that are multiples of the tiles are never cut."
        ),
    ),
    Exercise(
        id="kernels-5",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Which keys do I meet?",
        question=(
            r"A tile owns queries 64 to 127 of a long text, $w = 100$, steps of 32 "
            r"keys. Which keys does it meet, from `begin` up to and without `end` "
            r"(`keys`, a list of two), and which keys do *all* its queries meet "
            r"(`whole`, likewise)? Where do the masked tiles of 32 keys begin "
            r"(`masked`, a list)?"
        ),
        parts=(
            Items(
                "keys",
                (0, 228),
                {
                    (0, 227): "The end is left out: query 127 meets key 227.",
                    (-36, 228): "The text begins at 0.",
                    (64, 228): "Query 64 looks 100 back.",
                },
            ),
            Items(
                "whole",
                (27, 165),
                {
                    (27, 164): "The end is left out: query 64 meets key 164.",
                    (0, 165): "Query 127 meets keys from 27 on.",
                    (27, 228): "Query 64 meets keys up to 164.",
                },
            ),
            Items(
                "masked",
                (0, 160, 192, 224),
                {
                    (
                        32,
                        64,
                        96,
                        128,
                    ): "These need no mask: all queries meet all their keys.",
                    (
                        0,
                        192,
                        224,
                    ): "The tile at 160 holds key 165, which query 64 does not meet.",
                    (
                        0,
                        128,
                        160,
                        192,
                        224,
                    ): "The tile at 128 ends at 159, inside what all meet.",
                },
            ),
        ),
        worked="""
            whole = (127 - 100, 64 + 100 + 1)
            starts = range(0, 228, 32)
            masked = [s for s in starts if s < whole[0] or s + 32 > whole[1]]
            check("kernels-5", keys=(0, 127 + 100 + 1), whole=whole, masked=masked)
        """,
        because=(
            "The first query decides where the keys end that all meet, the last "
            "query where they begin."
        ),
    ),
    Exercise(
        id="kernels-6",
        kind="diagnose",
        difficulty=3,
        minutes=10,
        section="The loop",
        question=(
            r"A colleague starts the loop with `top = tl.zeros(...)` instead of "
            r"$-\infty$, “since it is only a shift, and any shift is exact”. All "
            r"tests pass on random inputs. For which rows does the kernel fail "
            r"(`rows`): (a) those with a score far above 0; (b) those whose scores "
            r"are all far below 0; (c) those with equal scores; (d) the first? And "
            r"what does it return for them (`returns`): (a) NaN; (b) infinity; (c) "
            r"zeros; (d) the mean of the values?"
        ),
        parts=(
            Choice(
                "rows",
                (
                    wrong("far above 0", "The top follows large scores."),
                    right("all far below 0", ""),
                    wrong("equal scores", "Equal scores near 0 are harmless."),
                    wrong("the first", "The place of a row does not matter."),
                ),
            ),
            Choice(
                "returns",
                (
                    wrong(
                        "NaN",
                        "It would be 0/0, were a query without keys not given "
                        "zeros on purpose.",
                    ),
                    wrong("infinity", "Nothing overflows."),
                    right("zeros", ""),
                    wrong(
                        "the mean",
                        "All exponentials are 0; there is nothing left to average.",
                    ),
                ),
            ),
        ),
        worked="""
            scores = torch.full((4,), -200.0)
            assert (
                torch.exp2(scores - 0.0).sum()
                == 0
                < torch.exp2(scores - scores.max()).sum()
            )
            check("kernels-6", rows="b", returns="c")
        """,
        because=(
            "Where all scores, in base 2, are below $-149$, every `exp2` underflows "
            "to 0, and the query is taken for one that met no key."
        ),
    ),
    Exercise(
        id="kernels-7",
        kind="implement",
        difficulty=1,
        minutes=8,
        section="Which keys do I meet?",
        question=r"Which keys does a tile of queries meet, in a window with two sides?",
        parts=(
            Function(
                key_range,
                tiles_of,
                (
                    Mistake(
                        "negative start",
                        "The first tile begins before the text.",
                        lambda a, b, w, n: (a - w, min(n, b + w)),
                    ),
                    Mistake(
                        "end beyond the text",
                        "The last tile ends beyond the text.",
                        lambda a, b, w, n: (max(0, a - w), b + w),
                    ),
                    Mistake(
                        "one key too many",
                        "`stop` is left out already: the last query is stop - 1, "
                        "and its last key stop - 1 + w.",
                        lambda a, b, w, n: (max(0, a - w), min(n, b + w + 1)),
                    ),
                    Mistake(
                        "one key too few",
                        "The last key is lost: `end` is left out.",
                        lambda a, b, w, n: (max(0, a - w), min(n, b + w - 1)),
                    ),
                    Mistake(
                        "first query only",
                        "These are the keys of the first query; the last one of "
                        "the tile looks further.",
                        lambda a, b, w, n: (max(0, a - w), min(n, a + w + 1)),
                    ),
                    Mistake(
                        "causal",
                        "This looks back only.",
                        lambda a, b, w, n: (max(0, a - w), b),
                    ),
                ),
            ),
        ),
        because=(
            "The first query's first key, and the last query's last one, cut off at "
            "the ends of the text."
        ),
    ),
    Exercise(
        id="kernels-8",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="Which keys do I meet?",
        question=(
            r"A tile needs no mask on keys that *all* its queries meet. Which are "
            r"they?"
        ),
        parts=(
            Function(
                met_by_all,
                tiles_of,
                (
                    Mistake(
                        "met by any",
                        "These are the keys that *some* query meets.",
                        lambda a, b, w, n: (max(0, a - w), min(n, b + w)),
                    ),
                    Mistake(
                        "negative length",
                        "Where no key is met by all, the end lies before the "
                        "beginning; (0, 0) was asked for.",
                        lambda a, b, w, n: (max(0, b - 1 - w), min(n, a + w + 1)),
                    ),
                    Mistake(
                        "stop for the last query",
                        "The last query is stop - 1.",
                        lambda a, b, w, n: (
                            (max(0, b - w), min(n, a + w + 1))
                            if max(0, b - w) < min(n, a + w + 1)
                            else (0, 0)
                        ),
                    ),
                    Mistake(
                        "last key lost",
                        "The first query's last key is lost: `end` is left out.",
                        lambda a, b, w, n: (
                            (max(0, b - 1 - w), min(n, a + w))
                            if max(0, b - 1 - w) < min(n, a + w)
                            else (0, 0)
                        ),
                    ),
                    Mistake(
                        "beyond the text",
                        "The end lies beyond the text.",
                        lambda a, b, w, n: (
                            (max(0, b - 1 - w), a + w + 1)
                            if max(0, b - 1 - w) < a + w + 1
                            else (0, 0)
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "The last query decides where they begin, and the first where they end."
        ),
    ),
    Exercise(
        id="kernels-9",
        kind="implement",
        difficulty=1,
        minutes=4,
        section="What happens inside: a simulator",
        question=(
            r"Write the test that lets a kernel "
            r"skip a tile, or leave its mask away."
        ),
        parts=(
            Function(
                tile_state,
                small_tiles,
                (
                    Mistake(
                        "skipped and full swapped",
                        "Skipped and full have changed places.",
                        lambda keep: 2 - tile_state(keep),
                    ),
                    Mistake(
                        "corners only",
                        "Two corners do not tell what lies between.",
                        lambda keep: int(keep[0, 0]) + int(keep[-1, -1]),
                    ),
                    Mistake(
                        "never full",
                        "A tile that keeps all needs no mask: 2.",
                        lambda keep: int(keep.any()),
                    ),
                    Mistake(
                        "never partial",
                        "A tile that keeps some is partial: 1.",
                        lambda keep: 2 * int(keep.any()),
                    ),
                    Mistake(
                        "any row",
                        "One full row does not make a full tile.",
                        lambda keep: 2 if keep.all(-1).any() else int(keep.any()),
                    ),
                ),
            ),
        ),
        because=(
            "`any` and `all`. A kernel finds both from four positions, without the "
            "mask."
        ),
    ),
)

QUIZ = (
    Question(
        "What does a boolean mask add to full attention?",
        (
            wrong("It takes operations away.", "All products are formed before it."),
            right(
                "Traffic: it is read, and the scores are read and written again.",
                "That is why a mask alone is slower than no mask.",
            ),
            wrong("Nothing.", "It is a matrix of $n^2$ truth values."),
        ),
    ),
    Question(
        "Why is a Python loop over all queries slow, though it computes nothing "
        "in vain?",
        (
            wrong(
                "Python multiplies slowly.",
                "The products run in the same compiled code.",
            ),
            right(
                "It starts thousands of tiny operations.",
                "Each start costs the same, however little it does.",
            ),
            wrong(
                "It reads each key many times from disk.",
                "Keys lie in memory, mostly in a cache.",
            ),
        ),
    ),
    Question(
        "What bounds the FLOPs for each byte of a tiled kernel in 16-bit numbers?",
        (
            right(
                "The height $t$ of a tile of queries: less than $2t/\\beta$.",
                "A key that was loaded serves the $t$ queries of the tile.",
            ),
            wrong(
                "The window.",
                "It decides how many keys are visited; work and traffic grow with "
                "them alike.",
            ),
            wrong("The number of heads.", "Heads multiply work and traffic alike."),
        ),
    ),
    Question(
        "Which tiles need a mask inside?",
        (
            wrong("All that are visited.", "Most of a wide window's tiles are full."),
            right(
                "Those that keep some of their pairs, but not all.",
                "Full ones need none, and empty ones are not visited.",
            ),
            wrong(
                "Those on the diagonal.",
                "With a wide window the diagonal is full; the edges of the band "
                "are cut.",
            ),
        ),
    ),
    Question(
        "A kernel passes all tests on random inputs. Which input should be tried "
        "besides?",
        (
            right(
                "Scores far from 0.",
                "Exponentials overflow or vanish there; random scores never get "
                "that far.",
            ),
            wrong("More random inputs.", "Random scores lie near 0, all of them."),
            wrong(
                "The same input twice.", "That finds races, and this kernel has none."
            ),
        ),
    ),
)
