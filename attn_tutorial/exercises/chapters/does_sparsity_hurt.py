"""Exercises on quality under sparse patterns."""

from attn_tutorial.exercises.exercise import (
    Choice,
    Exercise,
    Function,
    Mistake,
    Number,
    Question,
    Several,
    right,
    wrong,
)


def reach_in_blocks(block_size, layers, position):
    """Steps back that a position hears in causal adjacent blocks, after some layers.

    Far from the start of the text; position counts from it.
    """
    return layers * block_size + position % block_size


def clearly_apart(first, second):
    """Whether two lists of results differ clearly, by the rule of three seeds.

    All of the one lie on one side of all of the other, and the means are more than
    twice the larger standard deviation (of a sample) apart. Fewer than three results
    on either side show nothing.
    """
    if min(len(first), len(second)) < 3:
        return False
    means = [sum(x) / len(x) for x in (first, second)]
    deviations = [
        (sum((value - mean) ** 2 for value in x) / (len(x) - 1)) ** 0.5
        for x, mean in zip((first, second), means, strict=True)
    ]
    apart = max(first) < min(second) or min(first) > max(second)
    return apart and abs(means[0] - means[1]) > 2 * max(deviations)


def block_reaches(seed):
    """Block sizes, numbers of layers and positions."""
    yield from (
        (b, L, 1000 + p) for b in (1, 2, 8, 16) for L in (1, 2, 4) for p in (0, 3, 9)
    )


def result_cases(seed):
    """Pairs of lists: clear ones, overlapping ones, and all that lies between."""
    yield [1.0, 1.0], [9.0, 9.0]
    yield [1.0, 1.1, 1.2], [2.0, 2.1, 2.2]
    yield [2.0, 2.1, 2.2], [1.0, 1.1, 1.2]
    yield [1.0, 1.1, 1.2], [1.15, 2.1, 2.2]
    yield [1.0, 1.4, 1.8], [1.9, 2.0, 2.1]
    yield [1.0, 1.1, 1.2], [1.25, 1.3, 1.35]
    yield [1.0, 1.1, 1.2], [1.21, 2.2, 2.3]
    yield [1.0, 1.3, 1.6], [1.65, 1.75, 2.2]
    yield [1.0, 1.2, 1.4], [1.5, 1.55, 1.6]
    yield [1.0, 1.0, 1.9], [2.0, 2.0, 2.0]
    yield [0.0, 1.0, 2.0], [2.01, 2.9, 3.99]
    yield [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]
    yield [0.0, 0.0, 3.0], [2.9, 5.9, 5.9]
    yield [0.0, 3.0, 3.0], [3.1, 3.1, 3.1]
    yield [1.0, 1.1, 1.2 + seed], [5.0 + seed, 5.1 + seed, 5.2 + seed]
    # Apart by two deviations of a population and not of a sample.
    yield [0.0, 1.0, 2.0], [1.9, 2.9, 3.9]
    yield [0.0, 0.1, 0.2], [0.21, 0.27, 0.33]
    yield [0.0, 0.1, 0.2], [0.25, 0.28, 0.31]


def judged(rule):
    """A wrong rule on the means, the deviations and the order of two lists."""

    def verdict(first, second, ddof=1):
        if min(len(first), len(second)) < 3:
            return False
        means = [sum(x) / len(x) for x in (first, second)]
        deviations = [
            (sum((v - m) ** 2 for v in x) / (len(x) - ddof)) ** 0.5
            for x, m in zip((first, second), means, strict=True)
        ]
        apart = max(first) < min(second) or min(first) > max(second)
        return rule(apart, means[1] - means[0], deviations)

    return verdict


