"""Notebooks of exercises, and cells for the chapters, from the one source.

A notebook has four variants. "student" has empty cells; "solution" has answers that
pass, and their reasons; "instructor" has the known mistakes as well; and from
"nbgrader", which has no words on the answers, ``nbgrader generate_assignment`` makes
what students get.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path

from attn_tutorial.exercises.collection import exercises
from attn_tutorial.exercises.exercise import Exercise, Function

__all__ = [
    "VARIANTS",
    "assembled",
    "cells",
    "for_nbgrader",
    "insert",
    "markdown_cell",
    "notebook",
    "solutions",
    "write",
]

VARIANTS = ("student", "solution", "instructor", "nbgrader")
SET_UP = """import math

import torch

import attn_tutorial as at
from attn_tutorial.exercises import check"""
IMPORTS = "import math\n\nfrom attn_tutorial.exercises import check"
EXERCISES, QUIZ = "## Exercises", "## Check yourself"
RULES = """Each answer goes into the cell below its question, in place of the dots.
`check` says whether it is right, and which mistake it is if it is not. Numbers may be
computed in the cell."""


def notebook(chapter: str, variant: str = "student") -> dict:
    """A notebook of a chapter's exercises, as nbformat 4.5 stores it.

    Args:
        chapter: Its name, such as "local_attention".
        variant: One of ``VARIANTS``.

    Raises:
        KeyError: If there is no such chapter.
        ValueError: If there is no such variant.
    """
    title = f"Exercises: {chapter.replace('_', ' ')}"
    return assembled(title, exercises(chapter), variant)


def assembled(
    title: str, chosen: Iterable[Exercise], variant: str, goal: str = ""
) -> dict:
    """A notebook of some exercises, as nbformat 4.5 stores it.

    Args:
        title: Its heading.
        chosen: The exercises, in order.
        variant: One of ``VARIANTS``.
        goal: A sentence below the heading.

    Raises:
        ValueError: If there is no such variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
    head = "\n\n".join(filter(None, [f"# {title}", goal, RULES]))
    made = [markdown_cell("rules", head), _code("set-up", SET_UP)]
    for number, exercise in enumerate(chosen, start=1):
        made += _exercise(exercise, number, variant)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def write(made: dict, path: Path | str) -> None:
    """Write a notebook as this repository stores them."""
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    Path(path).write_text(text, encoding="utf-8")


def _exercise(exercise: Exercise, number: int, variant: str) -> list[dict]:
    asked = markdown_cell(exercise.id, _asked(exercise, number))
    if variant == "student":
        return [asked, _code(f"{exercise.id}-answer", exercise.starter)]
    if variant == "nbgrader":
        return [asked, *_for_nbgrader(exercise)]
    answer = _code(f"{exercise.id}-answer", exercise.solution)
    solved = [asked, answer, markdown_cell(f"{exercise.id}-because", exercise.because)]
    if variant == "solution":
        return solved
    return [*solved, markdown_cell(f"{exercise.id}-mistakes", _mistakes(exercise))]


def _asked(exercise: Exercise, number: int) -> str:
    stars = "★" * exercise.difficulty + "☆" * (3 - exercise.difficulty)
    about = f"`{exercise.id}`, {exercise.kind}, {stars}, {exercise.minutes} minutes"
    gap = "\n\n" if exercise.question.startswith(("A file", "```")) else " "
    return f"**Exercise {number} ({about}).**{gap}{exercise.question}"


def _for_nbgrader(exercise: Exercise) -> list[dict]:
    """An answer whose solution nbgrader takes out, and a test that it locks."""
    dots = "\n".join(f"# {line}".rstrip() for line in exercise.starter.splitlines())
    solution = f"### BEGIN SOLUTION\n{exercise.solution}\n### END SOLUTION"
    answer = _code(f"{exercise.id}-answer", f"# Write:\n{dots}\n{solution}")
    answer["metadata"]["nbgrader"] = for_nbgrader(
        f"{exercise.id}-answer", solution=True
    )
    test = _code(f"{exercise.id}-test", _test(exercise))
    test["metadata"]["nbgrader"] = for_nbgrader(
        f"{exercise.id}-test", grade=True, locked=True, points=exercise.difficulty
    )
    return [answer, test]


def _test(exercise: Exercise) -> str:
    use = "from attn_tutorial.exercises import passed"
    return f'{use}\n\nassert passed("{exercise.id}")'


def for_nbgrader(grade_id: str, **changes: object) -> dict:
    """What nbgrader keeps in a cell's metadata."""
    fields = {"grade": False, "solution": False, "locked": False, "task": False}
    return {"grade_id": grade_id, "schema_version": 3, **fields, **changes}


