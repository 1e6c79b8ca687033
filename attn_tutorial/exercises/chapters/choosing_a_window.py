"""Exercises on choosing a window."""

import math

from attn_tutorial.exercises.catalogue import causal_weights
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


def smallest_window(shares, tolerance):
    """The smallest window that holds all but `tolerance` of a head's attention.

    shares[d] is the share at distance d; they sum to 1.
    """
    inside = 0.0
    for distance, share in enumerate(shares):
        inside += share
        if inside >= 1 - tolerance - 1e-9:
            return distance
    return len(shares) - 1


def profile(weights):
    """Share of attention at each distance, a list of n, from causal weights (n, n).

    The mean over all queries; distance 0 is the query's own key.
    """
    n = len(weights)
    return [weights.diagonal(-d).sum().item() / n for d in range(n)]


def share_profiles(seed):
    """Profiles with tolerances."""
    yield from (([1.0], 0.0), ([1.0, 0.0], 0.05), ([0.5, 0.5], 0.5), ([0.5, 0.5], 0.4))
    yield from (([0.5, 0.3, 0.2], t) for t in (0.0, 0.1, 0.2, 0.25, 0.5, 0.6))
    yield from (([0.0, 0.0, 0.9, 0.1], t) for t in (0.0, 0.05, 0.1, 0.5))
    yield from (([1 / 11] * 11, t) for t in (0.0, 0.05, 0.1, 0.3))
    yield [0.1] * 10 + [0.0] * (5 + seed % 5), 0.05


def window_by(enough):
    """A wrong search for the smallest window."""

    def found(shares, tolerance):
        inside = 0.0
        for distance, share in enumerate(shares):
            inside += share
            if enough(inside, share, tolerance):
                return distance
        return len(shares) - 1

    return found


