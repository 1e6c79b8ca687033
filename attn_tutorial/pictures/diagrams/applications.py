"""An application as attention sees it: what comes in, what goes out, what must meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attn_tutorial.pictures.diagrams.sketch import (
    INK,
    PAGE,
    arrow,
    box,
    finish,
    legend,
    line,
    width_of,
    word,
)
from attn_tutorial.pictures.inputs import check_between
from attn_tutorial.pictures.style import COLORS, KEPT
from attn_tutorial.pictures.svg import Frame, num

__all__ = ["application"]

HEIGHT, GAP = 26.0, 5.0  # of a box, and between two
ABOVE, BELOW = 22.0, 104.0  # top of the inputs, and of the outputs
MISSED = COLORS["vermillion"]
MET = {"fill": (KEPT, 0.3), "edge": (KEPT, 1.0)}


def application(
    inputs: Sequence[str],
    outputs: Sequence[str],
    links: Iterable[tuple[int, int]],
    *,
    query: int,
    met: Iterable[int],
    title: str,
    reads: str = "comes in",
    writes: str = "goes out",
) -> Frame:
    """Draw inputs, outputs, which need which, and what one output may meet.

    Args:
        inputs: Short texts, in one row.
        outputs: Short texts, in a row below it.
        links: Pairs of an output and an input that it needs.
        query: Which output is looked at.
        met: Inputs that this output may meet.
        title: What the picture shows.
        reads: What the inputs are.
        writes: What the outputs are.

    Returns:
        An SVG frame.

    Raises:
        TypeError, ValueError: If a number is none, or there is no room for a row.

    Example:
        >>> links = [(0, 0), (1, 2), (2, 1)]
        >>> words = ["I", "see", "you"], ["ich", "dich", "sehe"]
        >>> application(*words, links, query=1, met=[0, 1], title="Order").alt
        'Order. Comes in: I, see, you. Goes out: ich, dich, sehe. "dich" may meet "I",
        "see"; it needs "you", which it cannot meet.'
    """
    links, met = [tuple(link) for link in links], set(met)
    query = check_between("query", query, 0, len(outputs) - 1)
    for name, row in (("inputs", inputs), ("outputs", outputs)):
        room = round(sum(map(_width, row)) + GAP * (len(row) - 1))
        check_between(f"width of {name}", room, 1, int(PAGE))
    needed = {j for i, j in links if i == query}
    missed = needed - met
    entries = [((KEPT, 0.3), f"“{outputs[query]}” may meet this")]
    entries += [((MISSED, 1.0), "needs this, too")] if missed else []
    key, height = legend(entries, BELOW + HEIGHT + 28)
    body = _links(inputs, outputs, links, query, met) + _inputs(inputs, met, missed)
    body += _outputs(outputs, query) + word(PAGE / 2, 13, reads)
    body += word(PAGE / 2, BELOW + HEIGHT + 17, writes)
    rows = (reads, inputs), (writes, outputs)
    alt = " ".join(f"{name.capitalize()}: {', '.join(row)}." for name, row in rows)
    alt = f"{title}. {alt} {_said(inputs, outputs[query], needed, met)}"
    return finish(title, body + key, BELOW + HEIGHT + 32 + height, alt)


def _width(text: str) -> float:
    return max(22.0, width_of(text) + 12)


def _middles(texts: Sequence[str]) -> list[float]:
    """Where the boxes of a row have their middles; the row is centred."""
    widths = [_width(text) for text in texts]
    x, found = (PAGE - sum(widths) - GAP * (len(texts) - 1)) / 2, []
    for width in widths:
        found.append(x + width / 2)
        x += width + GAP
    return found


def _cell(x: float, y: float, text: str, **look: object) -> str:
    width = _width(text)
    drawn = box(x - width / 2, y, width, HEIGHT, **look)
    return drawn + word(x, y + HEIGHT / 2 + 4.5, text)


def _inputs(inputs: Sequence[str], met: set[int], missed: set[int]) -> str:
    parts = []
    for j, (text, x) in enumerate(zip(inputs, _middles(inputs), strict=True)):
        look = MET if j in met else {"dash": "3 2"}
        look = look | ({"edge": (MISSED, 1.0), "thick": 2.0} if j in missed else {})
        parts.append(_cell(x, ABOVE, text, **look))
    return "".join(parts)


def _outputs(outputs: Sequence[str], query: int) -> str:
    look = {"edge": (KEPT, 1.0), "thick": 2.4}
    places = enumerate(zip(outputs, _middles(outputs), strict=True))
    return "".join(
        _cell(x, BELOW, text, **(look if i == query else {})) for i, (text, x) in places
    )


def _links(
    inputs: Sequence[str],
    outputs: Sequence[str],
    links: Sequence[tuple[int, int]],
    query: int,
    met: set[int],
) -> str:
    """Draw what each output needs; arrows for the one that is looked at, on top."""
    tops, ends = _middles(inputs), _middles(outputs)
    parts = []
    for i, j in sorted(links, key=lambda link: link[0] == query):
        start, end = (tops[j], ABOVE + HEIGHT + 2), (ends[i], BELOW - 2)
        if i == query:
            parts.append(arrow(start, end, KEPT if j in met else MISSED, width=2.2))
        else:
            path = f"M{num(start[0])} {num(start[1])}L{num(end[0])} {num(end[1])}"
            parts.append(line(path, INK, width=1.3, faint=0.35))
    return "".join(parts)


def _said(inputs: Sequence[str], output: str, needed: set[int], met: set[int]) -> str:
    def listed(places: Iterable[int]) -> str:
        return ", ".join(f'"{inputs[j]}"' for j in sorted(places))

    said = f'"{output}" may meet {listed(met) or "nothing"}'
    if missed := needed - met:
        return f"{said}; it needs {listed(missed)}, which it cannot meet."
    return f"{said}, among them all that it needs."
