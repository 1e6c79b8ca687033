"""Cut a page or a chapter into what is translated, and put a translation back.

A message is one paragraph, heading, list item, row of a table, summary of a fold or
title of a card. Code, displayed formulas, options of directives and labels are none:
they stand in every edition as they are. What figures say: ``chinese_figures.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["headings", "messages", "pieces", "translated"]

ONE_LINE = re.compile(
    r"(?P<before>#{1,6} |<details[^>]*><summary>"
    r"|:{3,}\{(?:admonition|grid-item-card)\} | *(?:[-*+]|\d+\.) +|: |> )"
    r"(?P<text>.*?)(?P<after></summary>)?$"
)
FIXED = re.compile(
    r" *$|:{3,}|:[\w-]+:|\([\w-]+\)=$|</?[a-z]|\|[-:| ]+\|$|!\[|---$"  # nothing to say
)
WORDLESS = re.compile(r"\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<[^>]*>|&\w+;")

Piece = tuple[str, bool]


def pieces(text: str) -> list[Piece]:
    """Markdown in pieces, and whether each is a message; joined, they are the text."""
    found: list[Piece] = []
    for block, fixed in _blocks(text):
        found += [(block, False)] if fixed else _of_paragraph(block)
    return [(piece, message and _has_words(piece)) for piece, message in found if piece]


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Runs of lines: fenced code and displayed formulas, fixed, and the rest."""
    inside, paragraph = None, ""
    for number, line in enumerate(text.splitlines(keepends=True)):
        opened = _opened(line, number) if inside is None else None
        plain = inside is None and opened is None
        joins = plain and not FIXED.match(line) and not ONE_LINE.match(line)
        if paragraph and not (joins and line[0] != "|" and paragraph[0] != "|"):
            yield paragraph, False
            paragraph = ""
        if joins:
            paragraph += line
        else:
            yield line, not plain
        if opened and not _closes_at_once(line, opened):
            inside = opened
        elif inside and line.rstrip().endswith(inside):
            inside = None
    if paragraph:
        yield paragraph, False


def _opened(line: str, number: int) -> str | None:
    """The end of what begins here: of code, of a formula, of a page's own settings."""
    if line.startswith("---") and number == 0:
        return "---"
    fence = re.match(r"`{3,}|\$\$", line)
    return fence[0] if fence else None


def _closes_at_once(line: str, end: str) -> bool:
    return end == "$$" and len(line.rstrip()) > 2 and line.rstrip().endswith(end)


def _of_paragraph(block: str) -> list[Piece]:
    body = block.rstrip("\n")
    rest = block[len(body) :]
    one = ONE_LINE.match(body)
    if one:
        return [
            (one["before"], False),
            (one["text"], True),
            ((one["after"] or "") + rest, False),
        ]
    return [(body, not FIXED.match(body)), (rest, False)]


def _has_words(text: str) -> bool:
    return bool(re.search(r"[A-Za-z]", WORDLESS.sub("", text)))


Translate = Callable[[str], str]


def _changed(text: str, translate: Translate) -> str:
    parts = (translate(part) if message else part for part, message in pieces(text))
    return "".join(parts)


def translated(path: Path, translate: Translate) -> str:
    """A file's text with every message changed.

    Args:
        path: A page (.md) or a chapter (.ipynb).
        translate: From a message to what stands for it.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return _changed(text, translate)
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = _changed("".join(cell["source"]), translate)
            cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def messages(path: Path) -> list[str]:
    """The messages of a file in reading order, each once."""
    return met(lambda note: translated(path, note))


def met(change: Callable[[Translate], object]) -> list[str]:
    """The messages that a change asks translations for, in order, each once."""
    found: dict[str, None] = {}

    def note(message: str) -> str:
        found[message] = None
        return message

    change(note)
    return list(found)


def headings(path: Path) -> list[str]:
    """The texts of a file's headings, in order."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        prose = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
        text = "\n\n".join(map("".join, prose))
    found, before = [], ""
    for piece, message in pieces(text):
        if message and re.fullmatch(r"#{1,6} ", before):
            found.append(piece)
        before = piece
    return found
