"""Exercises on measured scaling."""

import math

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


def crossing(lengths, first, second):
    """Where the second routine becomes the faster one, on logarithmic axes.

    Three lists of one length; between two lengths both times are power laws. Returns
    the length of the crossing, or None if there is none.
    """
    gaps = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    for i in range(len(gaps) - 1):
        if gaps[i] > 0 >= gaps[i + 1]:
            share = gaps[i] / (gaps[i] - gaps[i + 1])
            return lengths[i] * (lengths[i + 1] / lengths[i]) ** share
    return None


def slope(lengths, times):
    """The slope of a straight line through log(time) against log(length)."""
    x, y = [math.log(n) for n in lengths], [math.log(t) for t in times]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def least_seconds(flops, moved, peak, bandwidth):
    """The shortest time that the roofline allows, in seconds.

    flops operations, moved bytes, peak in FLOP/s, bandwidth in bytes/s.
    """
    return max(flops / peak, moved / bandwidth)


def crossing_cases(seed):
    """Two routines' times, which cross or do not."""
    yield [1024, 2048, 4096], [2, 8, 32], [5, 10, 20]
    yield [100, 200], [1, 4], [3, 3]
    yield [100, 200], [1, 1], [3, 3]
    yield [100, 200, 400, 800], [1, 2, 4, 9], [5, 5, 5, 5]
    yield [1, 10, 100], [1, 10, 100], [10, 10, 10]
    yield [64, 128, 256], [1.0, 4.0, 16.0], [3.0 + seed, 6.0 + seed, 12.0 + seed]


def slope_cases(seed):
    """Times that are power laws, and some that are not."""
    yield [1, 10], [1, 10]
    yield [1, 2, 4], [3, 12, 48]
    yield [512, 1024, 2048, 4096], [3.16, 3.63, 5.5, 13.0]
    yield [10, 100, 1000], [5.0, 4.0, 6.0 + seed]


def roof_cases(seed):
    """Work on both sides of the ridge, and on it."""
    yield from ((1, 1, 1, 1), (4, 1, 2, 1), (1, 4, 1, 2), (6, 6, 3, 2), (0, 5, 1, 10))
    yield (2.5e9, 1e6 + seed, 989e12, 3350e9)


def cross_with(transform, back=lambda x: x):
    """A crossing that is interpolated on other axes."""

    def found(lengths, first, second):
        gaps = [transform(b) - transform(a) for a, b in zip(first, second, strict=True)]
        for i in range(len(gaps) - 1):
            if gaps[i] > 0 >= gaps[i + 1]:
                share = gaps[i] / (gaps[i] - gaps[i + 1])
                return back(lengths, i, share)
        return None

    return found


def on_linear_axis(lengths, i, share):
    """A place between two lengths on an ordinary axis."""
    return lengths[i] + share * (lengths[i + 1] - lengths[i])


def on_log_axis(lengths, i, share):
    """A place between two lengths on a logarithmic axis."""
    return lengths[i] * (lengths[i + 1] / lengths[i]) ** share


