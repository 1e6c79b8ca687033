"""Exercises on windows in the models of the Transformers library."""

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


def additive(keep):
    """A float32 mask to be added to scores: 0 to keep, minus infinity to forbid."""
    return torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)


def packed(lengths):
    """The causal mask of documents that lie end to end, bool (n, n)."""
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    i, j = torch.arange(len(number))[:, None], torch.arange(len(number))[None, :]
    return (number[:, None] == number[None, :]) & (j <= i)


def positions(lengths):
    """The position of each token in its own document, a tensor (n,)."""
    return torch.cat([torch.arange(n) for n in lengths])


def with_sink(scores, values, sink):
    """Attention with a sink score: scores (n, m), values (m, d), sink a number.

    The sink takes part in the softmax and has no value.
    """
    column = torch.full((len(scores), 1), sink, dtype=scores.dtype)
    weights = torch.cat([scores, column], dim=-1).softmax(-1)
    return weights[:, :-1] @ values


def some_masks(seed):
    """Masks that keep some pairs, all, or none."""
    yield (torch.tensor([[True, False], [True, True]]),)
    yield (torch.ones(2, 3, dtype=torch.bool),)
    yield (torch.zeros(1, 2, dtype=torch.bool),)
    generator = torch.Generator().manual_seed(seed)
    yield (torch.rand(2, 4, 4, generator=generator) < 0.5,)


def some_lengths(seed):
    """Lengths of documents."""
    yield from (
        ([1],),
        ([2],),
        ([1, 1],),
        ([2, 1],),
        ([1, 2],),
        ([3, 2, 4],),
        ([2, 5, 1, 3],),
    )


def sink_inputs(seed):
    """Scores, values and sinks."""
    yield torch.zeros(1, 1), torch.ones(1, 1), 0.0
    yield torch.zeros(2, 3).double(), torch.ones(3, 2).double(), 1.0
    generator = torch.Generator().manual_seed(seed)
    for n, m in ((2, 3), (4, 4)):
        scores = torch.randn(n, m, generator=generator).double()
        yield scores, torch.randn(m, 2, generator=generator).double(), -0.5
    yield 100 * torch.ones(2, 2).double(), torch.eye(2).double(), 99.0


def packed_by(predicate):
    """A mask of documents by another predicate on (document, position)."""

    def made(lengths):
        number = torch.repeat_interleave(
            torch.arange(len(lengths)), torch.tensor(lengths)
        )
        i, j = torch.arange(len(number))[:, None], torch.arange(len(number))[None, :]
        return predicate(number[:, None], number[None, :], i, j) & (i == i) & (j == j)

    return made


