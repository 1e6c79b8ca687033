"""The words inside a chapter's figures: read from its stored outputs, and translated.

A message is what a text, a description, a cell of a table or a button says. Its numbers
stand in it as {1}, {2}, ..., so that all frames of an explorer share one message, and
the numbers of a translation are the figure's own, in the order that Chinese asks for.
The lines of a title are one message of several lines. What has no two Latin letters
side by side, such as a number or a formula, is none, nor is what cells print.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import paragraphs

__all__ = [
    "ENTRY",
    "cut",
    "faults",
    "filled",
    "messages",
    "says",
    "translated",
]

DRAWN = ("text/html", "image/svg+xml")
WORD = re.compile(r"[A-Za-z]{2}")
NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
ENTRY = re.compile(r"\{(\d+)\}")
TAG = re.compile(r"(<[^>]*>)")
SPOKEN = re.compile(r'( (?:aria-label|aria-valuetext)=")([^"]*)(")')
AXES = re.compile(r'( data-axes=")([^"]*)(")')
BUTTON = re.compile(r"(')(Play|Pause)(')")  # what the script of an explorer writes
LINE = 1.4  # font sizes from line to line, at most

Translate = Callable[[str], str]


# Messages.


def cut(text: str) -> tuple[str, list[str]]:
    """A text's message and the numbers that stand in it.

    Example:
        >>> cut("94 of 1,024 pairs")
        ('{1} of {2} pairs', ['94', '1,024'])
    """
    numbers = NUMBER.findall(text)
    counted = iter(range(1, len(numbers) + 1))
    return NUMBER.sub(lambda _: f"{{{next(counted)}}}", text), numbers


def filled(message: str, numbers: list[str]) -> str:
    """A message or translation with its numbers in place.

    Example:
        >>> filled("{2} 对中的 {1} 对", ["94", "1,024"])
        '1,024 对中的 94 对'
    """
    return ENTRY.sub(lambda match: numbers[int(match[1]) - 1], message)


def says(text: str, translate: Translate) -> str:
    """What stands for a text: itself, if it has no words."""
    message, numbers = cut(text)
    return filled(translate(message), numbers) if WORD.search(message) else text


def faults(message: str, translation: str) -> list[str]:
    """What else is wrong with a translation: a figure has room for so many lines."""
    more = translation.count("\n") - message.count("\n")
    return [f"{more} lines too many"] if more > 0 else []


def messages(path: Path) -> tuple[str, ...]:
    """The messages of a chapter's figures in order, each once."""
    return _messages(path.read_text(encoding="utf-8"))


@cache
def _messages(text: str) -> tuple[str, ...]:
    return tuple(paragraphs.met(lambda note: translated(text, note)))


# Chapters.


def translated(text: str, translate: Translate) -> str:
    """A chapter's source with the words of its figures changed.

    Args:
        text: Of an .ipynb file.
        translate: From a message to what stands for it.
    """
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in (kind for kind in DRAWN if kind in data):
                markup = _changed("".join(data[kind]), translate)
                data[kind] = markup.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _changed(markup: str, translate: Translate) -> str:
    """Markup with every text, description and choice changed."""

    def in_markup(match: re.Match) -> str:
        text = says(html.unescape(match[2]), translate)
        return match[1] + html.escape(text) + match[3]

    def in_axes(match: re.Match) -> str:
        axes = json.loads(html.unescape(match[2]))
        axes = [[says(text, translate) for text in axis] for axis in axes]
        return match[1] + html.escape(json.dumps(axes, ensure_ascii=False)) + match[3]

    parts = TAG.split(markup)
    for k in range(1, len(parts), 2):
        parts[k] = AXES.sub(in_axes, SPOKEN.sub(in_markup, parts[k]))
    for places in _texts(parts):
        _put(parts, places, translate)
    for k in range(2, len(parts), 2):
        if parts[k - 1] == "<script>":
            parts[k] = BUTTON.sub(in_markup, parts[k])
    return "".join(parts)


def _put(parts: list[str], places: list[int], translate: Translate) -> None:
    """Put a translation into its lines; of fewer lines, the upper ones stay empty."""
    text = "\n".join(html.unescape(parts[k]) for k in places)
    lines = says(text, translate).split("\n")
    lines = [""] * (len(places) - len(lines)) + lines
    for k, line in zip(places, lines, strict=True):
        parts[k] = html.escape(line) if line != html.unescape(parts[k]) else parts[k]


def _texts(parts: list[str]) -> Iterator[list[int]]:
    """Where texts stand in markup that is split at its tags; lines of one together."""
    k = 2
    while k < len(parts):
        places = [k]
        while _goes_on(parts, k):
            k += 4
            places.append(k)
        if parts[k].strip() and not parts[k - 1].startswith(("<style", "<script")):
            yield places
        k += 2


def _goes_on(parts: list[str], k: int) -> bool:
    """Whether a text is followed by a line that belongs to it."""
    if parts[k + 1 : k + 3] != ["</text>", ""]:
        return False
    tags = parts[k - 1], parts[k + 3]
    if not all(tag.startswith("<text ") for tag in tags):
        return False
    here, there = (dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in tags)
    step = float(there.pop("y")) - float(here.pop("y"))
    return here == there and 0 < step <= LINE * float(here.get("font-size", 14))
