"""All exercises and quizzes, in the order of the chapters."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module

from attn_tutorial.exercises.exercise import Exercise, Question

__all__ = ["CHAPTERS", "chapter_of", "exercises", "find", "quiz"]

CHAPTERS = (
    "why_efficient_transformers",
    "self_attention",
    "the_quadratic_bill",
    "local_attention",
    "sparse_attention",
    "patterns",
    "backward",
    "from_masks_to_kernels",
    "scaling",
    "speed_clinic",
    "many_devices",
    "does_sparsity_hurt",
    "choosing_a_window",
    "other_improvements",
    "looking_inside",
    "window_conventions",
    "decoding",
    "hugging_face",
    "applications",
)


@cache
def _chapter(name: str) -> object:
    if name not in CHAPTERS:
        raise KeyError(f"no chapter {name!r}; there are {', '.join(CHAPTERS)}")
    return import_module(f"attn_tutorial.exercises.chapters.{name}")


def exercises(chapter: str | None = None) -> tuple[Exercise, ...]:
    """The exercises of a chapter, or all of them.

    Raises:
        KeyError: If there is no such chapter.
    """
    names = CHAPTERS if chapter is None else (chapter,)
    return tuple(found for name in names for found in _chapter(name).EXERCISES)


def quiz(chapter: str) -> tuple[Question, ...]:
    """The questions at the end of a chapter.

    Raises:
        KeyError: If there is no such chapter.
    """
    return _chapter(chapter).QUIZ


@cache
def _by_id() -> dict[str, tuple[str, Exercise]]:
    return {e.id: (name, e) for name in CHAPTERS for e in exercises(name)}


def find(id: str) -> Exercise:
    """The exercise of this name.

    Raises:
        KeyError: If there is none; names one that is written nearly so.
    """
    if id not in _by_id():
        near = difflib.get_close_matches(str(id), _by_id(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise KeyError(f"no exercise {id!r}{hint}")
    return _by_id()[id][1]


def chapter_of(id: str) -> str:
    """The chapter of an exercise."""
    find(id)
    return _by_id()[id][0]