def line(x, y):
    """The slope of the least-squares line through the points (x, y)."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


EXERCISES = (
    Exercise(
        id="scaling-1",
        kind="derive",
        difficulty=2,
        minutes=10,
        section="The roof",
        question=(
            r"Adjacent blocks of $b$ tokens, $\beta$ bytes a number. What is their "
            r"intensity in operations per byte, if each tensor crosses the memory "
            r"bus once and the ends do not count (`intensity`, a function of $b$ and "
            r"$\beta$)? From which block size on do they reach the ridge of an H100 "
            r"in 16-bit numbers, 989 TFLOP/s and 3350 GB/s (`block`)?"
        ),
        parts=(
            Formula(
                reference=lambda b, beta: 3 * b / beta,
                name="intensity",
                cases=lambda seed: (
                    (b, beta) for b in (1, 16, 256) for beta in (1, 2, 4)
                ),
                mistakes=(
                    Mistake(
                        "own block only",
                        "A query meets three blocks.",
                        lambda b, beta: b / beta,
                    ),
                    Mistake(
                        "bytes forgotten",
                        "Per byte, not per number.",
                        lambda b, beta: 3 * b,
                    ),
                    Mistake(
                        "multiplied",
                        "More bytes a number make the intensity lower.",
                        lambda b, beta: 3 * b * beta,
                    ),
                    Mistake(
                        "inputs once",
                        "Four tensors cross the bus: q, k, v and the output.",
                        lambda b, beta: 4 * b / beta,
                    ),
                    Mistake(
                        "half",
                        "A multiply-add counts as two operations.",
                        lambda b, beta: 1.5 * b / beta,
                    ),
                ),
            ),
            Number(
                "block",
                197,
                {
                    196: "3 · 196 / 2 = 294 is just below the ridge of 295.2.",
                    256: "That is the next one that divides nicely; 197 reaches it.",
                    296: "A query meets three blocks.",
                    295: "That is a window's w.",
                    591: "A query meets three blocks.",
                    99: "Two bytes a number.",
                },
            ),
        ),
        worked="""
            ridge = 989e12 / 3350e9
            block = next(b for b in range(1, 1000) if 3 * b / 2 >= ridge)
            check("scaling-1", intensity=lambda b, beta: 3 * b / beta, block=block)
        """,
        because=(
            r"$4dn \cdot 3b$ operations over $4nd\beta$ bytes; the ridge is at 295.2 "
            r"operations per byte."
        ),
    ),
    Exercise(
        id="scaling-2",
        kind="derive",
        difficulty=2,
        minutes=8,
        section="The roof",
        question=(
            r"Forward and backward together cost $7/2$ times the operations of the "
            r"forward pass, and read or write twelve tensors of the size of $q$ "
            r"where forward has four. What is the arithmetic intensity of training "
            r"with a window, as a function of $w$ and $\beta$ (`intensity`)? Which "
            r"way does training move a window under the roof (`way`): (a) left; (b) "
            r"right; (c) nowhere?"
        ),
        parts=(
            Formula(
                reference=lambda w, beta: 7 / 6 * (2 * w + 1) / beta,
                name="intensity",
                cases=lambda seed: (
                    (w, beta) for w in (0, 1, 64, 512) for beta in (1, 2, 4)
                ),
                mistakes=(
                    Mistake(
                        "forward",
                        "That is the forward pass.",
                        lambda w, beta: (2 * w + 1) / beta,
                    ),
                    Mistake(
                        "bytes forgotten",
                        "The traffic grows too, threefold.",
                        lambda w, beta: 3.5 * (2 * w + 1) / beta,
                    ),
                    Mistake(
                        "upside down",
                        "Operations grow by 7/2 and bytes by 3.",
                        lambda w, beta: 6 / 7 * (2 * w + 1) / beta,
                    ),
                    Mistake(
                        "twelve",
                        "Twelve tensors where there were four: three times the "
                        "traffic.",
                        lambda w, beta: 7 / 24 * (2 * w + 1) / beta,
                    ),
                ),
            ),
            Choice(
                "way",
                (
                    wrong("left", "The intensity grows, by a sixth."),
                    right("right", ""),
                    wrong("nowhere", "7/2 is more than 3."),
                ),
            ),
        ),
        worked="""
            check(
                "scaling-2",
                intensity=lambda w, beta: 7 / 6 * (2 * w + 1) / beta,
                way="b",
            )
        """,
        because=(
            r"$\frac{7/2}{3} = \frac{7}{6}$: training is limited by arithmetic a "
            r"little earlier."
        ),
    ),
    Exercise(
        id="scaling-3",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="Where full attention is faster",
        question=(
            r"Two routines take, at lengths of 1024, 2048 and 4096, 2, 8 and 32 ms "
            r"(the first) and 5, 10 and 20 ms (the second). Write the crossing by "
            r"interpolation on logarithmic axes. From which length on is the second "
            r"faster (`length`)? What would straight lines on ordinary axes say, "
            r"rounded (`straight`)?"
        ),
        parts=(
            Function(
                crossing,
                crossing_cases,
                (
                    Mistake(
                        "ordinary axes",
                        "These are straight lines on ordinary axes; power laws "
                        "are straight on logarithmic ones.",
                        cross_with(float, on_linear_axis),
                    ),
                    Mistake(
                        "times logarithmic, lengths not",
                        "The times are logarithmic and the lengths are not.",
                        cross_with(math.log, on_linear_axis),
                    ),
                    Mistake(
                        "lengths logarithmic, times not",
                        "The lengths are logarithmic and the times are not.",
                        cross_with(float, on_log_axis),
                    ),
                    Mistake(
                        "first measured length",
                        "This is the first measured length at which it is "
                        "faster; the crossing lies before it.",
                        cross_with(math.log, lambda n, i, share: n[i + 1]),
                    ),
                    Mistake(
                        "last slower length",
                        "This is the last measured length at which it is slower; "
                        "the crossing lies behind it.",
                        cross_with(math.log, lambda n, i, share: n[i]),
                    ),
                ),
            ),
            Number(
                "length",
                2560,
                {
                    4096: (
                        "At 4096 it is faster already: between two lengths both are "
                        "power laws."
                    ),
                    2341: "That is on ordinary axes.",
                    2048: "At 2048 the first still is faster.",
                },
                within=0.5,
            ),
            Number(
                "straight", 2341, {2560: "That is on logarithmic axes."}, within=0.5
            ),
        ),
        worked="""
            share = (10 - 8) / (10 - 8 + 32 - 20)
            check(
                "scaling-3",
                crossing=crossing,
                length=crossing([1024, 2048, 4096], [2, 8, 32], [5, 10, 20]),
                straight=round(2048 + 2048 * share),
            )
        """,
        because=(
            "A parabola hangs below its chord, so that straight lines meet too early."
        ),
    ),
    Exercise(
        id="scaling-4",
        kind="diagnose",
        difficulty=2,
        minutes=10,
        section="Where the line bends",
        question=(
            r"A colleague times full attention at $n = 512, 1024, 2048, 4096$, fits "
            r"a slope below 1 and reports “practically linear”. Her routine takes "
            r"$3 + 10 \, (n / 4096)^2$ ms. Which slope does she fit, to two "
            r"decimals (`fitted`), and which one would she fit at $n = 8192, \dots, "
            r"65{,}536$ (`longer`)? What bends her line (`bends`): (a) noise; (b) "
            r"the fixed 3 ms; (c) the cache?"
        ),
        parts=(
            Number(
                "fitted",
                0.67,
                {2.0: "The fixed 3 ms bend the line.", 1.0: "Below 1, she says."},
                within=0.006,
            ),
            Number(
                "longer",
                1.97,
                {
                    2.0: "Nearly: a little of the fixed time is left.",
                    0.67: "That is at her lengths.",
                },
                within=0.006,
            ),
            Choice(
                "bends",
                (
                    wrong("noise", "The formula has none."),
                    right("the fixed 3 ms", ""),
                    wrong("the cache", "The formula has none."),
                ),
            ),
        ),
        worked="""
            from statistics import linear_regression


            def fit(lengths):
                times = [3 + 10 * (n / 4096) ** 2 for n in lengths]
                return linear_regression(
                    [math.log(n) for n in lengths], [math.log(t) for t in times]
                ).slope


            fitted, longer = (
                fit([512, 1024, 2048, 4096]),
                fit([8192, 16384, 32768, 65536]),
            )
            check("scaling-4", fitted=fitted, longer=longer, bends="b")
        """,
        because=(
            "At $n = 512$ the fixed time is nearly all of it. The routine is "
            "quadratic; her lengths are too short to see it."
        ),
    ),
    Exercise(
        id="scaling-5",
        kind="predict",
        difficulty=2,
        minutes=8,
        section="The roof",
        question=(
            r"Someone's kernel for $w = 128$ in 16-bit numbers reaches 12 % of an "
            r"H100's peak rate of 989 TFLOP/s, counted in useful operations; its "
            r"memory moves 3350 GB/s. “So it could be eight times as fast.” By how "
            r"much at most, to one decimal, if each tensor crosses the memory bus at "
            r"least once?"
        ),
        parts=(
            Number(
                "factor",
                3.6,
                {
                    8.3: (
                        "Under the sloping roof the peak cannot be reached: the "
                        "intensity is 128.5, the ridge is at 295."
                    ),
                    0.4: "That is the share of the peak; divide it by what is reached.",
                    1.8: "The window has two sides: 257 keys.",
                    7.3: "Two bytes a number.",
                },
                within=0.06,
            ),
        ),
        worked="""
            roof = min(1, (257 / 2) / (989e12 / 3350e9))
            check("scaling-5", roof / 0.12)
        """,
        because=r"At most $128.5 / 295.2 = 43.5\,\%$ of the peak can be reached.",
    ),
    Exercise(
        id="scaling-6",
        kind="implement",
        difficulty=2,
        minutes=12,
        section="Where full attention is faster",
        question=(
            r"Full attention runs at 100 GFLOP/s, the tiles ($t = 32$) at 80 GFLOP/s "
            r"of what they compute, and each call of the tiles costs 2 ms on top. "
            r"With 8 heads of width 64 and $w = 128$: at which length, to the "
            r"nearest multiple of 16, are the two equally fast (`length`)? What does "
            r"$n^* = (2w + t) R_{\text{full}} / R_{\text{tile}}$ say (`formula`)? "
            r"(Use `at.cost.computed_pairs`.)"
        ),
        parts=(
            Number(
                "length",
                496,
                {
                    256: "The 2 ms are missing.",
                    352: "The 2 ms and the ends are missing.",
                    368: "The 2 ms and the ends are missing.",
                    544: "The ends are missing.",
                    360: "That is the formula, which knows no cost per call.",
                    480: "Is it the nearest?",
                    512: "Is it the nearest?",
                },
            ),
            Number(
                "formula",
                360,
                {
                    230.4: "The rates are upside down.",
                    288: "The rates differ.",
                    200: "The window has two sides.",
                },
            ),
        ),
        worked="""
            def gap(n):
                full = at.cost.flops(at.patterns.full(), n, 64, heads=8) / 100e9
                pairs = at.cost.computed_pairs(at.patterns.local(128), n, tile=32)
                return abs(full - 2e-3 - 4 * 64 * 8 * pairs / 80e9)


            length = min(range(256, 2048, 16), key=gap)
            check("scaling-6", length=length, formula=(2 * 128 + 32) * 100 / 80)
        """,
        because=(
            "The 2 ms move the crossing up by half, to 541; the ends bring it down to "
            "496."
        ),
    ),
    Exercise(
        id="scaling-7",
        kind="implement",
        difficulty=1,
        minutes=8,
        section="Time against length",
        question=r"Write the slope that log-log plots are fitted with.",
        parts=(
            Function(
                slope,
                slope_cases,
                (
                    Mistake(
                        "lengths not logarithmic",
                        "Only the times are logarithmic: that is a growth rate, "
                        "not a power.",
                        lambda n, t: line(n, [math.log(x) for x in t]),
                    ),
                    Mistake(
                        "times not logarithmic",
                        "Only the lengths are logarithmic.",
                        lambda n, t: line([math.log(x) for x in n], t),
                    ),
                    Mistake(
                        "ordinary axes",
                        "Neither axis is logarithmic.",
                        lambda n, t: line(n, t),
                    ),
                    Mistake(
                        "ends only",
                        "This is the slope between the first and the last point; "
                        "a fit uses them all.",
                        lambda n, t: math.log(t[-1] / t[0]) / math.log(n[-1] / n[0]),
                    ),
                    Mistake(
                        "axes swapped",
                        "The axes have changed places: time against length.",
                        lambda n, t: line(
                            [math.log(x) for x in t], [math.log(x) for x in n]
                        ),
                    ),
                    Mistake(
                        "through the origin",
                        "The line need not go through the origin: take the means off.",
                        lambda n, t: (
                            sum(
                                math.log(a) * math.log(b)
                                for a, b in zip(n, t, strict=True)
                            )
                            / sum(math.log(a) ** 2 for a in n)
                        ),
                    ),
                ),
            ),
        ),
        because=(
            "Least squares on both logarithms: a power law is a straight line there, "
            "and its slope is the exponent."
        ),
    ),
    Exercise(
        id="scaling-8",
        kind="implement",
        difficulty=1,
        minutes=5,
        section="The roof",
        question=r"Write the roofline's bound on the time.",
        parts=(
            Function(
                least_seconds,
                roof_cases,
                (
                    Mistake(
                        "sum",
                        "The two can run at the same time: the longer one decides.",
                        lambda f, m, p, b: f / p + m / b,
                    ),
                    Mistake(
                        "smaller",
                        "The *longer* of the two decides.",
                        lambda f, m, p, b: min(f / p, m / b),
                    ),
                    Mistake(
                        "arithmetic only",
                        "The bytes have to be moved as well.",
                        lambda f, m, p, b: f / p,
                    ),
                    Mistake(
                        "traffic only",
                        "The operations have to be done as well.",
                        lambda f, m, p, b: m / b,
                    ),
                    Mistake(
                        "rates multiplied",
                        "Divide by a rate to get a time.",
                        lambda f, m, p, b: max(f * p, m * b),
                    ),
                    Mistake(
                        "rates swapped",
                        "The rates have changed places.",
                        lambda f, m, p, b: max(f / b, m / p),
                    ),
                ),
            ),
        ),
        because=(
            r"Time is at least $\max(\text{work}/R, "
            r"\text{traffic}/R_{\text{mem}})$: arithmetic and traffic can overlap."
        ),
    ),
)


QUIZ = (
    Question(
        "On log-log axes a routine's times lie on a line of slope 2. What is "
        "doubled with the length?",
        (
            wrong("The time.", "That is slope 1."),
            right(
                "The time, twice: four times as long.",
                "A slope of 2 means the square: $2^2 = 4$.",
            ),
            wrong("The slope.", "It is the same everywhere on the line."),
        ),
    ),
    Question(
        "Why fit the slope at long lengths?",
        (
            right(
                "At short ones fixed costs bend the line.",
                "A quadratic routine with a fixed cost looks nearly flat there.",
            ),
            wrong(
                "Long runs have less noise.",
                "The bias of short lengths does not go away by repeating.",
            ),
            wrong(
                "Memory is faster there.",
                "Rather slower, once the caches are too small.",
            ),
        ),
    ),
    Question(
        "A window's tiles overtake full attention at about $(2w + t)\\, "
        "R_{\\text{full}}/R_{\\text{tile}}$. What moves it up?",
        (
            wrong("A longer text.", "It is a length itself."),
            right(
                "A full routine that runs at a higher rate.",
                "A machine with strong matrix units helps the large products more.",
            ),
            wrong("A smaller window.", "That moves it down."),
        ),
    ),
    Question(
        "A kernel reaches 10 % of the peak and 40 % of its roof. What is left to "
        "gain, at most?",
        (
            wrong(
                "A factor of 10.",
                "The peak is out of reach: its bytes take time as well.",
            ),
            right(
                "A factor of 2.5.",
                "$1/0.4$: the roof is what the least traffic allows.",
            ),
            wrong(
                "Nothing, since it is limited by memory.",
                "Limited by memory it would be *at* its roof.",
            ),
        ),
    ),
    Question(
        "For which window does a sliding window gain nothing in time, at any "
        "measured length?",
        (
            right(
                "One that is not small against the length, such as $w = n/2$.",
                "Full attention in one fused call was as fast or faster there.",
            ),
            wrong(
                "A very narrow one, such as $w = 16$.",
                "It gains, from a length on; only its intensity is low.",
            ),
            wrong(
                "None: fewer pairs are always faster.",
                "Fewer pairs are fewer operations. Time asks for more.",
            ),
        ),
    ),
)
