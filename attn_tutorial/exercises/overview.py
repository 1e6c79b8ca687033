"""The table of all exercises, for the page that lists them."""

from __future__ import annotations

from attn_tutorial.exercises.collection import CHAPTERS, exercises
from attn_tutorial.exercises.exercise import Exercise

__all__ = ["overview"]

HEAD = "| Exercise | Kind | Difficulty | Minutes | Asks for |\n|---|---|---|---|---|"


def overview() -> str:
    """A section a chapter, a row an exercise, and the sums at the end."""
    sections = [_section(chapter) for chapter in CHAPTERS]
    found = exercises()
    minutes = sum(exercise.minutes for exercise in found)
    kinds = ("predict", "derive", "implement", "diagnose")
    counts = ", ".join(f"{sum(e.kind == k for e in found)} to {k}" for k in kinds)
    total = f"In all {len(found)} exercises, {minutes / 60:.0f} hours: {counts}."
    return "\n\n".join([*sections, total])


def _section(chapter: str) -> str:
    title = chapter.replace("_", " ").capitalize()
    head = f"### {title}\n\n[To the chapter](../notebooks/{chapter}.ipynb)\n\n{HEAD}"
    return "\n".join([head, *map(_row, exercises(chapter))])


def _row(exercise: Exercise) -> str:
    asked = ", ".join(f"`{part.name}`" for part in exercise.parts)
    about = f"{exercise.kind} | {exercise.difficulty} | {exercise.minutes}"
    return f"| {exercise.id} | {about} | {asked} |"
