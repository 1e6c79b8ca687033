"""Questions whose numbers are drawn anew, for examinations; their answers are computed.

A question is a template in ``questions/``, a file a chapter: ``{...}`` in a text is an
expression over the drawn numbers, worked out by the package. Each wrong choice says
which misconception it shows. No page of the book prints these files.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attn_tutorial import cost, patterns
from attn_tutorial.exercises.collection import CHAPTERS

__all__ = ["Asked", "Template", "templates"]

FOLDER = Path(__file__).with_name("questions")
FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
LETTERS = "abcd"
# All that an expression may name beside its numbers.
KNOWN = {
    **{name: getattr(patterns, name) for name in patterns.__all__},
    **{name: getattr(cost, name) for name in cost.__all__},
    **{name: getattr(math, name) for name in ("ceil", "exp", "log", "log2", "sqrt")},
    **{"max": max, "min": min, "round": round, "__builtins__": {}},
}


@dataclass(frozen=True)
class Asked:
    """A question with its numbers, as it stands in a paper.

    Attributes:
        chapter: The chapter that it belongs to.
        name: Its name there.
        text: The question.
        choices: Two to four choices, by their letters.
        answer: The letter of the one that is right.
        shows: From the letter of each wrong choice to the misconception that it shows.
        because: Why the right one is right.
    """

    chapter: str
    name: str
    text: str
    choices: Mapping[str, str]
    answer: str
    shows: Mapping[str, str]
    because: str


@dataclass(frozen=True)
class Template:
    """A question whose numbers are still to be drawn.

    Attributes:
        chapter: The chapter that it belongs to.
        name: Its name, unique in its chapter.
        text: The question, with ``{expression}`` where a number stands.
        answer: The right choice.
        because: Why it is right.
        wrong: Pairs of a wrong choice and the misconception that it shows.
        draw: From the name of a number to those that it is drawn from.
    """

    chapter: str
    name: str
    text: str
    answer: str
    because: str
    wrong: tuple[tuple[str, str], ...]
    draw: Mapping[str, list]

    def settings(self) -> Iterator[dict]:
        """All ways to draw its numbers, a dictionary each."""
        for values in itertools.product(*self.draw.values()):
            yield dict(zip(self.draw, values, strict=True))

    def ask(self, numbers: Mapping, generator: random.Random) -> Asked:
        """Put numbers in, and the choices into an order that is drawn.

        Args:
            numbers: One of ``settings()``.
            generator: Draws the order.

        Raises:
            NameError: If the template names what it does not draw.
        """
        choices = [(self.answer, None), *self.wrong]
        generator.shuffle(choices)
        lettered = dict(zip(LETTERS, choices, strict=False))
        return Asked(
            self.chapter,
            self.name,
            _filled(self.text, numbers),
            {letter: _filled(text, numbers) for letter, (text, _) in lettered.items()},
            next(letter for letter, (_, shows) in lettered.items() if shows is None),
            {letter: shows for letter, (_, shows) in lettered.items() if shows},
            _filled(self.because, numbers),
        )


def _filled(text: str, numbers: Mapping) -> str:
    def value(match: re.Match) -> str:
        return format(eval(match[1], KNOWN | dict(numbers)), match[2] or "")

    return FIELD.sub(value, text)


@cache
def templates(chapter: str | None = None) -> tuple[Template, ...]:
    """The questions of a chapter, or of all, in the order of the book.

    Raises:
        KeyError: If there is no such chapter.

    Example:
        >>> len(templates("local_attention")) >= 4
        True
    """
    if chapter is None:
        return tuple(t for name in CHAPTERS for t in templates(name))
    if chapter not in CHAPTERS:
        raise KeyError(f"no chapter {chapter!r}; there are {', '.join(CHAPTERS)}")
    text = (FOLDER / f"{chapter}.toml").read_text(encoding="utf-8")
    return tuple(_template(chapter, **q) for q in tomllib.loads(text)["question"])


def _template(
    chapter: str, wrong: list, draw: Mapping | None = None, **texts: str
) -> Template:
    pairs = tuple((choice, shows) for choice, shows in wrong)
    return Template(chapter=chapter, wrong=pairs, draw=draw or {}, **texts)
