"""Exercises on self-attention."""

import torch

from attn_tutorial.exercises.catalogue import (
    ATTENTION,
    CAUSAL_ATTENTION,
    attention_cases,
    same_length_cases,
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


def attention(q, k, v):
    """Attention: q (..., n_q, d), k (..., n_k, d), v (..., n_k, d_v).

    Returns (..., n_q, d_v), whatever axes stand in front.
    """
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v


def causal_attention(q, k, v):
    """Attention in which token i sees the tokens 0 to i; all are (..., n, d)."""
    n = q.shape[-2]
    scores = q @ k.mT / q.shape[-1] ** 0.5
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


def split_heads(x, heads):
    """Cut the features into heads: (batch, n, heads * d) to (batch, heads, n, d)."""
    b, n, width = x.shape
    return x.reshape(b, n, heads, width // heads).transpose(1, 2)


def heads_cases(seed):
    """Numbered inputs with their numbers of heads."""
    for b, n, heads, d in ((1, 2, 1, 2), (1, 2, 2, 1), (2, 2, 2, 2), (2, 3, 4, 5)):
        yield torch.arange(b * n * heads * d).float().reshape(b, n, heads * d), heads
    yield torch.arange(96).double().reshape(2, 4, 12) + seed, 3


EXERCISES = (
    Exercise(
        id="self-1",
        kind="predict",
        difficulty=1,
        minutes=3,
        section="By hand",
        question=(
            r"In the example with scores 4, 2, 0, leave out the division by "
            r"$\sqrt{d_k} = 2$. What is the largest weight, to three digits?"
        ),
        parts=(
            Number(
                "weight",
                0.867,
                {
                    0.665: "This is softmax(2, 1, 0): the division was left in.",
                    0.667: (
                        "These are shares of the scores; a softmax has shares of "
                        "their exponentials."
                    ),
                    0.881: "Three keys: the score 0 has the exponential 1, and counts.",
                },
                within=0.0006,
            ),
        ),
        worked="""
            check("self-1", torch.tensor([4.0, 2.0, 0.0]).softmax(-1)[0])
        """,
        because="$e^4 / (e^4 + e^2 + 1) = 54.598 / 62.987$.",
    ),
    Exercise(
        id="self-2",
        kind="derive",
        difficulty=1,
        minutes=5,
        section="Why divide by the square root of $d_k$?",
        question=(
            r"The components of $q$ have standard deviation 2, those of $k$ have 3, "
            r"all independent with mean 0, and $d_k = 64$. By which factor must the "
            r"scores be multiplied to have variance 1?"
        ),
        parts=(
            Number(
                "factor",
                1 / 48,
                {
                    1 / 8: (
                        "That is right for deviations of 1; here a product has "
                        "variance 4 * 9."
                    ),
                    1 / 2304: "That is one over the variance; its root is asked for.",
                    48: "Multiplied by, not divided by.",
                    1 / 384: (
                        "The deviations are squared, and so is 64 under the root: it "
                        "enters as 8."
                    ),
                    1 / 288: (
                        "36 is the variance of a product, so that its root, 6, enters."
                    ),
                },
                within=5e-5,
            ),
        ),
        worked="""
            variance = 64 * 2**2 * 3**2
            check("self-2", 1 / variance**0.5)
        """,
        because=(
            r"One product has variance $4 \cdot 9 = 36$, the sum of 64 has 2304, and "
            r"$1/\sqrt{2304} = 1/48$."
        ),
    ),
    Exercise(
        id="self-3",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="The gradient of the softmax",
        question=(
            r"Two keys have the scores $s$ and $0$, and the first of them has the "
            r"weight $p$. Write the derivative of $p$ with respect to $s$ as a "
            r"function of $p$ (`derivative`), and find its largest value (`largest`), "
            r"and its value at $s = 10$ to two significant digits (`at_ten`)."
        ),
        parts=(
            Formula(
                reference=lambda p: p * (1 - p),
                name="derivative",
                cases=lambda seed: ((p / 20,) for p in range(21)),
                mistakes=(
                    Mistake(
                        "p",
                        "The derivative of exp(s) is exp(s), but p has a sum below it.",
                        lambda p: p,
                    ),
                    Mistake(
                        "1 - p",
                        "This is the derivative of log p; multiply by p.",
                        lambda p: 1 - p,
                    ),
                    Mistake(
                        "p squared",
                        "The diagonal of diag(p) - p pᵀ is p - p².",
                        lambda p: p * p,
                    ),
                    Mistake(
                        "sign",
                        "The sign is wrong: a larger score makes its own weight "
                        "larger.",
                        lambda p: p * (p - 1),
                    ),
                ),
            ),
            Number(
                "largest",
                0.25,
                {
                    0.5: "That is where it is largest; its value there is asked for.",
                    1.0: "p and 1 - p cannot both be 1.",
                },
            ),
            Number(
                "at_ten",
                4.5e-5,
                {
                    0.9999546: "That is the weight, not its derivative.",
                    0.0: "It is small, and not 0.",
                },
                within=6e-7,
            ),
        ),
        worked="""
            p = 1 / (1 + math.exp(-10))
            check(
                "self-3",
                derivative=lambda p: p * (1 - p),
                largest=0.25,
                at_ten=p * (1 - p),
            )
        """,
        because=(
            "$p(1 - p)$ is the upper left entry of diag$(p) - pp^T$: where a weight "
            "is near 0 or 1, hardly any gradient is left."
        ),
    ),
    Exercise(
        id="self-4",
        kind="diagnose",
        difficulty=1,
        minutes=5,
        section="The implementation",
        question=(
            r"A colleague's attention passes all shape checks, but each output seems "
            r"to be an average with weights that do not sum to 1. For zero queries, "
            r"2 queries and 4 keys, her weights are all 0.5. Which argument is wrong "
            r"(`argument`): (a) the scale; (b) the axis of the softmax; (c) the "
            r"mask; (d) the transposed keys? And what should the weights be "
            r"(`weight`)?"
        ),
        parts=(
            Choice(
                "argument",
                (
                    wrong("the scale", "The scores are all 0: no scale changes them."),
                    right("the axis of the softmax", ""),
                    wrong(
                        "the mask",
                        "Masked keys would have the weight 0, and the others "
                        "more than 1/4.",
                    ),
                    wrong("the transposed keys", "Then the shapes would not fit."),
                ),
            ),
            Number(
                "weight",
                0.25,
                {
                    0.5: "That is what she has: 1 over the number of queries.",
                    1.0: "Each of four equal keys gets its share.",
                },
            ),
        ),
        worked="""
            weights = at.attention_weights(torch.zeros(2, 8), torch.randn(4, 8))
            check("self-4", argument="b", weight=weights[0, 0])
        """,
        because=(
            "The softmax runs over the queries (`softmax(-2)`) instead of over the "
            "keys: 1/2 for two queries, where each of four keys should have 1/4."
        ),
    ),
    Exercise(
        id="self-5",
        kind="implement",
        difficulty=3,
        minutes=30,
        section="Two sentences",
        question=r"""
            Write `left_out(adjective, noun)`: train a translator `without=f"{adjective}
            {noun}"` as above and return whether it translates `f"the {adjective} {noun}
            follows the small dog ."` as `dict(tasks.noun_phrases())` demands. Try it
            for *white cow*, *big cat*, *red dog*, *small horse* and *calm cat*. How
            many of the five come out right?
        """,
        parts=(
            Number(
                "right",
                5,
                {
                    0: (
                        "None at all: is the phrase compared with its `the`, and the "
                        "sentence encoded with the English words?"
                    ),
                    3: (
                        "Some fail: was the model trained for 600 steps with "
                        "lr=1e-2, as in the chapter?"
                    ),
                    4: (
                        "One fails: was the model trained for 600 steps with "
                        "lr=1e-2, as in the chapter?"
                    ),
                },
            ),
        ),
        worked="""
            from attn_tutorial.networks import tasks, training
            from attn_tutorial.networks.translator import Translator


            def left_out(adjective, noun, steps=600):
                phrase = f"{adjective} {noun}"

                def pairs(generator):
                    return tasks.translation(64, generator, without=phrase)

                _ = torch.manual_seed(0)
                model = Translator(len(tasks.ENGLISH), len(tasks.FRENCH), d_model=32)
                training.fit(model, pairs, steps=steps, lr=1e-2)
                text = f"the {phrase} follows the small dog ."
                source = tasks.encode([text], tasks.ENGLISH)
                start = tasks.FRENCH.index(tasks.START)
                written = tasks.decode(model.translate(source, start, 8), tasks.FRENCH)
                french = dict(tasks.noun_phrases())[f"the {phrase}"]
                return written == [f"{french} suit le petit chien ."]


            phrases = ["white cow", "big cat", "red dog", "small horse", "calm cat"]
            check("self-5", sum(left_out(*phrase.split()) for phrase in phrases))
        """,
        because=(
            "All eight pairs that we tried came out right, with adjectives of both "
            "kinds. Each word was seen in other pairs."
        ),
    ),
    Exercise(
        id="self-6",
        kind="predict",
        difficulty=2,
        minutes=6,
        section="Attention does not know the order",
        question=(
            r"A model without positions reads `3 7 3 1 7 3`. At most how many "
            r"different rows can its output have (`rows`)? With the causal mask, in "
            r"a model of one layer: are the outputs at the three 3s still equal in "
            r"general (`causal`): (a) yes; (b) no; (c) only the first two?"
        ),
        parts=(
            Number(
                "rows",
                3,
                {
                    6: (
                        "Equal tokens have equal queries, keys and values, and so "
                        "equal rows."
                    ),
                    1: "Different tokens have different queries.",
                },
            ),
            Choice(
                "causal",
                (
                    wrong(
                        "yes", "Each of them averages over another part of the text."
                    ),
                    right("no", ""),
                    wrong(
                        "only the first two", "The first sees `3`, the second `3 7 3`."
                    ),
                ),
            ),
        ),
        worked="""
            check("self-6", rows=len({3, 7, 1}), causal="b")
        """,
        because=(
            "Without positions equal tokens have equal rows. A causal mask is itself "
            "information about the order."
        ),
    ),
    Exercise(
        id="self-7",
        kind="implement",
        difficulty=1,
        minutes=10,
        section="The implementation",
        question=(
            r"Write attention in two or three lines, without `at.attention`. It has "
            r"to hold for batch axes in front, for other numbers of keys than of "
            r"queries, and for scores of a few hundred."
        ),
        parts=(Function(attention, attention_cases, ATTENTION),),
        because=(
            "Scores over the root of the keys' width, a softmax over the last axis, "
            "and an average of the values."
        ),
    ),
    Exercise(
        id="self-8",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="The implementation",
        question=(
            r"Write causal attention: token $i$ averages over the tokens $0$ to $i$ "
            r"only."
        ),
        parts=(Function(causal_attention, same_length_cases, CAUSAL_ATTENTION),),
        because=(
            "The future gets the score minus infinity *before* the softmax, so that "
            "the rest still sums to 1; a token always keeps itself."
        ),
    ),
    Exercise(
        id="self-9",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="Several look-ups at once: heads",
        question=(
            r"Cut $(\text{batch}, n, h \cdot d)$ into heads, $(\text{batch}, h, n, "
            r"d)$: head 0 gets the first $d$ features of each token, head 1 the next "
            r"$d$, and so on."
        ),
        parts=(
            Function(
                split_heads,
                heads_cases,
                (
                    Mistake(
                        "reshaped at once",
                        "A single reshape mixes tokens and heads: the features "
                        "of a token must stay together, so first split the last "
                        "axis, then exchange two axes.",
                        lambda x, heads: x.reshape(x.shape[0], heads, x.shape[1], -1),
                    ),
                    Mistake(
                        "heads and tokens not exchanged",
                        "Heads and tokens stand in the wrong order: "
                        "(batch, n, heads, d).",
                        lambda x, heads: x.reshape(*x.shape[:2], heads, -1),
                    ),
                    Mistake(
                        "features interleaved",
                        "The features are dealt out like cards: head 0 gets "
                        "every h-th one. It should get the first d.",
                        lambda x, heads: x.reshape(*x.shape[:2], -1, heads).permute(
                            0, 3, 1, 2
                        ),
                    ),
                    Mistake(
                        "batch and heads swapped",
                        "Batch and heads have changed places.",
                        lambda x, heads: x.reshape(*x.shape[:2], heads, -1).permute(
                            2, 0, 1, 3
                        ),
                    ),
                    Mistake(
                        "d and heads swapped",
                        "There are d heads of width h, instead of h heads of width d.",
                        lambda x, heads: x.reshape(
                            *x.shape[:2], x.shape[2] // heads, heads
                        ).transpose(1, 2),
                    ),
                ),
            ),
        ),
        because=(
            "`reshape` may only cut the last axis; the heads come to the front by a "
            "transposition."
        ),
    ),
)

QUIZ = (
    Question(
        "Why are the scores divided by $\\sqrt{d_k}$?",
        (
            wrong(
                "To make the rows of weights sum to 1.",
                "The softmax does that, whatever the scores are.",
            ),
            right(
                "Because the variance of $q \\cdot k$ grows like $d_k$, and "
                "large scores make the softmax nearly one-hot.",
                "Then hardly any gradient is left: no entry of its Jacobian is "
                "larger than what the largest weight lacks to 1.",
            ),
            wrong("To save multiplications.", "It is one division a score more."),
        ),
    ),
    Question(
        "All queries are zero. What is the output?",
        (
            wrong("Zero.", "The scores are zero, but their exponentials are 1."),
            right("The plain mean of the values.", "Equal scores give equal weights."),
            wrong("NaN, as 0/0.", "The denominator is the number of keys, not 0."),
        ),
    ),
    Question(
        "The tokens of a text are permuted, and the model has no positions and "
        "no mask. What happens to the outputs?",
        (
            wrong(
                "They are the same rows in the same order.",
                "Each output belongs to its query, and the queries have moved.",
            ),
            wrong(
                "They are different vectors.",
                "Each query averages over the same keys and values as before.",
            ),
            right(
                "They are the same rows, permuted likewise.",
                "Attention is permutation equivariant; only positions or a mask "
                "tell it about order.",
            ),
        ),
    ),
    Question(
        "Eight heads of width 8 take the place of one head of width 64. What "
        "changes in the number of weights?",
        (
            right("Nothing.", "The heads are slices of the same projections."),
            wrong(
                "It is eight times as large.",
                "Each head has projections to width 8, so that the eight "
                "together are as large as the one.",
            ),
            wrong(
                "It is an eighth.",
                "The projections to all heads together are as wide as before.",
            ),
        ),
    ),
    Question(
        "A map of weights shows 0.9 from “it” to “cat”. What follows?",
        (
            wrong(
                "That the model decided by “cat”.",
                "A weight is a share in an average. The value may be small, and "
                "other paths may lead past it.",
            ),
            right(
                "That nine tenths of this head's average at “it” is the value of "
                "“cat”.",
                "To find out what a word does, change the word.",
            ),
            wrong(
                "That “it” refers to “cat”.",
                "Perhaps it does. The map alone does not say so.",
            ),
        ),
    ),
)
