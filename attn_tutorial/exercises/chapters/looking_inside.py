"""Exercises on what heads do."""

import torch

from attn_tutorial.exercises.catalogue import causal_weights
from attn_tutorial.exercises.exercise import (
    Choice,
    Example,
    Exercise,
    Formula,
    Function,
    Mistake,
    Number,
    Question,
    right,
    wrong,
)
from attn_tutorial.exercises.languages import say


def entropy(weights):
    """The entropy of each row of weights (..., n_k) in bits; 0 log 0 is 0."""
    logs = torch.where(weights > 0, weights, 1.0).log2()
    return -(weights * logs).sum(-1)


def mean_distance(weights):
    """How far each query of a causal head looks back on average, (n,) from (n, n)."""
    position = torch.arange(len(weights), dtype=weights.dtype)
    return position - weights @ position


def on_induction(weights, period):
    """The mean weight of a head on what came next the last time, one number.

    The text of n = 2 * period tokens is written twice; the queries of the second copy,
    i >= period, should look at i - period + 1.
    """
    i = torch.arange(period, 2 * period)
    return weights[i, i - period + 1].mean()


def correlation_fault(values, wanted):
    """What is wrong with three values, or nothing; see inside-4."""
    if len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        return say("three numbers were asked for")
    effects = [
        round(abs(p * v), 12) for p, v in zip((0.8, 0.15, 0.05), values, strict=True)
    ]
    if len(set(effects)) < 3:
        return say("two effects are equal: {effects}", effects=effects)
    ranks = [sorted(effects, reverse=True).index(effect) for effect in effects]
    squares = sum((place - rank) ** 2 for place, rank in enumerate(ranks))
    found = 1 - squares / 4  # Spearman's 1 - 6 sum d^2 / (n (n^2 - 1)), n = 3
    if found == wanted:
        return None
    return say("the effects {effects} have {found:g}", effects=effects, found=found)


def rows_of_weights(seed):
    """Rows that sum to 1, some with zeros."""
    yield (torch.tensor([1.0]),)
    yield (torch.tensor([0.5, 0.5]),)
    yield (torch.tensor([1.0, 0.0]),)
    yield (torch.tensor([[0.25, 0.75], [0.5, 0.5]]),)
    generator = torch.Generator().manual_seed(seed)
    yield (torch.randn(2, 3, 5, generator=generator).double().softmax(-1),)


def twice_written(seed):
    """Causal weights over a text that is written twice, with its period."""
    yield torch.tensor([[1.0, 0.0], [0.25, 0.75]]), 1
    generator = torch.Generator().manual_seed(seed)
    for period in (2, 3, 5):
        scores = torch.randn(2 * period, 2 * period, generator=generator).double()
        future = torch.ones_like(scores).triu(1).bool()
        yield scores.masked_fill(future, -torch.inf).softmax(-1), period


def mean_on(rows, columns):
    """The mean weight on other places of a text that is written twice."""

    def mean(weights, period):
        i = rows(period)
        return weights[i, columns(i, period)].mean()

    return mean


def second_copy(period):
    """The positions of the second copy."""
    return torch.arange(period, 2 * period)


