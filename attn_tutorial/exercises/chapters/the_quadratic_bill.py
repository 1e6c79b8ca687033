"""Exercises on the cost of full attention."""

import torch

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


def merge(first, second):
    """Merge two results over different keys, each (m, total, output).

    m is the largest score (n, 1), total the sum of exp(score - m) over the keys (n, 1),
    output the sum of exp(score - m) times the values (n, d). Returns the same three.
    """
    m = torch.maximum(first[0], second[0])
    shrink = [torch.exp(part[0] - m) for part in (first, second)]
    total = shrink[0] * first[1] + shrink[1] * second[1]
    return m, total, shrink[0] * first[2] + shrink[1] * second[2]


def stable_softmax(scores):
    """The softmax over the last axis by hand, without overflow, for finite scores."""
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def merge_cases(seed):
    """Two parts of a row of scores, as the online softmax leaves them."""
    for number, (n, d, scale) in enumerate(
        ((1, 1, 1), (2, 2, 1), (4, 3, 3), (3, 2, 90))
    ):
        generator = torch.Generator().manual_seed(10 * seed + number)
        parts = []
        for keys in (2, 3):
            scores = scale * torch.randn(n, keys, generator=generator).double()
            m = scores.amax(-1, keepdim=True)
            weights = (scores - m).exp()
            values = torch.randn(keys, d, generator=generator).double()
            parts.append((m, weights.sum(-1, keepdim=True), weights @ values))
        yield parts[0], parts[1]
        yield parts[1], parts[0]


def merged_by(factors, total=True):
    """A wrong merge: `factors` gives what the two parts are multiplied by."""

    def merged(first, second):
        m = torch.maximum(first[0], second[0])
        a, b = factors(first[0], second[0], m)
        sums = (a * first[1] + b * second[1]) if total else first[1] + second[1]
        return m, sums, a * first[2] + b * second[2]

    return merged


def score_cases(seed):
    """Rows of scores, small and large, of several shapes."""
    generator = torch.Generator().manual_seed(seed)
    yield (torch.zeros(1, 2),)
    yield (torch.tensor([[0.0, 1.0]]),)
    for shape in ((2, 3), (2, 3, 4)):
        yield (torch.randn(shape, generator=generator),)
    yield (torch.tensor([[1000.0, 999.0], [-1000.0, -1001.0]]).double(),)
    yield (torch.tensor([[1000.0, 0.0], [-1000.0, -900.0]]).double(),)