EXERCISES = (
    Exercise(
        id="choosing-1",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="Blocks, the same way",
        question=(
            r"A model of 6 layers needs 100 tokens of context. Which window "
            r"(`window`), which block size (`block`) do you try first? How many "
            r"pairs does an inner query meet in each case, without causality "
            r"(`window_keys`, `block_keys`)?"
        ),
        parts=(
            Number(
                "window",
                17,
                {
                    16: "Six times 16 is 96.",
                    100: "Six layers share the way.",
                    16.7: "A whole number: round up.",
                },
                within=0.0,
            ),
            Number(
                "block",
                17,
                {
                    16: "Six times 16 is 96.",
                    34: "Blocks follow the same number as windows.",
                },
            ),
            Number(
                "window_keys",
                35,
                {34: "And itself.", 17: "Two sides.", 18: "Two sides."},
            ),
            Number(
                "block_keys",
                51,
                {
                    35: "Three whole blocks.",
                    34: "Three whole blocks.",
                    17: "Three whole blocks.",
                },
            ),
        ),
        worked="""
            size = math.ceil(100 / 6)
            check(
                "choosing-1",
                window=size,
                block=size,
                window_keys=2 * size + 1,
                block_keys=3 * size,
            )
        """,
        because=(
            r"$\lceil 100/6 \rceil$ for both; blocks compute half as many pairs "
            r"again."
        ),
    ),
    Exercise(
        id="choosing-2",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Blocks, the same way",
        question=(
            r"A causal head attends evenly to the 11 distances 0 to 10. What is the "
            r"smallest window that keeps 95 % of it (`window`), and what is the "
            r"smallest block size (`block`)?"
        ),
        parts=(
            Number(
                "window",
                10,
                {
                    9: "Each distance has 9.1 %, more than 5 %.",
                    11: "Distances 0 to 10: a window of 10 keeps them all.",
                },
            ),
            Number(
                "block",
                8,
                {
                    7: "Blocks of 7 lose 7.8 %.",
                    10: (
                        "Blocks cut far distances off gradually: 8 already loses "
                        "only 3.4 %."
                    ),
                    5: "Blocks of 5 lose much more than 5 %.",
                },
            ),
        ),
        worked="""
            def lost(b):
                return sum(max(0, d - b) / b for d in range(11)) / 11


            block = next(b for b in range(5, 12) if lost(b) <= 0.05)
            check("choosing-2", window=10, block=block)
        """,
        because=(
            "A window loses a distance at once, a block for some of its places only: "
            "distance $d > b$ is kept by $2b - d$ of $b$ places."
        ),
    ),
    Exercise(
        id="choosing-3",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="How far do dependencies reach in data?",
        question=(
            r"You estimate mutual information between letters of an alphabet from a "
            r"count of pairs. By how many bits is the estimate too large on average, "
            r"about, as a function of the alphabet's size and of the count, in this "
            r"order (`bias`)? And for 96 letters and 10,000 pairs, to three decimals "
            r"(`number`)? How many pairs bring it below 0.01 bits, to the nearest "
            r"thousand (`pairs`)?"
        ),
        parts=(
            Formula(
                reference=lambda K, N: (K - 1) ** 2 / (2 * N * math.log(2)),
                name="bias",
                cases=lambda seed: ((K, N) for K in (2, 16, 96) for N in (100, 10_000)),
                mistakes=(
                    Mistake(
                        "nats",
                        "That is in nats: divide by ln 2.",
                        lambda K, N: (K - 1) ** 2 / (2 * N),
                    ),
                    Mistake(
                        "K squared",
                        "K letters: a table of (K - 1)² degrees of freedom.",
                        lambda K, N: K**2 / (2 * N * math.log(2)),
                    ),
                    Mistake(
                        "K - 1",
                        "K letters: a table of (K - 1)² degrees of freedom.",
                        lambda K, N: (K - 1) / (2 * N * math.log(2)),
                    ),
                    Mistake(
                        "2 forgotten",
                        "Half of the degrees of freedom over the number of pairs.",
                        lambda K, N: (K - 1) ** 2 / (N * math.log(2)),
                    ),
                ),
            ),
            Number(
                "number",
                0.651,
                {0.451: "In bits: divide by ln 2.", 1.302: "There is a 2 below."},
                within=0.0006,
            ),
            Number("pairs", 651_000, {451_000: "In bits: divide by ln 2."}, within=600),
        ),
        worked="""
            def bias(K, N):
                return (K - 1) ** 2 / (2 * N * math.log(2))


            pairs = bias(96, 1) / 0.01
            check(
                "choosing-3", bias=bias, number=bias(96, 10_000), pairs=round(pairs, -3)
            )
        """,
        because=(
            r"$(96 - 1)^2 / (2 \cdot 10{,}000 \ln 2)$: counting noise looks like "
            "information."
        ),
    ),
    Exercise(
        id="choosing-4",
        kind="predict",
        difficulty=3,
        minutes=15,
        section="When not to trust it",
        question=(
            r"A “model” is certain of the right answer everywhere, except that at "
            r"one position in a hundred it needs the token 40 steps back and loses "
            r"about 1.5 nats without it. What does `needed_context` say at "
            r"tolerances of 0.02 (`coarse`) and of 0.005 (`fine`), with 100 queries? "
            r"And at 0.02 if only the rare positions are given as targets (`rare`)?"
        ),
        parts=(
            Number(
                "coarse",
                0,
                {40: "The mean rises by about 0.016 only: below the tolerance."},
            ),
            Number("fine", 40, {0: "The mean rises by about 0.016: above 0.005."}),
            Number(
                "rare",
                40,
                {0: "Now every target needs the token: the loss rises by 1.5."},
            ),
        ),
        worked="""
            rise = 0.01 * math.log(5)
            coarse, fine = (
                40 if rise > tolerance else 0 for tolerance in (0.02, 0.005)
            )
            check(
                "choosing-4",
                coarse=coarse,
                fine=fine,
                rare=40 if math.log(5) > 0.02 else 0,
            )
        """,
        because=(
            "What is needed rarely is hidden in the mean. Ask at the positions that "
            "matter."
        ),
    ),
    Exercise(
        id="choosing-5",
        kind="predict",
        difficulty=3,
        minutes=15,
        section="When not to trust it",
        question=(
            r"A causal head gives half of its attention to the previous token, 0.3 "
            r"to the token 6 steps back, and 0.2 to the first token, in a text of "
            r"101 tokens. Which window does `at.advise_window` advise at 5 % "
            r"(`strict`), at 20 % (`loose`), and at 5 % if the first token is "
            r"ignored (`ignored`)? It looks at the last 51 queries."
        ),
        parts=(
            Number(
                "strict",
                88,
                {
                    6: "The first token gets 20 %, and it is far away.",
                    100: "5 % may be lost: 12 of the 51 distances.",
                    87: "39 of the 51 distances must lie inside, and the 39th is 88.",
                    95: "The last 51 queries are 50 to 100.",
                },
            ),
            Number(
                "loose",
                6,
                {
                    1: "0.3 lies 6 back, more than 20 %.",
                    88: "Twenty percent is what the first token gets.",
                },
            ),
            Number(
                "ignored",
                6,
                {88: "That is with the first token.", 1: "0.3 lies 6 back."},
            ),
        ),
        worked="""
            place, weights = (
                torch.arange(101),
                torch.zeros(101, 101, dtype=torch.float64),
            )
            weights[place, (place - 1).clamp(min=0)] += 0.5
            weights[place, (place - 6).clamp(min=0)] += 0.3
            weights[:, 0] += 0.2
            layer = [weights[None, None]]
            strict = at.advise_window(layer).windows[0]
            loose = at.advise_window(layer, tolerance=0.2).windows[0]
            ignored = at.advise_window(layer, ignore_first=True).windows[0]
            check("choosing-5", strict=strict, loose=loose, ignored=ignored)
        """,
        because=(
            "The distances to the first token are 50 to 100; a sink far away asks "
            "for a window that nothing else needs."
        ),
    ),
    Exercise(
        id="choosing-6",
        kind="diagnose",
        difficulty=2,
        minutes=8,
        section="The recorded test",
        question=(
            r"A colleague chose $w = 64$ for a two-layer model because 95 % of its "
            r"attention lies within 64. Trained with $w = 64$ it does as well as "
            r"with full attention. “So the rule works”, she says. What is missing "
            r"(`missing`): (a) more layers; (b) the quality at half the window; (c) "
            r"a larger window; (d) the attention maps?"
        ),
        parts=(
            Choice(
                "missing",
                (
                    wrong("layers", "Her claim is about two."),
                    right("half the window", ""),
                    wrong(
                        "larger",
                        "It cannot do worse, and says nothing of what is needed.",
                    ),
                    wrong("maps", "They are where the 95 % come from."),
                ),
            ),
        ),
        worked="""
            check("choosing-6", "b")
        """,
        because=(
            "That nothing is lost at 64 does not say that 64 was needed: “all of the "
            "text” passes the same test."
        ),
    ),
    Exercise(
        id="choosing-7",
        kind="implement",
        difficulty=1,
        minutes=8,
        section="(b) Where does it look?",
        question=(
            r"Write the smallest window that holds all but a tolerance of a head's "
            r"attention."
        ),
        parts=(
            Function(
                smallest_window,
                share_profiles,
                (
                    Mistake(
                        "number of distances",
                        "Distance 0 is a window of 0: this counts the distances, "
                        "one more.",
                        lambda s, t: smallest_window(s, t) + 1,
                    ),
                    Mistake(
                        "share for sum",
                        "A single share is compared; the shares up to a distance "
                        "add up.",
                        window_by(lambda inside, share, t: share >= 1 - t - 1e-9),
                    ),
                    Mistake(
                        "tolerance for what is kept",
                        "The tolerance is what may be lost, not what must be kept.",
                        window_by(lambda inside, share, t: inside >= t - 1e-9),
                    ),
                    Mistake(
                        "first small share",
                        "This stops at the first small share; a large one may follow.",
                        window_by(lambda inside, share, t: share <= t),
                    ),
                    Mistake(
                        "strictly more",
                        "Exactly as much as the tolerance may be lost.",
                        window_by(lambda inside, share, t: inside > 1 - t + 1e-9),
                    ),
                ),
            ),
        ),
        because=(
            "The running sum of the shares, until it reaches 1 less the tolerance. "
            "(A rounding error should not widen a window.)"
        ),
    ),
    Exercise(
        id="choosing-8",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="(b) Where does it look?",
        question=(
            r"From a causal head's weights: which share of its attention goes to "
            r"each distance?"
        ),
        parts=(
            Function(
                profile,
                causal_weights,
                (
                    Mistake(
                        "mean of each diagonal",
                        "Each diagonal is averaged over its own length, so that "
                        "the shares no longer sum to 1: far distances have fewer "
                        "queries.",
                        lambda w: [w.diagonal(-d).mean().item() for d in range(len(w))],
                    ),
                    Mistake(
                        "future",
                        "These are the distances ahead, where a causal head "
                        "gives nothing.",
                        lambda w: [
                            w.diagonal(d).sum().item() / len(w) for d in range(len(w))
                        ],
                    ),
                    Mistake(
                        "keys for distances",
                        "These are the shares of each *key*; the distance is "
                        "query less key.",
                        lambda w: w.mean(0).tolist(),
                    ),
                    Mistake(
                        "not divided",
                        "The shares of all queries are added up; take their mean.",
                        lambda w: [w.diagonal(-d).sum().item() for d in range(len(w))],
                    ),
                    Mistake(
                        "last query only",
                        "This is the last query alone.",
                        lambda w: w[-1].flip(0).tolist(),
                    ),
                    Mistake(
                        "reversed",
                        "The list runs from the farthest to the nearest.",
                        lambda w: profile(w)[::-1],
                    ),
                ),
            ),
        ),
        because=(
            r"Distance $\delta$ is the $\delta$-th diagonal below the main one; its "
            r"sum over the number of queries is the share."
        ),
    ),
)

