"""Exercises on patterns."""

import torch

from attn_tutorial.exercises.catalogue import wrong_mask
from attn_tutorial.exercises.exercise import (
    Exercise,
    Formula,
    Function,
    Mistake,
    Number,
    Question,
    right,
    wrong,
)


def fixed_mask(size, last, n):
    """Causal: own block of `size`, and the last `last` of each block; bool (n, n)."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return ((i // size == j // size) | (j % size >= size - last)) & (j <= i)


def dilated(n, w, step):
    """True for the keys i, i ± step, ..., i ± w * step; bool (n, n)."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return ((i - j).abs() <= w * step) & ((i - j) % step == 0)


def sinks(n, w, first):
    """A causal window of w keys back, and the first `first` tokens; bool (n, n)."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return ((i - j <= w) | (j < first)) & (j <= i)


def reached(keep, layers):
    """Which inputs j can influence output i after so many layers with one mask.

    keep is bool (n, n); the result too. No residual branch; 0 layers pass each input
    on as it is.
    """
    result = torch.eye(len(keep), dtype=torch.bool)
    for _ in range(layers):
        result = (keep.int() @ result.int()) > 0
    return result


def fixed_cases(seed):
    """Blocks, last tokens and lengths."""
    yield from (
        (s, c, n)
        for n in (1, 4, 6, 7, 12)
        for s in (1, 2, 3, 6)
        for c in (0, 1, 2)
        if c <= s
    )


def fixed_by(predicate):
    """A mask by another predicate on (i, j, size, last)."""

    def made(size, last, n):
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        return predicate(i, j, size, last) & (i == i) & (j == j)

    return made


def dilated_cases(seed):
    """Lengths, windows and steps."""
    yield from (
        (n, w, s) for n in (0, 1, 3, 5, 8, 13) for w in (0, 1, 2) for s in (1, 2, 3)
    )


def sink_cases(seed):
    """Lengths, windows and numbers of first tokens."""
    yield from (
        (n, w, f) for n in (0, 1, 2, 4, 7, 12) for w in (0, 1, 3) for f in (0, 1, 2, 5)
    )


def reach_cases(seed):
    """Small masks, symmetric and not, with numbers of layers."""
    i, j = torch.arange(7)[:, None], torch.arange(7)[None, :]
    masks = [(i - j).abs() <= 1, (j <= i) & (i - j <= 2), (i // 2 == j // 2) & (j <= i)]
    masks.append((j == i - 1) | (j == 3))
    yield from ((keep, layers) for layers in (0, 1, 2, 3) for keep in masks)
    generator = torch.Generator().manual_seed(seed)
    yield torch.rand(9, 9, generator=generator) < 0.2, 2


def paths(step):
    """A wrong reach, one layer after the other."""

    def result(keep, layers):
        found = torch.eye(len(keep), dtype=torch.bool)
        for _ in range(layers):
            found = step(keep, found)
        return found

    return result


EXERCISES = (
    Exercise(
        id="patterns-1",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="Patterns combine as sets do",
        question=(
            r"How many pairs does `at.patterns.local(2) | at.patterns.strided(8)` "
            r"keep at $n = 64$? Derive it, then count the mask."
        ),
        parts=(
            Number(
                "pairs",
                762,
                {
                    314 + 512: "The diagonal is in both, and counts once.",
                    64: "That is what both keep; their union was asked for.",
                    320 + 512 - 64: "The window lacks keys at the two ends.",
                },
            ),
        ),
        worked="""
            check("patterns-1", 64 * 5 - 2 * 3 + 64**2 // 8 - 64)
        """,
        because=(
            "The window keeps 314 pairs, the stride 512, and they share the diagonal."
        ),
    ),
    Exercise(
        id="patterns-2",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="Patterns combine as sets do",
        question=(
            r"The Sparse Transformer's other design, *fixed*, lets token $i$ see the "
            r"earlier tokens of its own block of `size`, and the last `last` tokens "
            r"of every earlier block. Write its mask (`fixed_mask`; as a pattern it "
            r"is `at.patterns.Pattern('fixed', (), keep=...) & causal()`). How many "
            r"pairs does it keep for $n = 36$, blocks of 6 and 1 last token "
            r"(`pairs`)?"
        ),
        parts=(
            Function(
                fixed_mask,
                fixed_cases,
                (
                    Mistake(
                        "causal forgotten",
                        "It must be causal as well: intersect with j <= i.",
                        fixed_by(
                            lambda i, j, s, c: (i // s == j // s) | (j % s >= s - c)
                        ),
                    ),
                    Mistake(
                        "and for or",
                        "A token sees its own block *or* the last tokens: it is "
                        "a union.",
                        fixed_by(
                            lambda i, j, s, c: (
                                (i // s == j // s) & (j % s >= s - c) & (j <= i)
                            )
                        ),
                    ),
                    Mistake(
                        "first for last",
                        "These are the first tokens of each block, not the last.",
                        fixed_by(
                            lambda i, j, s, c: (
                                ((i // s == j // s) | (j % s < c)) & (j <= i)
                            )
                        ),
                    ),
                    Mistake(
                        "one too many",
                        "There is one last token too many in each block.",
                        fixed_by(
                            lambda i, j, s, c: (
                                ((i // s == j // s) | (j % s >= s - c - 1)) & (j <= i)
                            )
                        ),
                    ),
                    Mistake(
                        "rows for columns",
                        "The last tokens are keys: it is j that must stand at "
                        "the end of a block.",
                        fixed_by(
                            lambda i, j, s, c: (
                                ((i // s == j // s) | (i % s >= s - c)) & (j <= i)
                            )
                        ),
                    ),
                    Mistake(
                        "own block forgotten",
                        "A token sees its own block too.",
                        fixed_by(lambda i, j, s, c: (j % s >= s - c) & (j <= i)),
                    ),
                    Mistake(
                        "causal for the own block only",
                        "The last tokens of *later* blocks are kept: causality "
                        "holds for both parts.",
                        fixed_by(
                            lambda i, j, s, c: (
                                ((i // s == j // s) & (j <= i)) | (j % s >= s - c)
                            )
                        ),
                    ),
                ),
            ),
            Number(
                "pairs",
                216,
                {
                    126: "That is the own blocks.",
                    90: "These are the earlier blocks; the own one counts too.",
                    252: "The own block's last token was counted already.",
                    306: "An own block keeps the lower triangle only, 21 pairs.",
                },
            ),
        ),
        worked="""
            check("patterns-2", fixed_mask=fixed_mask, pairs=fixed_mask(6, 1, 36).sum())
        """,
        because=(
            r"Six triangles of 21 pairs, and a token of block $l$ sees $l$ last "
            r"tokens: $126 + 90$."
        ),
    ),
    Exercise(
        id="patterns-3",
        kind="predict",
        difficulty=3,
        minutes=15,
        section="Attention as a graph",
        question=(
            r"Split the pattern *fixed*: some layers use “own block” only, others "
            r"“the last token of every block” only, both causal, blocks of 6, $n = "
            r"36$, and each layer has a residual branch. After an own-block "
            r"layer *followed* by a last-token layer, how "
            r"many of the 666 pairs $j \le i$ are connected (`own_first`)? And in "
            r"the other order (`last_first`)?"
        ),
        parts=(
            Number(
                "own_first",
                666,
                {
                    216: (
                        "That is the other order: the layer that runs later stands "
                        "on the left of the product."
                    )
                },
            ),
            Number(
                "last_first",
                216,
                {
                    666: (
                        "That is the other order: the layer that runs later stands "
                        "on the left of the product."
                    )
                },
            ),
        ),
        worked="""
            i, j = torch.arange(36)[:, None], torch.arange(36)[None, :]
            own = ((i // 6 == j // 6) & (j <= i)).int()
            last = (((j % 6 == 5) & (j <= i)) | (i == j)).int()
            own_first, last_first = (last @ own > 0).sum(), (own @ last > 0).sum()
            check("patterns-3", own_first=own_first, last_first=last_first)
        """,
        because=(
            "The last token of a block first gathers its block, and then everyone "
            "reads it. In the other order it is read before it has gathered anything."
        ),
    ),
    Exercise(
        id="patterns-4",
        kind="derive",
        difficulty=3,
        minutes=20,
        section="Reach is not influence",
        question=(
            r"(a) Derive the standard deviation of the lag for a causal window ($w + "
            r"1$ keys, uniform, no residual branch) after $L$ layers, as a function "
            r"of $w$ and $L$ (`sigma`), and the mean lag (`mean`). (b) By which "
            r"factor does a residual share $a$ multiply the variance of a window "
            r"with two sides (`factor`, a function of $a$)?"
        ),
        parts=(
            Formula(
                reference=lambda w, L: (L * w * (w + 2) / 12) ** 0.5,
                name="sigma",
                cases=lambda seed: ((w, L) for w in (1, 2, 8) for L in (1, 4, 16)),
                mistakes=(
                    Mistake(
                        "two sides",
                        "That is the window with two sides.",
                        lambda w, L: (L * w * (w + 1) / 3) ** 0.5,
                    ),
                    Mistake(
                        "variance",
                        "That is the variance; its root was asked for.",
                        lambda w, L: L * w * (w + 2) / 12,
                    ),
                    Mistake(
                        "L times",
                        "Variances add up, not deviations.",
                        lambda w, L: L * (w * (w + 2) / 12) ** 0.5,
                    ),
                    Mistake(
                        "around 0",
                        "The deviation is measured from the mean, which is w/2 a "
                        "layer and not 0.",
                        lambda w, L: (L * w * (2 * w + 1) / 6) ** 0.5,
                    ),
                    Mistake(
                        "continuous",
                        "A step takes whole numbers: ((w + 1)² - 1) / 12, not w² / 12.",
                        lambda w, L: (L * w * w / 12) ** 0.5,
                    ),
                ),
            ),
            Formula(
                reference=lambda w, L: L * w / 2,
                name="mean",
                cases=lambda seed: ((w, L) for w in (1, 2, 8) for L in (1, 4, 16)),
                mistakes=(
                    Mistake(
                        "zero",
                        "A causal window looks back only: its mean is not 0.",
                        lambda w, L: 0,
                    ),
                    Mistake(
                        "reach",
                        "That is the reach; on average a step goes half as far.",
                        lambda w, L: L * w,
                    ),
                    Mistake(
                        "w + 1",
                        "The steps are 0 to w, and their mean is w/2.",
                        lambda w, L: L * (w + 1) / 2,
                    ),
                ),
            ),
            Formula(
                reference=lambda a: 1 - a,
                name="factor",
                cases=lambda seed: ((a / 10,) for a in range(11)),
                mistakes=(
                    Mistake(
                        "squared",
                        "A step is 0 with probability a; its mean square is then "
                        "(1 - a) times as large, not its square.",
                        lambda a: (1 - a) ** 2,
                    ),
                    Mistake(
                        "root",
                        "That is the factor of the deviation.",
                        lambda a: (1 - a) ** 0.5,
                    ),
                    Mistake(
                        "a",
                        "The residual branch stays where it is: that share adds "
                        "nothing.",
                        lambda a: a,
                    ),
                ),
            ),
        ),
        worked="""
            check(
                "patterns-4",
                sigma=lambda w, L: math.sqrt(L * w * (w + 2) / 12),
                mean=lambda w, L: L * w / 2,
                factor=lambda a: 1 - a,
            )
        """,
        because=(
            r"A step is uniform on $0, \dots, w$: mean $w/2$, variance $w(w+2)/12$; "
            r"means and variances of independent steps add up."
        ),
    ),
    Exercise(
        id="patterns-5",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="Reach is not influence",
        question=(
            r"A window of $w = 64$ must serve dependencies 1,000 tokens apart. How "
            r"many layers until 1,000 is within reach (`reach`)? How many until one "
            r"$\sigma = \sqrt{Lw(w+1)/3}$ of uniform attention is 1,000 tokens "
            r"(`spread`)?"
        ),
        parts=(
            Number(
                "reach",
                16,
                {
                    15: "15 times 64 is 960.",
                    8: (
                        "The window looks 64 to each side, and the dependency lies "
                        "on one."
                    ),
                },
            ),
            Number(
                "spread",
                722,
                {
                    721: "After 721 layers it is 999.9.",
                    16: "That is reach; the spread grows with the root of the depth.",
                    241: "The third under the root is missing.",
                },
            ),
        ),
        worked="""
            spread = math.ceil(3 * 1000**2 / (64 * 65))
            check("patterns-5", reach=math.ceil(1000 / 64), spread=spread)
        """,
        because=(
            "Reach needs depth in proportion to the distance, averaging in "
            "proportion to its square."
        ),
    ),
    Exercise(
        id="patterns-6",
        kind="diagnose",
        difficulty=3,
        minutes=12,
        section="Attention as a graph",
        question=(
            r"A colleague reports: “My decoder uses `causal() & (dilated(4, step=2) "
            r"| global_tokens(2))` with 8 layers at $n = 40$, so thanks to the "
            r"global tokens everything is connected after two layers.” How many of "
            r"the pairs $j \le i$ are never connected, at any depth?"
        ),
        parts=(
            Number(
                "pairs",
                361,
                {
                    0: (
                        "Causally, a global token reads nobody later than itself, so "
                        "that it hands nothing on."
                    ),
                    400: (
                        "The global tokens themselves are read by everyone: 39 of "
                        "these pairs are connected directly."
                    ),
                    380: "There are two global tokens, 0 and 1.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.instruments import graph

            P = at.patterns
            pattern = P.causal() & (P.dilated(4, 2) | P.global_tokens(2))
            check(
                "patterns-6",
                (graph.hops(pattern, 40)[torch.ones(40, 40).tril().bool()] < 0).sum(),
            )
        """,
        because=(
            "The dilated window keeps even distances only, so that even and odd "
            "positions form two societies, and causal global tokens carry no "
            "messages."
        ),
    ),
    Exercise(
        id="patterns-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="Four more shapes",
        question=(
            r"Write the mask of a dilated window: $w$ keys on each side, `step` "
            r"apart."
        ),
        parts=(
            Function(
                dilated,
                dilated_cases,
                (
                    wrong_mask(
                        "not stretched",
                        "The window is still w wide: a dilated one spans w times "
                        "the step.",
                        lambda i, j, n, w, s: ((i - j).abs() <= w) & ((i - j) % s == 0),
                    ),
                    wrong_mask(
                        "no gaps",
                        "The window is stretched and has no gaps.",
                        lambda i, j, n, w, s: (i - j).abs() <= w * s,
                    ),
                    wrong_mask(
                        "no end",
                        "The gaps are right, and there is no end: that is the "
                        "strided pattern.",
                        lambda i, j, n, w, s: (i - j) % s == 0,
                    ),
                    wrong_mask(
                        "counted from 0",
                        "The gaps are counted from position 0, and not from the query.",
                        lambda i, j, n, w, s: ((i - j).abs() <= w * s) & (j % s == 0),
                    ),
                    wrong_mask(
                        "one side",
                        "The window has two sides.",
                        lambda i, j, n, w, s: (
                            (j <= i) & (i - j <= w * s) & ((i - j) % s == 0)
                        ),
                    ),
                    wrong_mask(
                        "one key too few",
                        "A key w steps away is kept.",
                        lambda i, j, n, w, s: (
                            ((i - j).abs() < w * s) & ((i - j) % s == 0)
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "As many keys as a window of $w$, spread over `step` times the distance."
        ),
    ),
    Exercise(
        id="patterns-8",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="Patterns combine as sets do",
        question=(
            r"Write the mask of a decoder with attention sinks: a causal window of "
            r"$w$ keys back, and the first few tokens for ever."
        ),
        parts=(
            Function(
                sinks,
                sink_cases,
                (
                    wrong_mask(
                        "sinks of the future",
                        "The first tokens see each other's future: causality "
                        "holds for the sinks as well.",
                        lambda i, j, n, w, f: ((i - j <= w) & (j <= i)) | (j < f),
                    ),
                    wrong_mask(
                        "all of the future",
                        "The future is not forbidden.",
                        lambda i, j, n, w, f: (i - j <= w) | (j < f),
                    ),
                    wrong_mask(
                        "rows for columns",
                        "The first tokens are to be *seen* by all; here they see "
                        "all of their past.",
                        lambda i, j, n, w, f: ((i - j <= w) | (i < f)) & (j <= i),
                    ),
                    wrong_mask(
                        "window forgotten",
                        "Everything of the past is kept.",
                        lambda i, j, n, w, f: j <= i,
                    ),
                    wrong_mask(
                        "sinks forgotten",
                        "The sinks are missing.",
                        lambda i, j, n, w, f: (i - j <= w) & (j <= i),
                    ),
                    wrong_mask(
                        "one sink too many",
                        "There is one sink too many.",
                        lambda i, j, n, w, f: ((i - j <= w) | (j <= f)) & (j <= i),
                    ),
                    wrong_mask(
                        "one key too few",
                        "A key w back is kept.",
                        lambda i, j, n, w, f: ((i - j < w) | (j < f)) & (j <= i),
                    ),
                    wrong_mask(
                        "and for or",
                        "A key is kept if it is near *or* a sink.",
                        lambda i, j, n, w, f: (i - j <= w) & (j < f) & (j <= i),
                    ),
                ),
            ),
        ),
        because=(
            "(window or sink) and causal. In the other order, window and causal, or "
            "sink, the first tokens see the future."
        ),
    ),
    Exercise(
        id="patterns-9",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="Attention as a graph",
        question=(
            r"Which inputs can influence which outputs after $L$ layers with one "
            r"mask? Write it with products of the mask."
        ),
        parts=(
            Function(
                reached,
                reach_cases,
                (
                    Mistake(
                        "one layer",
                        "The number of layers has no effect.",
                        lambda keep, layers: keep.clone(),
                    ),
                    Mistake(
                        "one layer too many",
                        "There is one layer too many: begin with the identity.",
                        lambda keep, layers: paths(lambda k, f: k.int() @ f.int() > 0)(
                            keep, layers + 1
                        ),
                    ),
                    Mistake(
                        "transposed",
                        "The paths run backwards: rows are outputs.",
                        lambda keep, layers: (
                            paths(lambda k, f: k.int() @ f.int() > 0)(keep, layers).mT
                        ),
                    ),
                    Mistake(
                        "entry by entry",
                        "The masks are multiplied entry by entry; a path needs a "
                        "product of matrices.",
                        paths(lambda k, f: k & f),
                    ),
                    Mistake(
                        "residual added",
                        "What was reached before is kept: that is a residual "
                        "branch, and there is none here.",
                        paths(lambda k, f: (k.int() @ f.int() > 0) | f),
                    ),
                    Mistake(
                        "squared",
                        "The mask is squared in each layer, so that the depth "
                        "doubles instead of growing by one.",
                        paths(lambda k, f: (k.int() @ k.int() @ f.int()) > 0),
                    ),
                ),
            ),
        ),
        because=(
            "Entry $(i, j)$ of the product counts the paths from input $j$ to output "
            "$i$; the layer that runs later stands on the left."
        ),
    ),
)


QUIZ = (
    Question(
        "What is a pattern in this book?",
        (
            wrong(
                "A matrix of weights.",
                "Weights come out of the softmax; a pattern says which pairs have one.",
            ),
            right(
                "A predicate: may query $i$ see key $j$?",
                "So patterns combine as sets do, and one definition serves for "
                "drawing, masking and testing.",
            ),
            wrong(
                "A list of the keys that matter.",
                "What matters depends on the content; a pattern knows positions only.",
            ),
        ),
    ),
    Question(
        "A causal model gets one global token, at position 0. What does it connect?",
        (
            wrong(
                "Everything, in two layers.",
                "It would have to read later tokens to hand them on.",
            ),
            right(
                "Nothing but itself with all later tokens.",
                "It is read by all and reads nobody: it cannot carry a message.",
            ),
            wrong("Each token with the one before.", "That is what the window does."),
        ),
    ),
    Question(
        "Position 900 lies within the reach of a stack. What follows?",
        (
            right(
                "Its token *can* influence the output.",
                "By how much is another question: under uniform attention "
                "influence is a bell curve that is much narrower than the reach.",
            ),
            wrong(
                "Its token influences the output noticeably.",
                "Far out on the reach hardly anything arrives, unless training "
                "made the layers relay.",
            ),
            wrong(
                "The model has learned to use it.",
                "A path is necessary, and not sufficient.",
            ),
        ),
    ),
    Question(
        "A dilated window with step 2 in every layer. What goes wrong?",
        (
            right(
                "Even and odd positions never meet.",
                "Every step has an even length, in every layer.",
            ),
            wrong(
                "Each query has half as many keys.",
                "It has as many as before, twice as far apart.",
            ),
            wrong("The reach is halved.", "It is doubled: the steps are longer."),
        ),
    ),
    Question(
        "How does the spread of uniform attention grow with the number of layers?",
        (
            wrong("In proportion.", "That is the reach."),
            right(
                "With the root.",
                "Variances add up: $\\sigma = \\sqrt{Lw(w+1)/3}$ for a window.",
            ),
            wrong("Not at all.", "Each layer averages averages, and these are wider."),
        ),
    ),
)
