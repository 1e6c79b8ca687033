"""Exercises on what others call a window."""

import torch

from attn_tutorial.exercises.catalogue import mask
from attn_tutorial.exercises.exercise import (
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


def late_queries(n_q, n_k):
    """The causal mask of the *last* n_q queries of a text of n_k tokens.

    bool (n_q, n_k), True = attend; n_q <= n_k.
    """
    i, j = torch.arange(n_q)[:, None] + n_k - n_q, torch.arange(n_k)[None, :]
    return j <= i


def even_window(n, W):
    """W tokens in all, W even: W/2 before the query, W/2 - 1 after; bool (n, n)."""
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    return (i - j <= W // 2) & (j - i <= W // 2 - 1)


def ours(library, value):
    """Our one-sided w for a causal window of some libraries.

    "hf": `sliding_window`, keys with the query's own. "jax": `local_window_size`, keys
    to the left. "gym": attention-gym's `window_size`, how far it looks back.
    """
    return {"hf": value - 1, "jax": value, "gym": value}[library]


def late_cases(seed):
    """Numbers of queries and keys."""
    yield from ((q, k) for k in (0, 1, 2, 4, 7) for q in range(k + 1))
    yield 3 + seed % 3, 11


def even_cases(seed):
    """Lengths with even windows."""
    yield from ((n, W) for n in (0, 1, 3, 5, 9, 12) for W in (2, 4, 8, 30))


def library_cases(seed):
    """Libraries with values."""
    yield from (
        (name, value)
        for name in ("hf", "jax", "gym")
        for value in (1, 4, 128, 4096 + seed)
    )


def late_by(predicate):
    """A mask of the last queries by another predicate on (i, j, n_q, n_k)."""

    def made(n_q, n_k):
        i, j = torch.arange(n_q)[:, None], torch.arange(n_k)[None, :]
        return predicate(i, j, n_q, n_k) & (i == i) & (j == j)

    return made


EXERCISES = (
    Exercise(
        id="windows-1",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="In words, and from one to another",
        question=(
            r"A model was trained with Hugging Face's `sliding_window=512`. Which "
            r"number makes the left side of JAX's `local_window_size` the same "
            r"(`jax`), of FlashAttention's `window_size` (`flash`), and SGLang's "
            r"`sliding_window_size` (`sglang`)? A colleague copies 512 to "
            r"attention-gym: how many keys does the model then see (`gym_keys`)?"
        ),
        parts=(
            Number(
                "jax",
                511,
                {512: "It counts keys to the left, without the query's own."},
            ),
            Number(
                "flash",
                511,
                {512: "It counts keys to the left, without the query's own."},
            ),
            Number("sglang", 511, {512: "It does not count the query's own key."}),
            Number(
                "gym_keys",
                513,
                {
                    512: "It looks 512 keys back, and sees itself as well.",
                    511: "It looks 512 keys back, and sees itself as well.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.conventions import CONVENTIONS, convert

            pattern = CONVENTIONS["hf.sliding_window"].pattern(512)
            gym = CONVENTIONS["attn_gym.sliding_window"].pattern(512)
            check(
                "windows-1",
                jax=convert(pattern, to="jax.local_window_size")[0],
                flash=convert(pattern, to="flash_attn.window_size")[0],
                sglang=convert(pattern, to="sglang.sliding_window_size"),
                gym_keys=at.dense_mask(gym, 1000)[900].sum(),
            )
        """,
        because=(
            "Compare keys, never parameters: one key too many is one that the model "
            "was not trained with."
        ),
    ),
    Exercise(
        id="windows-2",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="The table",
        question=(
            r"How many keys does an interior query meet under (a) "
            r"`attention_window=512` of Longformer (`longformer`), (b) "
            r"`local_radius=127` of LongT5 (`longt5`), (c) `sliding_window=128` of "
            r"Keras without a causal mask (`keras`), (d) `block_size=512` of "
            r"PEGASUS-X (`pegasus`)?"
        ),
        parts=(
            Number(
                "longformer",
                513,
                {
                    512: "Half of it on each side, and the query.",
                    1025: "512 is the width of both sides.",
                },
            ),
            Number("longt5", 255, {127: "On each side.", 254: "And the query."}),
            Number(
                "keras",
                255,
                {257: "Its 128 counts the query on each side.", 128: "On each side."},
            ),
            Number("pegasus", 512, {1536: "Its own block and no other."}),
        ),
        worked="""
            from attn_tutorial.conventions import CONVENTIONS

            names = {
                "longformer": ("hf.longformer.attention_window", 512),
                "longt5": ("hf.longt5.local_radius", 127),
                "keras": ("keras.sliding_window", 128),
                "pegasus": ("hf.pegasus_x.block_size", 512),
            }
            found = {
                k: int(CONVENTIONS[name].count(v)) for k, (name, v) in names.items()
            }
            check("windows-2", **found)
        """,
        because=(
            "Itself counted? One side, both, or both together? Numbers that are "
            "called a window answer differently."
        ),
    ),
    Exercise(
        id="windows-3",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="Off by one",
        question=(
            r"Two causal windows, of $W$ and $W + 1$ keys, on $n > W$ tokens. In how "
            r"many pairs do they differ, as a function of $n$ and $W$ (`pairs`)? How "
            r"many are that for $n = 4096$ and $W = 128$ (`number`), and which share "
            r"of the pairs of the smaller one, in percent to two decimals "
            r"(`percent`)?"
        ),
        parts=(
            Formula(
                reference=lambda n, W: n - W,
                name="pairs",
                cases=lambda seed: (
                    (n, W) for n in (2, 5, 40) for W in range(1, min(n, 6))
                ),
                mistakes=(
                    Mistake(
                        "every query",
                        "The first W queries have no key that far back.",
                        lambda n, W: n,
                    ),
                    Mistake(
                        "one more",
                        "Query W is the first with a key W positions back.",
                        lambda n, W: n - W - 1,
                    ),
                    Mistake(
                        "one less",
                        "Query W is the first with a key W positions back.",
                        lambda n, W: n - W + 1,
                    ),
                ),
            ),
            Number("number", 3968, {4096: "The first 128 queries do not differ."}),
            Number(
                "percent",
                0.77,
                {
                    0.0077: "In percent.",
                    0.78: "Of the pairs of the smaller window, 516,160.",
                },
                within=0.004,
            ),
        ),
        worked="""
            small = 4096 * 128 - 128 * 127 // 2
            check(
                "windows-3",
                pairs=lambda n, W: n - W,
                number=4096 - 128,
                percent=100 * 3968 / small,
            )
        """,
        because=(
            "Each query that has a key $W$ positions back differs in this one pair."
        ),
    ),
    Exercise(
        id="windows-4",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="Where the differences come from",
        question=(
            r"A vision library has a window of $W$ tokens *in all*, for even $W$: "
            r"$W/2$ before the query and $W/2 - 1$ after it. Write its mask "
            r"(`even_window`). What is the value for xFormers' "
            r"`LocalAttentionFromBottomRightMask` at $W = 16$ (`xformers`, a list of "
            r"two)?"
        ),
        parts=(
            Function(
                even_window,
                even_cases,
                (
                    Mistake(
                        "both sides equal",
                        "Both sides are equal, so that there are W + 1 keys.",
                        mask(lambda i, j, n, W: (i - j).abs() <= W // 2),
                    ),
                    Mistake(
                        "one key too few",
                        "Both sides are W/2 - 1, so that there are W - 1 keys.",
                        mask(lambda i, j, n, W: (i - j).abs() <= W // 2 - 1),
                    ),
                    Mistake(
                        "sides swapped",
                        "The longer side comes before the query.",
                        mask(
                            lambda i, j, n, W: (j - i <= W // 2) & (i - j <= W // 2 - 1)
                        ),
                    ),
                    Mistake(
                        "W to each side",
                        "W is the whole width.",
                        mask(lambda i, j, n, W: (i - j <= W) & (j - i <= W - 1)),
                    ),
                    Mistake(
                        "causal",
                        "It looks ahead too.",
                        mask(lambda i, j, n, W: (i - j <= W // 2) & (j <= i)),
                    ),
                ),
            ),
            Items(
                "xformers",
                (8, 7),
                {
                    (7, 8): "Left first.",
                    (8, 8): "W tokens in all, the query's own among them.",
                    (16, 15): "W is the whole width.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.conventions import identify

            found = identify(lambda i, j: (i - j <= 8) & (j - i <= 7), 200)
            value = found.values["xformers.local_attention"]
            check("windows-4", even_window=even_window, xformers=value)
        """,
        because="`local 8,7`. Longformer has no such value: its sides are equal.",
    ),
    Exercise(
        id="windows-5",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="Fewer queries than keys",
        question=(
            r"A decoder calls `scaled_dot_product_attention(q, k, v, "
            r"is_causal=True)` with the last 4 queries of a text of 10 tokens and "
            r"all 10 keys. How many keys does the last query meet (`meets`)? How "
            r"many should it (`should`)? And how many does the first of the four "
            r"meet (`first`)?"
        ),
        parts=(
            Number(
                "meets",
                4,
                {
                    10: "That is what it should: `is_causal` begins at the top left.",
                    1: "The last of the four is taken for position 3.",
                },
            ),
            Number("should", 10, {4: "That is what it does meet."}),
            Number(
                "first",
                1,
                {
                    7: "That is what it should meet.",
                    4: "The first is taken for position 0.",
                },
            ),
        ),
        worked="""
            q, k = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 10, 8)
            attend = torch.nn.functional.scaled_dot_product_attention
            weights = attend(q, k, torch.eye(10)[None, None], is_causal=True)[0, 0]
            met = (weights > 0).sum(-1)
            check("windows-5", meets=met[-1], should=10, first=met[0])
        """,
        because=(
            "PyTorch's `is_causal` takes the first query for position 0. The mask "
            "has to begin at position 6."
        ),
    ),
    Exercise(
        id="windows-6",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="A whole model: its config file",
        question=r"""
            A file says

            ```json
            {"model_type": "qwen3", "num_hidden_layers": 36, "sliding_window": 4096,
             "use_sliding_window": true, "max_window_layers": 28}
            ```

            How many layers have a window (`layers`), which is the first of them,
            counted from 0 (`first`), and how many keys does it have (`keys`)?
        """,
        parts=(
            Number(
                "layers",
                8,
                {
                    28: "The first 28 are full.",
                    36: "`max_window_layers` counts the layers below.",
                },
            ),
            Number("first", 28, {0: "The first 28 are full.", 29: "Counted from 0."}),
            Number(
                "keys",
                4096,
                {
                    4097: "The number counts the query's own key.",
                    4095: "That is our w; there are w + 1 keys.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.conventions import from_config

            config = {
                "model_type": "qwen3",
                "num_hidden_layers": 36,
                "sliding_window": 4096,
            }
            config |= {"use_sliding_window": True, "max_window_layers": 28}
            layers = from_config(config)
            window = at.patterns.local((4095, 0))
            check(
                "windows-6",
                layers=layers.count(window),
                first=layers.index(window),
                keys=4095 + 1,
            )
        """,
        because=(
            "The name says the opposite of what it does: it is the number of layers "
            "*without* a window."
        ),
    ),
    Exercise(
        id="windows-7",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="Fewer queries than keys",
        question=(
            r"A decoder has the keys of the whole text and only the last few "
            r"queries. Write the causal mask."
        ),
        parts=(
            Function(
                late_queries,
                late_cases,
                (
                    Mistake(
                        "top left",
                        "The first query is taken for position 0: that is top "
                        "left, and the queries stand at the bottom right.",
                        late_by(lambda i, j, q, k: j <= i),
                    ),
                    Mistake(
                        "one too few",
                        "A query sees its own key too.",
                        late_by(lambda i, j, q, k: j < i + k - q),
                    ),
                    Mistake(
                        "future leaked by one",
                        "Each query sees the next token.",
                        late_by(lambda i, j, q, k: j <= i + k - q + 1),
                    ),
                    Mistake(
                        "causal forgotten",
                        "Every query sees all keys; the earlier of them should not.",
                        late_by(lambda i, j, q, k: j < k),
                    ),
                    Mistake(
                        "offset subtracted",
                        "The offset has the wrong sign.",
                        late_by(lambda i, j, q, k: j <= i - k + q),
                    ),
                    Mistake(
                        "counted from the end",
                        "The last key is taken away from the first query in the "
                        "wrong order: the rows are upside down.",
                        late_by(lambda i, j, q, k: j <= k - 1 - i),
                    ),
                ),
            ),
        ),
        because="Query $i$ stands at position $i + n_k - n_q$.",
    ),
    Exercise(
        id="windows-8",
        kind="implement",
        difficulty=1,
        minutes=6,
        section="One number, four meanings",
        question=(
            r"Translate three libraries' causal windows into our $w$, the number of "
            r"keys *before* the query."
        ),
        parts=(
            Function(
                ours,
                library_cases,
                (
                    Mistake(
                        "own key never counted",
                        "Hugging Face's number counts the query's own key.",
                        lambda name, value: value,
                    ),
                    Mistake(
                        "own key always counted",
                        "JAX and attention-gym do not count the query's own key.",
                        lambda name, value: value - 1,
                    ),
                    Mistake(
                        "added",
                        "Ours is the smaller number: take one off.",
                        lambda name, value: value + (name == "hf"),
                    ),
                    Mistake(
                        "JAX counted",
                        "JAX's number is the keys to the left, without the "
                        "query's own.",
                        lambda name, value: value - (name in ("hf", "jax")),
                    ),
                    Mistake(
                        "attention-gym counted",
                        "attention-gym's number is how far it looks back; the "
                        "query comes on top.",
                        lambda name, value: value - (name in ("hf", "gym")),
                    ),
                ),
            ),
        ),
        because="$W$ keys with the query's own are $w = W - 1$ before it.",
    ),
)

QUIZ = (
    Question(
        "Two libraries say “window 128”. How do you find out whether they mean "
        "the same?",
        (
            wrong(
                "They do: 128 is 128.",
                "“Window 16” means twelve different numbers of keys, over the "
                "rows of the table that take one number.",
            ),
            right(
                "Count the keys that an inner query meets.",
                "Compare keys, never parameters.",
            ),
            wrong("Compare their speed.", "One key more or less cannot be timed."),
        ),
    ),
    Question(
        "Hugging Face's `sliding_window=4096` is how many tokens *before* the query?",
        (
            right("4095.", "The number counts the query's own key."),
            wrong(
                "4096.",
                "That is what Mistral's paper says; the library keeps one less.",
            ),
            wrong("2048.", "It is causal; Longformer's number is halved."),
        ),
    ),
    Question(
        "One query against eight keys, `is_causal=True` in PyTorch's "
        "`scaled_dot_product_attention`. What does it see?",
        (
            wrong("All eight.", "It would, if it stood at the bottom right."),
            right("The first key.", "It is taken for position 0."),
            wrong("The last key.", "The mask begins at the top left."),
        ),
    ),
    Question(
        "A window is off by one key. Who notices?",
        (
            wrong("The profiler.", "Work and memory change by next to nothing."),
            wrong("The loss, at once.", "Only what lies exactly at the edge is lost."),
            right(
                "A test that counts keys, or a task at the edge.",
                "In the name task all names at that distance were lost, and "
                "nothing else.",
            ),
        ),
    ),
    Question(
        "An unknown attention function: how can its window be found without "
        "reading its code?",
        (
            right(
                "Ask which values reach which outputs.",
                "`identify` does, and says “unknown” rather than something near.",
            ),
            wrong(
                "Ask its config file.",
                "It has a number. What the number means is the question.",
            ),
            wrong("Time it for several windows.", "Tiles hide where a window ends."),
        ),
    ),
)