EXERCISES = (
    Exercise(
        id="sparsity-1",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="Reach: the latch",
        question=(
            r"A value must be remembered for 79 steps by $L = 6$ causal layers. Give "
            r"the smallest window (`window`), and the smallest block size for which "
            r"*every* position remembers (`block`). With blocks of 16 and $L = 4$, "
            r"at what share of the positions is a value 72 steps back within reach "
            r"(`share`)?"
        ),
        parts=(
            Number(
                "window",
                14,
                {
                    13: "6 times 13 is 78.",
                    80: "The layers add up.",
                    7: "A causal window looks back by all of w.",
                },
            ),
            Number(
                "block",
                14,
                {
                    13: (
                        "A token at the start of its block hears L b steps back, and "
                        "6 times 13 is 78."
                    ),
                    27: "Each layer adds a whole block.",
                },
            ),
            Number(
                "share",
                0.5,
                {
                    0.0: "64 steps are sure, and ξ more from place ξ of a block.",
                    1.0: (
                        "64 steps are sure; the first half of each block hears fewer "
                        "than 72."
                    ),
                    0.4375: "Places 8 to 15: eight of sixteen.",
                },
            ),
        ),
        worked="""
            share = sum(4 * 16 + place >= 72 for place in range(16)) / 16
            check(
                "sparsity-1",
                window=math.ceil(79 / 6),
                block=math.ceil(79 / 6),
                share=share,
            )
        """,
        because=(
            r"Windows reach $Lw$, blocks $Lb$ for sure and $Lb + \xi$ from place $\xi$ "
            r"of a block."
        ),
    ),
    Exercise(
        id="sparsity-2",
        kind="derive",
        difficulty=2,
        minutes=15,
        section="When is a difference a difference?",
        question=(
            r"A page compares 7 contenders with the same full-attention runs, three "
            r"seeds each. Suppose that all 8 are equal. Simulate it (2,000 pages, "
            r"normal seeds): on what share of the pages is at least one contender "
            r"called clearly different, to one decimal (`share`)? Why is it less than "
            r"$1 - 0.96^7$ (`why`): (a) chance; (b) all seven share one set of runs; "
            r"(c) the rule is stricter for seven?"
        ),
        parts=(
            Number(
                "share",
                0.2,
                {
                    0.25: "That is 1 - 0.96^7, for seven independent comparisons.",
                    0.04: "That is one comparison.",
                    0.3: "Seven times 0.04 is an upper bound.",
                },
                within=0.02,
            ),
            Choice(
                "why",
                (
                    wrong("chance", "Two thousand pages leave little to chance."),
                    right("shared runs", ""),
                    wrong("stricter", "The rule is the same for each."),
                ),
            ),
        ),
        worked="""
            from attn_tutorial.experiments.comparison import apart

            generator = torch.Generator().manual_seed(0)
            pages = torch.randn(2000, 8, 3, generator=generator).tolist()
            alarms = [any(apart(page[0], x) for x in page[1:]) for page in pages]
            check("sparsity-2", share=sum(alarms) / len(alarms), why="b")
        """,
        because=(
            "If the three shared runs happen to lie low, several contenders are "
            "called different together: the alarms crowd on fewer pages."
        ),
    ),
    Exercise(
        id="sparsity-3",
        kind="derive",
        difficulty=2,
        minutes=12,
        section="When is a difference a difference?",
        question=(
            r"The true difference is two standard deviations. With 3 seeds the rule "
            r"notices it in 41 % of the cases. In which share does it notice it with "
            r"10 seeds, roughly (`share`)? What would make it more sensitive "
            r"with more seeds (`change`): (a) compare the difference with the error "
            r"of the means; (b) allow half a deviation; (c) take the best seeds?"
        ),
        parts=(
            Number(
                "share",
                0.0855,
                {0.41: "That is with 3 seeds.", 8.5: "A share, not percent."},
                within=0.02,
            ),
            Choice(
                "change",
                (
                    right("error of the means", ""),
                    wrong(
                        "half a deviation",
                        "Then false alarms come back, for three seeds.",
                    ),
                    wrong("best seeds", "That is how to fake a winner."),
                ),
            ),
        ),
        worked="""
            from attn_tutorial.experiments.comparison import apart

            generator = torch.Generator().manual_seed(0)
            first, second = torch.randn(2, 2000, 10, generator=generator)
            pairs = zip(first.tolist(), (second + 2).tolist())
            share = sum(apart(*pair) for pair in pairs) / 2000
            check("sparsity-3", share=share, change="a")
        """,
        because=(
            "The rule compares with the spread of single runs, which does not shrink "
            "with more seeds, and more seeds overlap more easily."
        ),
    ),
    Exercise(
        id="sparsity-4",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="What is equal?",
        question=(
            r"Take the model of the chapter ($d_{\text{model}} = 128$, 4 layers) with "
            r"a context of $n = 8192$. How many times the steps may a window of 16 "
            r"train at equal FLOPs, causal, to one decimal (`steps`)? How many times "
            r"smaller is its cache (`cache`)?"
        ),
        parts=(
            Number(
                "steps",
                6.2,
                {
                    1.31: "That is at 512 tokens.",
                    11.3: "Causal attention keeps half of the pairs.",
                    11.4: "Causal attention keeps half of the pairs.",
                },
                within=0.06,
            ),
            Number(
                "cache",
                8192 / 17,
                {
                    512: "A window of 16 keeps its own key as well: 17.",
                    8192 / 33: "Causally it looks back only.",
                },
                within=0.6,
            ),
        ),
        worked="""
            causal = at.patterns.causal()
            full = at.cost.layer_flops(causal, 8192, 128)
            near = at.cost.layer_flops(at.patterns.local(16) & causal, 8192, 128)
            check("sparsity-4", steps=sum(full) / sum(near), cache=8192 / 17)
        """,
        because=(
            "At this length equal steps and equal FLOPs are different questions at "
            "last."
        ),
    ),
    Exercise(
        id="sparsity-5",
        kind="diagnose",
        difficulty=2,
        minutes=15,
        section="Where in the passage?",
        question=(
            r"A seed has drawn the same batches for every contender. Load the "
            r"language models and take, at equal steps, the differences `local 64` "
            r"less `full` seed by seed. How many of the three are negative "
            r"(`negative`)? Is their deviation smaller than that of full attention's "
            r"own results (`smaller`, (a) yes or (b) no)? By chance alone, in which "
            r"share of the cases do three differences have one sign (`chance`)?"
        ),
        parts=(
            Number(
                "negative",
                3,
                {
                    0: "Bits: less is better, and local 64 has less.",
                    2: "Look at all three seeds.",
                },
            ),
            Choice(
                "smaller",
                (
                    right("yes", ""),
                    wrong(
                        "no",
                        "Seeds that draw easy batches are easy for both: that "
                        "part cancels.",
                    ),
                ),
            ),
            Number(
                "chance",
                0.25,
                {
                    0.125: "Either sign would have been noticed: twice 1/8.",
                    0.5: "Three signs, not two.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.experiments import load

            runs = load("language_model").final.where(equal="steps")
            full = runs.where(pattern="full")
            bits = {run.seed: run.result["test_bits"] for run in full}
            near = runs.where(pattern="local 64")
            less = torch.tensor(
                [run.result["test_bits"] - bits[run.seed] for run in near]
            )
            smaller = "a" if less.std() < full.deviation("test_bits") else "b"
            check(
                "sparsity-5",
                negative=int((less < 0).sum()),
                smaller=smaller,
                chance=2 / 8,
            )
        """,
        because=(
            "Pairing takes out the noise that two contenders share. It does not give "
            "more seeds."
        ),
    ),
    Exercise(
        id="sparsity-6",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="What others measured",
        question=r"""
            A colleague writes: “We replaced full attention by a window of 128 in all 24
            layers. Perplexity on our test text rose by 0.4 %, and no benchmark moved;
            sparse attention is free.” Which of these would you ask for before you
            believe it? Name all.

            (a) the seeds, and how far apart they were; (b) the loss at positions far
            into the text, and a look-up task beyond 3072 tokens; (c) the number of
            parameters; (d) whether both models were tuned alike; (e) the colour of the
            plots; (f) whether the window was there in training.
        """,
        parts=(
            Several(
                "ask",
                (
                    right("seeds", ""),
                    right("far positions and look-ups", ""),
                    wrong(
                        "parameters",
                        "A pattern has none: the two models are equal in that.",
                    ),
                    right("tuning", ""),
                    wrong("colour", "Take any."),
                    right("training", ""),
                ),
            ),
        ),
        worked="""
            check("sparsity-6", "abdf")
        """,
        because=(
            "A small mean can hide a large loss: where nearly everything that is "
            "needed lies near, the average cannot notice the rest."
        ),
    ),
    Exercise(
        id="sparsity-7",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="When is a difference a difference?",
        question=(
            r"Write the rule that decides in "
            r"this book whether two contenders differ."
        ),
        parts=(
            Function(
                clearly_apart,
                result_cases,
                (
                    Mistake(
                        "overlap allowed",
                        "The results may not overlap at all.",
                        judged(lambda apart, gap, s: abs(gap) > 2 * max(s)),
                    ),
                    Mistake(
                        "deviations forgotten",
                        "That they do not overlap is not enough: the means must "
                        "be two deviations apart.",
                        judged(lambda apart, gap, s: apart),
                    ),
                    Mistake(
                        "one deviation",
                        "Two deviations, not one.",
                        judged(lambda apart, gap, s: apart and abs(gap) > max(s)),
                    ),
                    Mistake(
                        "smaller deviation",
                        "The *larger* of the two deviations counts.",
                        judged(lambda apart, gap, s: apart and abs(gap) > 2 * min(s)),
                    ),
                    Mistake(
                        "one direction",
                        "The first may be the better or the worse one.",
                        judged(lambda apart, gap, s: apart and gap > 2 * max(s)),
                    ),
                    Mistake(
                        "of a population",
                        "The deviation of a sample divides by n - 1.",
                        lambda a, b: judged(
                            lambda apart, gap, s: apart and abs(gap) > 2 * max(s)
                        )(a, b, ddof=0),
                    ),
                ),
            ),
        ),
        because=(
            "It calls one pair of equals in twenty-five different, and overlooks "
            "most differences below two deviations."
        ),
    ),
    Exercise(
        id="sparsity-8",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="Reach: the latch",
        question=(
            r"How many steps back does a position hear in causal adjacent blocks, "
            r"far from the start?"
        ),
        parts=(
            Function(
                reach_in_blocks,
                block_reaches,
                (
                    Mistake(
                        "place forgotten",
                        "From place ξ of its block a token hears ξ steps more.",
                        lambda b, L, p: L * b,
                    ),
                    Mistake(
                        "always the farthest",
                        "Only the last place of a block hears that far.",
                        lambda b, L, p: L * b + b - 1,
                    ),
                    Mistake(
                        "one layer less",
                        "Each layer adds a whole block, the first one too.",
                        lambda b, L, p: (L - 1) * b + p % b,
                    ),
                    Mistake(
                        "two sides",
                        "Causally, one side.",
                        lambda b, L, p: 2 * L * b + p % b,
                    ),
                    Mistake(
                        "place adds in every layer",
                        "The place in the block counts once: after one step the "
                        "path begins at the start of a block.",
                        lambda b, L, p: L * (b + p % b),
                    ),
                    Mistake(
                        "number of the block",
                        "The place in a block is the remainder; this is the "
                        "number of the block.",
                        lambda b, L, p: L * b + p // b,
                    ),
                ),
            ),
        ),
        because=r"$Lb$ for sure, and $Lb + \xi$ from place $\xi$ of a block.",
    ),
)

QUIZ = (
    Question(
        "A window of 16 has a mean accuracy of 0.77 at recall. What is it like?",
        (
            wrong("A little worse everywhere.", "That is what the mean sounds like."),
            right(
                "Nearly perfect up to its reach, and guessing beyond.",
                "A mean hides a step. Look at it by distance.",
            ),
            wrong(
                "Right in about three of four runs.",
                "The mean is over questions, not over runs.",
            ),
        ),
    ),
    Question(
        "Three seeds of each of two models; the means differ a little, and the "
        "results overlap. What follows?",
        (
            wrong(
                "The models are equal.",
                "So few seeds overlook most differences below two deviations.",
            ),
            right(
                "So few seeds cannot tell them apart.",
                "No clear difference is not equality.",
            ),
            wrong(
                "The one with the better mean is better.",
                "Another three seeds may turn it round.",
            ),
        ),
    ),
    Question(
        "Training is stopped at equal FLOPs instead of equal steps. Whom does "
        "that favour?",
        (
            right(
                "The sparse models: they get more steps.",
                "By how many depends on the length: little at 512 tokens, a lot "
                "at 8192.",
            ),
            wrong("Full attention.", "Its steps cost most."),
            wrong("Nobody.", "Cheaper steps are more steps."),
        ),
    ),
    Question(
        "What repaired memory and recall best in this chapter?",
        (
            wrong(
                "A larger block.", "Blocks recall for sure only as far as blocks reach."
            ),
            right(
                "One full layer in the right place: above the window.",
                "*Window, then full* remembers and recalls everything.",
            ),
            wrong(
                "More layers with the same window.",
                "Four layers of 16 did not learn what two of 32 did, at the same "
                "reach, and not in twice the steps either.",
            ),
        ),
    ),
    Question(
        "A trained full model is given a window afterwards and falls apart. What "
        "does that show?",
        (
            wrong(
                "That windows are bad.",
                "Models that are trained with one do fine on average text.",
            ),
            right(
                "That this model leans on something outside the window, such as "
                "its first tokens.",
                "A window after training is another experiment than a window in "
                "training.",
            ),
            wrong("That the window was too wide.", "A wider one would take away less."),
        ),
    ),
)
