"""A rolling cache: the slots of a ring, and which token each of them holds."""

from __future__ import annotations

import math

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    arrow,
    box,
    circle,
    finish,
    ink_on,
    line,
    paragraph,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS, KEPT, WASTED
from attn_tutorial.pictures.svg import FONT, Frame, num

__all__ = ["rolling_cache"]

MIDDLE, RING = (180.0, 192.0), 84.0
SHOWN = 13  # tokens of the text, the next one among them


def rolling_cache(slots: int = 4, tokens: int = 7) -> Frame:
    """Draw a ring of slots after some tokens, and where the next one goes.

    Token j lies in slot j mod W of W slots. The next one overwrites the oldest, which a
    causal window of W keys, the query's own among them, never meets again.

    Args:
        slots: W, 2 to 12.
        tokens: Tokens read so far, 0 to 99.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for it.

    Example:
        >>> rolling_cache().alt.split(". ")[0]
        'After 7 tokens the 4 slots hold the tokens 4, 5, 6, 3'
    """
    slots = check_between("slots", slots, 2, 12)
    tokens = check_between("tokens", tokens, 0, 99)
    held = _held(slots, tokens)
    here = tokens % slots
    over = f"over token {held[here]}, which no query meets any more"
    goes = over if held[here] is not None else "which is still empty"
    said = f"Token {tokens} goes into slot {tokens} mod {slots} = {here}, {goes}."
    note, more = paragraph(14, 326, said, PAGE - 28)
    parts = [_draw_text(slots, tokens), _draw_ring(held, tokens), note]
    listed = ", ".join("nothing" if p is None else str(p) for p in held)
    alt = f"After {tokens} tokens the {slots} slots hold the tokens {listed}. {said}"
    title = "A new key takes the place of the oldest"
    return finish(title, "".join(parts), 326 + more + 4, alt)


def _held(slots: int, tokens: int) -> list[int | None]:
    """Token in each slot: the last one whose position fits, if there was one."""
    last = (tokens - 1 - (tokens - 1 - r) % slots for r in range(slots))
    return [p if 0 <= p < tokens else None for p in last]


def _draw_text(slots: int, tokens: int) -> str:
    """Draw the text so far: forgotten, oldest, kept, and the next token."""
    first = max(0, tokens + 1 - SHOWN)
    size = 26.0
    left = (PAGE - size * (tokens + 1 - first)) / 2
    parts = []
    for k, token in enumerate(range(first, tokens + 1)):
        fill, edge, dash = _look(token, slots, tokens)
        x = left + size * k + 1
        parts.append(box(x, 6, size - 2, 25, fill, edge=edge, dash=dash))
        ink = ink_on(fill[0]) if fill[1] == 1 else INK
        parts.append(word(x + size / 2 - 1, 23, str(token), ink=ink))
    words = f"kept: {min(slots, tokens)}, forgotten: {max(0, tokens - slots)}, next: "
    parts.append(word(PAGE / 2, 50, f"{words}token {tokens}"))
    return "".join(parts)


def _look(token: int, slots: int, tokens: int) -> tuple:
    """Fill, edge and dash of a token."""
    if token == tokens:
        return (INK, 0.0), (INK, 0.9), "3 2"
    if token == tokens - slots:
        return (WASTED, 1.0), (WASTED, 1.0), ""
    if token < tokens - slots:
        return (INK, 0.09), (INK, 0.3), ""
    return (KEPT, 1.0), (KEPT, 1.0), ""


def _draw_ring(held: list[int | None], tokens: int) -> str:
    slots, (x0, y0) = len(held), MIDDLE
    radius = min(23.0, math.pi * RING / slots - 2)
    here = tokens % slots
    parts = [_draw_arcs(slots, radius)]
    for k, token in enumerate(held):
        x, y = _place(k, slots, RING)
        parts.append(_slot(x, y, radius, token, slots, tokens))
        x, y = _place(k, slots, RING + radius + 8)
        turned = math.sin(2 * math.pi * k / slots)
        anchor = "start" if turned > 0.1 else "end" if turned < -0.1 else "middle"
        lift = -2 if y < y0 - 90 else 10 if y > y0 + 90 else 4.5
        parts.append(word(x, y + lift, f"slot {k}" if slots < 9 else str(k), anchor))
    start, end = _place(here, slots, 30), _place(here, slots, RING - radius - 4)
    parts.append(arrow(start, end, COLORS["vermillion"], width=2.2))
    parts.append(word(x0, y0 - 4, "next", bold=True))
    parts.append(word(x0, y0 + 14, str(tokens), size=FONT, bold=True))
    return "".join(parts)


def _draw_arcs(slots: int, radius: float) -> str:
    """Draw the ring where no slot lies on it."""
    covered = 2 * math.asin((radius + 1) / (2 * RING)) * slots / (2 * math.pi)
    size, path = f"A{num(RING)} {num(RING)} 0 0 1", ""
    for k in range(slots):
        a, b = _place(k + covered, slots, RING)
        c, d = _place(k + 1 - covered, slots, RING)
        path += f"M{num(a)} {num(b)}{size} {num(c)} {num(d)}"
    return line(path, width=1.4, faint=0.35)


def _place(k: float, slots: int, distance: float) -> tuple[float, float]:
    turn = 2 * math.pi * k / slots
    return MIDDLE[0] + distance * math.sin(turn), MIDDLE[1] - distance * math.cos(turn)


def _slot(
    x: float, y: float, radius: float, token: int | None, slots: int, tokens: int
) -> str:
    """Draw a slot with its token; an empty one is dashed."""
    if token is None:
        return circle(x, y, radius, (INK, 0.0), (INK, 0.6), "3 2")
    fill, edge, _ = _look(token, slots, tokens)
    drawn = circle(x, y, radius, fill, edge)
    return drawn + word(x, y + 5, str(token), size=FONT, bold=True, ink=ink_on(fill[0]))
