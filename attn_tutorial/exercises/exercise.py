"""What an exercise is: a question, the parts of its answer, and the known mistakes.

A part knows the right answer, and wrong ones by name. Chapters are plain data made of
these classes; how an answer is judged stands in ``judging``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from textwrap import dedent

__all__ = [
    "Choice",
    "Example",
    "Exercise",
    "Formula",
    "Function",
    "Items",
    "Mistake",
    "Number",
    "Option",
    "Part",
    "Question",
    "Several",
    "right",
    "wrong",
]

KINDS = ("predict", "derive", "implement", "diagnose")


@dataclass(frozen=True)
class Number:
    """A number, right within a tolerance.

    Attributes:
        name: The keyword under which it is given.
        value: The right number.
        wrong: What is said of well-known wrong numbers.
        within: The largest deviation that still counts as right; 0 for whole numbers.
    """

    name: str
    value: float
    wrong: Mapping[float, str] = field(default_factory=dict)
    within: float = 0.0


@dataclass(frozen=True)
class Items:
    """Several numbers or truth values in order, nested if need be.

    Attributes:
        name: The keyword under which they are given.
        value: The right ones, as a tuple.
        wrong: What is said of well-known wrong ones.
        within: The largest deviation of each that still counts as right.
    """

    name: str
    value: tuple
    wrong: Mapping[tuple, str] = field(default_factory=dict)
    within: float = 0.0


@dataclass(frozen=True)
class Example:
    """A list of numbers of which only a property is asked for.

    Attributes:
        name: The keyword under which it is given.
        fault: From the list, as a tuple, to what is wrong with it, or None.
    """

    name: str
    fault: Callable[[tuple], str | None]


@dataclass(frozen=True)
class Option:
    """One option of a choice, with what is said to those who take it."""

    text: str
    feedback: str
    right: bool


def right(text: str, feedback: str) -> Option:
    """Make the option that is right."""
    return Option(text, feedback, True)


def wrong(text: str, feedback: str) -> Option:
    """Make an option that is wrong."""
    return Option(text, feedback, False)


@dataclass(frozen=True)
class Choice:
    """One of several options, which are lettered a, b, c, ..."""

    name: str
    options: tuple[Option, ...]

    @property
    def lettered(self) -> dict[str, Option]:
        """The options by their letters."""
        return dict(zip("abcdefgh", self.options, strict=False))


@dataclass(frozen=True)
class Several(Choice):
    """All the options that hold, in any order, such as "ac" or ["a", "c"]."""


@dataclass(frozen=True)
class Mistake:
    """A known way to get a function wrong.

    Attributes:
        name: What the field, or a teacher, calls it.
        text: What is said to somebody whose function does this.
        function: A function that does it.
    """

    name: str
    text: str
    function: Callable


@dataclass(frozen=True)
class Function:
    """A function that is written down; its first lines are given.

    Attributes:
        reference: One that is right, with a docstring that says what is wanted.
        cases: From a seed to the arguments of the calls, the smallest first.
        mistakes: Those that are told apart.
        tolerance: The largest relative deviation, for numbers with a point.
        name: What it is called; the reference's name if empty.
    """

    reference: Callable
    cases: Callable[[int], Iterable[tuple]]
    mistakes: tuple[Mistake, ...] = ()
    tolerance: float = 1e-5
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.reference.__name__)


@dataclass(frozen=True)
class Formula(Function):
    """A formula as a function of its symbols, such as ``lambda n, w: n * (w + 1)``."""


Part = Number | Items | Example | Choice | Function


@dataclass(frozen=True)
class Exercise:
    """A question with an answer that can be checked.

    Attributes:
        id: Its name, such as "local-1".
        kind: "predict", "derive", "implement" or "diagnose".
        difficulty: 1 (one idea), 2 (several) or 3 (an argument
            or a program of one's own).
        minutes: How long it takes with the chapter at hand.
        section: The heading of the section of its chapter to read again if the answer
            is wrong, as it stands there, without the marks before it.
        question: Markdown; says which names the answer has.
        parts: What is asked for.
        because: The reason, in a sentence or two of Markdown.
        worked: Code that works the answer out and calls ``check``; the references and
            the call if empty.
        given: Code that the answer starts from.
    """

    id: str
    kind: str
    difficulty: int
    minutes: int
    section: str
    question: str
    parts: tuple[Part, ...]
    because: str
    worked: str = ""
    given: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")
        for name in ("question", "worked", "given"):
            object.__setattr__(self, name, dedent(getattr(self, name)).strip())
        object.__setattr__(self, "question", _unwrapped(self.question))

    @property
    def starter(self) -> str:
        """The code of the empty cell, which ends with a ``check`` without answers."""
        sources = [_first_lines(part.reference) for part in self._written()]
        return "\n\n\n".join([*filter(None, [self.given]), *sources, self._call()])

    @property
    def solution(self) -> str:
        """Code that passes ``check``."""
        sources = [dedent(inspect.getsource(p.reference)) for p in self._written()]
        pieces = [*filter(None, [self.given]), *sources, self.worked or self._call()]
        return "\n\n\n".join(piece.strip() for piece in pieces)

    def _written(self) -> list[Function]:
        return [part for part in self.parts if type(part) is Function]

    def _call(self) -> str:
        if len(self.parts) == 1:
            arguments = self._argument(self.parts[0])
        else:
            named = (f"{p.name}={self._argument(p)}" for p in self.parts)
            arguments = ", ".join(named)
        return f'check("{self.id}", {arguments})'

    def _argument(self, part: Part) -> str:
        return part.name if part in self._written() else "..."


def _unwrapped(text: str) -> str:
    """Markdown with a line a paragraph, so that no line can begin like a list."""
    blocks = text.split("\n\n")
    return "\n\n".join(b if "```" in b else b.replace("\n", " ") for b in blocks)


def _first_lines(function: Callable) -> str:
    """A function without its body: the line of its name, its docstring, and dots."""
    source = dedent(inspect.getsource(function))
    docstring = ast.parse(source).body[0].body[0]
    return "\n".join([*source.splitlines()[: docstring.end_lineno], "    ..."])


@dataclass(frozen=True)
class Question:
    """A question of a quiz, with a word on each option; exactly one is right."""

    text: str
    options: tuple[Option, ...]
