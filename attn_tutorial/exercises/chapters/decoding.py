"""Exercises on decoding with a cache."""

import torch

import attn_tutorial as at
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


def in_slots(n, slots):
    """Which token each slot of a ring holds after n tokens, -1 for an empty one.

    Token j goes into slot j % slots. A list of `slots` whole numbers.
    """
    held = [-1] * slots
    for token in range(max(0, n - slots), n):
        held[token % slots] = token
    return held


def kept_after(n, window, sinks):
    """How many keys a cache must keep after n tokens, for the tokens still to come.

    A causal window of `window` keys back, and the first `sinks` tokens for ever.
    """
    return min(n, sinks) + min(window, max(0, n - sinks))


def intensity(heads, kv_heads, bytes_per_number):
    """Operations per byte of one decoding step of attention, long cache."""
    return 2 * heads / (bytes_per_number * kv_heads)


def decode_step(cache, q, k, v, window):
    """One step of a causal window: append, attend, trim. Returns (output, cache).

    cache is (keys, values), each (tokens, d), of the last tokens; q, k and v are (d,).
    The output (d,) is over at most `window` keys before this one and its own. The new
    cache holds at most `window` tokens.
    """
    keys = torch.cat([cache[0], k[None]])[-window - 1 :]
    values = torch.cat([cache[1], v[None]])[-window - 1 :]
    output = at.attention(q[None], keys, values)[0]
    start = max(0, len(keys) - window)
    return output, (keys[start:], values[start:])


def ring_cases(seed):
    """Numbers of tokens and of slots."""
    yield from (
        (n, slots) for slots in (1, 2, 3, 5) for n in (0, 1, 2, 3, 4, 7, 11 + seed % 5)
    )


def cache_cases(seed):
    """Numbers of tokens with windows and sinks."""
    yield from (
        (n, w, s) for n in (0, 1, 2, 3, 5, 20) for w in (0, 1, 4) for s in (0, 1, 3)
    )


def head_cases(seed):
    """Heads of queries and of keys, and bytes."""
    yield from (
        (h, k, b) for h, k in ((1, 1), (8, 8), (8, 2), (64, 8)) for b in (1, 2, 4)
    )


def step_cases(seed):
    """Caches that are empty, growing and full."""
    generator = torch.Generator().manual_seed(seed)
    for held, window in ((0, 0), (0, 2), (1, 2), (2, 2), (3, 3), (1, 4), (5, 5)):
        cache = tuple(torch.randn(2, held, 4, generator=generator).double())
        yield cache, *torch.randn(3, 4, generator=generator).double(), window


def stepped(order):
    """A wrong step: `order` says what is attended to, and what is kept."""

    def step(cache, q, k, v, window):
        keys, values = torch.cat([cache[0], k[None]]), torch.cat([cache[1], v[None]])
        met, kept = order(len(keys), window)
        output = at.attention(q[None], keys[met], values[met])[0]
        return output, (keys[kept], values[kept])

    return step


def last(count):
    """The slice of the last so many."""
    return slice(-count, None) if count else slice(0, 0)


