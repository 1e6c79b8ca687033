"""What a class got wrong, part by part, and which section each is to read again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attn_tutorial.exercises.collection import chapter_of, find
from attn_tutorial.exercises.gradebook import as_csv, grade_files
from attn_tutorial.exercises.judging import Verdict
from attn_tutorial.exercises.wire import printable

__all__ = ["Tally", "address", "mistakes", "read_grades", "tallies"]

HEAD = ["exercise", "part", "failed", "answered", "unanswered", "said", "said to"]
HEAD += ["chapter", "section", "read again"]


@dataclass
class Tally:
    """What a class did with one part of an exercise.

    Attributes:
        exercise: The exercise's name.
        part: The part's name.
        verdicts: Those of all notebooks in which it counts.
    """

    exercise: str
    part: str
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def failed(self) -> list[Verdict]:
        """What was said of wrong answers."""
        return [verdict for verdict in self.verdicts if verdict.passed is False]

    @property
    def unanswered(self) -> int:
        """How many gave no answer; they did not fail."""
        return sum(verdict.passed is None for verdict in self.verdicts)

    @property
    def commonest(self) -> tuple[str, int]:
        """The mistake that most made, in the words of ``check``, and how many made it.

        Answers with the same known mistake count together, whatever the example.
        """
        if not self.failed:
            return "", 0
        kinds = Counter(verdict.mistake or verdict.text for verdict in self.failed)
        ((kind, count),) = kinds.most_common(1)
        alike = (v.text for v in self.failed if kind in (v.mistake, v.text))
        return Counter(alike).most_common(1)[0][0], count


def address(id: str) -> str:
    """Where in the site the section of an exercise is, from the site's first page.

    Raises:
        KeyError: If there is no such exercise.

    Example:
        >>> address("local-6")
        'notebooks/local_attention.html#depth'
    """
    return f"notebooks/{chapter_of(id)}.html#{_anchor(find(id).section)}"


def _anchor(heading: str) -> str:
    """The identifier that Sphinx gives to a heading."""
    words = re.sub(r"[^a-z0-9]+", "-", heading.lower())
    return re.sub(r"^[-0-9]+|-$", "", words)


def read_grades(folder: Path) -> tuple[list[list[tuple[str, Verdict]]], list[str]]:
    """The grades that lie in a folder, and what is wrong with those that are none.

    Returns:
        For each grade, the exercise and the verdict of every part; and a sentence for
        each file that could not be read.
    """
    found, faults = [], []
    for path in grade_files(folder).values():
        try:
            found.append(list(_verdicts(path)))
        except OSError as error:
            faults.append(printable(f"{path}: {error.strerror}"))
        except (KeyError, TypeError, ValueError, RecursionError):
            faults.append(printable(f"{path}: this is no grade of the grader"))
    return found, faults


def _verdicts(path: Path) -> Iterator[tuple[str, Verdict]]:
    for result in json.loads(path.read_text(encoding="utf-8"))["results"]:
        for part in result["parts"]:
            if not (part["passed"] is None or isinstance(part["passed"], bool)):
                raise ValueError(f"passed must be true, false or null: {part}")
            told = {key: _in_a_line(part[key]) for key in ("name", "text")}
            mistake = part["mistake"] and _in_a_line(part["mistake"])
            verdict = Verdict(passed=part["passed"], mistake=mistake, **told)
            yield _in_a_line(result["id"]), verdict


def _in_a_line(text: str) -> str:
    """A text of a file, which anybody may have written, as a cell of a table."""
    if not isinstance(text, str):
        raise TypeError(f"a text is wanted, got {text!r}")
    return printable(" ".join(text.split()))


def tallies(grades: Iterable[list[tuple[str, Verdict]]]) -> list[Tally]:
    """Every part of the grades, those that most failed first.

    Where as many failed, those come first that more left empty.
    """
    found: dict[tuple[str, str], Tally] = {}
    for grade in grades:
        for id, verdict in grade:
            tally = found.setdefault((id, verdict.name), Tally(id, verdict.name))
            tally.verdicts.append(verdict)
    return sorted(found.values(), key=lambda t: (-len(t.failed), -t.unanswered))


def mistakes(grades: Iterable[list[tuple[str, Verdict]]]) -> str:
    """A table as CSV: a line for each part that somebody failed or left empty."""
    shown = [t for t in tallies(grades) if t.failed or t.unanswered]
    return as_csv([HEAD, *map(_line, shown)])


def _line(tally: Tally) -> list:
    text, count = tally.commonest
    answered = len(tally.verdicts) - tally.unanswered
    counts = [len(tally.failed), answered, tally.unanswered]
    line = [tally.exercise, tally.part, *counts, text, count or ""]
    try:
        section = find(tally.exercise).section
    except KeyError:  # of another edition of the book
        return [*line, "", "", ""]
    return [*line, chapter_of(tally.exercise), section, address(tally.exercise)]