def _mistakes(exercise: Exercise) -> str:
    lines = ["Known mistakes:", ""]
    for part in exercise.parts:
        if isinstance(part, Function):
            lines += [f"- *{part.name}: {m.name}.* {m.text}" for m in part.mistakes]
        for value, text in getattr(part, "wrong", {}).items():
            lines.append(f"- *{part.name} = {value}.* {text}")
        for letter, option in getattr(part, "lettered", {}).items():
            if not option.right:
                lines.append(f"- *{part.name} = ({letter}).* {option.feedback}")
    return "\n".join(lines) if len(lines) > 2 else "There are no known mistakes."


def markdown_cell(id: str, source: str) -> dict:
    """A cell of text, as nbformat 4.5 stores it."""
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": _lines(source)}


def _code(id: str, source: str) -> dict:
    empty = {"execution_count": None, "metadata": {}, "outputs": []}
    return {"cell_type": "code", "id": id, **empty, "source": _lines(source)}


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)


# For the chapters.


def cells(chapter: str) -> list[dict]:
    """The cells of a chapter's section of exercises, in order.

    Its heading, the imports, then question and empty answer in turn.
    """
    made = [
        markdown_cell("exercises", f"{EXERCISES}\n\n{_introduction(chapter)}"),
        _code("exercises-check", IMPORTS),
    ]
    for number, exercise in enumerate(exercises(chapter), start=1):
        asked, *answer = _exercise(exercise, number, "student")
        link = f" [Solution](../book/solutions.md#{exercise.id})"
        made += [markdown_cell(exercise.id, "".join(asked["source"]) + link), *answer]
    return made


def _introduction(chapter: str) -> str:
    minutes = sum(exercise.minutes for exercise in exercises(chapter))
    return (
        f"{RULES} The cells need a "
        "[running notebook](../book/how_to_use.md); how they judge is told on the page "
        "of [exercises](../book/exercises.md). The minutes are our estimates; "
        f"they add up to {minutes} and are not part of the reading time at the top."
    ).replace("\n", " ")


def insert(chapter_notebook: dict, chapter: str, quiz: str = "") -> dict:
    """A chapter that ends with its quiz and these cells, in place of older ones.

    Args:
        chapter_notebook: The chapter, with a section headed "## Exercises". What
            follows that section, such as a summary, comes to stand before it.
        chapter: Its name.
        quiz: Markdown to stand before the exercises, such as ``quiz_markdown`` makes;
            if empty, a quiz that is there already stays.

    Cells that are there already keep their outputs.

    Raises:
        ValueError: If there is not exactly one such section.
    """
    found = chapter_notebook["cells"]
    at = [i for i, cell in enumerate(found) if _heads(cell, EXERCISES)]
    if len(at) != 1:
        raise ValueError(f"{chapter} must have one section of exercises, has {len(at)}")
    start, end = at[0], _end_of_section(found, at[0] + 1)
    before, own = "".join(found[start]["source"]).split(f"{EXERCISES}\n", 1)
    after = own.partition("\n## ")[2]
    own_id = {"id": found[start].get("id", "before-exercises")}
    body = [*found[:start]]
    body += [markdown_cell("", before.strip()) | own_id] if before.strip() else []
    body += [markdown_cell("summary", f"## {after}")] if after else []
    body += found[end:]
    asked = [markdown_cell("quiz", quiz)] if quiz else _quizzes(body)
    body = [cell for cell in body if not _heads(cell, QUIZ)]
    stored = {_key(cell): cell for cell in found}
    made = [stored.get(_key(cell), cell) for cell in cells(chapter)]
    return {**chapter_notebook, "cells": body + asked + made}


def _key(cell: dict) -> tuple[str | None, str]:
    """What makes a cell the same, whatever outputs it has."""
    return cell.get("id"), "".join(cell["source"])


def _heads(cell: dict, heading: str) -> bool:
    source = "".join(cell["source"])
    return cell["cell_type"] == "markdown" and heading in source.splitlines()


def _quizzes(found: list[dict]) -> list[dict]:
    return [cell for cell in found if _heads(cell, QUIZ)]


def _end_of_section(found: list[dict], start: int) -> int:
    """The first cell from here on that is not of the section of exercises."""
    for i in range(start, len(found)):
        id, source = found[i].get("id", ""), "".join(found[i]["source"])
        ours = source.startswith("**Exercise") or id.endswith(("-answer", "-check"))
        if not ours:
            return i
    return len(found)


def solutions(chosen: Iterable[Exercise]) -> str:
    """Entries of the page of solutions, in the form of that page."""
    return "\n\n".join(map(_entry, chosen))


def _entry(exercise: Exercise) -> str:
    code = _without_check(exercise.solution)
    block = f"\n\n```python\n{code}\n```" if code else ""
    head = f"````{{dropdown}} {exercise.id}\n:name: {exercise.id}\n\n"
    return f"{head}{exercise.because}{block}\n````"


def _without_check(source: str) -> str:
    """Code without the call of ``check`` at its end."""
    last = ast.parse(source).body[-1]
    return "\n".join(source.splitlines()[: last.lineno - 1]).strip()
