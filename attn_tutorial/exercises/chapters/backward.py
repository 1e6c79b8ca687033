"""Exercises on the gradients of attention."""

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


def scale_gradient(dq, q, scale):
    """The derivative of the loss by the scale, from dq, q (..., n, d) and the scale."""
    return (dq * q).sum() / scale


def score_gradient(weights, dweights):
    """The gradient dS from P and dP, both (..., n, n_k), through each row's softmax."""
    return weights * (dweights - (weights * dweights).sum(-1, keepdim=True))


def value_gradient(weights, dout):
    """The gradient dV (..., n_k, d_v) from P (..., n, n_k) and dO (..., n, d_v)."""
    return weights.mT @ dout


def scale_cases(seed):
    """Gradients and queries of several shapes, with scales."""
    generator = torch.Generator().manual_seed(seed)
    yield torch.ones(1, 1), torch.ones(1, 1), 1.0
    yield torch.ones(2, 2), torch.ones(2, 2), 0.5
    for shape in ((3, 4), (2, 5, 4)):
        dq, q = torch.randn(2, *shape, generator=generator).double()
        yield dq, q, 0.25


def weight_cases(seed):
    """Weights whose rows sum to 1, with gradients by them; some weights are 0."""
    yield torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 5.0]])
    yield torch.tensor([[0.25, 0.75]]), torch.tensor([[0.0, 4.0]])
    generator = torch.Generator().manual_seed(seed)
    for shape in ((2, 3), (4, 4), (2, 3, 5)):
        scores, dweights = torch.randn(2, *shape, generator=generator).double()
        yield scores.softmax(-1), dweights
    scores = torch.randn(4, 4, generator=generator).double()
    future = torch.ones(4, 4).triu(1).bool()
    yield scores.masked_fill(future, -torch.inf).softmax(-1), torch.ones_like(scores)
    yield scores.masked_fill(future, -torch.inf).softmax(-1), scores.mT


def value_cases(seed):
    """Weights with gradients by the output, square and not."""
    generator = torch.Generator().manual_seed(seed)
    yield torch.tensor([[0.25, 0.75]]), torch.tensor([[4.0]])
    for batch, n, n_k, d in (
        ((), 2, 2, 2),
        ((), 3, 3, 1),
        ((), 3, 5, 2),
        ((2,), 4, 4, 4),
    ):
        weights = torch.randn(*batch, n, n_k, generator=generator).double().softmax(-1)
        yield weights, torch.randn(*batch, n, d, generator=generator).double()


