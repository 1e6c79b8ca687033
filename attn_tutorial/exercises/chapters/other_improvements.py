"""Exercises on optimisers, regularisation and structure."""

import torch

import attn_tutorial as at
from attn_tutorial.exercises.exercise import (
    Exercise,
    Formula,
    Function,
    Mistake,
    Number,
    Question,
    Several,
    right,
    wrong,
)


def from_latents(q, c, up_keys, up_values):
    """Attention over c (n, r) without keys or values; up_keys and up_values (d, r).

    Key j would be up_keys @ c[j] and value j up_values @ c[j]; q is (n, d). Returns
    (n, d); full attention, scores over the root of d.
    """
    scores = q @ up_keys @ c.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ c @ up_values.mT


def adamw_step(weight, gradient, m, v, step, lr, decay):
    """One step of AdamW with betas 0.9 and 0.999 and eps 1e-8; returns (weight, m, v).

    m and v are the running means of the gradient and of its square, before this step;
    step is counted from 1; the decay is decoupled.
    """
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    mean, square = m / (1 - 0.9**step), v / (1 - 0.999**step)
    weight = weight * (1 - lr * decay) - lr * mean / (square.sqrt() + 1e-8)
    return weight, m, v


def cache_numbers(n, layers, heads, width):
    """Numbers in a cache of n tokens: keys and values, `heads` heads of each."""
    return n * layers * heads * width * 2


def latent_cases(seed):
    """Queries, latents and the two matrices that widen them."""
    for number, (n, d, r) in enumerate(((1, 2, 1), (2, 2, 2), (4, 6, 2), (5, 16, 4))):
        generator = torch.Generator().manual_seed(10 * seed + number)
        shapes = (n, d), (n, r), (d, r), (d, r)
        yield tuple(torch.randn(s, generator=generator).double() for s in shapes)


def step_cases(seed):
    """Weights with gradients, at the first step and later."""
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    yield one, one, zero, zero, 1, 0.1, 0.0
    yield one, 2 * one, zero, zero, 1, 0.1, 0.0
    yield one, 4 * one, zero, zero, 1, 0.1, 0.5
    yield 3 * one, one, one, one, 5, 0.01, 0.1
    generator = torch.Generator().manual_seed(seed)
    w, g, m = torch.randn(3, 4, generator=generator).double()
    yield w, g, m, m**2 + 0.1, 10, 0.003, 0.1


def cache_sizes(seed):
    """Lengths, layers, heads and widths."""
    yield from (
        (n, L, h, d)
        for n in (0, 1, 10)
        for L in (1, 3)
        for h in (1, 8)
        for d in (1, 64)
    )


def stepped(rule):
    """A wrong step, by another rule on the running means."""

    def step(weight, gradient, m, v, number, lr, decay):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        mean, square = m / (1 - 0.9**number), v / (1 - 0.999**number)
        return rule(weight, mean, square, m, v, lr, decay), m, v

    return step


def coupled(weight, gradient, m, v, step, lr, decay):
    """Adam with the decay in the gradient."""
    return adamw_step(weight, gradient + decay * weight, m, v, step, lr, 0.0)


