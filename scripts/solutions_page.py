"""Repeat each exercise's question above its solution in book/solutions.md.

A chapter asks ``**Exercise N (name).** ...`` and the page answers in a fold of that
name. The questions are copied, never written twice; below each, a link leads to the
section that teaches what is asked.

    python scripts/solutions_page.py            # write the page
    python scripts/solutions_page.py --check    # exit 1 if a question is stale
"""

import argparse
import json
import re
import sys
from pathlib import Path

import anchors

from attn_tutorial.exercises.collection import CHAPTERS, exercises

ROOT = Path(__file__).resolve().parent.parent
PAGE = "book/solutions.md"

EXERCISE = re.compile(
    r"^\*\*Exercise \d+ \(`?([a-z]+-\d+)[^)]*\)\.\*\*\s*"  # its number and name
    r"(.+?)(?=^\*\*Exercise |^## |\Z)",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\s*\[Solution\]\([^)]*\)\.?\s*$")
FOLD = re.compile(
    r"^(````\{dropdown\} (\S+)\n:name: \2\n\n)(?:(?:>.*\n)+\n)?", re.MULTILINE
)


def questions(root: Path) -> dict[str, str]:
    """The question of each exercise by its name, as Markdown for the page."""
    found = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = (c["source"] for c in cells if c["cell_type"] == "markdown")
        text = "\n\n".join("".join(source) for source in prose)
        for name, question in EXERCISE.findall(text):
            found[name] = moved(LINK.sub("", question.strip()), path.name)
    return found


def moved(question: str, chapter: str) -> str:
    """A question whose links lead from the page to where they led from the chapter."""
    question = re.sub(r"\]\((?=[\w-]+\.ipynb)", "](../notebooks/", question)
    question = re.sub(r"\]\(#", f"](../notebooks/{chapter}#", question)
    return question.replace("](../book/", "](")


def taught() -> dict[str, str]:
    """A link to the section of each exercise by its name."""
    return {e.id: linked(name, e.section) for name in CHAPTERS for e in exercises(name)}


def linked(chapter: str, section: str) -> str:
    place = f"../notebooks/{chapter}.ipynb#{anchors.in_sources(section)}"
    return f"[{section}]({place})"


def page(text: str, asked: dict[str, str], taught: dict[str, str]) -> str:
    """The page with every question, and where to read, above its answer."""

    def with_question(match: re.Match) -> str:
        head, name = match[1], match[2]
        if name not in asked:
            return head
        lines = f"**Question.** {asked[name]}".splitlines()
        lines += ["", f"*Read again:* {taught[name]}"] if name in taught else []
        return head + "".join(f"> {line}".rstrip() + "\n" for line in lines) + "\n"

    return FOLD.sub(with_question, text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    file = options.root / PAGE
    before = file.read_text(encoding="utf-8")
    after = page(before, questions(options.root), taught())
    if not options.check:
        file.write_text(after, encoding="utf-8")
    elif before != after:
        print(f"{PAGE} has stale questions: run `make index`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
