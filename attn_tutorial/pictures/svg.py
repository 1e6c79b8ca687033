"""Numbers, words and SVG: what every frame is written with."""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = [
    "CHARACTER",
    "CSS",
    "FONT",
    "WIDTH",
    "Frame",
    "cell_text",
    "draw_heading",
    "draw_label",
    "num",
    "runs",
    "svg",
]

WIDTH = (
    440  # widest picture, in CSS pixels: at 340 px on a phone, text is still 10.8 px
)
FONT = 14
CHARACTER = 7.4  # mean width of a character at that size

CSS = (
    ".attn-b{display:flex;flex-wrap:wrap;gap:.6em 1.2em;justify-content:center;"
    "align-items:flex-start}.attn-b>*{flex:1 1 15em;min-width:0}"
    ".attn-b>svg{max-width:440px!important}"
    ".attn-c{margin:.4em 0 0;font-size:.95em}"
    ".attn-w{overflow-x:auto}"
    ".attn-t{border-collapse:collapse;margin:.3em auto!important;"
    "font-variant-numeric:tabular-nums;width:auto!important}"
    ".attn-t caption{caption-side:top;font-weight:600;text-align:center;"
    "color:inherit;padding:.2em 0}"
    ".attn-t th,.attn-t td{padding:.2em .7em!important;text-align:right!important;"
    "border-bottom:1px solid rgba(128,128,128,.35)!important;color:inherit!important;"
    "background:none!important}"
    ".attn-r text{display:none;stroke:none;"
    "fill:currentColor}.attn-r:hover text{display:inline}"
    ".attn-s:has(.attn-r:hover) .attn-r:not(:hover) path{opacity:.45}"
    ".attn-s:has(.attn-r:hover) .attn-o{visibility:hidden}"
)


class Frame(str):
    """Markup of one picture; ``alt`` says in words what it shows."""

    alt: str

    def __new__(cls, markup: str, alt: str = "") -> Frame:
        """Make the string and keep its description beside it."""
        frame = super().__new__(cls, markup)
        frame.alt = alt
        return frame

    def __add__(self, other: str) -> Frame:
        """Put another frame below this one."""
        alts = (self.alt, getattr(other, "alt", ""))
        return Frame(str(self) + str(other), " ".join(filter(None, alts)))

    def __repr__(self) -> str:
        """Return the description, so that a stored output reads well."""
        return self.alt or str(self)

    def _repr_html_(self) -> str:
        return f"<style>{CSS}</style>{self}"


def num(x: float) -> str:
    """Coordinate with at most one decimal."""
    return f"{round(float(x), 1) + 0.0:g}"


def cell_text(cell: Any) -> str:
    """Cell of a table as text."""
    if isinstance(cell, (bool, str)):
        return html.escape(str(cell))
    cell = cell.item() if hasattr(cell, "item") else cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return html.escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell))


def runs(cells: Sequence[Any]) -> Iterator[tuple[Any, int, int]]:
    """Yield (value, start, length) of each run of equal neighbours."""
    start = 0
    for value, group in itertools.groupby(cells):
        length = len(list(group))
        yield value, start, length
        start += length


def svg(body: str, width: float, height: float, alt: str, scale: float = 1.0) -> Frame:
    """Wrap drawn parts; fonts and colours come from the page.

    Where there is room, the picture is ``scale`` times as wide as its own units say.
    """
    return Frame(
        f'<svg class="attn-s" role="img" aria-label="{html.escape(alt)}" '
        f'xmlns="http://www.w3.org/2000/svg" width="{num(width * scale)}" '
        f'viewBox="0 0 {num(width)} {num(height)}" font-family="sans-serif" '
        f'font-size="{FONT}" fill="currentColor" style="display:block;'
        f'margin:0 auto;max-width:100%;height:auto">{body}</svg>',
        alt,
    )


def draw_label(
    x: float, y: float, text: Any, anchor: str = "middle", more: str = ""
) -> str:
    """Write words at a place; ``more`` holds further attributes."""
    return (
        f'<text x="{num(x)}" y="{num(y)}" text-anchor="{anchor}"{more}>'
        f"{html.escape(str(text))}</text>"
    )


def draw_heading(title: str, x: float, width: float) -> tuple[str, float]:
    """Draw a title in as many lines as it needs; return it and the height used."""
    lines = textwrap.wrap(title, max(12, int(width / (CHARACTER * 1.1))))
    bold = ' font-weight="600"'
    text = [draw_label(x, 16 + 18 * k, s, more=bold) for k, s in enumerate(lines)]
    return "".join(text), 18.0 * len(lines) + (8 if lines else 2)