EXERCISES = (
    Exercise(
        id="other-1",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="Structure",
        question=(
            r"A model has 32 layers, $d_{\text{model}} = 4096$, 32 heads, and keeps 2 "
            r"bytes a number. How many GiB are the keys and values of 8,192 tokens for "
            r"plain attention (`plain`), and for 8 heads of keys and values "
            r"(`grouped`)? Which rank $d_{\text{low}}$ keeps as little as those 8 "
            r"heads (`rank`)?"
        ),
        parts=(
            Number(
                "plain",
                4,
                {
                    2: "Keys and values.",
                    8: "Two bytes a number.",
                    0.125: "There are 32 layers.",
                },
            ),
            Number(
                "grouped",
                1,
                {0.5: "Keys and values.", 0.25: "Eight of 32 heads are a quarter."},
            ),
            Number(
                "rank",
                2048,
                {
                    1024: "Eight heads keep keys and values: 2 · 8 · 128.",
                    512: "The rank takes the place of keys and values together.",
                },
            ),
        ),
        worked="""
            plain = 32 * 8192 * 2 * 4096 * 2 / 2**30
            check("other-1", plain=plain, grouped=plain / 4, rank=2 * 8 * 128)
        """,
        because=(
            r"Low rank keeps $d_{\text{low}}$ numbers where eight heads keep $2 \cdot "
            r"8 \cdot 128$."
        ),
    ),
    Exercise(
        id="other-2",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="Low rank",
        question=(
            r"From which rank on does low-rank attention have *more* weights in keys "
            r"and values than plain attention, as a function of $d_{\text{model}}$: "
            r"give the rank at which the two are equal (`weights`)? And at which rank "
            r"are the caches equal (`cache`)?"
        ),
        parts=(
            Formula(
                reference=lambda d: 2 * d / 3,
                name="weights",
                cases=lambda seed: ((d,) for d in (3, 96, 768)),
                mistakes=(
                    Mistake(
                        "compression forgotten",
                        "There are three matrices: one to compress, two to widen.",
                        lambda d: d,
                    ),
                    Mistake(
                        "one matrix",
                        "Plain attention has keys *and* values: 2 d_model².",
                        lambda d: d / 3,
                    ),
                    Mistake(
                        "cache", "That is where the caches are equal.", lambda d: 2 * d
                    ),
                ),
            ),
            Formula(
                reference=lambda d: 2 * d,
                name="cache",
                cases=lambda seed: ((d,) for d in (3, 96, 768)),
                mistakes=(
                    Mistake(
                        "one of two",
                        "Plain attention keeps keys *and* values.",
                        lambda d: d,
                    ),
                    Mistake(
                        "weights",
                        "That is where the weights are equal.",
                        lambda d: 2 * d / 3,
                    ),
                ),
            ),
        ),
        worked="""
            check("other-2", weights=lambda d: 2 * d / 3, cache=lambda d: 2 * d)
        """,
        because=(
            r"$3\,hd\,d_{\text{low}}$ weights against $2(hd)^2$, and $d_{\text{low}}$ "
            r"numbers a token against $2hd$. In between low rank keeps less and weighs "
            r"more."
        ),
    ),
    Exercise(
        id="other-3",
        kind="derive",
        difficulty=2,
        minutes=10,
        section="How to make a matrix orthogonal without taking it apart",
        question=(
            r"The classical Newton-Schulz iteration is $\zeta_l \to \frac{1}{8}(15 "
            r"\zeta_l - 10 \zeta_l^3 + 3 \zeta_l^5)$. Give the derivative of this "
            r"polynomial, as a function of $\zeta_l$ (`slope`). How many iterations "
            r"does it need to lift $\zeta_l = 0.01$ to 0.68 or more (`classical`), and "
            r"how many does Muon's, with 3.4445, -4.775 and 2.0315 (`muon`)?"
        ),
        parts=(
            Formula(
                reference=lambda s: 15 / 8 * (1 - s * s) ** 2,
                name="slope",
                cases=lambda seed: ((s / 8,) for s in range(11)),
                mistakes=(
                    Mistake(
                        "polynomial itself",
                        "That is the polynomial, not its derivative.",
                        lambda s: (15 * s - 10 * s**3 + 3 * s**5) / 8,
                    ),
                    Mistake(
                        "eighth forgotten",
                        "The eighth is missing.",
                        lambda s: 15 * (1 - s * s) ** 2,
                    ),
                    Mistake(
                        "square forgotten",
                        "It has a double root at 1: (1 - s²)².",
                        lambda s: 15 / 8 * (1 - s * s),
                    ),
                ),
            ),
            Number(
                "classical",
                7,
                {
                    8: "Count how often the polynomial is applied until 0.68 is "
                    "reached.",
                    6: "After six it is still below.",
                },
            ),
            Number("muon", 4, {5: "Four are enough.", 7: "That is the classical one."}),
        ),
        worked="""
            def count(a, b, c):
                s, times = 0.01, 0
                while s < 0.68:
                    s, times = a * s + b * s**3 + c * s**5, times + 1
                return times


            check(
                "other-3",
                slope=lambda s: 15 / 8 * (1 - s**2) ** 2,
                classical=count(15 / 8, -10 / 8, 3 / 8),
                muon=count(3.4445, -4.775, 2.0315),
            )
        """,
        because=(
            "The classical one maps 1 to 1, where its first two derivatives are 0; its "
            "slope at 0 is only 1.875. Muon's starts steeply and never settles at 1."
        ),
    ),
    Exercise(
        id="other-4",
        kind="implement",
        difficulty=3,
        minutes=15,
        section="Low rank",
        question=(
            r"Without rotary positions low-rank attention need not rebuild keys. With "
            r"$x^{\downarrow}_j = W^{\downarrow} x_j$ and one head, write attention in "
            r"terms of $(W^{\uparrow}_K)^T q_i$ and $x^{\downarrow}_j$ only, and apply "
            r"$W^{\uparrow}_V$ once for each query (`from_latents`). What does it cost "
            r"for each pair, as a factor of $4d$: give it as a function of "
            r"$d_{\text{low}}$ and $d$ (`factor`)?"
        ),
        parts=(
            Function(
                from_latents,
                latent_cases,
                (
                    Mistake(
                        "divided by the root of the rank",
                        "The scores are those of the keys of width d: divide by "
                        "its root, not by that of the rank.",
                        lambda q, c, K, V: at.attention(q @ K, c, c) @ V.mT,
                    ),
                    Mistake(
                        "not divided",
                        "The scores are not divided by the root of the width.",
                        lambda q, c, K, V: (q @ K @ c.mT).softmax(-1) @ c @ V.mT,
                    ),
                    Mistake(
                        "values not widened",
                        "The average of the latents still has to be widened by the "
                        "values' matrix.",
                        lambda q, c, K, V: (
                            (q @ K @ c.mT / q.shape[-1] ** 0.5).softmax(-1) @ c
                        ),
                    ),
                    Mistake(
                        "matrices swapped",
                        "The two matrices have changed places.",
                        lambda q, c, K, V: from_latents(q, c, V, K),
                    ),
                    Mistake(
                        "keys for values",
                        "The values are widened by the keys' matrix.",
                        lambda q, c, K, V: from_latents(q, c, K, K),
                    ),
                ),
                tolerance=1e-9,
            ),
            Formula(
                reference=lambda r, d: r / d,
                name="factor",
                cases=lambda seed: ((r, d) for r in (1, 4) for d in (4, 64)),
                mistakes=(
                    Mistake(
                        "upside down",
                        "It costs 4 d_low where plain attention costs 4 d.",
                        lambda r, d: d / r,
                    ),
                    Mistake(
                        "keys only",
                        "Scores and averages both have width d_low.",
                        lambda r, d: (r + d) / (2 * d),
                    ),
                ),
            ),
        ),
        worked="""
            check("other-4", from_latents=from_latents, factor=lambda r, d: r / d)
        """,
        because=(
            r"$q_i \cdot W^{\uparrow}_K x^{\downarrow}_j = ((W^{\uparrow}_K)^T q_i) "
            r"\cdot x^{\downarrow}_j$, and $\sum_j p_{ij} W^{\uparrow}_V "
            r"x^{\downarrow}_j = W^{\uparrow}_V \sum_j p_{ij} x^{\downarrow}_j$."
        ),
    ),
    Exercise(
        id="other-5",
        kind="derive",
        difficulty=2,
        minutes=6,
        section="Regularisation",
        question=(
            r"With AdamW at a rate of $\eta = 0.003$ whose schedule averages to half "
            r"of it, and 10,000 steps, which weight decay $\omega$ halves a weight "
            r"that no gradient defends, to two digits?"
        ),
        parts=(
            Number(
                "decay",
                0.046,
                {
                    0.023: "The schedule averages to half of the rate.",
                    0.033: "A half takes ln 2 = 0.69 of decay, not 1/2.",
                    0.067: "A half takes ln 2, not 1.",
                },
                within=0.0006,
            ),
        ),
        worked="""
            check("other-5", math.log(2) / (0.003 / 2 * 10_000))
        """,
        because=r"$\exp(-\omega\, \eta \cdot \text{steps} / 2) = 1/2$.",
    ),
    Exercise(
        id="other-6",
        kind="diagnose",
        difficulty=3,
        minutes=15,
        section="How to fake a winner",
        question=r"""
            A paper reports: “Our optimiser reaches 2.31 bits, AdamW 2.40 (PyTorch's
            defaults). We ran our method with five learning rates and report the best
            test result.” Name all its faults (`faults`): (a) one contender was tuned
            and the other was not; (b) the best was chosen by the test result; (c) bits
            are no measure; (d) nothing is said about seeds.

            Then use the record: what is the largest clear lead over Muon, in test bits,
            that you can produce for AdamW by choosing rates freely, to three decimals
            (`lead`)?
        """,
        parts=(
            Several(
                "faults",
                (
                    right("tuning", ""),
                    right("test result", ""),
                    wrong("bits", "Bits of the test text are a fine measure."),
                    right("seeds", ""),
                ),
            ),
            Number(
                "lead",
                0.694,
                {0.445: "That is Muon's lead at equal tuning."},
                within=0.0006,
            ),
        ),
        worked="""
            from attn_tutorial.experiments import load
            from attn_tutorial.experiments.comparison import clear_difference

            sweep = load("optimisers").final
            a, b = (
                [p for _, p in sweep.where(optimizer=o).groups("lr")]
                for o in ("adamw", "muon")
            )
            leads = [
                y.mean("test_bits") - x.mean("test_bits")
                for x in a
                for y in b
                if clear_difference(x, y, "test_bits")
            ]
            check("other-6", faults="abd", lead=max(leads))
        """,
        because=(
            "AdamW, tuned, against Muon at a tenth of its best rate: tune before you "
            "compare."
        ),
    ),
    Exercise(
        id="other-7",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="As they are run",
        question=r"Write one step of AdamW.",
        parts=(
            Function(
                adamw_step,
                step_cases,
                (
                    Mistake(
                        "decay in the gradient",
                        "The decay is added to the gradient: that is Adam with "
                        "L2. In AdamW it shrinks the weight directly.",
                        coupled,
                    ),
                    Mistake(
                        "no bias correction",
                        "The means start at zero and are too small at first: "
                        "divide by 1 - beta^step.",
                        stepped(
                            lambda w, mean, square, m, v, lr, decay: (
                                w * (1 - lr * decay) - lr * m / (v.sqrt() + 1e-8)
                            )
                        ),
                    ),
                    Mistake(
                        "root forgotten",
                        "The step is divided by the mean square; its root is "
                        "what has the gradient's unit.",
                        stepped(
                            lambda w, mean, square, m, v, lr, decay: (
                                w * (1 - lr * decay) - lr * mean / (square + 1e-8)
                            )
                        ),
                    ),
                    Mistake(
                        "decay without the rate",
                        "The decay is multiplied by the rate as well.",
                        stepped(
                            lambda w, mean, square, m, v, lr, decay: (
                                w * (1 - decay) - lr * mean / (square.sqrt() + 1e-8)
                            )
                        ),
                    ),
                    Mistake(
                        "uphill",
                        "The step goes uphill: the sign is wrong.",
                        stepped(
                            lambda w, mean, square, m, v, lr, decay: (
                                w * (1 - lr * decay)
                                + lr * mean / (square.sqrt() + 1e-8)
                            )
                        ),
                    ),
                    Mistake(
                        "decay forgotten",
                        "The decay is missing.",
                        stepped(
                            lambda w, mean, square, m, v, lr, decay: (
                                w - lr * mean / (square.sqrt() + 1e-8)
                            )
                        ),
                    ),
                    Mistake(
                        "square not corrected",
                        "Only the first mean is corrected for its start at zero.",
                        stepped(
                            lambda w, mean, square, m, v, lr, decay: (
                                w * (1 - lr * decay) - lr * mean / (v.sqrt() + 1e-8)
                            )
                        ),
                    ),
                ),
                tolerance=1e-9,
            ),
        ),
        because=(
            "A step of about the learning rate in each entry, and a shrinking that "
            "does not depend on the gradient."
        ),
    ),
    Exercise(
        id="other-8",
        kind="implement",
        difficulty=1,
        minutes=4,
        section="Structure",
        question=r"How many numbers does a cache hold? Write it for grouped heads.",
        parts=(
            Function(
                cache_numbers,
                cache_sizes,
                (
                    Mistake(
                        "keys only",
                        "Keys *and* values.",
                        lambda n, L, h, d: n * L * h * d,
                    ),
                    Mistake(
                        "one layer",
                        "Each layer has its own.",
                        lambda n, L, h, d: n * h * d * 2,
                    ),
                    Mistake(
                        "one head",
                        "Each head of keys has its own.",
                        lambda n, L, h, d: n * L * d * 2,
                    ),
                    Mistake(
                        "squared",
                        "A cache is linear in the length; scores are not kept.",
                        lambda n, L, h, d: n * n * L * h * d * 2,
                    ),
                    Mistake(
                        "bytes",
                        "Numbers were asked for, not bytes.",
                        lambda n, L, h, d: n * L * h * d * 4,
                    ),
                ),
            ),
        ),
        because=(
            "Keys and values of every token, in every layer; the number of heads of "
            "*queries* plays no part."
        ),
    ),
)