EXERCISES = (
    Exercise(
        id="bill-1",
        kind="derive",
        difficulty=1,
        minutes=5,
        section="At which length does attention dominate?",
        question=(
            r"A layer has width $d_{\text{model}} = 1024$. Beyond which length does "
            r"attention take more than *three quarters* of its FLOPs? Give the "
            r"number (`length`) and the general rule in widths (`widths`)."
        ),
        parts=(
            Number(
                "length",
                18_432,
                {
                    6 * 1024: "That is half of the FLOPs.",
                    8 * 1024: "The share is n / (n + 6 d): solve it for 3/4.",
                    24 * 1024: (
                        "Three quarters means three times the rest, and the rest is "
                        "6 widths."
                    ),
                    4608: (
                        "Three quarters means attention is three times the rest; "
                        "this is 4.5 widths."
                    ),
                },
            ),
            Number(
                "widths",
                18,
                {
                    6: "That is half of the FLOPs.",
                    3: "Three times what the rest is worth, and that is 6 widths.",
                },
            ),
        ),
        worked="""
            widths = 3 * 6
            check("bill-1", length=widths * 1024, widths=widths)
        """,
        because=(
            r"Attention's share is $n / (n + 6 d_{\text{model}})$, above $3/4$ once "
            r"$n > 18\, d_{\text{model}}$."
        ),
    ),
    Exercise(
        id="bill-2",
        kind="derive",
        difficulty=1,
        minutes=5,
        section="The rest of the layer",
        question=(
            r"Some models use an MLP that widens by another factor than 4. At which "
            r"length does attention cost as much as the rest of its layer, as a "
            r"function of $d_{\text{model}}$ and of that factor (`crossover`)? And for "
            r"$d_{\text{model}} = 512$ and a factor of 2 (`length`)?"
        ),
        parts=(
            Formula(
                reference=lambda d, e: (2 + e) * d,
                name="crossover",
                cases=lambda seed: (
                    (d, e) for d in (1, 64, 512) for e in (1, 2, 3, 4, 8)
                ),
                mistakes=(
                    Mistake(
                        "projections forgotten",
                        "The four projections cost too: 8 n d².",
                        lambda d, e: e * d,
                    ),
                    Mistake(
                        "factor fixed at 4",
                        "This is the rule for a factor of 4, whatever the factor is.",
                        lambda d, e: 6 * d,
                    ),
                    Mistake(
                        "MLP counted once",
                        "The MLP has two matrices, there and back.",
                        lambda d, e: (2 + e / 2) * d,
                    ),
                ),
            ),
            Number(
                "length",
                2048,
                {3072: "That is a factor of 4.", 1024: "The projections cost too."},
            ),
        ),
        worked="""
            check(
                "bill-2",
                crossover=lambda d, e: (2 + e) * d,
                length=at.cost.crossover_length(512, 2),
            )
        """,
        because=(
            r"For a factor of 2 the rest of the layer costs $(8 + 4 \cdot 2)\, n "
            r"d_{\text{model}}^2$ FLOPs, and attention $4 n^2 d_{\text{model}}$."
        ),
    ),
    Exercise(
        id="bill-3",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="The memory of the scores",
        question=(
            r"A GPU has 80 GiB of memory free. What is the largest $n$, a power of "
            r"two, for which the scores of one layer with 16 heads fit in float16, "
            r"with 2 bytes a number? Count one $n \times n$ matrix in each head and "
            r"nothing else."
        ),
        parts=(
            Number(
                "n",
                2**15,
                {
                    2**16: "That takes 128 GiB.",
                    2**17: "Each of the 16 heads has a matrix of its own.",
                    2**14: "That takes 8 GiB; there is room for more.",
                },
            ),
        ),
        worked="""
            n = 1
            while 16 * (2 * n) ** 2 * 2 <= 80 * 2**30:
                n = 2 * n
            check("bill-3", n)
        """,
        because=(
            r"$16 \cdot n^2 \cdot 2$ bytes are 32 GiB for $n = 2^{15}$ and four "
            r"times as much for $2^{16}$."
        ),
    ),
    Exercise(
        id="bill-4",
        kind="derive",
        difficulty=2,
        minutes=10,
        section="The online softmax in code",
        question=(
            r"How many numbers does the largest tensor hold that `online_attention` "
            r"makes for $n = 4096$ queries and keys of width $d = 64$, as a function "
            r"of `chunk` (`numbers`)? Up to which chunk is it no larger than $q$ "
            r"itself (`chunk`)?"
        ),
        parts=(
            Formula(
                reference=lambda chunk: 4096 * max(chunk, 64),
                name="numbers",
                cases=lambda seed: ((c,) for c in (1, 16, 32, 64, 128, 4096)),
                mistakes=(
                    Mistake(
                        "output forgotten",
                        "The sums of the output hold n times 64 numbers, however "
                        "small the chunk is.",
                        lambda c: 4096 * c,
                    ),
                    Mistake(
                        "all scores",
                        "The scores of all keys are never there at once.",
                        lambda c: 4096 * 4096,
                    ),
                    Mistake(
                        "added",
                        "The largest tensor is asked for, and not the sum of two.",
                        lambda c: 4096 * (c + 64),
                    ),
                    Mistake(
                        "square chunk",
                        "A chunk of keys meets all n queries.",
                        lambda c: max(c * c, 4096 * 64),
                    ),
                ),
            ),
            Number(
                "chunk",
                64,
                {
                    4096: "Then the scores are n x n.",
                    32: "At 64 it is just as large as q, which is allowed.",
                },
            ),
        ),
        worked="""
            check("bill-4", numbers=lambda chunk: 4096 * max(chunk, 64), chunk=64)
        """,
        because=(
            r"The scores of one chunk hold $n \cdot$ chunk numbers, the sums for the "
            r"output $n \cdot 64$."
        ),
    ),
    Exercise(
        id="bill-5",
        kind="diagnose",
        difficulty=2,
        minutes=12,
        section="The online softmax in code",
        question=r"""
            A colleague rewrites the loop of the online softmax and moves one line: `top
            = new_top` now comes *before* `shrink = torch.exp(top - new_top)`. For which
            queries is the result still right (`right`): (a) none; (b) those whose
            largest score lies in the first chunk; (c) those whose largest score lies in
            the last chunk; (d) all? How large is the largest error (`error`, to two
            digits) for `torch.manual_seed(0)`, `q, k, v = torch.randn(3, 64, 16)` and a
            chunk of 16?
        """,
        parts=(
            Choice(
                "right",
                (
                    wrong(
                        "none", "If the top never rises, nothing has to be repaired."
                    ),
                    right("those whose largest score lies in the first chunk", ""),
                    wrong(
                        "those whose largest score lies in the last chunk",
                        "There the top rises, and the sums so far should shrink.",
                    ),
                    wrong(
                        "all",
                        "shrink is always exp(0) = 1, so that old sums are never "
                        "repaired.",
                    ),
                ),
            ),
            Number(
                "error",
                0.65,
                {0.0: "Some queries' largest score comes late."},
                within=0.015,
            ),
        ),
        worked="""
            _ = torch.manual_seed(0)
            q, k, v = torch.randn(3, 64, 16)
            top, total, output = torch.full((64, 1), -torch.inf), 0.0, 0.0
            for keys, values in zip(k.split(16), v.split(16)):
                scores = q @ keys.mT / 4
                top = torch.maximum(top, scores.amax(-1, keepdim=True))
                weights = torch.exp(scores - top)  # shrink is 1: the bug
                total = total + weights.sum(-1, keepdim=True)
                output = output + weights @ values
            error = (output / total - at.attention(q, k, v)).abs().max()
            check("bill-5", right="b", error=error)
        """,
        because=(
            "`shrink` is $e^0 = 1$: keys that were seen before the top rose weigh "
            "too much, unless the top came in the first chunk."
        ),
    ),
    Exercise(
        id="bill-6",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="At which length does attention dominate?",
        question=(
            r"The causal pattern keeps $n(n+1)/2$ pairs. At which length does causal "
            r"attention cost as much as the rest of its layer, as a function of "
            r"$d_{\text{model}}$ (`length`)? And for $d_{\text{model}} = 64$ (`at_64`)?"
        ),
        parts=(
            Formula(
                reference=lambda d: 12 * d - 1,
                name="length",
                cases=lambda seed: ((d,) for d in (1, 8, 64, 512)),
                mistakes=(
                    Mistake(
                        "full",
                        "That is full attention; causality keeps half of the pairs.",
                        lambda d: 6 * d,
                    ),
                    Mistake(
                        "diagonal forgotten",
                        "Nearly: n + 1 = 12 d, because of the diagonal.",
                        lambda d: 12 * d,
                    ),
                    Mistake(
                        "diagonal added",
                        "n + 1 = 12 d, so that n is one less.",
                        lambda d: 12 * d + 1,
                    ),
                    Mistake(
                        "half",
                        "Fewer pairs move the crossover up, not down.",
                        lambda d: 3 * d,
                    ),
                ),
            ),
            Number(
                "at_64",
                767,
                {
                    768: "The diagonal counts: n + 1 = 12 d.",
                    384: "That is full attention.",
                },
            ),
        ),
        worked="""
            check("bill-6", length=lambda d: 12 * d - 1, at_64=12 * 64 - 1)
        """,
        because=r"$4d \cdot n(n+1)/2 = 24\, n d^2$ gives $n + 1 = 12 d$.",
    ),
    Exercise(
        id="bill-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="Must the matrix exist?",
        question=(
            r"Write a softmax over the last axis by hand, without `softmax`, that "
            r"survives scores of 1000 and of -1000."
        ),
        parts=(
            Function(
                stable_softmax,
                score_cases,
                (
                    Mistake(
                        "no shift",
                        "Without taking the largest score off, exp(1000) is "
                        "infinite and exp(-1000) is 0: both end in NaN.",
                        lambda s: s.exp() / s.exp().sum(-1, keepdim=True),
                    ),
                    Mistake(
                        "one shift for all rows",
                        "One largest score is taken off from all rows, so that "
                        "rows far below it underflow to 0/0. Each row needs its "
                        "own.",
                        lambda s: (
                            (s - s.max()).exp()
                            / (s - s.max()).exp().sum(-1, keepdim=True)
                        ),
                    ),
                    Mistake(
                        "not normalised",
                        "The exponentials are not divided by their sum.",
                        lambda s: (s - s.amax(-1, keepdim=True)).exp(),
                    ),
                    Mistake(
                        "smallest score",
                        "The smallest score is taken off, and the largest ones "
                        "still overflow.",
                        lambda s: (
                            (s - s.amin(-1, keepdim=True)).exp()
                            / (s - s.amin(-1, keepdim=True)).exp().sum(-1, keepdim=True)
                        ),
                    ),
                    Mistake(
                        "wrong axis",
                        "The weights sum to 1 down the columns; a row has to.",
                        lambda s: s.softmax(-2),
                    ),
                    Mistake(
                        "sum of all",
                        "The sum runs over all entries; each row has its own.",
                        lambda s: s.flatten().softmax(0).reshape(s.shape),
                    ),
                ),
            ),
        ),
        because=(
            "A common shift of a row changes no weight, and after it the largest "
            "exponential is 1."
        ),
    ),
    Exercise(
        id="bill-8",
        kind="implement",
        difficulty=3,
        minutes=15,
        section="Parts that never met",
        question=(
            r"The online softmax cuts the keys into chunks. Write the merge of two "
            r"finished parts, in any order. For scores of 90 and more, no "
            r"exponential may overflow."
        ),
        parts=(
            Function(
                merge,
                merge_cases,
                (
                    Mistake(
                        "nothing shrinks",
                        "The two parts are added as they are. Each was measured "
                        "from its own top, so that both must be brought to the "
                        "common one.",
                        merged_by(lambda a, b, m: (1.0, 1.0)),
                    ),
                    Mistake(
                        "only the first shrinks",
                        "Only the first part is brought to the common top; the "
                        "second may be the lower one.",
                        merged_by(lambda a, b, m: ((a - m).exp(), 1.0)),
                    ),
                    Mistake(
                        "factors swapped",
                        "The two factors have changed places.",
                        merged_by(lambda a, b, m: ((b - m).exp(), (a - m).exp())),
                    ),
                    Mistake(
                        "sign",
                        "The sign in the exponent is wrong: the factors should "
                        "be at most 1.",
                        merged_by(lambda a, b, m: ((m - a).exp(), (m - b).exp())),
                    ),
                    Mistake(
                        "totals not scaled",
                        "The outputs are scaled, and the totals are not.",
                        merged_by(
                            lambda a, b, m: ((a - m).exp(), (b - m).exp()), total=False
                        ),
                    ),
                    Mistake(
                        "no shift",
                        "The factors are exp(m), with nothing taken off: right "
                        "in exact arithmetic if the top is then 0, and it "
                        "overflows.",
                        lambda a, b: (
                            torch.zeros_like(a[0]),
                            a[0].exp() * a[1] + b[0].exp() * b[1],
                            a[0].exp() * a[2] + b[0].exp() * b[2],
                        ),
                    ),
                ),
                tolerance=1e-9,
            ),
        ),
        because=(
            "Sums that were measured from different tops are brought to the larger "
            "one, by factors that are at most 1."
        ),
    ),
)

