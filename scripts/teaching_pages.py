"""Write the generated parts of the pages for teachers: assignments, and timings.

python scripts/teaching_pages.py            # write the pages
python scripts/teaching_pages.py --check    # exit 1 if one is stale
"""

import json
import re
import sys
from pathlib import Path

import yaml

from attn_tutorial.exercises.assignments import Assignment, Written, assignments
from attn_tutorial.exercises.exercise import Formula, Function

ROOT = Path(__file__).resolve().parents[1]
TEACHING = ROOT / "book" / "teaching"
RECORD = ROOT / "book" / "data" / "teaching" / "timings.json"
STATED = re.compile(r"\*\*Time:?\*\*:? (\d+) minutes of reading")
RUNS = re.compile(r"minutes of reading[^.]*?\brun in ([^.,;]+)")


def in_order() -> list[str]:
    """The chapters, in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [Path(file).name for file in files if file.startswith("notebooks/")]


def prose(chapter: str) -> str:
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if "outputs" not in c)


def link(chapter: str) -> str:
    title = prose(chapter).partition("\n")[0].removeprefix("# ").partition(":")[0]
    return f"[{title}](../../notebooks/{chapter}.ipynb)"


# Timings


def timings() -> str:
    """What each chapter says of its time, and what was measured, once it was."""
    said = {chapter: prose(chapter) for chapter in in_order()}
    if not RECORD.exists():
        head = ["| | Chapter | Reading, minutes | Cells run in |", "|---|---|---|---|"]
        rows = [[RUNS.search(text)[1]] for text in said.values()]
        last = "As the chapters say; `make timings` measures it on your machine."
    else:
        head = ["| | Chapter | Reading, minutes | Cells, seconds | Memory, MiB |"]
        head += ["|---|---|---|---|---|"]
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        found = {entry["chapter"]: entry for entry in record["chapters"]}
        rows = [[f"{found[c]['seconds']:.0f}", f"{found[c]['mib']:,}"] for c in said]
        last = measured_on(record)
    lines = [
        f"| {' | '.join([str(k), link(c), STATED.search(said[c])[1], *row])} |"
        for k, (c, row) in enumerate(zip(said, rows, strict=True), start=1)
    ]
    return "\n".join([*head, *lines, "", last])


def measured_on(record: dict) -> str:
    most = max(record["chapters"], key=lambda entry: entry["mib"])
    total = sum(entry["seconds"] for entry in record["chapters"]) / 60
    count = record["threads"]
    threads = "one thread" if count == 1 else f"{count} threads"
    versions = f"PyTorch {record['torch']} and Python {record['python']}"
    machine = f"{threads} ({record['device']['name']})"
    return (
        f"Measured on {record['started'][:10]} with {versions}, {machine}, one chapter"
        " after the other, from the start of a kernel to the end of the last cell: "
        f"{total:.0f} minutes in all. The most memory, {most['mib']:,} MiB with all "
        f"processes that it starts, is taken by {link(most['chapter'])}. Another "
        "machine takes another time; `make timings` measures yours."
    )


# Assignments


def assigned() -> str:
    return "\n\n".join(map(section, assignments()))


def section(one: Assignment) -> str:
    graded, read = one.points
    after = ", ".join(map(link, one.after))
    rows = [
        f"| {e.id} | {e.kind} | {e.difficulty} | {checked(e)} |" for e in one.graded
    ]
    parts = [
        f"### {one.title}",
        f"*Goal:* {one.goal}",
        f"*After:* {after}. *Time:* about {one.minutes / 60:.1f} hours. *Points:* "
        f"{graded} from the autograder, {read} from a person.",
        f"```bash\npython -m attn_tutorial.exercises assign {one.name}\n```",
        "| Exercise | Kind | Points | The autograder checks |\n|---|---|---|---|\n"
        + "\n".join(rows),
        *(task(number, t) for number, t in enumerate(one.written, start=1)),
    ]
    return "\n\n".join(parts)


def checked(exercise) -> str:
    functions = [p for p in exercise.parts if isinstance(p, Function)]
    mistakes = sum(len(part.mistakes) for part in functions)
    names = ", ".join(f"`{part.name}`" for part in exercise.parts)
    if not functions:
        return f"{names}, once"
    kind = "a formula" if isinstance(functions[0], Formula) else "a function"
    known = f", against {mistakes} known mistakes" if mistakes else ""
    return f"{names}: {kind} on inputs drawn anew{known}"


def task(number: int, one: Written) -> str:
    rows = "\n".join(f"| {points} | {reason} |" for points, reason in one.criteria)
    head = f"**Written task {number}** ({one.points} points, {one.minutes} minutes)."
    return f"{head} {one.task}\n\n| Points | are given for |\n|---|---|\n{rows}"


# The pages


def filled(page: Path, name: str, made: str) -> str:
    """The page with what was made between its two marks."""
    text = page.read_text(encoding="utf-8")
    head, mark, rest = text.partition(f"<!-- {name} -->\n")
    end = rest.partition("<!-- end -->")[2]
    if not mark or not end:
        raise ValueError(f"{page} has no place for {name}")
    return f"{head}{mark}\n{made}\n\n<!-- end -->{end}"


def pages() -> dict[Path, str]:
    """Each page with generated parts, as it should be."""
    made = [("assignments", "assignments", assigned()), ("index", "timings", timings())]
    return {
        TEACHING / f"{page}.md": filled(TEACHING / f"{page}.md", name, text)
        for page, name, text in made
    }


def main(arguments: list[str]) -> int:
    stale = [p for p, text in pages().items() if p.read_text("utf-8") != text]
    if "--check" in arguments:
        print(*(f"{page} is stale" for page in stale), sep="\n")
        return bool(stale)
    for page in stale:
        page.write_text(pages()[page], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
