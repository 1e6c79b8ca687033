"""Paragraphs of a program's help, in English and in German: LibreOffice 7.4.

Debian packages hold it as one HTML page a topic, translated by people (licence:
MPL-2.0). A paragraph has the same name in both languages, so that pages are aligned;
some of its words are marked as entries of a menu, names of dialogs, code or keys.

A page belongs to one of three parts as a whole (see ``corpora.part_of``). Many pages
repeat a paragraph of another one: each text counts once, where it stands first, so
that none is in two parts.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attn_tutorial.experiments.data import made_up
from attn_tutorial.experiments.data.corpora import PARTS, digits_of, part_of
from attn_tutorial.experiments.data.packages import files_below, package_file

__all__ = [
    "HELP",
    "MADE_UP",
    "MARKS",
    "Paragraph",
    "fingerprint",
    "pages",
    "pairs",
    "paragraphs",
    "read_page",
    "texts",
]

HELP, MADE_UP = "LibreOffice help", "made up"
PACKAGES = {"en-US": "libreoffice-help-en-us", "de": "libreoffice-help-de"}
FINGERPRINTS = {"en-US": "94e26d6eddb4", "de": "6116a8acd9ca"}
MARKS = ("menu", "name", "code", "key")
CLASSES = {"menuitem": "menu", "emph": "name", "literal": "code", "input": "code"}
CLASSES |= {"keycode": "key"}
ELEMENT = re.compile(r'<(p|h\d)\b[^>]*?\bid="([^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)


@dataclass(frozen=True)
class Paragraph:
    """A paragraph or a heading of a page.

    Attributes:
        page: Name of its page; the first folder is the part of the program.
        name: Its name on the page, the same in every language.
        text: Without marks; white space is one space.
        marks: First letter, end, and kind of what is marked.
    """

    page: str
    name: str
    text: str
    marks: tuple[tuple[int, int, str], ...] = ()


def pages(source: str, language: str) -> dict[str, str]:
    """All pages in a language, by name.

    Args:
        source: HELP, or MADE_UP for a few pages that need no package.
        language: "en-US" or "de".

    Raises:
        FileNotFoundError: If the package is missing.
        ValueError: If it holds another text than the one that was recorded.
    """
    if source == MADE_UP:
        return made_up.pages(language)
    top = f"usr/share/libreoffice/help/{language}/text"
    files = files_below(package_file(PACKAGES[language]), top)
    if digits_of(files) != FINGERPRINTS[language]:
        raise ValueError(
            f"{PACKAGES[language]} must hold the text {FINGERPRINTS[language]} of "
            f"LibreOffice 7.4, as in Debian 12, got {digits_of(files)}"
        )
    return {name: page.decode() for name, page in files.items()}


@functools.cache
def fingerprint(source: str) -> str:
    """Twelve digits that stand for the text in both languages."""
    both = {k: "".join(pages(source, k).values()).encode() for k in PACKAGES}
    return digits_of(both)


@functools.cache
def paragraphs(source: str, language: str) -> tuple[Paragraph, ...]:
    """The paragraphs of all pages, in their order."""
    known = pages(source, language)
    return tuple(p for name, page in known.items() for p in read_page(name, page))


def read_page(name: str, page: str) -> Iterator[Paragraph]:
    """Read the paragraphs of a page that hold any text.

    Example:
        >>> page = '<p id="a" class="b">Open <span class="menuitem">File</span>.</p>'
        >>> next(read_page("swriter/open.html", page))
        Paragraph(page='swriter/open.html', name='a', text='Open File.',
                  marks=((5, 9, 'menu'),))
    """
    for _, paragraph, inside in ELEMENT.findall(page):
        text, marks = _read(inside)
        if text:
            yield Paragraph(name, paragraph, text, marks)


def _read(inside: str) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """Text and marks of what stands inside an element."""
    text, marks, opened = "", [], []
    for piece in re.split(r"(<[^>]*>)", inside):
        if piece.startswith("<span"):
            opened.append((_kind(piece), len(text)))
        elif piece.startswith("</span") and opened:
            kind, first = opened.pop()
            marks.append((first, len(text), kind))
        elif not piece.startswith("<") and all(k != "hidden" for k, _ in opened):
            more = re.sub(r"\s+", " ", html.unescape(piece))
            text += more.lstrip() if not text or text.endswith(" ") else more
    trimmed = (_trimmed(text, *mark) for mark in marks if mark[2] in MARKS)
    return text.rstrip(), tuple(sorted(m for m in trimmed if m[0] < m[1]))


def _kind(span: str) -> str | None:
    """What a span marks. Of words that depend on the reader's system, one is shown."""
    name = re.search(r'class="([^"]+)"', span)
    if 'hidden="true"' in span:
        return "hidden" if name else None
    return CLASSES.get(name[1]) if name else None


def _trimmed(text: str, first: int, end: int, kind: str) -> tuple[int, int, str]:
    """A mark without the spaces at its ends."""
    inside = text[first:end]
    spaces = len(inside) - len(inside.lstrip())
    return first + spaces, first + len(inside.rstrip()), kind


@functools.cache
def texts(source: str) -> Mapping[str, list[Paragraph]]:
    """The English paragraphs of each part, each text once."""
    found, seen = {part: [] for part in PARTS}, set()
    for paragraph in paragraphs(source, "en-US"):
        if paragraph.text not in seen:
            seen.add(paragraph.text)
            found[part_of(paragraph.page)].append(paragraph)
    return found


@functools.cache
def pairs(source: str) -> Mapping[str, list[tuple[str, str]]]:
    """English and German texts of each part; no text of either language occurs twice.

    Names that are the same in both languages are left out.
    """
    german = {(p.page, p.name): p.text for p in paragraphs(source, "de")}
    found, seen = {part: [] for part in PARTS}, set()
    for p in paragraphs(source, "en-US"):
        other = german.get((p.page, p.name))
        if other and other != p.text and not {p.text, other} & seen:
            seen |= {p.text, other}
            found[part_of(p.page)].append((p.text, other))
    return found