EXERCISES = (
    Exercise(
        id="hf-1",
        kind="predict",
        difficulty=1,
        minutes=5,
        section="Another window than its own",
        question=(
            r"A Mistral has `sliding_window=4096`. Which `window=w` makes a Llama "
            r"with the same weights compute the same (`llama`)? And which is the "
            r"smallest $w$ that changes nothing, by `hf.use(model, window=w)`, in "
            r"the *local* layers of a ModernBERT with `local_attention=128`, which "
            r"see half of that number to each side (`modernbert`)? (Its full layers "
            r"are narrowed by any $w < n - 1$.)"
        ),
        parts=(
            Number(
                "llama",
                4095,
                {
                    4096: "The number counts the query's own key; our w does not.",
                    2048: "It is causal.",
                },
            ),
            Number(
                "modernbert",
                64,
                {
                    128: "Half of that number to each side.",
                    63: "It sees 64 tokens to each side, its own not counted.",
                },
            ),
        ),
        worked="""
            check("hf-1", llama=4096 - 1, modernbert=128 // 2)
        """,
        because=(
            "A causal window of $W$ keys is $w = W - 1$; 64 to each side is $w = 64$."
        ),
    ),
    Exercise(
        id="hf-2",
        kind="predict",
        difficulty=2,
        minutes=10,
        section="Padding, and packed documents",
        question=(
            r"Three documents of 20, 30 and 14 tokens are packed, and the borders "
            r"are lost. How many pairs leak across them with `sliding_window=8` "
            r"(`window`)? And with full causal attention (`full`)?"
        ),
        parts=(
            Number(
                "window",
                56,
                {
                    28: "There are two borders.",
                    72: "The number 8 counts the query's own key: 7 back.",
                    112: "Causally, later tokens see earlier ones only.",
                },
            ),
            Number(
                "full",
                1300,
                {
                    600: "The third document sees both that stand before it.",
                    1020: "The third document sees 50 tokens before it.",
                    2600: "Causally, later tokens see earlier ones only.",
                },
            ),
        ),
        worked="""
            P = at.patterns
            apart = at.dense_mask(P.documents([20, 30, 14]), 64)
            window, full = (
                (at.dense_mask(p, 64) & ~apart).sum()
                for p in (P.local((7, 0)), P.causal())
            )
            check("hf-2", window=window, full=full)
        """,
        because=(
            "The tokens behind a border reach 7, 6, ..., 1 tokens before it: 28 pairs."
        ),
    ),
    Exercise(
        id="hf-3",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="A sink, by the log-sum-exp",
        question=(
            r"A query of gpt-oss meets $\kappa$ keys whose scores are all 0, and the "
            r"sink's score is $s_{\text{sink}}$. Which share of the weight do the keys "
            r"keep, as a function of $\kappa$ and $s_{\text{sink}}$ (`share`)? From "
            r"which $\kappa$ on is it more than 90 %, for $s_{\text{sink}} = 2$ "
            r"(`keys`)?"
        ),
        parts=(
            Formula(
                reference=lambda m, s: m / (m + 2.718281828459045**s),
                name="share",
                cases=lambda seed: (
                    (m, s) for m in (1, 4, 100) for s in (-1.0, 0.0, 2.0)
                ),
                mistakes=(
                    Mistake(
                        "what is lost",
                        "That is the sink's share.",
                        lambda m, s: 2.718281828459045**s / (m + 2.718281828459045**s),
                    ),
                    Mistake(
                        "s for exp s",
                        "A score enters by its exponential.",
                        lambda m, s: m / (m + s),
                    ),
                    Mistake(
                        "one key",
                        "All keys weigh exp(0) = 1 each.",
                        lambda m, s: 1 / (1 + 2.718281828459045**s),
                    ),
                ),
            ),
            Number(
                "keys",
                67,
                {
                    66: "66 keys keep 0.8993.",
                    19: "A score enters by its exponential: 9 e² = 66.5.",
                    74: "There must be 9 e² keys, not 10 e².",
                },
            ),
        ),
        worked="""
            keys = next(m for m in range(1, 1000) if m / (m + math.exp(2)) > 0.9)
            check("hf-3", share=lambda m, s: m / (m + math.exp(s)), keys=keys)
        """,
        because=(
            r"Each key weighs $e^0 = 1$, the sink $e^{s_{\text{sink}}}$: more than 0.9 "
            r"from $\kappa > 9 e^{s_{\text{sink}}}$ on."
        ),
    ),
    Exercise(
        id="hf-4",
        kind="predict",
        difficulty=3,
        minutes=15,
        section="A mask is a program",
        question=(
            r"“The last 4 keys or the same chunk of 8, and nothing ahead”: how many "
            r"of the pairs of 64 tokens does this mask keep (`pairs`)? The library "
            r"joins its pieces by `or_masks` and `and_masks`, and its piece for the "
            r"last 4 keys, `sliding_window_overlay(4)`, keeps every pair with $i - j "
            r"< 4$. How do the pieces have to be joined (`order`): (a) (last 4 or "
            r"chunk) and causal; (b) last 4 or (chunk and causal); (c) both are right?"
        ),
        parts=(
            Number(
                "pairs",
                330,
                {
                    336: "At the start of the text there are no keys before.",
                    288: "These are the chunks alone.",
                    512: "Nothing ahead.",
                },
            ),
            Choice(
                "order",
                (
                    right("and causal last", ""),
                    wrong(
                        "or outside",
                        "The overlay hides nothing ahead, so that the future stays.",
                    ),
                    wrong(
                        "either",
                        "Just because the overlay hides nothing ahead, causality "
                        "must come last.",
                    ),
                ),
            ),
        ),
        worked="""
            i, j = torch.arange(64)[:, None], torch.arange(64)[None, :]
            keep = ((i - j < 4) | (i // 8 == j // 8)) & (j <= i)
            check("hf-4", pairs=keep.sum(), order="a")
        """,
        because="42 pairs in a chunk, 336 in eight, less 6 at the start of the text.",
    ),
    Exercise(
        id="hf-5",
        kind="diagnose",
        difficulty=1,
        minutes=6,
        section="What cannot be served, and must say so",
        question=(
            r"A colleague calls `model.set_attn_implementation('mine')` on a "
            r"Longformer and reports: “The same outputs to the last bit, and not a "
            r"millisecond faster.” What happened "
            r"(`happened`): (a) her function is exact, and memory decides; (b) the "
            r"model never called it; (c) the window is as wide as the text? Which "
            r"line would have told (`line`): (a) "
            r"`print(model.config._attn_implementation)`; (b) `model.eval()`; (c) "
            r"`torch.manual_seed(0)`?"
        ),
        parts=(
            Choice(
                "happened",
                (
                    wrong(
                        "exact",
                        "Two different programs hardly ever agree to the last bit.",
                    ),
                    right("never called", ""),
                    wrong("wide", "Another program would still round differently."),
                ),
            ),
            Choice(
                "line",
                (
                    right("config", ""),
                    wrong("eval", "It switches dropout off, and was needed before."),
                    wrong("seed", "Nothing is random here."),
                ),
            ),
        ),
        worked="""
            check("hf-5", happened="b", line="a")
        """,
        because=(
            "A Longformer has attention of its own. Agreement to the last bit means "
            "that it was the same code."
        ),
    ),
    Exercise(
        id="hf-6",
        kind="implement",
        difficulty=1,
        minutes=5,
        section="Two functions serve a layer",
        question=(
            r"Turn a boolean mask, True = attend, into one that is added to the "
            r"scores."
        ),
        parts=(
            Function(
                additive,
                some_masks,
                (
                    Mistake(
                        "inverted",
                        "Keep and forbid are inverted.",
                        lambda keep: torch.zeros(keep.shape).masked_fill(
                            keep, -torch.inf
                        ),
                    ),
                    Mistake(
                        "zero and one",
                        "Adding 0 or 1 hardly changes a score; forbidden ones "
                        "need minus infinity.",
                        lambda keep: keep.float(),
                    ),
                    Mistake(
                        "NaN",
                        "0 times infinity is NaN: fill, do not multiply.",
                        lambda keep: (~keep).float() * -torch.inf,
                    ),
                    Mistake(
                        "sign",
                        "Plus infinity gives a forbidden key all of the weight.",
                        lambda keep: torch.zeros(keep.shape).masked_fill(
                            ~keep, torch.inf
                        ),
                    ),
                    Mistake(
                        "one",
                        "A kept score must not change: add 0, not 1.",
                        lambda keep: torch.ones(keep.shape).masked_fill(
                            ~keep, -torch.inf
                        ),
                    ),
                    Mistake(
                        "small number",
                        "-1 is not minus infinity.",
                        lambda keep: (~keep).float() * -1,
                    ),
                    Mistake(
                        "the smallest number",
                        "It is finite: in a row that forbids all it cancels.",
                        lambda keep: torch.zeros(keep.shape).masked_fill(
                            ~keep, torch.finfo(torch.float32).min
                        ),
                    ),
                    Mistake(
                        "-1e9",
                        "-1e9 is finite: in a row that forbids all it cancels.",
                        lambda keep: (~keep).float() * -1e9,
                    ),
                    Mistake(
                        "-10,000",
                        "-10,000 is finite: a score can be as low, and in a row "
                        "that forbids all it cancels.",
                        lambda keep: (~keep).float() * -10_000,
                    ),
                ),
            ),
        ),
        because="0 changes nothing, and minus infinity has the exponential 0.",
    ),
    Exercise(
        id="hf-7",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="Padding, and packed documents",
        question=(
            r"Several documents lie end to end in one sequence. Write the causal "
            r"mask that keeps them apart."
        ),
        parts=(
            Function(
                packed,
                some_lengths,
                (
                    Mistake(
                        "borders lost",
                        "The borders are lost: later documents see earlier ones.",
                        packed_by(lambda a, b, i, j: j <= i),
                    ),
                    Mistake(
                        "causal forgotten",
                        "Inside a document the future is seen.",
                        packed_by(lambda a, b, i, j: a == b),
                    ),
                    Mistake(
                        "itself forgotten",
                        "A token sees itself.",
                        packed_by(lambda a, b, i, j: (a == b) & (j < i)),
                    ),
                    Mistake(
                        "border off by one",
                        "The first token of a document sees the one before it.",
                        packed_by(
                            lambda a, b, i, j: ((a == b) | (i - j == 1)) & (j <= i)
                        ),
                    ),
                    Mistake(
                        "upside down",
                        "A token sees its future.",
                        packed_by(lambda a, b, i, j: (a == b) & (j >= i)),
                    ),
                ),
            ),
        ),
        because=(
            "Same document and not ahead. A mask of ones, or a cache, loses the "
            "first part silently."
        ),
    ),
    Exercise(
        id="hf-8",
        kind="implement",
        difficulty=1,
        minutes=5,
        section="Padding, and packed documents",
        question=r"Write the positions of packed documents.",
        parts=(
            Function(
                positions,
                some_lengths,
                (
                    Mistake(
                        "counted on",
                        "The positions count on over the borders: each document "
                        "begins at 0.",
                        lambda n: torch.arange(sum(n)),
                    ),
                    Mistake(
                        "from one",
                        "Positions begin at 0.",
                        lambda n: torch.cat([torch.arange(1, x + 1) for x in n]),
                    ),
                    Mistake(
                        "numbers of the documents",
                        "These are the numbers of the documents.",
                        lambda n: torch.repeat_interleave(
                            torch.arange(len(n)), torch.tensor(n)
                        ),
                    ),
                    Mistake(
                        "from the end",
                        "The positions count down.",
                        lambda n: torch.cat([torch.arange(x).flip(0) for x in n]),
                    ),
                ),
            ),
        ),
        because="Each document begins at 0: some families read the borders from here.",
    ),
    Exercise(
        id="hf-9",
        kind="implement",
        difficulty=2,
        minutes=8,
        section="A sink, by the log-sum-exp",
        question=r"Write attention with a sink score, as gpt-oss has it.",
        parts=(
            Function(
                with_sink,
                sink_inputs,
                (
                    Mistake(
                        "sink forgotten",
                        "The sink has no effect: a number that is added to all "
                        "scores changes nothing, and rescaling the weights to "
                        "sum to 1 takes it out again.",
                        lambda s, v, z: s.softmax(-1) @ v,
                    ),
                    Mistake(
                        "sink for its exponential",
                        "The score itself is added to the sum; its exponential "
                        "belongs there.",
                        lambda s, v, z: (
                            s.exp() @ v / (s.exp().sum(-1, keepdim=True) + z)
                        ),
                    ),
                    Mistake(
                        "no shift",
                        "Large scores overflow.",
                        lambda s, v, z: (
                            s.float().exp().to(s.dtype)
                            @ v
                            / (
                                s.float().exp().to(s.dtype).sum(-1, keepdim=True)
                                + torch.tensor(z).float().exp()
                            )
                        ),
                    ),
                    Mistake(
                        "a value of ones",
                        "The sink has no value: it only takes weight.",
                        lambda s, v, z: (
                            torch.cat(
                                [s, torch.full((len(s), 1), z, dtype=s.dtype)], -1
                            ).softmax(-1)
                            @ torch.cat([v, torch.ones_like(v[:1])])
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "One column more in the softmax, which is then dropped; the rest sums to "
            "less than 1."
        ),
    ),
)

QUIZ = (
    Question(
        "An attention function is registered under a new name, without a mask "
        "function. What happens to the window?",
        (
            wrong("The model refuses to run.", "It runs, and says nothing."),
            right(
                "It is lost, and nobody says so.",
                "A layer looks up two functions by one name: one makes the mask, "
                "one attends.",
            ),
            wrong(
                "It is read from the config.", "By the mask function, which is missing."
            ),
        ),
    ),
    Question(
        "Documents are packed into one sequence, with a mask of ones. What does "
        "the library do?",
        (
            wrong(
                "It finds the borders by the positions.",
                "Not as soon as there is a cache or a mask of ones.",
            ),
            right(
                "It lets later documents see earlier ones.",
                "28 pairs across a border, with a window of 8 keys, where there "
                "should be none.",
            ),
            wrong("It raises an error.", "Nothing is said."),
        ),
    ),
    Question(
        "How can one find out whom a token meets, whatever the code says?",
        (
            right(
                "By the gradient of one layer's output.",
                "Where it is zero, nothing was met.",
            ),
            wrong("By printing the config.", "It says what was asked for."),
            wrong(
                "By the size of the cache.", "More may be kept than is met, and less."
            ),
        ),
    ),
    Question(
        "Two implementations agree to the last bit. What should you suspect?",
        (
            wrong("That both are exact.", "Other orders of adding round differently."),
            right(
                "That both runs were the same code.",
                "Ask the model which function it calls.",
            ),
            wrong(
                "That the inputs are zeros.",
                "Perhaps; look at the outputs. The same code is likelier.",
            ),
        ),
    ),
    Question(
        "A softmax with a sink score: what do the weights of the keys sum to?",
        (
            wrong("1.", "The sink takes its share."),
            right("Less than 1.", "And the less, the fewer keys there are."),
            wrong(
                "More than 1.",
                "The sink's weight is positive, and all together make 1.",
            ),
        ),
    ),
)
