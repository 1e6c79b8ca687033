"""The exercises from a command line: ``python -m attn_tutorial.exercises --help``."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path

from attn_tutorial.exercises import notebooks, wire
from attn_tutorial.exercises.assignments import (
    assignment,
    assignment_notebook,
    assignments,
)
from attn_tutorial.exercises.collection import CHAPTERS, exercises
from attn_tutorial.exercises.exam import write_exam
from attn_tutorial.exercises.gradebook import (
    Entry,
    Rules,
    grade_all,
    grade_file,
    marks,
    submissions,
    table,
)
from attn_tutorial.exercises.grading import Grade, Limits
from attn_tutorial.exercises.mistakes import mistakes, read_grades
from attn_tutorial.exercises.overview import overview
from attn_tutorial.exercises.quizzes import quiz_markdown

NAMES = tuple(each.name for each in assignments())


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m attn_tutorial.exercises")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_commands(commands)
    chosen = parser.parse_args(arguments)
    return chosen.run(chosen)


def _add_commands(commands: argparse._SubParsersAction) -> None:
    for name, text, run in (
        ("list", "print the exercises of a chapter", _list),
        ("cells", "print a chapter's cells as JSON", _cells),
        ("quiz", "print a chapter's quiz as Markdown", _quiz),
        ("solutions", "print entries for the page of solutions", _solutions),
        ("make", "write a notebook of exercises", _make),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("chapter", choices=CHAPTERS)
        command.set_defaults(run=run)
        if name == "make":
            command.add_argument("--variant", choices=notebooks.VARIANTS)
            command.add_argument("--out", type=Path)
    insert = commands.add_parser("insert", help="put a chapter's cells into it")
    insert.add_argument("notebook", type=Path)
    insert.add_argument("--quiz", action="store_true", help="and its quiz")
    insert.set_defaults(run=_insert)
    table = commands.add_parser("overview", help="print the table of all")
    table.add_argument("--page", type=Path, help="write it into this page instead")
    table.set_defaults(run=_overview)
    _add_grade(commands.add_parser("grade", help="grade notebooks"))
    _add_for_teachers(commands)


def _add_for_teachers(commands: argparse._SubParsersAction) -> None:
    assign = commands.add_parser("assign", help="write an assignment's notebook")
    assign.add_argument("assignment", choices=NAMES)
    assign.add_argument("--variant", choices=notebooks.VARIANTS, default="student")
    assign.add_argument("--out", type=Path)
    assign.set_defaults(run=_assign)
    exam = commands.add_parser("exam", help="write a paper and, beside it, its key")
    exam.add_argument("--seed", type=int, help="the same one makes both again")
    exam.add_argument("--questions", type=int, default=12)
    exam.add_argument("--chapters", nargs="+", choices=CHAPTERS, default=CHAPTERS)
    exam.add_argument("--out", type=Path, default=Path("exam.html"))
    exam.set_defaults(run=_exam)
    marks = commands.add_parser("marks", help="print the grades of a folder as CSV")
    marks.add_argument("folder", type=Path)
    marks.set_defaults(run=_marks)
    wrong = commands.add_parser("mistakes", help="print what a class got wrong, as CSV")
    wrong.add_argument("folder", type=Path, help="with the grades of the class")
    wrong.set_defaults(run=_mistakes)


def _add_grade(command: argparse.ArgumentParser) -> None:
    command.add_argument("notebooks", type=Path, nargs="+", help="or a folder of them")
    counts = command.add_mutually_exclusive_group()
    counts.add_argument("--chapter", choices=CHAPTERS, help="count all its exercises")
    counts.add_argument("--assignment", choices=NAMES, help="count all that it has")
    command.add_argument("--seconds", type=float, default=Limits.seconds)
    command.add_argument("--memory", type=int, default=2048, help="MiB")
    command.add_argument("--jobs", type=_jobs, default=1, help="graded at a time")
    command.add_argument(
        "--out", type=Path, help="where the JSON goes; of several notebooks, the table"
    )
    command.set_defaults(run=_grade)


def _list(chosen: argparse.Namespace) -> int:
    for e in exercises(chosen.chapter):
        print(f"{e.id:12} {e.kind:10} {e.difficulty}  {e.minutes:3} min")
    return 0


def _cells(chosen: argparse.Namespace) -> int:
    print(json.dumps(notebooks.cells(chosen.chapter), indent=1, ensure_ascii=False))
    return 0


def _quiz(chosen: argparse.Namespace) -> int:
    print(quiz_markdown(chosen.chapter))
    return 0


def _solutions(chosen: argparse.Namespace) -> int:
    print(notebooks.solutions(exercises(chosen.chapter)))
    return 0


def _overview(chosen: argparse.Namespace) -> int:
    if chosen.page is None:
        print(overview())
        return 0
    text = chosen.page.read_text(encoding="utf-8")
    head, _, rest = text.partition("<!-- overview -->\n")
    end = rest.partition("<!-- end -->")[2]
    made = f"{head}<!-- overview -->\n\n{overview()}\n\n<!-- end -->{end}"
    chosen.page.write_text(made, encoding="utf-8")
    return 0


def _make(chosen: argparse.Namespace) -> int:
    variant = chosen.variant or "student"
    out = chosen.out or Path(f"{chosen.chapter}-{variant}.ipynb")
    notebooks.write(notebooks.notebook(chosen.chapter, variant), out)
    print(out)
    return 0


def _insert(chosen: argparse.Namespace) -> int:
    chapter = chosen.notebook.stem
    found = json.loads(chosen.notebook.read_text(encoding="utf-8"))
    quiz = quiz_markdown(chapter) if chosen.quiz else ""
    notebooks.write(notebooks.insert(found, chapter, quiz), chosen.notebook)
    return 0


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of processes, got {text!r}")
    return int(text)


def _grade(chosen: argparse.Namespace) -> int:
    limits = Limits(seconds=chosen.seconds, memory=chosen.memory * 2**20)
    seed = secrets.randbelow(10**6) + 1  # one, so that a whole class is asked the same
    rules = Rules(limits, chosen.chapter, chosen.assignment, seed)
    path, *more = chosen.notebooks
    if more or path.is_dir():
        status = _grade_several(chosen, rules)
    else:
        status = _grade_one(chosen, path, rules)
    if chosen.assignment and status != 2:
        points = assignment(chosen.assignment).points[1]
        print(f"the written tasks are yours to read: {points} points")
    return status


def _grade_one(chosen: argparse.Namespace, path: Path, rules: Rules) -> int:
    try:
        graded = grade_file(path, rules, chosen.out)
    except (OSError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    _show(graded)
    return 0


def _grade_several(chosen: argparse.Namespace, rules: Rules) -> int:
    """Grade a class; status 1 if some of its notebooks could not be graded."""
    found = submissions(chosen.notebooks)
    if not found:
        print(f"{chosen.notebooks[0]}: no notebooks in it", file=sys.stderr)
        return 2
    first = chosen.notebooks[0]
    out = chosen.out or (first if first.is_dir() else first.parent) / "grades.csv"
    entries = []
    for entry in grade_all(found, rules, chosen.jobs):
        entries.append(entry)
        print(_line(entry, max(map(len, found))), flush=True)
    try:
        # A name from an old archive may be no UTF-8.
        out.write_text(table(entries), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        print(f"{out}: {error}", file=sys.stderr)
        return 2
    graded = [entry.grade.points for entry in entries if entry.grade]
    mean = f", {sum(graded) / len(graded):.1f} points on average" if graded else ""
    print(f"{len(graded)} of {len(entries)} notebooks graded{mean}")
    print(f"the table: {out}")
    return 0 if len(graded) == len(entries) else 1


def _line(entry: Entry, width: int) -> str:
    name = f"{wire.printable(entry.name):{width}}"
    if not entry.grade:
        return f"{name}  {wire.printable(entry.ended)}"
    points = f"{entry.grade.points:g} of {entry.grade.as_json()['possible']:g}"
    errors = len(entry.grade.errors)
    raised = f", cells with an error: {errors}" if errors else ""
    return f"{name}  {points:>12}  {entry.ended}{raised}"


def _assign(chosen: argparse.Namespace) -> int:
    out = chosen.out or Path(f"{chosen.assignment}-{chosen.variant}.ipynb")
    notebooks.write(assignment_notebook(chosen.assignment, chosen.variant), out)
    print(out)
    return 0


def _exam(chosen: argparse.Namespace) -> int:
    seed = secrets.randbelow(10**9) if chosen.seed is None else chosen.seed
    try:
        made = write_exam(chosen.out, seed, chosen.questions, chosen.chapters)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(*made, f"seed {seed}", sep="\n")
    return 0


def _marks(chosen: argparse.Namespace) -> int:
    print(marks(chosen.folder), end="")
    return 0


def _mistakes(chosen: argparse.Namespace) -> int:
    """Print the table; status 1 if some files were no grades, 2 if all were none."""
    found, faults = read_grades(chosen.folder)
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    if not found:
        advice = "`grade` writes them, beside the notebooks"
        print(f"{chosen.folder}: no grades in it; {advice}", file=sys.stderr)
        return 2
    print(mistakes(found), end="")
    return 1 if faults else 0


def _show(graded: Grade) -> None:
    for result in graded.results:
        print(f"{result['id']:12} {result['points']:g} of {result['possible']}")
        for part in result["parts"]:
            if not part["passed"]:
                print(f"    {part['name']}: {part['text']}")
    for text in (*graded.notes, *graded.errors):
        print(text)
    possible = graded.as_json()["possible"]
    print(f"{graded.points:g} of {possible} points; the run {graded.ended}")
    print(f"held by: {', '.join(graded.walls) or 'nothing'}")


if __name__ == "__main__":
    sys.exit(main())
