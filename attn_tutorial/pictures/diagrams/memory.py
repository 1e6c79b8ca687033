"""What is moved between two memories, and what a layer is made of, drawn to scale."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    box,
    finish,
    ink_on,
    legend,
    quantity,
    rounded,
    width_of,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS
from attn_tutorial.pictures.svg import FONT, Frame

__all__ = ["layer_shares", "two_memories"]

Costs = Mapping[str, Mapping[str, float]]
PARTS = [COLORS[c] for c in ("blue", "sky", "green", "purple")]
PIPES = [COLORS[c] for c in ("blue", "orange", "green")]
SIDE, INNER = 66.0, PAGE - 2 * 74  # width of a memory, and between the two


def _check(
    name: str, costs: Costs, many: str, rows: int, parts: int
) -> dict[str, dict[str, float]]:
    """Return names and numbers, at least one of them positive in each row."""
    check_between(f"number of {many}", len(costs), 1, rows)
    given = {str(row): dict(costs[row]) for row in costs}
    for row, numbers in given.items():
        check_between(f"number of parts of {row!r}", len(numbers), 1, parts)
        for part, value in numbers.items():
            if not math.isfinite(value) or value < 0:
                raise ValueError(
                    f"{name} must be finite and at least 0, got {part!r}: {value}"
                )
        if not sum(numbers.values()):
            raise ValueError(f"{name} of {row!r} must not all be 0")
    return given


def two_memories(
    traffic: Costs, *, title: str = "What passes between two memories"
) -> Frame:
    """Draw a slow and a fast memory, and what each program moves between them.

    Each pipe is as thick as its bytes are many, so that programs can be compared.

    Args:
        traffic: Program -> part -> bytes read and written, such as sums of
            ``cost.io_bytes``, ``cost.score_bytes`` and ``cost.tile_bytes``; at most
            four programs of at most three parts, with names of at most 16 characters.
        title: The finding.

    Returns:
        An SVG frame.

    Raises:
        ValueError: If there is no number, too many of them, or one is negative.

    Example:
        >>> two_memories({"plain": {"inputs": 1000, "scores": 8000}}).alt
        'Bytes between slow and fast memory. plain: inputs 1.00 kB, scores 8.00 kB.'
    """
    given = _check("traffic", traffic, "programs", rows=4, parts=3)
    for names in (given, *given.values()):
        for name in names:
            if len(name) > 16:
                raise ValueError(f"names have at most 16 characters, got {name!r}")
    order = list(dict.fromkeys(part for row in given.values() for part in row))
    most = max(max(row.values()) for row in given.values())
    parts, y = [], 6.0
    for name, row in given.items():
        drawn, y = _program(name, row, order, most, y)
        parts.append(drawn)
    low = max(y, 96.0)
    for x, kind, note in ((8.0, "slow", "large"), (PAGE - 74, "fast", "small")):
        parts.append(_memory(x, kind, note, low - 4))
    alt = "Bytes between slow and fast memory. " + " ".join(
        f"{name}: {_listed(row, 'B')}." for name, row in given.items()
    )
    return finish(title, "".join(parts), low + 4, alt)


def _listed(row: Mapping[str, float], unit: str) -> str:
    return ", ".join(f"{part} {quantity(value, unit)}" for part, value in row.items())


def _memory(x: float, kind: str, note: str, height: float) -> str:
    middle = x + SIDE / 2
    fill = (INK, 0.06) if kind == "slow" else (INK, 0.16)
    return "".join(
        [
            box(x, 4, SIDE, height, fill),
            word(middle, 28, kind, size=FONT, bold=True),
            word(middle, 46, "memory"),
            word(middle, 64, f"({note})"),
        ]
    )


def _program(
    name: str, row: Mapping[str, float], order: list[str], most: float, y: float
) -> tuple[str, float]:
    """Draw one program's pipes below its name; return where they end."""
    middle, left = PAGE / 2, 74.0
    total = quantity(sum(row.values()), "B")
    parts = [word(middle, y + 15, f"{name}: {total}", size=FONT, bold=True)]
    y += 22
    for part, value in row.items():
        thick = max(44 * value / most, 1.5)
        many = f": {quantity(value, 'B')}" if len(row) > 1 else ""
        ink = PIPES[order.index(part) % len(PIPES)]
        parts.append(word(middle, y + 12, f"{part}{many}"))
        parts.append(box(left, y + 18, INNER, thick, (ink, 1.0), edge=(ink, 1.0)))
        y += 18 + thick + 6
    return "".join(parts), y + 14


def layer_shares(
    costs: Costs, *, unit: str = "FLOP", title: str = "Where a layer's FLOPs go"
) -> Frame:
    """Draw what share of a layer each part has, one bar for each case.

    Args:
        costs: Case -> part -> amount, such as
            ``cost.layer_flops(...)._asdict()`` for some lengths; at most eight cases
            of the same parts, at most four.
        unit: What the amounts are counted in.
        title: The finding.

    Returns:
        An SVG frame. A share is written where its bar has room for it.

    Raises:
        ValueError: If there is no number, too many of them, one is negative, or cases
            have different parts.

    Example:
        >>> layer_shares({"n = 8": {"attention": 1, "rest": 3}}).alt
        "Where a layer's FLOPs go. n = 8: attention 25 %, rest 75 % of 4 FLOP."
    """
    given = _check("costs", costs, "cases", rows=8, parts=4)
    names = list(next(iter(given.values())))
    if any(list(row) != names for row in given.values()):
        raise ValueError(f"costs must have the same parts in each case, got {given}")
    parts = [
        _bar(name, row, unit, 58.0 * k) for k, (name, row) in enumerate(given.items())
    ]
    entries = [((PARTS[k], 1.0), name) for k, name in enumerate(names)]
    key, height = legend(entries, 58.0 * len(given))
    said = (
        f"{name}: {', '.join(_shared(row))} of {quantity(sum(row.values()), unit)}."
        for name, row in given.items()
    )
    alt = f"{title}. {' '.join(said)}"
    return finish(title, "".join(parts) + key, 58.0 * len(given) + height + 4, alt)


def _shared(row: Mapping[str, float]) -> list[str]:
    whole = sum(row.values())
    return [f"{part} {rounded(100 * x / whole, 0)} %" for part, x in row.items()]


def _bar(name: str, row: Mapping[str, float], unit: str, y: float) -> str:
    whole, full = sum(row.values()), PAGE - 24
    parts = [
        word(12, y + 15, name, "start", size=FONT, bold=True),
        word(PAGE - 12, y + 15, quantity(whole, unit), "end"),
    ]
    x = 12.0
    for k, value in enumerate(row.values()):
        wide = full * value / whole
        percent = f"{rounded(100 * value / whole, 0)} %"
        parts.append(box(x, y + 21, wide, 28, (PARTS[k], 1.0), edge=(PARTS[k], 1.0)))
        if wide > width_of(percent) * 1.1 + 8:
            ink = ink_on(PARTS[k])
            parts.append(word(x + wide / 2, y + 39.5, percent, bold=True, ink=ink))
        x += wide
    return "".join(parts)
