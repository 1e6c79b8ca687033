"""Exercises on why Transformers, and why efficient ones."""

from attn_tutorial.exercises.exercise import (
    Choice,
    Exercise,
    Function,
    Items,
    Mistake,
    Number,
    Question,
    right,
    wrong,
)


def reach_back(kernel, dilations):
    """Number of tokens that can influence the last output, the last one included.

    Layer l reads `kernel` tokens that lie dilations[l] apart, the last of them its own.
    """
    return 1 + sum((kernel - 1) * step for step in dilations)


def stack_cases(seed):
    """Kernels with their dilations, small ones first."""
    yield from ((k, [1] * layers) for k in (1, 2, 3, 5) for layers in (0, 1, 2, 4))
    yield from ((3, [1, 2, 4, 8]), (5, [1, 5, 25]), (2, [3, 3]), (4 + seed, [7, 1]))


EXERCISES = (
    Exercise(
        id="why-1",
        kind="derive",
        difficulty=1,
        minutes=5,
        section="Parameters and FLOPs",
        question=(
            r"With projections, a self-attention layer costs $8nd^2 + 4n^2d$ FLOPs "
            r"and a recurrence $4nd^2$. From which length on does attention cost at "
            r"least *ten times* as much, for $d = 512$?"
        ),
        parts=(
            Number(
                "length",
                4096,
                {
                    5120: "The ratio is n/d plus 2: the projections count too.",
                    4608: "The ratio is n/d plus 2, not plus 1.",
                    10 * 512 - 512: "The ratio is n/d plus 2, not plus 1.",
                },
            ),
        ),
        worked="""
            d = 512
            check("why-1", (10 - 2) * d)
        """,
        because="The ratio is $2 + n/d$, and it reaches 10 at $n = 8d$.",
    ),
    Exercise(
        id="why-2",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="Path length",
        question=(
            r"A text has $n = 1000$ tokens. How many convolution layers with $k = 5$ "
            r"must be stacked until the last token hears the first: with "
            r"neighbouring inputs (`contiguous`), and with dilations $1, 5, 25, "
            r"\dots$ (`dilated`)? A layer looks back only."
        ),
        parts=(
            Number(
                "contiguous",
                250,
                {
                    200: "A layer with k = 5 reads its own position and 4 before it.",
                    249: "249 layers reach 996 tokens back; 999 are needed.",
                    500: "A layer looks back by all of k - 1 = 4, not by half of it.",
                },
            ),
            Number(
                "dilated",
                5,
                {
                    4: "After 4 layers 5^4 = 625 tokens are heard, fewer than 1000.",
                    6: "5^5 = 3125 tokens are enough.",
                },
            ),
        ),
        worked="""
            contiguous = math.ceil(999 / (5 - 1))
            dilated = math.ceil(math.log(1000, 5))
            check("why-2", contiguous=contiguous, dilated=dilated)
        """,
        because=(
            r"Each contiguous layer adds 4 tokens, so $\lceil 999/4 \rceil$; with "
            r"dilations $L$ layers hear $5^L$ tokens."
        ),
    ),
    Exercise(
        id="why-3",
        kind="derive",
        difficulty=3,
        minutes=20,
        section="Sequential steps",
        question=(
            r"Stack three recurrences, each with its own weights, and read $n = 20$ "
            r"tokens. What does `sequential_products` say (`counted`)? Find the "
            r"smallest number of steps (`smallest`) if each product takes one step, "
            r"products that do not wait for each other may share a step, and the "
            r"product of $U$ with the zero state is left out."
        ),
        parts=(
            Number(
                "counted",
                60,
                {20: "The function counts the products in a row of all three layers."},
            ),
            Number(
                "smallest",
                22,
                {
                    60: "A layer need not wait for the whole of the layer below.",
                    20: "The two upper layers finish one step after the other.",
                    23: (
                        "The last state is ready after 19 + 3 steps: position 0 of "
                        "layer 1 is ready after the first step."
                    ),
                    21: "Three layers, so that the top is two steps behind the bottom.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.networks.baselines import Recurrence, sequential_products

            stack = torch.nn.Sequential(*(Recurrence(4) for _ in range(3)))
            counted = sequential_products(stack(torch.randn(1, 20, 4)))
            ready = {}
            for layer in range(1, 4):
                for i in range(20):
                    below, before = (layer - 1, i), (layer, i - 1)
                    ready[layer, i] = 1 + max(ready.get(below, 0), ready.get(before, 0))
            check("why-3", counted=counted, smallest=ready[3, 19])
        """,
        because=(
            "The layers work like an assembly line: state $i$ of layer $l$ is ready "
            "after $i + l$ steps, so that $n + L - 1$ are enough. It still grows "
            "with $n$."
        ),
    ),
    Exercise(
        id="why-4",
        kind="diagnose",
        difficulty=2,
        minutes=20,
        section="The same task for all",
        question=r"""
            `attn_tutorial.networks.layers.RecurrentLayer` is a gated recurrence (GRU).
            Train it on the first-token task with `steps=300`, `lr=1e-2`, seeds 0, 1, 2
            and $n = 16$, beside `Recurrence`.

            Which one learns with every seed (`learns`)? (a) both; (b) the gated one
            only; (c) the plain one only; (d) neither.

            What did the gate change (`changed`)? (a) the path is shorter; (b) the
            signal survives each update better; (c) there are fewer updates.
        """,
        parts=(
            Choice(
                "learns",
                (
                    wrong("both", "The plain one learns with some seeds only."),
                    right("the gated one only", ""),
                    wrong("the plain one only", "It learns with some seeds only."),
                    wrong(
                        "neither",
                        "Look at the accuracies of the three seeds: one of the "
                        "two has none that fails.",
                    ),
                ),
            ),
            Choice(
                "changed",
                (
                    wrong("the path is shorter", "It is still n updates in a row."),
                    right("the signal survives each update better", ""),
                    wrong("there are fewer updates", "There are n of them in both."),
                ),
            ),
        ),
        worked="""
            check("why-4", learns="b", changed="b")
        """,
        because=(
            "The path length is the same, $n$ updates in a row. A gate can learn to "
            "keep a state almost unchanged."
        ),
    ),
    Exercise(
        id="why-5",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="Claim 2: three layers, side by side",
        question=(
            r"Shuffle the tokens $1, \dots, n - 2$ of an input; the first and the "
            r"last stay. For which of the three layers does the *last* output stay "
            r"the same? Answer with three truth values, for the recurrence, the "
            r"convolution with $k = 3$, and self-attention without positions."
        ),
        parts=(
            Items(
                "same",
                (False, False, True),
                {
                    (
                        True,
                        False,
                        True,
                    ): (
                        "A recurrence reads its tokens one after the other; their "
                        "order is in the result."
                    ),
                    (
                        False,
                        True,
                        True,
                    ): (
                        "The convolution reads the two tokens beside the last one, "
                        "and these change."
                    ),
                    (
                        False,
                        False,
                        False,
                    ): (
                        "The last output of one of them is an average, and a sum "
                        "does not know the order of its terms."
                    ),
                },
            ),
        ),
        worked="""
            from attn_tutorial.networks import baselines

            x = torch.randn(1, 10, 8)
            mixed = x[:, [0, 8, 5, 3, 1, 7, 2, 6, 4, 9]]
            layers = [baselines.Recurrence(8), baselines.Convolution(8, 3)]
            layers.append(baselines.SelfAttention(8))
            lasts = [(layer(x)[:, -1], layer(mixed)[:, -1]) for layer in layers]
            check("why-5", [torch.allclose(a, b, atol=1e-5) for a, b in lasts])
        """,
        because=(
            "Self-attention without positions cannot use word order at all: a "
            "Transformer must be told the positions."
        ),
    ),
    Exercise(
        id="why-6",
        kind="implement",
        difficulty=1,
        minutes=8,
        section="Path length",
        question=(
            r"How many tokens, its own included, can influence the last output of a "
            r"stack of causal convolutions? Write the function below, in which "
            r"`kernel` is $k$ and `dilations` has an entry for each layer."
        ),
        parts=(
            Function(
                reach_back,
                stack_cases,
                (
                    Mistake(
                        "k for k - 1",
                        "Each layer adds k - 1 tokens, not k: one of the k is "
                        "where it stands already.",
                        lambda kernel, dilations: (
                            1 + sum(kernel * d for d in dilations)
                        ),
                    ),
                    Mistake(
                        "itself forgotten",
                        "The token's own position is not counted.",
                        lambda kernel, dilations: sum(
                            (kernel - 1) * d for d in dilations
                        ),
                    ),
                    Mistake(
                        "dilations ignored",
                        "The dilations have no effect: k tokens that lie s apart "
                        "span (k - 1) s + 1 positions.",
                        lambda kernel, dilations: 1 + (kernel - 1) * len(dilations),
                    ),
                    Mistake(
                        "product for sum",
                        "The layers' reaches are multiplied; they add up.",
                        lambda kernel, dilations: kernel ** len(dilations),
                    ),
                    Mistake(
                        "two sides",
                        "This counts both sides; the layers look back only.",
                        lambda kernel, dilations: (
                            1 + 2 * sum((kernel - 1) * d for d in dilations)
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "Each layer adds $(k - 1)$ times its dilation to what its input has heard."
        ),
    ),
)

QUIZ = (
    Question(
        "A recurrence and a layer of self-attention read a text of $n$ tokens. "
        "What does attention save?",
        (
            wrong(
                "Arithmetic.",
                "It does more of it: the ratio is $2 + n/d$ with projections.",
            ),
            right(
                "Steps that have to wait for each other.",
                "Its number of products in a row does not grow with $n$; a "
                "recurrence needs $n$ of them.",
            ),
            wrong(
                "Parameters.",
                "The number of weights has nothing to do with the length, in "
                "either of the two.",
            ),
        ),
    ),
    Question(
        "Four causal convolutions with $k = 3$ and no dilation are stacked. A "
        "fact stands 10 tokens back. Can the last output depend on it?",
        (
            wrong(
                "Yes, if it is trained long enough.",
                "Training cannot help: the token is not among the inputs that "
                "this output is made of.",
            ),
            right(
                "No: the stack hears 8 tokens back.",
                "Each layer adds $k - 1 = 2$, and $4 \\cdot 2 = 8$.",
            ),
            wrong(
                "Yes: it hears 12 tokens back.",
                "Each layer reads 3 tokens, one of which is where it stands: it "
                "adds 2.",
            ),
        ),
    ),
    Question(
        "The length of a text is doubled. What happens to the number of scores "
        "of full self-attention?",
        (
            wrong("It doubles.", "Each token has a score with each token: $n^2$."),
            right("It is four times as large.", "$(2n)^2 = 4n^2$."),
            wrong(
                "It stays, since the scores depend on the width.",
                "A score costs $2d$ operations, but how many scores there are is "
                "a question of $n$ alone.",
            ),
        ),
    ),
    Question(
        "What does an efficient attention pattern, such as a window, make fewer?",
        (
            wrong(
                "The weights of the model.",
                "The projections are as large as before; a pattern has no weights.",
            ),
            wrong(
                "The layers that are needed.",
                "Rather the opposite: with a window, far tokens meet only "
                "through several layers.",
            ),
            right(
                "The pairs of tokens that are compared.",
                "Time and memory follow the pairs. The price is a longer path "
                "between far tokens.",
            ),
        ),
    ),
)
