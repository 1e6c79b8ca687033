"""A paper of questions from the bank, and its key: the same seed makes both again.

Both are written as Markdown, or as a page of HTML to be printed.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Sequence
from pathlib import Path

from attn_tutorial.checks import check_count
from attn_tutorial.exercises.bank import Asked, Template, templates
from attn_tutorial.exercises.collection import CHAPTERS

__all__ = ["draw", "key", "paper", "write_exam"]

RULES = "One choice is right in each question. Write its letter beside the number."
STYLE = (
    "body{font:11pt/1.45 serif;max-width:42em;margin:2em auto;padding:0 1em}"
    "ol,ul{padding-left:1.6em}li,p,h2{break-inside:avoid}"
    "h2{font-size:1em;margin:1.4em 0 .2em}ol.choices{list-style:lower-alpha}"
    "code{font-size:.95em}@page{size:A4;margin:18mm}"
)


def draw(
    seed: int, questions: int = 12, chapters: Sequence[str] = CHAPTERS
) -> list[Asked]:
    """Draw questions with their numbers, as evenly from the chapters as can be.

    Args:
        seed: The same one draws the same paper.
        questions: How many.
        chapters: Those that they are drawn from.

    Returns:
        The questions, in the order of the book.

    Raises:
        KeyError: If there is no such chapter.
        ValueError: If these chapters have fewer questions.
    """
    questions, chapters = check_count("questions", questions, least=1), list(chapters)
    held = sum(len(templates(chapter)) for chapter in chapters)
    if questions > held:
        raise ValueError(f"questions must be at most {held}, got {questions}")
    generator = random.Random(seed)
    chosen = _chosen(chapters, questions, generator)
    chosen.sort(key=lambda t: CHAPTERS.index(t.chapter))
    return [t.ask(generator.choice([*t.settings()]), generator) for t in chosen]


def _chosen(
    chapters: list[str], questions: int, generator: random.Random
) -> list[Template]:
    """One of each chapter, in a drawn order, then a second one, and so on."""
    generator.shuffle(chapters)
    piles = [generator.sample(t, len(t)) for t in map(templates, chapters)]
    rounds = range(max(map(len, piles)))
    dealt = [pile[turn] for turn in rounds for pile in piles if turn < len(pile)]
    return dealt[:questions]


def paper(asked: Sequence[Asked], label: str) -> str:
    """What students get, as Markdown; the seed, which makes the key, is not on it."""
    head = f"# Efficient attention: {label}\n\nName and date:\n\n{RULES}"
    return "\n\n".join([head, *map(_question, range(1, 1000), asked)]) + "\n"


def _question(number: int, asked: Asked) -> str:
    choices = [f"{letter}. {text}" for letter, text in asked.choices.items()]
    return "\n".join([f"## Question {number}", "", asked.text, "", *choices])


def key(asked: Sequence[Asked], label: str, seed: int) -> str:
    """What the teacher gets, as Markdown: letters, reasons, misconceptions."""
    letters = " ".join(f"{n}{a.answer}" for n, a in enumerate(asked, start=1))
    head = f"# Key of {label}, seed {seed}\n\nKeep this and the seed to yourself."
    head += f"\n\n{letters}"
    return "\n\n".join([head, *map(_answer, range(1, 1000), asked)]) + "\n"


def _answer(number: int, asked: Asked) -> str:
    of = f"{asked.chapter.replace('_', ' ')}: {asked.name}"
    right = f"{asked.answer}. {asked.choices[asked.answer]}"
    lines = [f"## Question {number} ({of})", "", asked.text, ""]
    lines += [f"Right is {right}", "", asked.because, ""]
    for letter, shows in asked.shows.items():
        lines.append(f"- {letter}. {asked.choices[letter]} Who takes it {shows}.")
    return "\n".join(lines)


def write_exam(
    out: Path | str, seed: int, questions: int, chapters: Sequence[str] = CHAPTERS
) -> tuple[Path, Path]:
    """Write a paper, and its key into a second file beside it.

    Args:
        out: The paper; its ending, ``.html`` or ``.md``, says how it is written, and
            the rest of its name stands on it.
        seed: As for ``draw``.
        questions: As for ``draw``.
        chapters: As for ``draw``.

    Returns:
        Both files; the key's name ends with ``-key``.

    Raises:
        ValueError: If the ending is another one, or there are too few questions.
    """
    out = Path(out)
    if out.suffix not in (".html", ".md"):
        raise ValueError(f"out must end with .html or .md, got {str(out)!r}")
    asked, beside = draw(seed, questions, chapters), out.with_stem(f"{out.stem}-key")
    texts = paper(asked, out.stem), key(asked, out.stem, seed)
    for path, text in zip((out, beside), texts, strict=True):
        made = text if out.suffix == ".md" else as_page(text)
        path.write_text(made, encoding="utf-8")
    return out, beside


# The little Markdown that papers use, as HTML.


def as_page(markdown: str) -> str:
    """A page of HTML, to be printed, of a paper or of a key."""
    title = markdown.splitlines()[0].removeprefix("# ")
    body = "\n".join(map(_block, markdown.strip().split("\n\n")))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _block(block: str) -> str:
    lines = [_inline(line) for line in block.splitlines()]
    if found := re.match(r"(#+) (.*)", lines[0]):
        return f"<h{len(found[1])}>{found[2]}</h{len(found[1])}>"
    if all(line.startswith("- ") for line in lines):
        return f"<ul>{''.join(f'<li>{line[2:]}</li>' for line in lines)}</ul>"
    if all(re.match(r"[a-d]\. ", line) for line in lines) and len(lines) > 1:
        items = "".join(f"<li>{line[3:]}</li>" for line in lines)
        return f'<ol class="choices">{items}</ol>'
    return f"<p>{' '.join(lines)}</p>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
