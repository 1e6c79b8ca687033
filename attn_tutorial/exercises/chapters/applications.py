"""Exercises on what must meet what in the applications."""

import torch

from attn_tutorial.exercises.catalogue import wrong_mask
from attn_tutorial.exercises.exercise import (
    Choice,
    Exercise,
    Function,
    Number,
    Question,
    right,
    wrong,
)


def clause_mask(n):
    """Whom a word meets in clauses: the first three tokens, and one to each side.

    For n tokens in both languages: bool (n, n), true where a pair meets.
    """
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return (j < 3) | ((i - j).abs() <= 1)


def some_sizes(seed):
    """Numbers of tokens, the smallest first."""
    yield from ((1,), (3,), (4,), (6,), (10,), (11 + seed % 5,))


EXERCISES = (
    Exercise(
        id="apps-1",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="Translation",
        question=(
            r"The translator of clauses gets a cross-window of 5, and an encoder of "
            r"two layers with a window of 2. Up to how many things can the verb be "
            r"right (`things`)? Another language takes 3 tokens for 2 of English, in "
            r"the same order, so that token $j$, counted from 0, is written at place "
            r"$\frac{3}{2} j$. Up to which $j$ can a cross-window of 4 follow, if "
            r"nobody helps (`token`)?"
        ),
        parts=(
            Number(
                "things",
                9,
                {
                    5: "The encoder's two layers hand the verb on, too.",
                    7: "There are two layers, and each hands it on by 2.",
                    10: "The verb is as many places away as there are things.",
                },
            ),
            Number(
                "token",
                8,
                {
                    4: "Token j is written at 3/2 j: the two are j/2 apart.",
                    6: "Token j is written at 3/2 j, not at 5/3 j.",
                    12: "That is where it is written; asked is where it is said.",
                },
            ),
        ),
        worked="""
            check("apps-1", things=5 + 2 * 2, token=4 * 2)
        """,
        because=(
            "The cross-window reaches 5 places and the two layers 2 each. Token $j$ "
            "is written at about $3j/2$, so that the two are $j/2$ apart."
        ),
    ),
    Exercise(
        id="apps-2",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="Translation",
        question=(
            r"The verb of a clause is its third token, and each other word is written "
            r"at most one place from where it is said. Write the mask of a "
            r"cross-attention for clauses of any length: a window of 1, and the first "
            r"three tokens for all. How many pairs does it keep for 10 tokens in each "
            r"language (`kept`)?"
        ),
        parts=(
            Function(
                clause_mask,
                some_sizes,
                (
                    wrong_mask(
                        "two tokens",
                        "The verb is the third token: two are one too few.",
                        lambda i, j, n: (j < 2) | ((i - j).abs() <= 1),
                    ),
                    wrong_mask(
                        "four tokens",
                        "One token more than needed is met by all.",
                        lambda i, j, n: (j <= 3) | ((i - j).abs() <= 1),
                    ),
                    wrong_mask(
                        "verb alone",
                        "That is enough for the verb; the first three tokens were "
                        "asked for.",
                        lambda i, j, n: (j == 2) | ((i - j).abs() <= 1),
                    ),
                    wrong_mask(
                        "transposed",
                        "Here the first three words meet everything; it is the first "
                        "three tokens that are to be met.",
                        lambda i, j, n: (i < 3) | ((i - j).abs() <= 1),
                    ),
                    wrong_mask(
                        "no window",
                        "The window is missing.",
                        lambda i, j, n: j < 3,
                    ),
                    wrong_mask(
                        "both at once",
                        "An intersection keeps what both allow; a union is needed.",
                        lambda i, j, n: (j < 3) & ((i - j).abs() <= 1),
                    ),
                    wrong_mask(
                        "inverted",
                        "True is to mean that a pair meets.",
                        lambda i, j, n: (j >= 3) & ((i - j).abs() > 1),
                    ),
                ),
            ),
            Number(
                "kept",
                50,
                {
                    28: "That is the window alone.",
                    30: "Those are the first three tokens alone.",
                    58: "Pairs that both keep count once.",
                    35: "All of the first three tokens are met, not the verb alone.",
                },
            ),
        ),
        worked="""
            check("apps-2", clause_mask=clause_mask, kept=int(clause_mask(10).sum()))
        """,
        because=(
            "The union of `prefix(3)` and `local(1)`. Of 28 pairs of the window 8 lie "
            "in the first three columns: $28 + 30 - 8 = 50$."
        ),
    ),
    Exercise(
        id="apps-3",
        kind="derive",
        difficulty=3,
        minutes=12,
        section="Classification",
        question=(
            r"How accurate can a classifier of reviews be whose tokens meet their own "
            r"block of 4 and nothing else (`share`, with three digits)? Count all "
            r"places where `reviews` puts the two words."
        ),
        parts=(
            Number(
                "share",
                1 - 12 / 224 / 2,
                {
                    0.875: "That is for a lone word; here there are two of them.",
                    0.969: "The two words never share a slot of three: see `reviews`.",
                    0.946: "If both are cut off, half of the guesses are right.",
                    1.0: "Both words may stand first in their blocks.",
                },
                within=0.0006,
            ),
        ),
        worked="""
            import itertools

            places = [
                (3 * a + 1 + x, 3 * b + 1 + y)
                for a, b in itertools.permutations(range(8), 2)
                for x, y in itertools.product(range(2), repeat=2)
            ]
            cut = sum(good % 4 == 0 and bad % 4 == 0 for good, bad in places)
            check("apps-3", share=1 - cut / len(places) / 2)
        """,
        because=(
            "A word is cut off if it stands first in its block. In 12 of 224 cases "
            "both are, and the answer is a coin: 0.973."
        ),
    ),
    Exercise(
        id="apps-4",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="Speech recognition",
        question=(
            r"German *Schifffahrt* has three f's in a row. Letters sound for two "
            r"tokens each, and the recogniser has one layer. Which is the smallest "
            r"window with which the f's can all be written (`window`)?"
        ),
        parts=(
            Number(
                "window",
                2,
                {
                    0: "All six tokens would look alike, and give one letter.",
                    1: "The middle four look alike: at most two letters.",
                    3: "It is enough, but a smaller one is, too.",
                    6: "It is enough, but a smaller one is, too.",
                },
            ),
        ),
        worked="""
            check("apps-4", window=2)
        """,
        because=(
            "With a window of 2 only the two tokens in the middle are alike, and "
            "*f, nothing, f, f, nothing, f* is possible."
        ),
    ),
    Exercise(
        id="apps-5",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="Real-time translation",
        question=(
            r"An encoder of three layers has the pattern `local 4,2` and the "
            r"interpreter waits for 2 tokens. What is its average lag on texts of 40 "
            r"and 40 tokens (`lag`)? With which wait does a causal encoder have the "
            r"same (`wait`)?"
        ),
        parts=(
            Number(
                "lag",
                8,
                {
                    2: "The encoder looks ahead, and that is waiting.",
                    4: "Each of the three layers looks ahead.",
                    6: "The interpreter waits, too.",
                    14: "Looking back costs no time: only the 2 to the right count.",
                },
                within=0.01,
            ),
            Number("wait", 8, {2: "A causal encoder adds nothing to the wait."}),
        ),
        worked="""
            from attn_tutorial.experiments.studies.live_translation import average_lag

            lag = average_lag({"pattern": "local 4,2", "wait": 2, "layers": 3}, 40, 40)
            check("apps-5", lag=lag, wait=8)
        """,
        because="Each of the three layers looks 2 tokens ahead: $2 + 3 \\cdot 2 = 8$.",
    ),
    Exercise(
        id="apps-6",
        kind="diagnose",
        difficulty=2,
        minutes=6,
        section="Real-time translation",
        question=(
            r"“Our interpreter waits for 3 tokens only, and it translates as well as a "
            r"system that waits for the end. We put the mask of wait-3 into the "
            r"cross-attention of our best translator and trained it again.” What do "
            r"you ask (`question`): (a) how long it was trained; (b) which pattern the "
            r"encoder has; (c) how wide the decoder's window is? What would show it "
            r"(`test`): (a) change the last source token and see whether the scores of "
            r"the first word move; (b) compare the loss with that of the other "
            r"system; (c) count the pairs that the cross-attention keeps?"
        ),
        parts=(
            Choice(
                "question",
                (
                    wrong("training", "However long, wait-3 cannot hear the end."),
                    right("encoder", ""),
                    wrong("decoder", "It sees what was written, not what comes."),
                ),
            ),
            Choice(
                "test",
                (
                    right("change the last token", ""),
                    wrong("loss", "It is the loss that is too good to be true."),
                    wrong("pairs", "They are as they should be; the encoder leaks."),
                ),
            ),
        ),
        worked="""
            check("apps-6", question="b", test="a")
        """,
        because=(
            "If the encoder is full, each source token that the mask admits has read "
            "the whole text, and the system waits for its end without saying so."
        ),
    ),
)


