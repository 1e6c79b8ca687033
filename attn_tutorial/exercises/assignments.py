"""Assignments for a class: exercises that are graded here, and tasks for a person.

They are listed in ``assignments.toml``. What a person should look for in an answer is
printed in the instructor's notebook, and on no page of the book.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attn_tutorial.exercises.collection import find
from attn_tutorial.exercises.exercise import Exercise
from attn_tutorial.exercises.notebooks import assembled, for_nbgrader, markdown_cell

__all__ = ["Assignment", "Written", "assignment", "assignment_notebook", "assignments"]

SOURCE = Path(__file__).with_name("assignments.toml")


@dataclass(frozen=True)
class Written:
    """A task whose answer is a text, which a person reads.

    Attributes:
        task: What is asked for.
        minutes: How long it takes.
        criteria: Pairs of points and what they are given for.
        look_for: A word to the grader.
    """

    task: str
    minutes: int
    criteria: tuple[tuple[int, str], ...]
    look_for: str

    @property
    def points(self) -> int:
        """The sum over the criteria."""
        return sum(points for points, _ in self.criteria)


@dataclass(frozen=True)
class Assignment:
    """Exercises and written tasks with one goal.

    Attributes:
        name: Its name, such as "windows_and_blocks".
        title: What it is called.
        goal: What one can do who has done it.
        after: The chapters that it needs.
        exercises: Names of exercises, graded by the autograder.
        written: Tasks that a person reads.
    """

    name: str
    title: str
    goal: str
    after: tuple[str, ...]
    exercises: tuple[str, ...]
    written: tuple[Written, ...]

    @property
    def graded(self) -> tuple[Exercise, ...]:
        """The exercises themselves, in order."""
        return tuple(map(find, self.exercises))

    @property
    def points(self) -> tuple[int, int]:
        """Points that the autograder gives, and points that a person gives."""
        graded = sum(exercise.difficulty for exercise in self.graded)
        return graded, sum(task.points for task in self.written)

    @property
    def minutes(self) -> int:
        """How long it takes, all together."""
        graded = sum(exercise.minutes for exercise in self.graded)
        return graded + sum(task.minutes for task in self.written)


@cache
def assignments() -> tuple[Assignment, ...]:
    """All assignments, in the order of the chapters that they need."""
    found = tomllib.loads(SOURCE.read_text(encoding="utf-8"))["assignment"]
    return tuple(map(_assignment, found))


def _assignment(entry: dict) -> Assignment:
    lists = {name: tuple(entry[name]) for name in ("after", "exercises")}
    written = tuple(
        Written(**{**task, "criteria": tuple(map(tuple, task["criteria"]))})
        for task in entry["written"]
    )
    return Assignment(**{**entry, **lists, "written": written})


def assignment(name: str) -> Assignment:
    """The assignment of this name.

    Raises:
        KeyError: If there is none.

    Example:
        >>> assignment("windows_and_blocks").points
        (13, 9)
    """
    by_name = {each.name: each for each in assignments()}
    if name not in by_name:
        raise KeyError(f"no assignment {name!r}; there are {', '.join(by_name)}")
    return by_name[name]


def assignment_notebook(name: str, variant: str = "student") -> dict:
    """The notebook of an assignment, as nbformat 4.5 stores it.

    Args:
        name: Its name.
        variant: "student", "solution", "instructor" or "nbgrader", as for a chapter;
            the instructor's says what to look for in written answers.

    Raises:
        KeyError: If there is no such assignment.
        ValueError: If there is no such variant.
    """
    found = assignment(name)
    made = assembled(found.title, found.graded, variant, found.goal)
    for number, task in enumerate(found.written, start=1):
        made["cells"] += _written(task, number, variant)
    return made


def _written(task: Written, number: int, variant: str) -> list[dict]:
    head = f"**Written task {number} ({task.points} points, {task.minutes} minutes).**"
    marks = "\n".join(f"- {points}: {reason}" for points, reason in task.criteria)
    asked = f"{head} {task.task}\n\nPoints are given for\n\n{marks}"
    cells = [
        markdown_cell(f"written-{number}", asked),
        markdown_cell(f"written-{number}-answer", "*Your answer.*"),
    ]
    if variant == "nbgrader":  # marked by hand
        marked = {"grade": True, "solution": True, "points": task.points}
        name = f"written-{number}-answer"
        cells[1]["metadata"]["nbgrader"] = for_nbgrader(name, **marked)
    if variant == "instructor":
        looked = f"**What to look for.** {task.look_for}"
        cells.append(markdown_cell(f"written-{number}-look", looked))
    return cells