QUIZ = (
    Question(
        "“Our optimiser beats AdamW at its default rate.” What is missing?",
        (
            right(
                "AdamW at its best rate.",
                "Rates move the result more than optimisers do: with free choice "
                "of rates either of two can be made to win.",
            ),
            wrong("A larger model.", "It would have the same fault."),
            wrong("A plot of the loss.", "The comparison would be as lopsided."),
        ),
    ),
    Question(
        "Eight heads of keys and values serve 32 heads of queries. What is a "
        "quarter as large?",
        (
            right("The cache.", "Queries are not kept."),
            wrong("The number of scores.", "Each of the 32 heads still has its own."),
            wrong(
                "The whole model.", "Only the projections to keys and values shrink."
            ),
        ),
    ),
    Question(
        "What does Muon do with the singular values of a step?",
        (
            wrong("It keeps the largest.", "Then the step would have rank one."),
            right(
                "It sets all of them to about 1.",
                "That is the steepest step if steps are measured by their "
                "largest singular value.",
            ),
            wrong(
                "It divides them by their mean square.",
                "Adam does something like it, entry by entry.",
            ),
        ),
    ),
    Question(
        "Which remedy for a small text beat all others?",
        (
            wrong("Dropout.", "It helped, and not as much."),
            right("More text.", "Where it can be had. Strong weight decay came next."),
            wrong("A small window.", "It hurt, by 0.401 bits after 300 steps."),
        ),
    ),
    Question(
        "Linear attention keeps a matrix for each head, whatever the length. For "
        "the same bytes, what did better in this chapter?",
        (
            right(
                "An exact memory of the last 17 tokens.",
                "By 0.682 bits, after 200 steps of a small model.",
            ),
            wrong(
                "Nothing: a memory of everything must win.",
                "It is a vague memory of everything.",
            ),
            wrong("A larger matrix.", "That would be more bytes."),
        ),
    ),
)