EXERCISES = (
    Exercise(
        id="decoding-1",
        kind="predict",
        difficulty=1,
        minutes=6,
        section="Bytes, not operations",
        question=(
            r"A model has 64 heads of queries, 8 of keys, and a cache of 8-bit "
            r"numbers. How many operations a byte does a step of attention have "
            r"(`intensity`)? How many queries a step does it take, at least, to "
            r"reach the H100's ridge of 295 (`queries`)?"
        ),
        parts=(
            Number(
                "intensity",
                16,
                {
                    8: "A multiply-add counts as two operations.",
                    2: "Eight heads of queries share a head of keys.",
                    128: "Per byte of the cache, which has 8 heads.",
                },
            ),
            Number(
                "queries",
                19,
                {
                    18: "Eighteen give 288.",
                    18.4: "Whole queries.",
                    295: "One query already has 16.",
                },
            ),
        ),
        worked="""
            per_byte = at.cost.decode_intensity(64, 8, bytes_per_number=1)
            check("decoding-1", intensity=per_byte, queries=math.ceil(295 / per_byte))
        """,
        because=(
            r"$2h/(\beta h_{kv})$ operations a byte, and each further query in a "
            r"step adds as much."
        ),
    ),
    Exercise(
        id="decoding-2",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="What a cache weighs",
        question=(
            r"A model has 30 layers, five of six with a window of 1,024 keys, 4 heads "
            r"of keys of width 128, and 16-bit numbers. It has read 32,768 tokens. How "
            r"many MiB must be kept (`kept`; count 1,024 keys of the cache for each "
            r"window), how many would full attention keep (`full`), and "
            r"what is the limit of their quotient for long texts (`limit`)?"
        ),
        parts=(
            Number(
                "kept",
                370,
                {
                    320: "The 25 windows keep 50 MiB.",
                    185: "Keys and values.",
                    50: "Five layers keep everything.",
                },
                within=0.2,
            ),
            Number(
                "full", 1920, {960: "Keys and values.", 3840: "Two bytes a number."}
            ),
            Number(
                "limit",
                6,
                {
                    5.19: "That is at 32,768 tokens.",
                    5: "One layer of six is full.",
                    1.2: "Five of six have a window.",
                },
            ),
        ),
        worked="""
            window, full = at.patterns.local((1023, 0)), at.patterns.causal()
            layers = [full if layer % 6 == 5 else window for layer in range(30)]
            kept, everything = (
                sum(at.cost.cache_bytes(p, 32_768, d=128, kv_heads=4) for p in patterns)
                / 2**20
                for patterns in (layers, [full] * 30)
            )
            check("decoding-2", kept=kept, full=everything, limit=6)
        """,
        because="For long texts only the full layers count, one in six.",
    ),
    Exercise(
        id="decoding-3",
        kind="derive",
        difficulty=2,
        minutes=10,
        section="What must be kept",
        question=(
            r"Causal blocks of $b$ tokens: how many keys must be kept after $n$ "
            r"tokens, for the tokens still to come (`kept`, a function of $n$ and "
            r"$b$), and how many on average over $n$ (`average`, a function of $b$)? "
            r"How many slots does a ring need for it (`slots`)?"
        ),
        parts=(
            Formula(
                reference=lambda n, b: n % b,
                name="kept",
                cases=lambda seed: ((n, b) for b in (1, 2, 5) for n in range(12)),
                mistakes=(
                    Mistake(
                        "whole block",
                        "A block that has ended is needed by nobody.",
                        lambda n, b: b if n else 0,
                    ),
                    Mistake(
                        "everything",
                        "Finished blocks are not seen again.",
                        lambda n, b: n,
                    ),
                    Mistake(
                        "number of blocks",
                        "That is how many blocks are finished.",
                        lambda n, b: n // b,
                    ),
                    Mistake(
                        "window",
                        "That is a window of b keys.",
                        lambda n, b: min(n, b - 1),
                    ),
                ),
            ),
            Formula(
                reference=lambda b: (b - 1) / 2,
                name="average",
                cases=lambda seed: ((b,) for b in (1, 2, 5, 16)),
                mistakes=(
                    Mistake("b / 2", "The mean of 0 to b - 1.", lambda b: b / 2),
                    Mistake(
                        "met",
                        "That is how many keys a query meets; its own is not in "
                        "the cache yet.",
                        lambda b: (b + 1) / 2,
                    ),
                ),
            ),
            Formula(
                reference=lambda b: b,
                name="slots",
                cases=lambda seed: ((b,) for b in (1, 2, 5, 16)),
                mistakes=(
                    Mistake(
                        "average",
                        "The slots have to be there when they are needed.",
                        lambda b: (b - 1) / 2,
                    ),
                    Mistake(
                        "one less",
                        "The token of the step needs a slot as well.",
                        lambda b: b - 1,
                    ),
                ),
            ),
        ),
        worked="""
            check(
                "decoding-3",
                kept=lambda n, b: n % b,
                average=lambda b: (b - 1) / 2,
                slots=lambda b: b,
            )
        """,
        because=(
            r"$n \bmod b$ keys, those of the block that has begun. A window of $(b + "
            r"1)/2$ keys meets as many on average, and needs only as many slots."
        ),
    ),
    Exercise(
        id="decoding-4",
        kind="implement",
        difficulty=2,
        minutes=10,
        section="What must be kept",
        question=(
            r"Give the ring sinks: a first part that is never overwritten. How many "
            r"keys must it keep after $n$ tokens, for those still to come?"
        ),
        parts=(
            Function(
                kept_after,
                cache_cases,
                (
                    Mistake(
                        "own key kept",
                        "The key of a step w + 1 back is needed no more: between "
                        "two steps a window keeps w keys.",
                        lambda n, w, s: min(n, s) + min(w + 1, max(0, n - s)),
                    ),
                    Mistake(
                        "sinks counted twice",
                        "A sink that still lies in the window is counted twice.",
                        lambda n, w, s: min(n, s) + min(w, n),
                    ),
                    Mistake(
                        "sinks within the window",
                        "Sinks come on top of the window.",
                        lambda n, w, s: min(n, max(w, s)),
                    ),
                    Mistake(
                        "short texts",
                        "After n tokens there are no more than n.",
                        lambda n, w, s: s + w,
                    ),
                    Mistake(
                        "sinks forgotten",
                        "The first tokens are kept for ever.",
                        lambda n, w, s: min(n, w),
                    ),
                    Mistake(
                        "everything",
                        "What has left the window is needed no more.",
                        lambda n, w, s: n,
                    ),
                ),
            ),
        ),
        because="The sinks, and the last $w$ of the others.",
    ),
    Exercise(
        id="decoding-5",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="The ring",
        question=r"""
            A colleague's ring attends *before* it writes:

            ```python
            def step(ring, q, k, v, window):
                slots, used = window + 1, min(ring["tokens"], window + 1)
                output = at.attention(q[None], ring["k"][:used], ring["v"][:used])[0]
                slot = ring["tokens"] % slots
                ring["k"][slot], ring["v"][slot] = k, v
                ring["tokens"] += 1
                return output
            ```

            Which keys does query 10 meet with a window of 3 (`keys`, a list)? What does
            the very first token get (`first`): (a) NaN; (b) its own value; (c) zeros?
        """,
        parts=(
            Items(
                "keys",
                (6, 7, 8, 9),
                {
                    (
                        7,
                        8,
                        9,
                        10,
                    ): "That is what it should meet; its own key is not written yet.",
                    (7, 8, 9): "The ring has w + 1 slots, and all are used.",
                },
            ),
            Choice(
                "first",
                (
                    wrong("NaN", "An average over no key is zero in this package."),
                    wrong("its own value", "Its own value is not written yet."),
                    right("zeros", ""),
                ),
            ),
        ),
        worked="""
            check("decoding-5", keys=list(range(10 - 4, 10)), first="c")
        """,
        because="It is the window of the query before: `shifted(local((w, 0)), -1)`.",
    ),
    Exercise(
        id="decoding-6",
        kind="predict",
        difficulty=2,
        minutes=6,
        section="What must be kept",
        question=(
            r"How far back does `causal_needs` say that `dilated 4,0 8` looks "
            r"(`back`)? A query meets 5 keys. How many does the ring hold (`slots`), "
            r"and how many of them must be kept between two steps, away from the "
            r"start (`needed`)?"
        ),
        parts=(
            Number("back", 32, {4: "Four steps of 8.", 40: "Four steps of 8."}),
            Number(
                "slots",
                33,
                {
                    5: "Keys between the gaps are met by later queries.",
                    32: "And the query's own key.",
                },
            ),
            Number(
                "needed",
                32,
                {
                    5: "Each of the last 32 keys still has a query to come.",
                    4: "Each of the last 32 keys still has a query to come.",
                    33: "The one that is 32 back at the last step has served.",
                },
            ),
        ),
        worked="""
            from attn_tutorial.lookback import causal_needs

            pattern = at.patterns.parse("dilated 4,0 8")
            keep = at.dense_mask(pattern, 90)
            check(
                "decoding-6",
                back=causal_needs(pattern).back,
                slots=at.RollingCache(pattern).window,
                needed=keep[45:, :45].any(0).sum(),
            )
        """,
        because="Five keys a query, and a cache of 33: gaps save work, and no memory.",
    ),
    Exercise(
        id="decoding-7",
        kind="implement",
        difficulty=1,
        minutes=8,
        section="The ring",
        question=r"Which token stands in which slot of a ring after $n$ tokens?",
        parts=(
            Function(
                in_slots,
                ring_cases,
                (
                    Mistake(
                        "in order of the tokens",
                        "A ring does not shift: its slots are not in the order "
                        "of the tokens, once it has turned.",
                        lambda n, s: ([*range(max(0, n - s), n)] + [-1] * s)[:s],
                    ),
                    Mistake(
                        "never overwritten",
                        "The first tokens are never overwritten.",
                        lambda n, s: [p if p < n else -1 for p in range(s)],
                    ),
                    Mistake(
                        "one token ahead",
                        "After n tokens the last one is n - 1.",
                        lambda n, s: in_slots(n + 1, s),
                    ),
                    Mistake(
                        "one token behind",
                        "After n tokens the last one is n - 1.",
                        lambda n, s: in_slots(max(0, n - 1), s),
                    ),
                    Mistake(
                        "newest first",
                        "The newest token does not go to slot 0; it goes to its "
                        "number modulo the slots.",
                        lambda n, s: (
                            [*range(n - 1, max(0, n - s) - 1, -1)] + [-1] * s
                        )[:s],
                    ),
                    Mistake(
                        "empty is zero",
                        "An empty slot is -1; 0 is a token.",
                        lambda n, s: [max(0, x) for x in in_slots(n, s)],
                    ),
                ),
            ),
        ),
        because=(
            "Token $j$ goes into slot $j \\bmod W$, and overwrites what has left the "
            "window."
        ),
    ),
    Exercise(
        id="decoding-8",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="Any split gives the same",
        question=r"Write one step of decoding with a window: append, attend, trim.",
        parts=(
            Function(
                decode_step,
                step_cases,
                (
                    Mistake(
                        "trimmed first",
                        "The cache is trimmed before attending, so that the "
                        "farthest key is lost.",
                        stepped(lambda n, w: (last(max(1, w)), slice(-w, None))),
                    ),
                    Mistake(
                        "own key forgotten",
                        "The token's own key is not among those that it meets.",
                        stepped(
                            lambda n, w: (
                                slice(max(0, n - 1 - w), n - 1),
                                slice(-w, None),
                            )
                        ),
                    ),
                    Mistake(
                        "minus zero",
                        "For a window of 0, `[-0:]` is everything: begin at "
                        "`len(keys) - window`.",
                        stepped(lambda n, w: (last(w + 1), slice(-w, None))),
                    ),
                    Mistake(
                        "nothing trimmed",
                        "The output is right, and more than w keys are kept.",
                        stepped(lambda n, w: (last(w + 1), slice(None))),
                    ),
                    Mistake(
                        "one key too few kept",
                        "The next token will need w keys.",
                        stepped(lambda n, w: (last(w + 1), last(max(0, w - 1)))),
                    ),
                    Mistake(
                        "new token not kept",
                        "The new token is attended to, and not kept.",
                        stepped(
                            lambda n, w: (last(w + 1), slice(max(0, n - 1 - w), n - 1))
                        ),
                    ),
                    Mistake(
                        "oldest kept",
                        "The oldest tokens are kept, and the newest dropped.",
                        stepped(lambda n, w: (last(w + 1), slice(0, w))),
                    ),
                ),
            ),
        ),
        because="Attend first, trim afterwards: $w + 1$ keys are met, $w$ are kept.",
    ),
    Exercise(
        id="decoding-9",
        kind="implement",
        difficulty=1,
        minutes=5,
        section="Bytes, not operations",
        question=(
            r"How many operations does one step of attention do for each byte of the "
            r"cache that it reads?"
        ),
        parts=(
            Function(
                intensity,
                head_cases,
                (
                    Mistake(
                        "half",
                        "A multiply-add counts as two operations.",
                        lambda h, k, b: h / (b * k),
                    ),
                    Mistake(
                        "heads upside down",
                        "Heads of queries multiply the work, heads of keys the bytes.",
                        lambda h, k, b: 2 * k / (b * h),
                    ),
                    Mistake(
                        "bytes multiplied",
                        "More bytes a number make the intensity lower.",
                        lambda h, k, b: 2 * h * b / k,
                    ),
                    Mistake(
                        "sharing forgotten",
                        "Heads of queries that share a head of keys share its bytes.",
                        lambda h, k, b: 2 / b,
                    ),
                    Mistake(
                        "keys only",
                        "Keys and values are both read, and both are multiplied.",
                        lambda h, k, b: 4 * h / (b * k),
                    ),
                ),
            ),
        ),
        because=(
            "$4d$ operations for each head of queries, $2d\\beta$ bytes for each "
            "head of keys."
        ),
    ),
)