EXERCISES = (
    Exercise(
        id="inside-1",
        kind="predict",
        difficulty=1,
        minutes=8,
        section="Measures, on heads made by hand",
        question=(
            r"A causal head spreads its attention evenly over its window of $w = "
            r"15$. (a) What are its entropy (`bits`), its effective number of keys "
            r"(`keys`) and its mean distance (`distance`), away from the start? (b) "
            r"Another head puts half of its weight on itself and spreads the rest "
            r"evenly over the 15 others. Its entropy to three decimals "
            r"(`half_bits`), and its effective keys to two (`half_keys`)?"
        ),
        parts=(
            Number(
                "bits",
                4,
                {2.77: "In bits, not in nats.", 3.907: "w + 1 = 16 keys."},
                within=0.006,
            ),
            Number(
                "keys", 16, {15: "w + 1 keys.", 4: "Two to the power of the entropy."}
            ),
            Number(
                "distance",
                7.5,
                {8: "The distances are 0 to 15.", 0: "It looks back only."},
            ),
            Number("half_bits", 2.953, {4.0: "That is the even head."}, within=0.0006),
            Number(
                "half_keys",
                7.75,
                {
                    8.0: "Nearly: two to the power of 2.953.",
                    16.0: "All sixteen get something; effectively it is half as many.",
                },
                within=0.006,
            ),
        ),
        worked="""
            half = 0.5 * math.log2(2) + 0.5 * math.log2(30)
            check(
                "inside-1",
                bits=math.log2(16),
                keys=16,
                distance=sum(range(16)) / 16,
                half_bits=half,
                half_keys=2**half,
            )
        """,
        because=(
            "Half of the weight on one key halves the effective number of keys, "
            "although all sixteen get something."
        ),
    ),
    Exercise(
        id="inside-2",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="What a window must hold",
        question=(
            r"Three layers with causal windows $w_0 = 1$, $w_1 = 8$ and $w_2 = 8$. "
            r"(a) What is the longest period that such a stack could copy, by the "
            r"bound (`period`)? (b) What do `steps_back('local 1, local 8', 3)` "
            r"(`two_names`) and `steps_back('local 1, local 8, local 8', 3)` "
            r"(`three_names`) give? Patterns take turns from layer to layer."
        ),
        parts=(
            Number(
                "period",
                17,
                {
                    18: "The output depends on 1 + 8 + 8 tokens back.",
                    8: "The windows of the layers add up.",
                },
            ),
            Number(
                "two_names",
                10,
                {17: "With two names and three layers the first comes back: 1, 8, 1."},
            ),
            Number("three_names", 17, {10: "That is two names.", 18: "1 + 8 + 8."}),
        ),
        worked="""
            from attn_tutorial.experiments.figures.inside import steps_back

            check(
                "inside-2",
                period=1 + 8 + 8,
                two_names=steps_back("local 1, local 8", 3),
                three_names=steps_back("local 1, local 8, local 8", 3),
            )
        """,
        because="The stack sees as far back as its windows together.",
    ),
    Exercise(
        id="inside-3",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Measures, on heads made by hand",
        question=(
            r"An induction head reads a text of period 5 that is written down "
            r"*three* times, and spreads evenly over all tokens that came next so "
            r"far. What is its entropy in the third copy, in bits (`bits`)? Why does "
            r"`induction_score` refuse it (`why`): (a) the weights do not sum to 1; "
            r"(b) it would count one of two good places only; (c) the text is too "
            r"short?"
        ),
        parts=(
            Number(
                "bits",
                1,
                {
                    1.585: "Two tokens have come next so far, not three.",
                    0.0: "That is the second copy.",
                    2: "Two places of 1/2 each: one bit.",
                },
                within=0.0006,
            ),
            Choice(
                "why",
                (
                    wrong("sum", "They do."),
                    right("one of two", ""),
                    wrong("short", "It is longer than the text that it wants."),
                ),
            ),
        ),
        worked="""
            weights = torch.zeros(15, 15)
            for i in range(5, 15):
                earlier = range(i % 5 + 1, i, 5)
                weights[i, list(earlier)] = 1 / len(earlier)
            bits = -(weights[10:] * weights[10:].clamp(min=1e-9).log2()).sum(-1)
            check("inside-3", bits=bits.mean(), why="b")
        """,
        because="It would call a perfect head half as good.",
    ),
    Exercise(
        id="inside-4",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="Attention is not the effect, and neither is the gradient",
        question=(
            r"Attention is $(0.8, 0.15, 0.05)$, and the effect of token $j$ is $|p_j "
            r"v_j|$. Give three values for which attention and effect have a rank "
            r"correlation of exactly 1 (`agree`), and three for which it is exactly "
            r"0.5 (`half`), as lists."
        ),
        parts=(
            Example("agree", lambda values: correlation_fault(values, 1.0)),
            Example("half", lambda values: correlation_fault(values, 0.5)),
        ),
        worked="""
            check("inside-4", agree=[1.0, 1.0, 1.0], half=[1.0, 1.0, 5.0])
        """,
        because=(
            "Equal values keep the ranking. For 0.5 two neighbours in it change "
            "places: for 1, 1, 5 the effects are 0.8, 0.15 and 0.25."
        ),
    ),
    Exercise(
        id="inside-5",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="Looking at nothing",
        question=(
            r"With the sink score $s_{\text{sink}}$, a query has $\kappa$ keys, all "
            r"with score 0. Which share of its attention goes to nothing, as a "
            r"function of $s_{\text{sink}}$ and $\kappa$ (`share`)? (a) Which "
            r"$s_{\text{sink}}$ sends half of it to nothing for four keys, to three "
            r"decimals (`half`)? (b) With that $s_{\text{sink}}$ and a window that "
            r"holds one key only, how much goes to nothing (`one_key`)?"
        ),
        parts=(
            Formula(
                reference=lambda z, m: (
                    torch.tensor(z).exp().item() / (torch.tensor(z).exp().item() + m)
                ),
                name="share",
                cases=lambda seed: (
                    (z, m) for z in (-1.0, 0.0, 2.0) for m in (1, 4, 100)
                ),
                mistakes=(
                    Mistake(
                        "what is kept",
                        "That is what the keys keep.",
                        lambda z, m: m / (torch.tensor(z).exp().item() + m),
                    ),
                    Mistake(
                        "z for exp z",
                        "A score enters by its exponential.",
                        lambda z, m: z / (z + m) if z + m else 0,
                    ),
                    Mistake(
                        "one key",
                        "All keys weigh exp(0) = 1 each.",
                        lambda z, m: torch.tensor(z).sigmoid().item(),
                    ),
                    Mistake(
                        "sink not in the sum",
                        "The sink's exponential is in the sum too.",
                        lambda z, m: torch.tensor(z).exp().item() / m,
                    ),
                ),
            ),
            Number(
                "half",
                1.386,
                {
                    4.0: "A score enters by its exponential, which is 4 here.",
                    0.0: "One sink of score 0 against four keys: a fifth.",
                },
                within=0.0006,
            ),
            Number(
                "one_key",
                0.8,
                {
                    0.5: "With fewer keys more goes to nothing.",
                    0.2: "That is what the key keeps.",
                },
                within=0.0006,
            ),
        ),
        worked="""
            z = math.log(4)
            check(
                "inside-5",
                share=lambda z, m: math.exp(z) / (math.exp(z) + m),
                half=z,
                one_key=math.exp(z) / (math.exp(z) + 1),
            )
        """,
        because=(
            "A score that was learned with many keys is too large for few: the "
            "number of keys belongs to what a sink score is learned for."
        ),
    ),
    Exercise(
        id="inside-6",
        kind="diagnose",
        difficulty=2,
        minutes=8,
        section="Does this head do it? Silence it",
        question=(
            r"A colleague reports: “I silenced each of the 144 heads of my model, "
            r"one at a time. No loss rose by more than 0.01. So attention is not "
            r"needed for this task.” What is the fault (`fault`): (a) 144 is too "
            r"few; (b) a head that has a substitute looks useless; (c) losses are no "
            r"measure? Which experiment shows it (`experiment`): (a) silence groups, "
            r"and random groups of the same size; (b) silence each head twice; (c) "
            r"train longer?"
        ),
        parts=(
            Choice(
                "fault",
                (
                    wrong("few", "They are all."),
                    right("substitutes", ""),
                    wrong(
                        "losses",
                        "They are the measure, if the right thing is silenced.",
                    ),
                ),
            ),
            Choice(
                "experiment",
                (
                    right("groups", ""),
                    wrong("twice", "Silent is silent."),
                    wrong("longer", "That is another model."),
                ),
            ),
        ),
        worked="""
            from attn_tutorial.experiments import load

            full = load("inside").final.where(task="copy", pattern="full", layers=2)
            for run in full:
                assert (
                    max(run.result["loss_without"][2:])
                    < run.result["loss_without_layer"][1]
                )
            check("inside-6", fault="b", experiment="a")
        """,
        because=(
            "With one of the two induction heads silenced the loss stays low, with "
            "both it goes above guessing."
        ),
    ),
    Exercise(
        id="inside-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="Measures, on heads made by hand",
        question=r"Write the entropy of rows of weights, in bits. A weight may be 0.",
        parts=(
            Function(
                entropy,
                rows_of_weights,
                (
                    Mistake(
                        "nats",
                        "This is in nats: use log2.",
                        lambda w: -(w * torch.where(w > 0, w, 1.0).log()).sum(-1),
                    ),
                    Mistake(
                        "NaN at zero",
                        "0 times the logarithm of 0 is NaN here; it should be 0.",
                        lambda w: -(w * w.log2()).sum(-1),
                    ),
                    Mistake(
                        "sign",
                        "The sign is wrong: an entropy is not negative.",
                        lambda w: (w * torch.where(w > 0, w, 1.0).log2()).sum(-1),
                    ),
                    Mistake(
                        "mean for sum",
                        "The terms of a row add up; this is their mean.",
                        lambda w: -(w * torch.where(w > 0, w, 1.0).log2()).mean(-1),
                    ),
                    Mistake(
                        "all rows together",
                        "All rows are added up; each has its own entropy.",
                        lambda w: -(w * torch.where(w > 0, w, 1.0).log2()).sum(),
                    ),
                    Mistake(
                        "effective keys",
                        "That is two to the power of the entropy.",
                        lambda w: (
                            -(w * torch.where(w > 0, w, 1.0).log2()).sum(-1)
                        ).exp2(),
                    ),
                    Mistake(
                        "not weighted",
                        "Each logarithm is weighted by its weight.",
                        lambda w: -torch.where(w > 0, w, 1.0).log2().sum(-1),
                    ),
                ),
            ),
        ),
        because="$-\\sum p \\log_2 p$, and nothing for what has no weight.",
    ),
    Exercise(
        id="inside-8",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="Measures, on heads made by hand",
        question=r"How far back does each query of a causal head look on average?",
        parts=(
            Function(
                mean_distance,
                causal_weights,
                (
                    Mistake(
                        "mean position",
                        "That is the mean *position* of the keys; the distance "
                        "is taken from the query.",
                        lambda w: w @ torch.arange(len(w), dtype=w.dtype),
                    ),
                    Mistake(
                        "sign",
                        "The sign is wrong: looking back is a positive distance here.",
                        lambda w: (
                            w @ torch.arange(len(w), dtype=w.dtype)
                            - torch.arange(len(w), dtype=w.dtype)
                        ),
                    ),
                    Mistake(
                        "largest weight only",
                        "That is the distance of the largest weight; the average "
                        "counts all.",
                        lambda w: (torch.arange(len(w)) - w.argmax(-1)).to(w.dtype),
                    ),
                    Mistake(
                        "keys for queries",
                        "The average runs over the queries of each key.",
                        lambda w: (
                            torch.arange(len(w), dtype=w.dtype) @ w
                            - torch.arange(len(w), dtype=w.dtype)
                        ),
                    ),
                    Mistake(
                        "one number",
                        "There is one number for each query.",
                        lambda w: (
                            torch.arange(len(w), dtype=w.dtype)
                            - w @ torch.arange(len(w), dtype=w.dtype)
                        ).mean(),
                    ),
                ),
            ),
        ),
        because="The query's position less the mean position of what it looks at.",
    ),
    Exercise(
        id="inside-9",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="Measures, on heads made by hand",
        question=r"Write the score of an induction head.",
        parts=(
            Function(
                on_induction,
                twice_written,
                (
                    Mistake(
                        "the same token",
                        "That is the weight on the *same* token of the first "
                        "copy; induction looks at the one after it.",
                        mean_on(second_copy, lambda i, p: i - p),
                    ),
                    Mistake(
                        "one before",
                        "That is the token *before* the same one.",
                        mean_on(second_copy, lambda i, p: (i - p - 1).clamp(min=0)),
                    ),
                    Mistake(
                        "previous token",
                        "That is the weight on the token just before: a "
                        "previous-token head.",
                        mean_on(second_copy, lambda i, p: i - 1),
                    ),
                    Mistake(
                        "transposed",
                        "Rows are queries.",
                        lambda w, p: w[second_copy(p) - p + 1, second_copy(p)].mean(),
                    ),
                    Mistake(
                        "sum",
                        "The mean was asked for.",
                        lambda w, p: w[second_copy(p), second_copy(p) - p + 1].sum(),
                    ),
                    Mistake(
                        "whole text",
                        "The queries of the first copy cannot know, and count as "
                        "zeros here.",
                        lambda w, p: (
                            w[second_copy(p), second_copy(p) - p + 1].sum() / (2 * p)
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "Query $i$ of the second copy looks at $i - \\text{period} + 1$: what "
            "came next the last time."
        ),
    ),
)

QUIZ = (
    Question(
        "A head has 8 effective keys. What does that mean?",
        (
            right(
                "Its entropy is that of a head which spreads evenly over 8.",
                "Two to the power of the entropy, 3 bits.",
            ),
            wrong(
                "It gives weight to 8 keys only.", "It may give a little to a hundred."
            ),
            wrong(
                "8 keys would do.",
                "Which keys a model can do without, silencing tells.",
            ),
        ),
    ),
    Question(
        "What does an induction head need below it?",
        (
            wrong("Nothing.", "One layer copied nothing."),
            right(
                "A head that looks at the previous token.",
                "So that each position carries what stood before it, and can be "
                "found by it.",
            ),
            wrong(
                "A full layer.", "A window of one token was enough, and made it faster."
            ),
        ),
    ),
    Question(
        "A head is silenced, and the loss stays. What follows?",
        (
            wrong("The head does nothing.", "Perhaps another does the same."),
            right(
                "Nothing hangs on this head alone.",
                "Silence it together with its substitutes.",
            ),
            wrong("The loss is the wrong measure.", "It is the right one."),
        ),
    ),
    Question(
        "A model with a sink is given a much narrower window. What may happen to "
        "its heads?",
        (
            right(
                "They fall silent: the same sink score weighs more against fewer keys.",
                "What takes half of two keys' attention takes two thirds of one key's.",
            ),
            wrong("They become sharper.", "Some weight goes to nothing instead."),
            wrong(
                "Nothing: the sink has a score of its own.",
                "It has, and that score is compared with the keys that are left.",
            ),
        ),
    ),
    Question(
        "Attention and gradient rank the words of a text differently. Which is right?",
        (
            wrong(
                "Attention, since it is what the model computes.",
                "The values decide what the weights amount to.",
            ),
            wrong(
                "The gradient, since it is a derivative.",
                "It tells of small changes; a word can only be exchanged.",
            ),
            right(
                "Neither: ask what happens if the word is changed.",
                "They can contradict each other exactly, and in trained models "
                "they agree in part.",
            ),
        ),
    ),
)