EXERCISES = (
    Exercise(
        id="backward-1",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="On paper first",
        question=(
            r"A query keeps two keys with equal scores, $v = (1, 5)$, width 1, $dO = "
            r"1$. Compute $D$ (`D`) and the two numbers of $dS$ (`dS`, a list) by "
            r"hand."
        ),
        parts=(
            Number(
                "D",
                3,
                {
                    6: "The mean is weighted by P, which is 1/2 each.",
                    5: "D is the mean of dP under the weights.",
                },
            ),
            Items(
                "dS",
                (-1, 1),
                {
                    (-2, 2): "The weights, 1/2 each, stand in front.",
                    (1, -1): "The sign: a larger second score raises the output.",
                    (1, 5): "That is dP.",
                },
            ),
        ),
        worked="""
            P, dP = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 5.0])
            D = (P * dP).sum()
            check("backward-1", D=D, dS=P * (dP - D))
        """,
        because="$P = (1/2, 1/2)$ and $dP = (1, 5)$, so that $D = 3$.",
    ),
    Exercise(
        id="backward-2",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="Store or recompute?",
        question=(
            r"Take eight heads in float32, $n = 65{,}536$ tokens and a window of $w = "
            r"128$. How many bytes hold (a) the weights of all pairs (`all_pairs`), "
            r"(b) the weights of the kept pairs (`kept`), (c) the log-sum-exp (`lse`)?"
        ),
        parts=(
            Number(
                "all_pairs",
                4 * 8 * 65536**2,
                {
                    65536**2 * 4: "Eight heads have eight matrices.",
                    65536**2 * 8: "Four bytes a number.",
                },
            ),
            Number(
                "kept",
                538_439_680,
                {
                    32 * 65536 * 257: "The two ends are missing.",
                    32 * 65536 * 129: "The window has two sides.",
                },
            ),
            Number(
                "lse",
                2_097_152,
                {
                    262_144: "Eight heads have one each.",
                    524_288: "Four bytes a number.",
                },
            ),
        ),
        worked="""
            n, w = 65536, 128
            kept = 32 * (n * (2 * w + 1) - w * (w + 1))
            check("backward-2", all_pairs=32 * n**2, kept=kept, lse=32 * n)
        """,
        because=(
            "137 GB, 0.54 GB and 2 MB: the log-sum-exp is one number for each query "
            "and head."
        ),
    ),
    Exercise(
        id="backward-3",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="Only kept pairs do any work",
        question=(
            r"How many FLOPs does the attention of one training step take (forward, "
            r"and backward with recomputed scores) for one head with $n = 16{,}384$, "
            r"$d = 64$, $w = 256$ (`window`)? And with full attention (`full`)?"
        ),
        parts=(
            Number(
                "window",
                7_471_923_200,
                {
                    4 * 64 * 8_339_200: "That is forward alone.",
                    12 * 64 * 8_339_200: (
                        "The scores are computed again: five products of 2 d in the "
                        "backward pass."
                    ),
                    14 * 64 * 16384 * 513: "The two ends are missing.",
                },
            ),
            Number(
                "full",
                240_518_168_576,
                {
                    4 * 64 * 16384**2: "That is forward alone.",
                    12 * 64 * 16384**2: (
                        "The scores are computed again: five products of 2 d in the "
                        "backward pass."
                    ),
                },
            ),
        ),
        worked="""
            kept = 16384 * 513 - 256 * 257
            check("backward-3", window=14 * 64 * kept, full=14 * 64 * 16384**2)
        """,
        because=(
            "$4d$ a pair forward and $10d$ back, for all pairs or for the kept ones: "
            "32 times as many."
        ),
    ),
    Exercise(
        id="backward-4",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="Six lines, derived",
        question=(
            r"A colleague writes `dscores = weights * (dweights - dweights.mean(-1, "
            r"keepdim=True))`, for full attention. For which weights is that right "
            r"whatever the gradient is (`right`): (a) none; (b) one-hot rows; (c) "
            r"rows of equal weights; (d) all? What does it give for $P = (1/4, 3/4)$ "
            r"and $dP = (0, 4)$ (`gives`, a list)? And what do its entries add up "
            r"to, which should be 0 (`sum`)?"
        ),
        parts=(
            Choice(
                "right",
                (
                    wrong(
                        "none",
                        "There are rows for which the plain mean is the weighted one.",
                    ),
                    wrong(
                        "one-hot rows",
                        "The weighted mean is then the entry of that key; the "
                        "plain mean is not.",
                    ),
                    right("rows of equal weights", ""),
                    wrong("all", "The mean has to be weighted by P."),
                ),
            ),
            Items(
                "gives",
                (-0.5, 1.5),
                {
                    (-0.75, 0.75): "That is the right gradient; hers was asked for.",
                    (-2.0, 2.0): "The weights stand in front.",
                },
            ),
            Number(
                "sum", 1, {0: "That is what it should be, and a quick check of it."}
            ),
        ),
        worked="""
            P, dP = torch.tensor([0.25, 0.75]), torch.tensor([0.0, 4.0])
            hers = P * (dP - dP.mean())
            check("backward-4", right="c", gives=hers, sum=hers.sum())
        """,
        because=(
            "The row's plain mean takes the place of the mean weighted by $P$. Each "
            "row of $dS$ must add up to zero."
        ),
    ),
    Exercise(
        id="backward-5",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="Six lines, derived",
        question=(
            r"Suppose that the scale $\alpha$ is learned. Derive $\partial "
            r"\mathcal{L} / \partial \alpha$, and write it in one line using `dq`, `q` "
            r"and `scale` only."
        ),
        parts=(
            Function(
                scale_gradient,
                scale_cases,
                (
                    Mistake(
                        "not divided",
                        "dq carries the scale already: divide by it.",
                        lambda dq, q, s: (dq * q).sum(),
                    ),
                    Mistake(
                        "multiplied",
                        "dq carries the scale already: divide by it, do not multiply.",
                        lambda dq, q, s: (dq * q).sum() * s,
                    ),
                    Mistake(
                        "rows",
                        "The scale is one number, and so is its gradient: sum "
                        "over the rows too.",
                        lambda dq, q, s: (dq * q).sum(-1) / s,
                    ),
                    Mistake(
                        "mean",
                        "It is a sum over all rows, not a mean.",
                        lambda dq, q, s: (dq * q).mean() / s,
                    ),
                    Mistake(
                        "dq alone",
                        "Each row is multiplied by its query.",
                        lambda dq, q, s: dq.sum() / s,
                    ),
                ),
            ),
        ),
        because=(
            r"$s_{ij} = \alpha\, q_i \cdot k_j$, so that $\partial \mathcal{L} / "
            r"\partial \alpha = \sum_i q_i \cdot \sum_j dS_{ij} k_j$, and the inner "
            r"sum is $dq_i / \alpha$."
        ),
    ),
    Exercise(
        id="backward-6",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="Who hears the loss?",
        question=(
            r"Take a causal window of $w = 8$ and $n = 100$ tokens. How many queries "
            r"keep key 95 (`key_95`), key 0 (`key_0`) and key 50 (`key_50`)?"
        ),
        parts=(
            Number(
                "key_95",
                5,
                {9: "The text ends at 99.", 4: "Key 95 is kept by query 95 too."},
            ),
            Number(
                "key_0",
                9,
                {1: "Query 0 keeps it, and so do the 8 after it.", 8: "And query 0."},
            ),
            Number(
                "key_50",
                9,
                {
                    17: "Causally, a key is kept by later queries only.",
                    8: "And by query 50.",
                },
            ),
        ),
        worked="""
            keep = at.dense_mask(at.patterns.local(8) & at.patterns.causal(), 100)
            counts = keep.sum(0)
            check("backward-6", key_95=counts[95], key_0=counts[0], key_50=counts[50])
        """,
        because=r"Key $j$ is kept by the queries $j$ to $\min(j + 8, 99)$.",
    ),
    Exercise(
        id="backward-7",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="Six lines, derived",
        question=(
            r"Write the gradient by the scores from the weights $P$ and the gradient "
            r"by them, $dP$."
        ),
        parts=(
            Function(
                score_gradient,
                weight_cases,
                (
                    Mistake(
                        "plain mean",
                        "The plain mean of dP is taken off; it has to be "
                        "weighted by P.",
                        lambda P, dP: P * (dP - dP.mean(-1, keepdim=True)),
                    ),
                    Mistake(
                        "nothing taken off",
                        "P * dP alone is the derivative of the numerator; the "
                        "sum below it moves too.",
                        lambda P, dP: P * dP,
                    ),
                    Mistake(
                        "wrong axis",
                        "The sum runs down the columns; each row has its softmax.",
                        lambda P, dP: P * (dP - (P * dP).sum(-2, keepdim=True)),
                    ),
                    Mistake(
                        "weights forgotten in front",
                        "The weights in front are missing.",
                        lambda P, dP: dP - (P * dP).sum(-1, keepdim=True),
                    ),
                    Mistake(
                        "sum unweighted",
                        "The sum of dP is not weighted by P.",
                        lambda P, dP: P * (dP - dP.sum(-1, keepdim=True)),
                    ),
                    Mistake(
                        "one sum for all",
                        "There is one sum for all rows.",
                        lambda P, dP: P * (dP - (P * dP).sum()),
                    ),
                ),
            ),
        ),
        because=(
            "$dS = P \\circ (dP - D)$ with $D$ the mean of $dP$ under the weights: "
            "each row adds up to zero."
        ),
    ),
    Exercise(
        id="backward-8",
        kind="implement",
        difficulty=1,
        minutes=5,
        section="Six lines, derived",
        question=r"Write the gradient by the values.",
        parts=(
            Function(
                value_gradient,
                value_cases,
                (
                    Mistake(
                        "not transposed",
                        "The weights are to be transposed: a value collects from "
                        "all queries that kept it.",
                        lambda P, dO: P @ dO,
                    ),
                    Mistake(
                        "result transposed",
                        "The result is transposed.",
                        lambda P, dO: dO.mT @ P,
                    ),
                    Mistake(
                        "mean of the queries",
                        "The gradients of the queries add up; they are not averaged.",
                        lambda P, dO: P.mT @ dO / P.shape[-2],
                    ),
                    Mistake(
                        "weights forgotten",
                        "Each query passes its gradient on in proportion to its "
                        "weight.",
                        lambda P, dO: torch.ones_like(P).mT @ dO,
                    ),
                ),
            ),
        ),
        because="$O = PV$, so that $dV = P^T dO$.",
    ),
    Exercise(
        id="backward-9",
        kind="derive",
        difficulty=2,
        minutes=6,
        section="What is kept in memory until the backward pass",
        question=(
            r"How many numbers does a forward pass save for the backward pass, for "
            r"one head of width $d$: full attention that keeps its weights (`full`, "
            r"a function of $n$ and $d$), and a routine that keeps $q$, $k$, $v$, "
            r"the output and the log-sum-exp and computes the weights again "
            r"(`tiled`)?"
        ),
        parts=(
            Formula(
                reference=lambda n, d: 3 * n * d + n * n,
                name="full",
                cases=lambda seed: ((n, d) for n in (1, 8, 100) for d in (1, 16)),
                mistakes=(
                    Mistake(
                        "inputs forgotten",
                        "q, k and v are needed too.",
                        lambda n, d: n * n,
                    ),
                    Mistake(
                        "weights forgotten",
                        "The weights are n² numbers.",
                        lambda n, d: 3 * n * d,
                    ),
                    Mistake(
                        "output too",
                        "The output is not needed where the weights are.",
                        lambda n, d: 4 * n * d + n * n,
                    ),
                ),
            ),
            Formula(
                reference=lambda n, d: 4 * n * d + n,
                name="tiled",
                cases=lambda seed: ((n, d) for n in (1, 8, 100) for d in (1, 16)),
                mistakes=(
                    Mistake(
                        "output forgotten",
                        "The output is needed: D is the row sum of dO times O.",
                        lambda n, d: 3 * n * d + n,
                    ),
                    Mistake(
                        "log-sum-exp forgotten",
                        "The log-sum-exp is one number a query more.",
                        lambda n, d: 4 * n * d,
                    ),
                    Mistake(
                        "quadratic",
                        "Nothing quadratic is kept.",
                        lambda n, d: 4 * n * d + n * n,
                    ),
                ),
            ),
        ),
        worked="""
            check(
                "backward-9",
                full=lambda n, d: 3 * n * d + n**2,
                tiled=lambda n, d: 4 * n * d + n,
            )
        """,
        because=(
            "With its weights stored, full attention keeps $q$, $k$, $v$ and $P$, "
            "$3nd + n^2$ numbers. The routine keeps four matrices and one number a "
            "query, $4nd + n$: from $q$, $k$ and the log-sum-exp it computes the "
            "weights again, for one product more."
        ),
    ),
)