QUIZ = (
    Question(
        "A token is generated. Why is this step slow on a fast GPU?",
        (
            wrong("It has too many operations.", "It has few: one query."),
            right(
                "It reads the whole cache for a handful of operations.",
                "One operation a byte without shared heads in 16 bits, where an "
                "H100 could do 295.",
            ),
            wrong(
                "Attention is quadratic.",
                "With a cache a step is linear in what was read so far.",
            ),
        ),
    ),
    Question(
        "A ring for a causal window of $w$ keys back: how many slots?",
        (
            wrong("$w$.", "The token's own key is met as well, in the same step."),
            right(
                "$w + 1$.",
                "Or $w$, if one attends before the new key is written and adds "
                "it by hand.",
            ),
            wrong("$2w + 1$.", "It looks back only."),
        ),
    ),
    Question(
        "Does a ring have to be put in order before attention?",
        (
            right(
                "No: a sum does not know the order of its terms.",
                "Positions that were turned into the keys go with them.",
            ),
            wrong(
                "Yes, or the softmax is wrong.",
                "The softmax of a set is the same in any order.",
            ),
            wrong(
                "Yes, for the causal mask.",
                "All keys in the ring are in the past: there is nothing to mask.",
            ),
        ),
    ),
    Question(
        "Half of the layers get a small window. By which factor can the cache "
        "shrink, at most?",
        (
            wrong("By the window over the length.", "The full layers keep everything."),
            right("Below 2.", "What the full layers keep stays."),
            wrong("By 4.", "Half of the layers, half of the bytes."),
        ),
    ),
    Question(
        "What is a good specification of a cache?",
        (
            right(
                "Any way to cut the text into calls gives the result of no cache.",
                "One token at a time, all at once, and mixed: single tokens find "
                "three of the five faults, mixed calls all.",
            ),
            wrong(
                "It gives the right result token by token.",
                "Faults in longer calls are missed.",
            ),
            wrong(
                "It never holds more than the window.",
                "That is about memory, not about results.",
            ),
        ),
    ),
)
