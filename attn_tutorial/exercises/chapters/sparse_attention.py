"""Exercises on attention in blocks."""

import torch

import attn_tutorial as at
from attn_tutorial.exercises.catalogue import same_length_cases, wrong_mask
from attn_tutorial.exercises.exercise import (
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


def causal_pairs(n, m):
    """Pairs that m equal blocks of n tokens keep, own and one before, and j <= i."""
    b = n // m
    return m * b * (b + 1) // 2 + (m - 1) * b**2


def block_mask(n, b):
    """True where key j is in the block of query i or in one beside it; bool (n, n).

    Blocks have b tokens; the last one has what is left.
    """
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return (i // b - j // b).abs() <= 1


def run_of(block, b, n):
    """The keys (start, stop) that a block meets: its own and the blocks beside it.

    `stop` is left out, as in a slice; the last block may be shorter.
    """
    return max(0, (block - 1) * b), min(n, (block + 2) * b)


def block_attention(q, k, v, b):
    """Attention of each block of b queries over its own keys and those beside it.

    q, k and v are (..., n, d); b need not divide n.
    """
    output = []
    for start in range(0, q.shape[-2], b):
        near = slice(max(0, start - b), start + 2 * b)
        output.append(
            at.attention(q[..., start : start + b, :], k[..., near, :], v[..., near, :])
        )
    return torch.cat(output, dim=-2)


def sizes(seed):
    """Numbers of tokens with block sizes, ragged ones too."""
    yield from ((n, b) for n in range(9) for b in (1, 2, 3, 4, 10))
    yield from ((12, 5), (17 + seed % 5, 4), (24, 6))


def equal_blocks(seed):
    """Numbers of tokens with numbers of blocks that divide them."""
    yield from ((m * b, m) for b in (1, 2, 3, 6) for m in (1, 2, 3, 4, 7))


def blocks_of_texts(seed):
    """All blocks of some texts, with the block size and the length."""
    for n, b in ((1, 1), (4, 2), (6, 2), (7, 3), (10, 4), (16, 4)):
        yield from ((block, b, n) for block in range((n + b - 1) // b))


def inputs_with_blocks(seed):
    """Inputs with block sizes that divide them or do not."""
    for q, k, v in same_length_cases(seed):
        for b in (1, 2, 3, 6):
            yield q, k, v, b


def blocks_with(near):
    """Block attention in which a block of queries meets another run of keys."""

    def attend(q, k, v, b):
        output = []
        for start in range(0, q.shape[-2], b):
            keys = near(start, b)
            rows = slice(start, start + b)
            output.append(
                at.attention(q[..., rows, :], k[..., keys, :], v[..., keys, :])
            )
        return torch.cat(output, dim=-2)

    return attend


EXERCISES = (
    Exercise(
        id="sparse-1",
        kind="predict",
        difficulty=1,
        minutes=4,
        section="How many pairs?",
        question=(
            r"A text of $n = 512$ tokens is cut into $m = 8$ blocks; each meets "
            r"itself and the two beside it. How many pairs are kept (`pairs`), and "
            r"which share of $n^2$ is that (`share`)?"
        ),
        parts=(
            Number(
                "pairs",
                90_112,
                {
                    24 * 4096: "The two blocks at the ends have only one neighbour.",
                    8 * 4096: (
                        "That is the diagonal; each block meets its neighbours too."
                    ),
                    23 * 4096: "Both ends lack a neighbour: 3 m - 2 squares.",
                },
            ),
            Number(
                "share",
                0.34375,
                {
                    0.375: "The ends are missing: 22 of 64 squares.",
                    34.375: "A share was asked for, not percent.",
                },
                within=0.0006,
            ),
        ),
        worked="""
            pairs = (3 * 8 - 2) * 64**2
            check("sparse-1", pairs=pairs, share=pairs / 512**2)
        """,
        because=r"The staircase has $3m - 2 = 22$ squares of $64^2$ pairs.",
    ),
    Exercise(
        id="sparse-2",
        kind="predict",
        difficulty=1,
        minutes=3,
        section="Error 2: the slice is empty",
        question=(
            r"On an axis of 100 positions, what is the smallest $n$ for which `-n:n` "
            r"selects anything (`n`), and which positions does it select "
            r"(`positions`, a list)?"
        ),
        parts=(
            Number(
                "n",
                51,
                {
                    50: "-50 is position 50, and 50 is left out: nothing.",
                    100: "Earlier: the slice begins at 100 - n and ends before n.",
                },
            ),
            Items(
                "positions",
                (49, 50),
                {
                    (49, 50, 51): "The end of a slice is left out.",
                    (50,): "It begins at 100 - 51.",
                    (50, 51): "It begins at 100 - 51.",
                },
            ),
        ),
        worked="""
            x = torch.arange(100)
            n = next(n for n in range(1, 101) if len(x[-n:n]))
            check("sparse-2", n=n, positions=x[-n:n])
        """,
        because=r"It selects $2n - 100$ positions, from $100 - n$ on.",
    ),
    Exercise(
        id="sparse-3",
        kind="derive",
        difficulty=2,
        minutes=12,
        section="How many pairs?",
        question=(
            r"Let every block read $\nu$ neighbours on each side instead of one, with "
            r"$\nu < m$. Derive the number of kept pairs as a function of $m$, $b$ and "
            r"$\nu$ (`pairs`). How many for $m = 10$, $b = 4$, $\nu = 2$ (`number`)? "
            r"And which $\nu$ is needed to contain a window of $w = 100$ with $b = 32$ "
            r"(`neighbours`)?"
        ),
        parts=(
            Formula(
                reference=lambda m, b, r: (m + r * (2 * m - r - 1)) * b**2,
                name="pairs",
                cases=lambda seed: (
                    (m, b, r) for b in (1, 2, 5) for m in range(1, 8) for r in range(m)
                ),
                mistakes=(
                    Mistake(
                        "ends forgotten",
                        "Blocks near the ends have fewer neighbours.",
                        lambda m, b, r: m * (2 * r + 1) * b**2,
                    ),
                    Mistake(
                        "one side",
                        "Neighbours stand on both sides.",
                        lambda m, b, r: (m + r * m - r * (r + 1) // 2) * b**2,
                    ),
                    Mistake(
                        "r is one",
                        "This is the formula for one neighbour.",
                        lambda m, b, r: (3 * m - 2) * b**2,
                    ),
                    Mistake(
                        "blocks for pairs",
                        "This counts squares; each has b² pairs.",
                        lambda m, b, r: m + r * (2 * m - r - 1),
                    ),
                    Mistake(
                        "b for b squared",
                        "Each square has b² pairs, not b.",
                        lambda m, b, r: (m + r * (2 * m - r - 1)) * b,
                    ),
                    Mistake(
                        "ends counted as for one",
                        "Every step of the distance loses two squares more, so "
                        "that the loss is ν (ν + 1).",
                        lambda m, b, r: (m * (2 * r + 1) - 2 * r) * b**2,
                    ),
                ),
            ),
            Number(
                "number",
                704,
                {
                    800: "The ends are missing.",
                    44: "These are squares; each has 16 pairs.",
                    448: "That is one neighbour.",
                },
            ),
            Number(
                "neighbours",
                4,
                {
                    3: (
                        "The last token of a block sees 100 beyond its end: three "
                        "blocks are 96."
                    ),
                    2: "A window looks 100 to each side.",
                },
            ),
        ),
        worked="""
            def pairs(m, b, r):
                return (m + r * (2 * m - r - 1)) * b**2


            check(
                "sparse-3",
                pairs=pairs,
                number=pairs(10, 4, 2),
                neighbours=math.ceil(100 / 32),
            )
        """,
        because=(
            r"$m$ squares on the diagonal, and $m - l$ on each side at block "
            r"distance $l$."
        ),
    ),
    Exercise(
        id="sparse-4",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="The slice that the document was looking for",
        question=(
            r"A colleague writes `by_blocks` with `k[..., start - b : start + 2 * b, "
            r":]` (and the same for `v`), without `max(0, ...)`. With $n = 24$ and "
            r"$b = 6$, which rows of the output are wrong (`rows`, a list), and "
            r"which number do they contain (`value`)? Which keys does the first "
            r"block see when $n = 12$ (`keys`, a list)?"
        ),
        parts=(
            Items(
                "rows",
                (0, 1, 2, 3, 4, 5),
                {
                    (0,): "All queries of a block share its slice.",
                    tuple(range(24)): "Only the first block has a negative start.",
                },
            ),
            Number("value", 0, {1: "An average over no key is 0 here, not 1."}),
            Items(
                "keys",
                (6, 7, 8, 9, 10, 11),
                {
                    (): "That is n = 24. With 12 positions, -6 is position 6.",
                    tuple(range(12)): "The slice -6:12 begins at 6.",
                    (0, 1, 2, 3, 4, 5): "It misses its own block.",
                },
            ),
        ),
        worked="""
            keys = torch.arange(12)[-6:12]
            check("sparse-4", rows=list(range(6)), value=0, keys=keys)
        """,
        because=(
            "`-6:12` on 24 positions is empty; on 12 it is the right neighbour only. "
            "A bug that depends on the length is missed by a test with one length."
        ),
    ),
    Exercise(
        id="sparse-5",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="How many pairs?",
        question=(
            r"Write `causal_pairs(n, m)`, the number of pairs kept by $m$ equal "
            r"blocks *and* $j \le i$, as a closed form."
        ),
        parts=(
            Function(
                causal_pairs,
                equal_blocks,
                (
                    Mistake(
                        "causal forgotten",
                        "That is both directions.",
                        lambda n, m: (3 * m - 2) * (n // m) ** 2,
                    ),
                    Mistake(
                        "own block whole",
                        "A block's own square keeps its lower triangle only.",
                        lambda n, m: (2 * m - 1) * (n // m) ** 2,
                    ),
                    Mistake(
                        "diagonal forgotten",
                        "The triangle includes the diagonal: b (b + 1) / 2.",
                        lambda n, m: (
                            m * (n // m) * (n // m - 1) // 2 + (m - 1) * (n // m) ** 2
                        ),
                    ),
                    Mistake(
                        "neighbour forgotten",
                        "The whole block before is missing.",
                        lambda n, m: m * (n // m) * (n // m + 1) // 2,
                    ),
                    Mistake(
                        "first block has a neighbour",
                        "The first block has none before it: m - 1 squares.",
                        lambda n, m: (
                            m * (n // m) * (n // m + 1) // 2 + m * (n // m) ** 2
                        ),
                    ),
                    Mistake(
                        "half",
                        "Half of the symmetric count counts the diagonal by half.",
                        lambda n, m: (3 * m - 2) * (n // m) ** 2 / 2,
                    ),
                ),
            ),
        ),
        because=(
            "Each block keeps the triangle of its own square, and each but the first "
            "the whole square before it."
        ),
    ),
    Exercise(
        id="sparse-6",
        kind="predict",
        difficulty=2,
        minutes=6,
        section="Choosing $b$",
        question=(
            r"A model has $L = 12$ layers and $n = 8192$. What is the smallest block "
            r"size that connects all tokens, (a) if the number of blocks must divide "
            r"$n$ (`dividing`), (b) if the last block may be shorter (`any`)?"
        ),
        parts=(
            Number(
                "dividing",
                1024,
                {
                    512: "16 blocks need 15 layers.",
                    2048: "8 blocks need 7 layers, which is enough.",
                },
            ),
            Number(
                "any",
                631,
                {
                    630: "8192 / 630 is more than 13, and 14 blocks need 13 layers.",
                    683: "12 layers connect 13 blocks, one more than there are layers.",
                    632: "631 is enough.",
                },
            ),
        ),
        worked="""
            dividing = next(
                b for b in range(1, 8193) if 8192 % b == 0 and 8192 // b <= 13
            )
            check("sparse-6", dividing=dividing, any=math.ceil(8192 / 13))
        """,
        because=r"$m$ blocks need $m - 1$ layers, so that $m \le 13$.",
    ),
    Exercise(
        id="sparse-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="What was meant",
        question=r"Write the mask of adjacent blocks. The last block may be shorter.",
        parts=(
            Function(
                block_mask,
                sizes,
                (
                    wrong_mask(
                        "own block only",
                        "Each block meets itself only; its neighbours are missing.",
                        lambda i, j, n, b: i // b == j // b,
                    ),
                    wrong_mask(
                        "a window",
                        "That is a window of b, |i - j| <= b: its edge moves "
                        "with every token, and not block by block.",
                        lambda i, j, n, b: (i - j).abs() <= b,
                    ),
                    wrong_mask(
                        "one side",
                        "The block after is missing.",
                        lambda i, j, n, b: (
                            ((i // b - j // b) >= 0) & ((i // b - j // b) <= 1)
                        ),
                    ),
                    wrong_mask(
                        "future block",
                        "Without the absolute value every later block is kept.",
                        lambda i, j, n, b: i // b - j // b <= 1,
                    ),
                    wrong_mask(
                        "two neighbours",
                        "This reaches two blocks to each side.",
                        lambda i, j, n, b: (i // b - j // b).abs() <= 2,
                    ),
                    wrong_mask(
                        "own block forgotten",
                        "A block meets itself too.",
                        lambda i, j, n, b: (i // b - j // b).abs() == 1,
                    ),
                    wrong_mask(
                        "wrapped",
                        "The first and the last block are taken for neighbours, "
                        "as on a ring.",
                        lambda i, j, n, b: (
                            ((i // b - j // b) % max(1, -(-n // b)) <= 1)
                            | ((j // b - i // b) % max(1, -(-n // b)) <= 1)
                        ),
                    ),
                    wrong_mask(
                        "count for size",
                        "b is taken for the number of blocks; it is their size.",
                        lambda i, j, n, b: (
                            (i // max(1, -(-n // b)) - j // max(1, -(-n // b))).abs()
                            <= 1
                        ),
                    ),
                    wrong_mask(
                        "remainder for quotient",
                        "The remainder says where in its block a token stands; "
                        "its block is the quotient.",
                        lambda i, j, n, b: (i % b - j % b).abs() <= 1,
                    ),
                ),
            ),
        ),
        because=(
            "The block of a token is $\\lfloor i / b \\rfloor$; neighbours differ by "
            "at most 1."
        ),
    ),
    Exercise(
        id="sparse-8",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="The slice that the document was looking for",
        question=(
            r"Which keys does block number `block` meet? Write the ends of its run, "
            r"as a slice has them."
        ),
        parts=(
            Function(
                run_of,
                blocks_of_texts,
                (
                    Mistake(
                        "negative start",
                        "The first block begins at a negative position, which a "
                        "slice counts from the end.",
                        lambda t, b, n: ((t - 1) * b, min(n, (t + 2) * b)),
                    ),
                    Mistake(
                        "end beyond the text",
                        "The last run ends beyond the text.",
                        lambda t, b, n: (max(0, (t - 1) * b), (t + 2) * b),
                    ),
                    Mistake(
                        "right neighbour lost",
                        "The run ends with the block; its right neighbour is lost.",
                        lambda t, b, n: (max(0, (t - 1) * b), min(n, (t + 1) * b)),
                    ),
                    Mistake(
                        "left neighbour lost",
                        "The run begins with the block; its left neighbour is lost.",
                        lambda t, b, n: (t * b, min(n, (t + 2) * b)),
                    ),
                    Mistake(
                        "last key included",
                        "`stop` is the last key; a slice leaves it out.",
                        lambda t, b, n: (max(0, (t - 1) * b), min(n, (t + 2) * b) - 1),
                    ),
                    Mistake(
                        "blocks for tokens",
                        "These are numbers of blocks; tokens were asked for.",
                        lambda t, b, n: (max(0, t - 1), min(-(-n // b), t + 2)),
                    ),
                ),
            ),
        ),
        because="$(l - 1)\\,b$ to $(l + 2)\\,b$, cut off at the ends of the text.",
    ),
    Exercise(
        id="sparse-9",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="The slice that the document was looking for",
        question=(
            r"Without looking back at `by_blocks`, write attention in adjacent blocks "
            r"as a loop over blocks of queries, without a mask. The last block may be "
            r"shorter. You may use `at.attention` inside."
        ),
        parts=(
            Function(
                block_attention,
                inputs_with_blocks,
                (
                    Mistake(
                        "negative start",
                        "The first block's slice has a negative start, which "
                        "counts from the end: say max(0, start - b).",
                        blocks_with(lambda start, b: slice(start - b, start + 2 * b)),
                    ),
                    Mistake(
                        "own block only",
                        "Each block meets itself only.",
                        blocks_with(lambda start, b: slice(start, start + b)),
                    ),
                    Mistake(
                        "right neighbour lost",
                        "The run ends with the block: its right neighbour is lost.",
                        blocks_with(
                            lambda start, b: slice(max(0, start - b), start + b)
                        ),
                    ),
                    Mistake(
                        "left neighbour lost",
                        "The run begins with the block: its left neighbour is lost.",
                        blocks_with(lambda start, b: slice(start, start + 2 * b)),
                    ),
                    Mistake(
                        "full attention",
                        "Each block meets all keys.",
                        blocks_with(lambda start, b: slice(None)),
                    ),
                    Mistake(
                        "a window",
                        "That is a window of b with a mask, not blocks.",
                        lambda q, k, v, b: at.attention(
                            q, k, v, at.dense_mask(at.patterns.local(b), q.shape[-2])
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "Inside a run every pair is kept, so that no mask is needed and nothing "
            "is computed in vain."
        ),
    ),
)

QUIZ = (
    Question(
        "A text is cut into two blocks, each of which meets itself and its "
        "neighbours. What is saved?",
        (
            right(
                "Nothing.",
                "Each block meets both: that is full attention. Savings begin "
                "with three blocks.",
            ),
            wrong(
                "Half of the pairs.", "The neighbour of each block is the other one."
            ),
            wrong("A quarter of the pairs.", "All four squares are kept."),
        ),
    ),
    Question(
        "Which is true of a window of $w$ and adjacent blocks of $b$?",
        (
            right(
                "The window lies inside the blocks if and only if $w \\le b$.",
                "The last token of a block sees $b$ tokens to its right for "
                "sure, and no more.",
            ),
            wrong(
                "The window lies inside the blocks for $w \\le 2b$.",
                "A token at the end of a block sees only $b$ tokens to its right.",
            ),
            wrong(
                "They are the same for $w = b$.",
                "Blocks keep more: a token at the start of a block sees $2b - 1$ "
                "to its right.",
            ),
        ),
    ),
    Question(
        "Why do adjacent blocks need no mask inside?",
        (
            wrong("The mask is applied afterwards.", "There is none at all."),
            right(
                "All tokens of a block keep the same keys.",
                "So the run of keys *is* the pattern, and nothing is computed in vain.",
            ),
            wrong(
                "The softmax removes far keys.",
                "Far keys are not in the run to begin with.",
            ),
        ),
    ),
    Question(
        "Twelve blocks. After how many layers can the first token influence the last?",
        (
            wrong(
                "1, since the blocks overlap.",
                "They do not overlap. They meet their neighbours.",
            ),
            right("11.", "Each layer takes a message one block further."),
            wrong(
                "6, since it travels from both sides.",
                "It travels from the first to the last: eleven borders.",
            ),
        ),
    ),
    Question(
        "A test of a block routine uses $n = 24$ and $b = 6$ only. What can it miss?",
        (
            right(
                "Blocks that do not fill the text, and slices that go wrong at "
                "another length.",
                "A negative start gives an empty run at one length and a "
                "plausible one at another.",
            ),
            wrong(
                "Nothing: if it holds for one length, it holds for all.",
                "A slice with a negative start can be right at one length and "
                "wrong at another.",
            ),
            wrong(
                "The order of the blocks.",
                "Their order shows at any length with several blocks.",
            ),
        ),
    ),
)
