"""Attention by hand, its heads, and the block that it stands in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    arrow,
    box,
    cells,
    circle,
    finish,
    ink_on,
    line,
    matrix,
    rounded,
    word,
)
from attn_tutorial.pictures.inputs import check_between, numbers
from attn_tutorial.pictures.style import COLORS, CYCLE
from attn_tutorial.pictures.svg import FONT, Frame, num

__all__ = ["attention_heads", "attention_steps", "transformer_block"]

Matrix = list[list[float]]
WIDE, ROW = 36.0, 22.0  # size of a cell
CELL = (WIDE, ROW)
QUERY, KEY, VALUE = (COLORS[c] for c in ("vermillion", "blue", "green"))
OUTPUT = COLORS["purple"]


class _Steps(NamedTuple):
    """Attention of a few tokens, with all that lies between."""

    x: Matrix
    w: tuple[Matrix, Matrix, Matrix]
    qkv: tuple[Matrix, Matrix, Matrix]
    scores: Matrix
    weights: Matrix
    output: Matrix


def attention_steps(
    x: Any = ((1, 0), (0, 1), (1, 1)),
    w_q: Any = ((2, 0), (0, 1)),
    w_k: Any = ((1, 1), (0, 1)),
    w_v: Any = ((1, 0), (2, 1)),
    *,
    names: Sequence[str] = ("the", "cat", "sat"),
    query: int = 2,
) -> Frame:
    """Carry a few tokens through one head: X, then Q, K, V, scores, weights, output.

    softmax(Q K^T / sqrt(d)) V with every number on the page, computed from the matrices
    given and rounded to two decimals. One query is stressed, its average written out.

    Args:
        x: Features, shape (n, d_in), n 2 or 3 and d_in from 1 to 3; small numbers,
            since a cell holds five characters.
        w_q: Matrix of the queries, shape (d_in, d), d from 1 to 3.
        w_k: Matrix of the keys, shape (d_in, d).
        w_v: Matrix of the values, shape (d_in, d_v), d_v from 1 to 3.
        names: The tokens, n of them, of at most 6 characters.
        query: The stressed query.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If shapes do not fit each other or the page.

    Example:
        >>> attention_steps().alt.split("weights ")[1]
        '0.31, 0.07, 0.62, and its average (2.31, 0.69).'
    """
    given = numbers(x=x), (numbers(w_q=w_q), numbers(w_k=w_k), numbers(w_v=w_v))
    names = [str(name) for name in names]
    _check_shapes(*given, names)
    query = check_between("query", query, 0, len(names) - 1)
    steps = _attend(*given)
    body, height = _draw_steps(steps, names, query)
    title = "One head, number by number"
    return finish(title, body, height, _say_steps(steps, names, query))


def _check_shapes(x: Matrix, w: Sequence[Matrix], names: list[str]) -> None:
    n, width = len(x), len(x[0])
    check_between("rows of x", n, 2, 3)
    check_between("columns of x", width, 1, 3)
    if len(names) != n:
        raise ValueError(f"names must be {n}, one a row of x, got {names}")
    if max(map(len, names)) > 6:
        raise ValueError(f"names have at most 6 characters, got {names}")
    for name, part in zip(("w_q", "w_k", "w_v"), w, strict=True):
        check_between(f"columns of {name}", len(part[0]), 1, 3)
        if len(part) != width:
            raise ValueError(f"{name} must have {width} rows, as many as x has columns")
    if len(w[0][0]) != len(w[1][0]):
        raise ValueError("w_q and w_k must have as many columns as each other")


def _product(a: Matrix, b: Matrix) -> Matrix:
    columns = list(zip(*b, strict=True))
    return [
        [math.fsum(p * q for p, q in zip(row, c, strict=True)) for c in columns]
        for row in a
    ]


def _softmax(row: list[float]) -> list[float]:
    powers = [math.exp(s - max(row)) for s in row]
    return [p / math.fsum(powers) for p in powers]


def _attend(x: Matrix, w: tuple[Matrix, ...]) -> _Steps:
    q, k, v = (_product(x, part) for part in w)
    root = math.sqrt(len(q[0]))
    flipped = [list(column) for column in zip(*k, strict=True)]
    scores = [[s / root for s in row] for row in _product(q, flipped)]
    weights = [_softmax(row) for row in scores]
    return _Steps(x, w, (q, k, v), scores, weights, _product(weights, v))


def _texts(rows: Matrix, fixed: bool = False) -> list[list[str]]:
    return [[rounded(value, fixed=fixed) for value in row] for row in rows]


def _vector(row: list[float]) -> str:
    return f"({', '.join(map(rounded, row))})"


def _draw_steps(steps: _Steps, names: list[str], query: int) -> tuple[str, float]:
    """Draw the three storeys one below the other."""
    top, y = _draw_inputs(steps, names, query)
    middle, low = _draw_scores(steps, names, query, y)
    bottom, end = _draw_output(steps, names, query, low)
    values = y - 26 - ROW * len(names) / 2  # of V, whose row passes by the scores
    right = 300 + WIDE * len(steps.qkv[2][0]) / 2
    x, y = 358.0, low + 48 + ROW / 2
    bend = f"M{num(right + 1)} {num(values)}H{num(x)}V{num(y)}"
    into = arrow((x, y), (_output_left(steps) + _wide(steps) + 3, y), VALUE)
    return top + middle + bottom + line(bend, VALUE) + into, end


def _wide(steps: _Steps) -> float:
    return 46.0 * len(steps.output[0])


def _output_left(steps: _Steps) -> float:
    return 271 - _wide(steps) / 2


def _rows_named(names: list[str], x: float, y: float, query: int) -> str:
    return "".join(
        word(x, y + ROW * (i + 0.5) + 4.5, name, "end", bold=i == query)
        for i, name in enumerate(names)
    )


def _draw_inputs(steps: _Steps, names: list[str], query: int) -> tuple[str, float]:
    """Draw X, the three matrices and Q, K, V; return where they end."""
    n, rows = len(names), len(steps.x[0])
    left = 180 - WIDE * rows / 2
    low = 20 + ROW * n
    parts = [
        word(180, 14, "X", size=FONT, bold=True),
        matrix(left, 20, _texts(steps.x), CELL, stressed=query),
        _rows_named(names, left - 8, 20, query),
    ]
    for k, (letter, ink) in enumerate(zip("QKV", (QUERY, KEY, VALUE), strict=True)):
        x, y = 60 + 120.0 * k, low + 48
        size = WIDE * len(steps.w[k][0]) / 2
        made = y + ROW * rows + 30
        look = {"ink": ink, "stressed": None if k else query}
        parts += [
            arrow((180 + 24 * (k - 1), low + 3), (x, low + 23), ink),
            _power(x, y - 7, "× W", letter),
            matrix(x - size, y, _texts(steps.w[k]), CELL),
            word(x, made - 7, letter, size=FONT, bold=True),
            matrix(x - size, made, _texts(steps.qkv[k]), CELL, **look),
        ]
    return "".join(parts), low + 48 + ROW * (rows + n) + 30 + 26


def _power(x: float, y: float, text: str, raised: str) -> str:
    """Write a text with a letter raised behind it."""
    return (
        f'<text x="{num(x)}" y="{num(y)}" text-anchor="middle" font-size="14">{text}'
        f'<tspan dy="-5" dx="1" font-size="13">{raised}</tspan></text>'
    )


def _draw_scores(
    steps: _Steps, names: list[str], query: int, y: float
) -> tuple[str, float]:
    """Draw scores and weights side by side; return where they end."""
    n, size = len(names), 129.0 / len(names)
    top, d = y + 40, len(steps.qkv[0][0])
    parts = [
        arrow((60, y - 22), (88, y + 2), QUERY),
        arrow((180, y - 22), (138, y + 2), KEY),
        word(112, y + 17, f"scores = Q Kᵀ / √{d}"),
        word(271, y + 17, "softmax, row by row"),
        _rows_named(names, 42, top, query),
        arrow((181, top + ROW * n / 2), (203, top + ROW * n / 2)),
    ]
    for x, rows, ink in ((48, steps.scores, INK), (206, steps.weights, OUTPUT)):
        drawn = matrix(x, top, _texts(rows, True), (size, ROW), ink=ink, stressed=query)
        parts.append(drawn)
        for j, name in enumerate(names):
            parts.append(word(x + size * (j + 0.5), top - 5, name))
    return "".join(parts), top + ROW * n


def _draw_output(
    steps: _Steps, names: list[str], query: int, low: float
) -> tuple[str, float]:
    """Draw the averages, and write out that of the stressed query."""
    left, y = _output_left(steps), low + 48
    parts = [
        arrow((271, low + 3), (271, low + 26)),
        word(271, low + 41, "weights · V"),
        matrix(
            left, y, _texts(steps.output, True), (46, ROW), ink=OUTPUT, stressed=query
        ),
    ]
    sums = [
        f"{'+ ' if j else ''}{rounded(p, fixed=True)} · {_vector(v)}"
        for j, (p, v) in enumerate(zip(steps.weights[query], steps.qkv[2], strict=True))
    ]
    written = [*sums, f"= {_vector(steps.output[query])}"]
    edge = 165 if len(steps.output[0]) < 3 else 194
    parts.append(word(edge, low + 22, f"{names[query]} gets", "end", bold=True))
    parts += [
        word(edge, low + 41 + 19 * k, text, "end", bold=k == len(sums))
        for k, text in enumerate(written)
    ]
    end = max(y + ROW * len(names), low + 41 + 19 * len(sums))
    return "".join(parts), end + 10


def _say_steps(steps: _Steps, names: list[str], query: int) -> str:
    scores, weights = (
        ", ".join(rounded(value, fixed=True) for value in rows[query])
        for rows in (steps.scores, steps.weights)
    )
    own = _vector(steps.qkv[0][query])
    return (
        f"The {len(names)} rows of X are multiplied by three matrices into queries, "
        f"keys and values. The query of {names[query]!r}, {own}, has the scores "
        f"{scores}, the weights {weights}, and its average "
        f"{_vector(steps.output[query])}."
    )


def attention_heads(heads: int = 4, d_model: int = 512, *, n: int = 6) -> Frame:
    """Draw how heads share a token's numbers, and put their answers side by side.

    The weights of the heads are sketches of what trained heads are known to do (look
    at the token before, at themselves, at the first token, everywhere), not measured.

    Args:
        heads: Number of heads h, 1 to 6.
        d_model: Width of a token's vector, which h divides.
        n: Tokens in the sketched weights, 2 to 8.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If h does not divide d_model, or there is no room.

    Example:
        >>> attention_heads(2, 64).alt.split(".")[0]
        'A token of 64 numbers is turned into 2 heads of 32'
    """
    heads = check_between("heads", heads, 1, 6)
    d_model = check_between("d_model", d_model, heads, 10**6)
    n = check_between("n", n, 2, 8)
    if d_model % heads:
        raise ValueError(f"heads must divide d_model={d_model}, got {heads}")
    alt = (
        f"A token of {d_model} numbers is turned into {heads} heads of "
        f"{d_model // heads}. Each head has weights of its own, n × n; their outputs "
        f"stand side by side and one matrix mixes them into {d_model} numbers again."
    )
    body, height = _draw_heads(heads, d_model, n)
    return finish("Every head looks at the text in its own way", body, height, alt)


def _draw_heads(heads: int, d_model: int, n: int) -> tuple[str, float]:
    left, full, width = 12.0, PAGE - 24, (PAGE - 24) / heads
    each = d_model // heads
    side = min(width - 14, 84.0)
    size = math.floor(10 * side / n) / 10
    grid = 126.0
    low = grid + size * n
    parts = [
        box(left, 4, full, 26, (INK, 0.09)),
        word(180, 21.5, f"one token: {d_model} numbers"),
        arrow((180, 33), (180, 54)),
        word(194, 48, "into Q, K and V", "start"),
        word(180, low + 20, "each head averages its own values"),
        arrow((180, low + 71), (180, low + 92)),
        word(194, low + 86, "one more matrix", "start"),
        box(left, low + 96, full, 26, (INK, 0.09)),
        word(180, low + 113.5, f"{d_model} numbers, of all heads mixed"),
    ]
    for k in range(heads):
        ink, middle = CYCLE[k], left + width * (k + 0.5)
        states = [[_glance(k, i, j) for j in range(n)] for i in range(n)]
        inks = [(INK, 0.1), (ink, 0.4), (ink, 1.0)]
        parts += [
            _segment(left + k * width, 58, width, ink, f"{each}"),
            arrow((middle, 87), (middle, grid - 22), ink),
            word(middle, grid - 7, f"head {k}" if heads < 6 else str(k)),
            cells(states, middle - size * n / 2, grid, size, inks),
            _segment(left + k * width, low + 42, width, ink, f"{each}"),
        ]
    return "".join(parts), low + 128


def _segment(x: float, y: float, width: float, ink: str, text: str) -> str:
    drawn = box(x + 1, y, width - 2, 26, (ink, 1.0), edge=(ink, 1.0))
    return drawn + word(x + width / 2, y + 17.5, text, bold=True, ink=ink_on(ink))


def _glance(head: int, i: int, j: int) -> int:
    """Strength, 0 to 2, with which a sketched head looks from token i at token j."""
    before, itself, first = j == max(i - 1, 0), i == j, j == 0
    strong, weak = [
        (before, itself),
        (itself, abs(i - j) == 1),
        (first, itself),
        (False, True),
    ][head % 4]
    return 2 if strong else int(weak)


def transformer_block(
    d_model: int = 512, heads: int = 8, *, expansion: int = 4, layers: int = 6
) -> Frame:
    """Draw one pre-norm block: a stream of tokens, to which two branches add.

    Args:
        d_model: Width of a token's vector, which the number of heads divides.
        heads: Number of heads.
        expansion: The MLP widens d_model by this factor.
        layers: How many such blocks follow each other.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If heads do not divide d_model, or a number is too small.

    Example:
        >>> transformer_block(64, 4).alt.split(".")[0]
        'A stream of tokens, 64 numbers each, passes 6 blocks'
    """
    heads = check_between("heads", heads, 1, 1024)
    d_model = check_between("d_model", d_model, heads, 10**6)
    wide = d_model * check_between("expansion", expansion, 1, 64)
    layers = check_between("layers", layers, 1, 1000)
    if d_model % heads:
        raise ValueError(f"heads must divide d_model={d_model}, got {heads}")
    many = f"{layers} block{'s' * (layers != 1)}"
    mixed = f"{heads} head{'s' * (heads != 1)} of {d_model // heads}"
    alt = (
        f"A stream of tokens, {d_model} numbers each, passes {many}. In a block two "
        f"branches read it after a norm and add to it: attention with {mixed}, where "
        f"tokens hear each other, and an MLP, {d_model} to {wide} to {d_model}, which "
        "sees each token alone."
    )
    following = f"the same again: {many} in all" if layers > 1 else "to the read-out"
    mlp = f"MLP: {d_model} → {wide} → {d_model}"
    body = "".join(
        [
            _draw_stream(f"n tokens of {d_model} numbers", following),
            _draw_branch(60, f"Attention: {mixed}", "tokens hear each other", KEY),
            _draw_branch(208, mlp, "each token by itself", VALUE),
        ]
    )
    return finish("Two branches add to one stream", body, 400, alt)


STREAM = 52.0  # where the stream runs


def _draw_stream(text: str, following: str) -> str:
    parts = [
        word(STREAM - 18, 15, text, "start"),
        box(8, 38, PAGE - 16, 326, edge=(INK, 0.4), dash="5 4"),
        line(f"M{num(STREAM)} 22V360", width=3),
        arrow((STREAM, 358), (STREAM, 382), width=3, head=10),
        word(STREAM - 18, 205, "residual stream", turned=True),
        word(STREAM + 14, 386, following, "start"),
    ]
    return "".join(parts)


def _draw_branch(y: float, name: str, note: str, ink: str) -> str:
    """Draw one branch: out of the stream, norm, work, and back into it by a sum."""
    left, right = 100.0, PAGE - 22
    middle, low = (left + right) / 2, y + 126
    turn = f"M{num(STREAM)} {num(y)}H{num(middle)}"
    back = f"M{num(middle)} {num(y + 108)}V{num(low)}"
    return "".join(
        [
            line(turn),
            arrow((middle, y), (middle, y + 15)),
            box(left, y + 16, right - left, 26, (INK, 0.06)),
            word(middle, y + 33.5, "norm"),
            arrow((middle, y + 42), (middle, y + 57)),
            box(left, y + 58, right - left, 50, (ink, 0.18), edge=(ink, 0.9)),
            word(middle, y + 79, name, size=FONT, bold=True),
            word(middle, y + 98, note),
            line(back),
            arrow((middle, low), (STREAM + 12, low)),
            _plus(STREAM, low),
        ]
    )


def _plus(x: float, y: float) -> str:
    """Draw a sum on a disc that covers the stream."""
    ink = COLORS["orange"]
    sign = f"M{num(x - 5.5)} {num(y)}h11M{num(x)} {num(y - 5.5)}v11"
    disc = circle(x, y, 10.5, (ink, 1.0), (ink, 1.0))
    return disc + line(sign, COLORS["black"], width=2)