QUIZ = (
    Question(
        "A model has width 1024 and reads 1024 tokens. About which share of a "
        "layer's FLOPs is full attention, all $n^2$ pairs counted?",
        (
            right(
                "A seventh.", "$n / (n + 6 d_{\\text{model}})$ is $1/7$ at one width."
            ),
            wrong("A half.", "That takes six widths."),
            wrong(
                "Nearly all.",
                "At short lengths projections and MLP cost most; attention wins "
                "by growing faster.",
            ),
        ),
    ),
    Question(
        "What does the online softmax save?",
        (
            wrong("Operations.", "It computes every score, and a few factors more."),
            right(
                "The $n \\times n$ matrix.",
                "It keeps a top, a sum and an output for each query, and is exact.",
            ),
            wrong("Precision.", "Up to rounding the result is the same."),
        ),
    ),
    Question(
        "A new chunk of keys has a larger score than all before. What happens to "
        "the sums so far?",
        (
            wrong(
                "They are thrown away.", "The earlier keys still count, only for less."
            ),
            right(
                "They are multiplied by $e^{\\text{old top} - \\text{new top}}$.",
                "So all sums are measured from the same top.",
            ),
            wrong("Nothing.", "Then the earlier keys would weigh too much."),
        ),
    ),
    Question(
        "Scores of 8 heads, $n = 65{,}536$, in float32. How much memory, by counting?",
        (
            right("128 GiB.", "$8 \\cdot 2^{32} \\cdot 4 = 2^{37}$ bytes."),
            wrong(
                "2 MiB.",
                "That is one number for each query and head. A score belongs to "
                "a *pair*.",
            ),
            wrong("16 GiB.", "That is one head."),
        ),
    ),
    Question(
        "Causality forbids half of the pairs. When does a program run faster by it?",
        (
            wrong(
                "Always: forbidden pairs cost nothing.",
                "A program that computes all pairs and masks half of them pays "
                "the full bill.",
            ),
            right(
                "When it does not compute them.",
                "The bill is written for what is computed, not for what is kept.",
            ),
            wrong("Never.", "Routines that skip forbidden tiles do gain by it."),
        ),
    ),
)