QUIZ = (
    Question(
        "A pair is not kept. What does it do in the backward pass?",
        (
            right(
                "Nothing: $P = 0$ and $dS = 0$.",
                "So the backward pass may skip the same tiles as the forward pass.",
            ),
            wrong(
                "It passes a gradient to the score, so that the mask can be learned.",
                "The mask is no function of the scores, and the weight is 0.",
            ),
            wrong(
                "It gives NaN, as minus infinity times zero.",
                "Minus infinity went into the exponential and came out as 0. The "
                "backward pass multiplies by that 0.",
            ),
        ),
    ),
    Question(
        "What is $D$, the number that is taken off in each row?",
        (
            wrong(
                "The plain mean of $dP$.",
                "The weights of the row decide how much each entry counts.",
            ),
            right(
                "The mean of $dP$ under the weights, which is also $dO \\cdot O$.",
                "So it is known before the first tile, from the output alone.",
            ),
            wrong(
                "The largest entry of $dP$.",
                "The largest *score* is taken off in the forward pass, for "
                "another reason.",
            ),
        ),
    ),
    Question(
        "Why do tiled routines compute the scores twice?",
        (
            wrong("For precision.", "Both times come out the same."),
            right(
                "To store $n$ numbers instead of one for each kept pair.",
                "From $q$, $k$ and the log-sum-exp every weight can be had "
                "again, at $10d$ instead of $8d$ FLOPs a pair.",
            ),
            wrong("Because autograd needs it.", "Autograd would rather store them."),
        ),
    ),
    Question(
        "The rows of $dS$ of some code add up to 1. What follows?",
        (
            right(
                "It is wrong: each row must add up to 0.",
                "A softmax does not change if all scores of a row rise together.",
            ),
            wrong(
                "It is right, like the rows of $P$.",
                "The weights add up to 1; their changes add up to 0.",
            ),
            wrong("Nothing: it depends on the loss.", "For every loss the sum is 0."),
        ),
    ),
    Question(
        "With a causal window of $w$, which queries pass a gradient to key $j$, "
        "far from the ends?",
        (
            wrong("$j - w$ to $j$.", "These are the keys that *query* $j$ keeps."),
            right("$j$ to $j + w$.", "The backward window looks the other way."),
            wrong("All from $j$ on.", "After $w$ steps the key has left the window."),
        ),
    ),
)