QUIZ = (
    Question(
        "Which attention of a translator needs a window as wide as words travel "
        "between two languages?",
        (
            wrong("The encoder's own.", "Neighbours are enough for most words there."),
            wrong("The decoder's own.", "It continues what it has just written."),
            right(
                "The cross-attention.",
                "If it is too narrow, the translation is fluent and wrong.",
            ),
        ),
    ),
    Question(
        "A model of sound has a window of 0. What does it lose?",
        (
            right(
                "Every doubled letter.",
                "Equal sounds with equal surroundings are written alike.",
            ),
            wrong("Every rare letter.", "A rare sound is heard like any other."),
            wrong("The beginning of a line.", "It is heard where it is spoken."),
        ),
    ),
    Question(
        "A causal model with a window reads a text that names its subject in the "
        "heading only. When has it forgotten the heading?",
        (
            wrong("Slowly, a little with each byte.", "Reach ends at one byte."),
            right(
                "As soon as the heading is beyond its reach, to the last bit.",
                "The next byte's chances differ by exactly 0 then.",
            ),
            wrong(
                "Never: it keeps the state.",
                "A window keeps no other state than the last tokens themselves.",
            ),
        ),
    ),
    Question(
        "Interpreting: the encoder looks two tokens ahead in each of three layers. "
        "What does that cost?",
        (
            wrong("Memory alone.", "Nobody may look at what was not yet said."),
            right(
                "Six tokens of waiting.", "To look ahead is to wait, layer by layer."
            ),
            wrong("Two tokens of waiting.", "Each layer looks ahead of the last one."),
        ),
    ),
    Question(
        "How can one know before any training how far a model must look for names?",
        (
            right(
                "By what the data repeat with other labels.",
                "Equal surroundings with unequal labels bound the error from below.",
            ),
            wrong("By the length of the texts.", "Most of a text does not matter."),
            wrong("By the number of labels.", "It says nothing about distance."),
        ),
    ),
)