QUIZ = (
    Question(
        "95 % of a head's attention lies within 64 tokens. Does the model need a "
        "window of 64?",
        (
            wrong("Yes.", "Weights say where it looks, not what it would lose."),
            right(
                "Not necessarily.",
                "As advisers, weights ask for far too much; layers can also "
                "share the way.",
            ),
            wrong("It needs more, because of the other 5 %.", "It may need much less."),
        ),
    ),
    Question(
        "Cutting the context to 60 tokens costs a 4-layer model nothing. Which "
        "window do you try first?",
        (
            wrong("60.", "Four layers share the way."),
            right(
                "15.",
                "$\\lceil n_{\\text{context}} / L \\rceil$; and then 30 as well, to "
                "see whether it was enough.",
            ),
            wrong("240.", "The layers' reaches add up, so that each may be narrower."),
        ),
    ),
    Question(
        "Two estimates of mutual information, from 1,000 and from 100,000 pairs, "
        "the first much larger. Why?",
        (
            right(
                "Counting noise looks like information.",
                "The bias falls as one over the number of pairs: a hundred times the "
                "pairs, a hundredth of the bias.",
            ),
            wrong(
                "Short texts have more structure.",
                "The structure is the same; the counts are not.",
            ),
            wrong(
                "Long texts forget.",
                "The estimate is about a distance, not about the length.",
            ),
        ),
    ),
    Question(
        "A window that was chosen does as well as full attention. What is the "
        "next experiment?",
        (
            wrong(
                "A window twice as wide.",
                "That asks whether the window was too narrow. It does as well as full "
                "attention, so the open question is whether it was too wide.",
            ),
            right(
                "A window half as wide.",
                "Only a window that loses something shows what was needed.",
            ),
            wrong(
                "More seeds of full attention.",
                "Useful, and it says nothing about the window.",
            ),
        ),
    ),
    Question(
        "A head puts 20 % on the first token of every text. What should an "
        "adviser do with it?",
        (
            right(
                "Look at the rest, and ask whether the first token is needed at all.",
                "A sink asks for a window as wide as the text; often it stores "
                "nothing.",
            ),
            wrong(
                "Advise a window as wide as the text.",
                "That is what the rule does if nobody looks.",
            ),
            wrong("Remove the head.", "It may be doing its work with the rest."),
        ),
    ),
)
