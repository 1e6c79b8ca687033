"""Exercises that answer back: they say which mistake it was, with the smallest example.

``check("local-1", ...)`` prints a verdict, in Chinese after ``language("zh")``, and
``assess`` returns it. An exercise, its solution and its known mistakes stand in one
place, a file a chapter in ``chapters/``; notebooks, the quizzes and the grader are made
from there.

Example:
    >>> check("self-1", 0.982)
    self-1: not 0.982. It is too large.
"""

from attn_tutorial.exercises.collection import exercises, find, quiz
from attn_tutorial.exercises.judging import Report, judge
from attn_tutorial.exercises.languages import language

__all__ = [
    "Report",
    "assess",
    "check",
    "exercises",
    "find",
    "language",
    "passed",
    "quiz",
]

LAST: dict[str, bool] = {}  # whether the last answer to each exercise was right


def check(id: str, *answer: object, **answers: object) -> None:
    """Say whether an answer is right, and if not, which mistake it is.

    Args:
        id: The exercise, such as "local-1".
        *answer: The answer, if one thing is asked for.
        **answers: The answers by their names, if there are several. ``...`` means not
            answered yet.

    Raises:
        KeyError: If there is no such exercise.
        TypeError: If the exercise asks for other things.
    """
    report = assess(id, *answer, **answers)
    LAST[id] = report.passed
    print(report)


def assess(id: str, *answer: object, **answers: object) -> Report:
    """Judge an answer as ``check`` does, and return what ``check`` prints."""
    exercise = find(id)
    if answer:
        names = [part.name for part in exercise.parts]
        if len(answer) > 1 or len(names) > 1 or answers:
            raise TypeError(f"name the answers of {id}: {', '.join(names)}")
        answers = {names[0]: answer[0]}
    return judge(exercise, answers)


def passed(id: str) -> bool:
    """Whether the last ``check`` of this exercise, in this session, said right.

    Raises:
        KeyError: If there is no such exercise.
    """
    return LAST.get(find(id).id, False)
