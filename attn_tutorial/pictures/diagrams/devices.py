"""The halo: what devices that share a text send each other for a window."""

from __future__ import annotations

from collections.abc import Sequence

from attn_tutorial.pictures.diagrams.sketch import (
    PAGE,
    arrow,
    box,
    finish,
    paragraph,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import CYCLE
from attn_tutorial.pictures.svg import Frame

__all__ = ["halo_exchange"]

MARGIN, GAP, STOREY = 10.0, 10.0, 52.0


class _Text:
    """Where the tokens of a text that is cut into shards stand on the page."""

    def __init__(self, shards: Sequence[int]):
        self.shards = list(shards)
        n = sum(shards)
        self.pitch = (PAGE - 2 * MARGIN - GAP * (len(shards) - 1)) / n
        self.side = min(self.pitch - 2, 18.0)
        self.owner = [r for r, length in enumerate(shards) for _ in range(length)]

    def own(self, rank: int) -> range:
        start = sum(self.shards[:rank])
        return range(start, start + self.shards[rank])

    def middle(self, token: int) -> float:
        return MARGIN + self.pitch * (token + 0.5) + GAP * self.owner[token]

    def token(self, token: int, y: float, *, copied: bool = False) -> str:
        ink, x = CYCLE[self.owner[token]], self.middle(token) - self.side / 2
        fill, dash = (ink, 0.25 if copied else 1.0), "3 2" if copied else ""
        return box(x, y, self.side, self.side, fill, edge=(ink, 1.0), dash=dash)


def halo_exchange(shards: Sequence[int] = (6, 6, 6), *, window: int = 2) -> Frame:
    """Draw a text that is cut into shards, and the tokens that travel for a window.

    Args:
        shards: Tokens of each device, two to four devices, at most 24 tokens.
        window: w, keys to each side of a query, at most the shortest shard: then a
            halo comes from neighbours alone.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for it.

    Example:
        >>> halo_exchange().alt.split(": ")[1]
        '8 tokens in all.'
    """
    check_between("number of shards", len(shards), 2, 4)
    shards = [check_between("shards", length, 1, 12) for length in shards]
    check_between("tokens of all shards", sum(shards), 2, 24)
    window = check_between("window", window, 1, min(shards))
    text, last = _Text(shards), len(shards) - 1
    travel = 2 * window * last
    said = (
        f"Solid: a device's own tokens. Dashed: copies of its neighbours' keys and "
        f"values. {travel} tokens travel, {window} each way over each border, however "
        f"long the text is."
    )
    low = 44 + STOREY * (last + 1)
    note, more = paragraph(MARGIN, low, said, PAGE - 2 * MARGIN)
    drawn = _whole(text) + "".join(_device(text, r, window) for r in range(last + 1))
    alt = (
        f"A text of {sum(shards)} tokens on {last + 1} devices. For a window of "
        f"{window}, devices beside each other send each other the {window} tokens at "
        f"their border: {travel} tokens in all."
    )
    title = "Only the rim of a shard travels"
    return finish(title, drawn + note, low + more + 4, alt)


def _whole(text: _Text) -> str:
    said = f"the text, cut into {len(text.shards)} shards"
    tokens = "".join(text.token(token, 22) for token in range(len(text.owner)))
    return word(MARGIN, 15, said, "start") + tokens


def _level(rank: int) -> float:
    return 22 + STOREY * (rank + 1) - 4


def _device(text: _Text, rank: int, window: int) -> str:
    """Draw one device's run, and the arrows that bring its halo."""
    y, own = _level(rank), text.own(rank)
    before = range(max(own.start - window, 0), own.start)
    after = range(own.stop, min(own.stop + window, len(text.owner)))
    parts = [text.token(token, y) for token in own]
    for halo, source in ((before, rank - 1), (after, rank + 1)):
        for token in halo:
            parts.append(text.token(token, y, copied=True))
            parts.append(_travel(text, token, source, rank))
    ends = [*before, *own, *after]
    return "".join(parts) + _name(text, rank, ends[0], ends[-1], y)


def _name(text: _Text, rank: int, first: int, last: int, y: float) -> str:
    """Write a device's name beside its run, where there is more room."""
    name, low = f"device {rank}", y + text.side / 2 + 4.5
    left = text.middle(first) - text.side / 2 - 8
    right = text.middle(last) + text.side / 2 + 8
    if max(left, PAGE - right) < 70:
        return word(PAGE - MARGIN, y - 7, name, "end", bold=True)
    if left > PAGE - right:
        return word(left, low, name, "end", bold=True)
    return word(right, low, name, "start", bold=True)


def _travel(text: _Text, token: int, source: int, target: int) -> str:
    x, down = text.middle(token), source < target
    start = _level(source) + (text.side + 2 if down else -2)
    end = _level(target) + (-3 if down else text.side + 3)
    return arrow((x, start), (x, end), CYCLE[source], width=1.6, head=6)
