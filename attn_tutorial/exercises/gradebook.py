"""Grade what a whole class handed in: many notebooks, and one table of their points."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from attn_tutorial.exercises.assignments import assignment
from attn_tutorial.exercises.grading import Grade, Limits, grade
from attn_tutorial.exercises.wire import printable

__all__ = [
    "Entry",
    "Rules",
    "as_csv",
    "grade_all",
    "grade_file",
    "grade_files",
    "marks",
    "submissions",
    "table",
]

SUFFIX = ".grade.json"


@dataclass(frozen=True)
class Rules:
    """How all notebooks of a class are graded.

    Attributes:
        limits: What each may take.
        chapter: Count all exercises of this chapter.
        assignment: Count those of this assignment. Without both, those that a notebook
            names.
        seed: Draws the cases for functions; fresh ones for each notebook if None.
    """

    limits: Limits
    chapter: str | None = None
    assignment: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the table: a notebook's name, and its grade or why it has none."""

    name: str
    grade: Grade | None
    fault: str = ""

    @property
    def ended(self) -> str:
        """How the run ended, or why there was none."""
        return self.grade.ended if self.grade else f"not graded: {self.fault}"


def submissions(paths: Iterable[Path]) -> dict[str, Path]:
    """The notebooks that are named, or lie in folders that are, by their names.

    In a folder, a name is the way from there, so that students may have folders of
    their own. What Jupyter keeps in hidden folders is left out.
    """
    found = {}
    for path in paths:
        for way, each in _inside(path) if path.is_dir() else [(Path(path.name), path)]:
            name = way.with_suffix("").as_posix()
            name = name if name not in found else each.with_suffix("").as_posix()
            found[name] = each
    return found


def _inside(folder: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(folder.rglob("*.ipynb")):
        way = path.relative_to(folder)
        if not any(part.startswith(".") for part in way.parts):
            yield way, path


def grade_file(path: Path, rules: Rules, out: Path | None = None) -> Grade:
    """Grade one notebook, and write its grade beside it, as JSON.

    Raises:
        OSError: If it cannot be read, or its grade not written.
        ValueError: If it is no notebook.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("no notebook: it is nested too deep") from None
    counted = assignment(rules.assignment).graded if rules.assignment else ()
    graded = grade(found, rules.chapter, rules.limits, rules.seed, counted)
    text = json.dumps(graded.as_json(), indent=1, ensure_ascii=False)
    out = out or path.with_suffix(SUFFIX)
    out.write_text(text + "\n", encoding="utf-8")
    return graded


def grade_all(found: dict[str, Path], rules: Rules, jobs: int = 1) -> Iterator[Entry]:
    """Grade many notebooks, some at a time; what cannot be graded has an entry too.

    Args:
        found: Notebooks by their names.
        rules: How to grade them.
        jobs: How many processes grade.
    """
    if jobs == 1:
        for name, path in found.items():
            yield _entry(name, path, rules)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (1,)) as pool:
        waiting = {n: pool.submit(_entry, n, p, rules) for n, p in found.items()}
        try:
            for name, future in waiting.items():
                yield _taken(name, future)
        finally:
            pool.shutdown(cancel_futures=True)


def _entry(name: str, path: Path, rules: Rules) -> Entry:
    try:
        return Entry(name, grade_file(path, rules))
    except Exception as error:  # one of them must not cost the others their grades
        return Entry(name, None, f"{type(error).__name__}: {error}")


def _taken(name: str, future: Future) -> Entry:
    try:
        return future.result()
    except BrokenProcessPool:
        return Entry(name, None, "the process that graded it was killed")


# Tables.


def table(entries: list[Entry]) -> str:
    """Points as CSV: a line a notebook, a column an exercise."""
    graded = [entry.grade for entry in entries if entry.grade]
    ids = list(dict.fromkeys(r["id"] for each in graded for r in each.results))
    lines = [["notebook", "points", "possible", "ended", "errors", *ids]]
    for entry in entries:
        line = [entry.name, "", "", entry.ended, "", *("" for _ in ids)]
        if entry.grade:
            points = {r["id"]: f"{r['points']:g}" for r in entry.grade.results}
            possible = entry.grade.as_json()["possible"]
            line[1:3] = f"{entry.grade.points:g}", f"{possible:g}"
            line[4:] = len(entry.grade.errors), *(points.get(id, "") for id in ids)
        lines.append(line)
    return as_csv(lines)


def grade_files(folder: Path) -> dict[str, Path]:
    """The files of grades that lie in a folder, by the names of their notebooks."""
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    return {p.relative_to(folder).as_posix().removesuffix(SUFFIX): p for p in paths}


def marks(folder: Path) -> str:
    """The grades that lie in a folder, as CSV: points, and how the runs ended."""
    lines = [["notebook", "points", "possible", "ended"]]
    for name, path in grade_files(folder).items():
        lines.append([printable(name), *_mark(path)])
    return as_csv(lines)


def _mark(path: Path) -> list[str]:
    """Points, points possible and the end of a run; students may have written it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        points = [f"{found[key]:g}" for key in ("points", "possible")]
        return [*points, printable(str(found["ended"]))]
    except (OSError, OverflowError, KeyError, TypeError, ValueError, RecursionError):
        return ["", "", "this is no grade of the grader"]


def as_csv(lines: list[list]) -> str:
    """Lines as CSV; a text that a spreadsheet would compute is kept from it."""
    text = io.StringIO()
    for line in lines:
        safe = (f"'{x}" if str(x).startswith(("=", "+", "-", "@")) else x for x in line)
        csv.writer(text, lineterminator="\n").writerow(safe)
    return text.getvalue()
