"""What a chapter owes its reader: answers that fold, numbers, few and useful lines.

The rules are functions that yield faults of a notebook. Each of them is shown to notice
a sabotage of a good notebook, at the end of this file.
"""

import copy
import re
import sys
from itertools import pairwise

import nbformat
import pytest
from conftest import HTML, ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from attn_tutorial.pictures import diagrams

sys.path.insert(0, str(ROOT / "scripts"))
import solutions_page as solutions

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINES = 150  # of code that stands open in a chapter
WORDS_A_MINUTE = 200
MINUTES_A_CELL = 0.5
MINUTES = 45  # a chapter that takes longer is two chapters
OPENER = 270  # height of the diagram that opens a chapter, 360 wide
OFF = 5  # minutes by which a chapter may misjudge itself

PREDICT = re.compile(r"^\*\*Predict", re.MULTILINE)
QUESTION = re.compile(r"^\*\*(?:Predict|\d+\.)", re.MULTILINE)  # also of a quiz
AFTER = re.compile(r"^## (?:Check yourself|Exercises)$", re.MULTILINE)
FOLD = re.compile(
    r'<details(?: class="([^"]*)")?><summary>(.*?)</summary>\n\n(.*?)\n\n</details>',
    re.DOTALL,
)
NUMBER = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?:\.\d+)?")
ASSERT = re.compile(r"^ *assert .+$", re.MULTILINE)
DRAWS = re.compile(r"\bplots\.[a-z]+\(|\bexplore\.\w+\(|\bdiagrams\.\w+\(")
PRINTS_CODE = re.compile(r"getsource|\b(?:body|code)\(")
ADD_UP = re.compile(r"add up to (\d+) and are not part of the reading time")
ITS_MINUTES = re.compile(r"^\*\*Exercise \d+ \([^)]* (\d+) minutes\)", re.MULTILINE)
STATED = re.compile(r"\*\*Time:?\*\*:? (\d+) minutes of reading")
MENTION = re.compile(r"(\[?)\bEqs?\. ?\(?(\d+)\)?(\]\([./\w]*#equation-)?")
NO_LINKS_IN = re.compile(r"^#.*$|<summary>.*?</summary>", re.MULTILINE)
FOLDING = (("hide-input", "source_hidden"), ("hide-output", "outputs_hidden"))


def of_kind(notebook, kind: str) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def body(notebook) -> list:
    """The cells before the quiz and the exercises, which have minutes of their own."""
    heads = (
        number
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown" and AFTER.search(cell.source)
    )
    return notebook.cells[: next(heads, None)]


def has(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def printed(cell) -> str:
    parts = (
        o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs
    )
    return "\n".join(parts)


def without_code(markdown: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", " ", markdown, flags=re.S)


# Predictions


def faults_of_the_predictions(notebook):
    """Each is answered in a fold before the next, in its cell or the one after."""
    prose = [cell.source for cell in of_kind(notebook, "markdown")]
    for source, after in zip(prose, [*prose[1:], ""], strict=True):
        starts = [match.start() for match in PREDICT.finditer(source)]
        for start, end in pairwise([*starts, len(source)]):
            answer = source[start:end]
            if end == len(source):
                answer += "\n\n" + PREDICT.split(after)[0]
            if not FOLD.search(answer):
                yield f"no folded answer: {source[start : start + 60]!r}"


def faults_of_the_folds(notebook):
    """A fold is an answer or a choice; one of several choices is right, all say why."""
    for cell in of_kind(notebook, "markdown"):
        if len(FOLD.findall(cell.source)) != cell.source.count("<details"):
            yield f"a fold that does not fold: {cell.source[:60]!r}"
        for question in QUESTION.split(cell.source):
            kinds = [kind for kind, *_ in FOLD.findall(question)]
            if set(kinds) - {"answer", "choice", "choice right"}:
                yield f"folds of the kinds {kinds}"
            choices = [kind for kind in kinds if kind.startswith("choice")]
            if choices and (len(choices) < 2 or choices.count("choice right") != 1):
                yield f"choices of the kinds {choices}"
            for kind, summary, text in FOLD.findall(question):
                if len(text.split()) < 3:
                    yield f"{kind} {summary!r} gives no reason"


def faults_of_what_gives_answers_away(notebook):
    """The output that follows a prediction is folded."""
    asked = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            asked = cell.source if PREDICT.search(cell.source) else asked
            if asked != cell.source and re.search(r"^#", cell.source, re.M):
                asked = ""
        elif asked and cell.outputs:
            if not has(cell, "hide-output"):
                yield f"an answer stands open: {cell.source[:60]!r}"
            asked = ""


def faults_of_the_asserts(notebook):
    """What a fold hides, no open assert beside it tells."""
    for cell in body(notebook):
        if cell.cell_type == "code" and has(cell, "hide-output"):
            hidden = set(NUMBER.findall(printed(cell).replace(",", "")))
            asserts = [] if has(cell, "hide-input") else ASSERT.findall(cell.source)
            for number in NUMBER.findall("\n".join(asserts)):
                if number in hidden and float(number) > 2:
                    yield f"an assert tells the {number} that is asked for"


# Code and what it prints


def faults_of_the_tags(notebook):
    """What Jupyter Book folds, JupyterLab folds, too."""
    for cell in of_kind(notebook, "code"):
        for tag, key in FOLDING:
            if has(cell, tag) != bool(cell.metadata.get("jupyter", {}).get(key)):
                yield f"{tag} without {key}, or the reverse: {cell.source[:60]!r}"


def faults_of_the_open_code(notebook):
    """Set-up and drawing are folded, and what stays open, exercises too, is short."""
    cells = of_kind(notebook, "code")
    if cells and not has(cells[0], "hide-input"):
        yield "the set-up stands open"
    lines = 0
    for cell in cells:
        if has(cell, "hide-input"):
            continue
        lines += sum(bool(line.strip()) for line in cell.source.splitlines())
        if DRAWS.search(cell.source):
            yield f"drawing stands open: {cell.source[:60]!r}"
    if lines > LINES:
        yield f"{lines} lines of code stand open"


def faults_of_the_numbers(notebook):
    """A cell prints what it found, not that it was found."""
    for cell in of_kind(notebook, "code"):
        if not PRINTS_CODE.search(cell.source):
            said = re.search(r".*\b(?:True|False)\b.*", printed(cell))
            if said:
                yield f"prints {said[0].strip()[:60]!r}"


# Time


def minutes(notebook) -> float:
    """Time to read the text and to look at each cell of which something is open.

    The quiz and the exercises are left out.
    """
    read = nbformat.from_dict({"cells": body(notebook)})
    text = "\n".join(cell.source for cell in of_kind(read, "markdown"))
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", " x ", text, flags=re.S)
    text = re.sub(r"</?\w+[^>]*>|\]\([^)]*\)|[|#*`]", " ", text)
    words = sum(bool(re.search(r"\w", word)) for word in text.split())
    open_cells = sum(
        not has(cell, "hide-input")
        or (bool(cell.outputs) and not has(cell, "hide-output"))
        for cell in of_kind(read, "code")
    )
    return words / WORDS_A_MINUTE + MINUTES_A_CELL * open_cells


def faults_of_the_time(notebook):
    """It takes as long as it says, and that is not too long."""
    said = STATED.search("\n".join(c.source for c in of_kind(notebook, "markdown")))
    if not said:
        yield "the time to read is not stated"
        return
    takes = minutes(notebook)
    if abs(int(said[1]) - takes) > OFF:
        yield f"says {said[1]} minutes and takes {takes:.0f}"
    if takes > MINUTES:
        yield f"takes {takes:.0f} minutes: split it"


# Links


def faults_of_the_equations(notebook):
    """A number leads to its entry in the index, the first time beside its equation."""
    for cell in of_kind(notebook, "markdown"):
        prose = NO_LINKS_IN.sub("", without_code(cell.source))
        for opened, number, target in MENTION.findall(prose):
            if not (opened and target):
                yield f"Eq. ({number}) is no link"
        pairs = re.findall(r"\[Eq\. \((\d+)\)\]\([^)]*#equation-(\d+)\)", prose)
        yield from (f"Eq. ({a}) leads to {b}" for a, b in pairs if a != b)
        for number in re.findall(r"\\tag\{(\d+)\}", cell.source):
            if number not in dict(pairs):
                yield f"no link beside the equation ({number})"


def faults_of_the_exercises(notebook):
    """Each leads to its solution; their minutes are counted apart."""
    text = "\n\n".join(cell.source for cell in of_kind(notebook, "markdown"))
    for match in solutions.EXERCISE.finditer(text):
        link = f"[Solution](../book/solutions.md#{match[1]})"
        if not match[2].rstrip().endswith(link):
            yield f"{match[1]} does not end with {link}"
    said, minutes = ADD_UP.search(text), map(int, ITS_MINUTES.findall(text))
    if not said or int(said[1]) != sum(minutes):
        yield "the minutes of the exercises do not add up"


def faults_of_the_end(notebook):
    """A chapter ends with its summary, its quiz and its exercises, in this order."""
    heads = ("## Summary", "## Check yourself", "## Exercises")
    lines = [x for c in of_kind(notebook, "markdown") for x in c.source.splitlines()]
    ends = [line for line in lines if line.startswith("## ")][-len(heads) :]
    if tuple(ends) != heads:
        yield f"ends with {ends}"


# The chapters

RULES = (
    faults_of_the_predictions,
    faults_of_the_folds,
    faults_of_what_gives_answers_away,
    faults_of_the_asserts,
    faults_of_the_tags,
    faults_of_the_open_code,
    faults_of_the_numbers,
    faults_of_the_time,
    faults_of_the_equations,
    faults_of_the_exercises,
    faults_of_the_end,
)


def faults(notebook) -> list[str]:
    return [fault for rule in RULES for fault in rule(notebook)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_the_contract(path):
    assert faults(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_opens_with_a_diagram(path):
    _, opener, *rest = of_kind(nbformat.read(path, as_version=4), "code")
    assert has(opener, "opener") and not any(has(cell, "opener") for cell in rest)
    assert re.search(r"^diagrams\.\w+\(", opener.source, re.MULTILINE)
    (output,) = opener.outputs
    assert 'role="img" aria-label="' in output.data["text/html"]
    height = re.search(r'viewBox="0 0 360 (\d+)', output.data["text/html"])[1]
    assert int(height) <= OPENER, "a small one"


def test_every_diagram_stands_in_a_chapter():
    drawn = set()
    for path in CHAPTERS:
        for cell in of_kind(nbformat.read(path, as_version=4), "code"):
            drawn |= set(re.findall(r"\bdiagrams\.(\w+)\(", cell.source))
    assert set(diagrams.__all__) <= drawn


def test_solutions_repeat_their_questions(capsys):
    assert solutions.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_question_is_noticed(tmp_path, capsys):
    for folder in ("book", "notebooks"):
        (tmp_path / folder).mkdir()
    asked = "**Exercise 1 (a-1, code).** Why [so](b.ipynb)?\n\nReally? [Solution](x#a)"
    chapter = new_notebook(cells=[new_markdown_cell(asked + "\n\n## Summary\n\nx")])
    nbformat.write(chapter, tmp_path / "notebooks/a.ipynb")
    page = tmp_path / solutions.PAGE
    page.write_text("````{dropdown} a-1\n:name: a-1\n\nBecause.\n````\n")
    assert solutions.main(["--check", "--root", str(tmp_path)]) == 1
    assert "stale" in capsys.readouterr().err
    for _ in range(2):  # the second time changes nothing
        solutions.main(["--root", str(tmp_path)])
        link = "[so](../notebooks/b.ipynb)"
        quoted = f"> **Question.** Why {link}?\n>\n> Really?\n\nBecause.\n"
        assert quoted in page.read_text()
    assert solutions.main(["--check", "--root", str(tmp_path)]) == 0


@pytest.mark.browser
@pytest.mark.skipif(not HTML.exists(), reason="the site is not built")
def test_a_link_to_a_solution_opens_its_fold(tab):
    page = tab.open("notebooks/local_attention.html")
    link = page.get_by_role("link", name="Solution", exact=True).nth(4)
    assert link.get_attribute("href").endswith("solutions.html#local-5")
    link.click()
    page.wait_for_url("**/solutions.html#local-5")
    opened = page.locator("details[open] > .sd-summary-content")
    assert opened.count() == 1
    assert "Token 5 sees token 9" in opened.inner_text()


@pytest.mark.browser
@pytest.mark.skipif(not HTML.exists(), reason="the site is not built")
def test_a_quiz_is_answered_by_keyboard(tab):
    page = tab.open("notebooks/local_attention.html")
    options = page.locator("section#check-yourself details")
    options.first.locator("summary").focus()
    for key in ("Enter", "Tab", "Space"):
        page.keyboard.press(key)
    said = [options.nth(i).locator("p").last.inner_text() for i in (0, 1)]
    assert all(text.startswith("No. A slice") for text in said)
    assert options.nth(2).locator("p").last.is_hidden()


@pytest.mark.browser
@pytest.mark.skipif(not HTML.exists(), reason="the site is not built")
def test_solutions_lead_back_to_the_exercises(tab):
    page = tab.open("book/solutions.html")
    back = page.get_by_role("link", name="the chapter", exact=True).last
    assert back.get_attribute("href").endswith("notebooks/applications.html#exercises")
    back.click()
    page.wait_for_url("**/applications.html#exercises")
    assert page.locator("section#exercises h2").is_visible()


# The rules can fail: each sabotage below turns a good chapter into a bad one.


def folded(source: str, output: str, *tags: str):
    keys = {key: True for tag, key in FOLDING if tag in tags}
    return new_code_cell(
        source,
        outputs=[new_output("stream", name="stdout", text=output)],
        metadata={"tags": list(tags), "jupyter": keys},
    )


ANSWER = '<details class="answer"><summary>Answer</summary>\n\nIt is 4.\n\n</details>'
WRONG = '<details class="choice"><summary>3</summary>\n\nOne is missing.\n\n</details>'
RIGHT = (
    '<details class="choice right"><summary>4</summary>\n\nIt is even.\n\n</details>'
)
BESIDE = "[Eq. (1)](../book/equations.md#equation-1) in words: y is twice x."
ASKED = "**Exercise 1 (`why-1`, predict, ★☆☆, 4 minutes).** What is it?"
ADDED = "They add up to 4 and are not part of the reading time at the top."
SOLUTION = "[Solution](../book/solutions.md#why-1)"


def good_notebook():
    text = "word " * 4000
    return new_notebook(
        cells=[
            new_markdown_cell("# A chapter\n\n**Time:** 20 minutes of reading; more."),
            folded("import attn_tutorial as at", "", "hide-input"),
            new_markdown_cell(f"**Predict:** what is 2 + 2?\n\n{ANSWER}"),
            folded("print(2 + 2)", "4\n", "hide-output"),
            new_markdown_cell(f"**Predict:** again?\n\n{WRONG}\n\n{RIGHT}"),
            folded("print(2 + 2)", "4\n", "hide-output"),
            folded("plots.lines({})", "a picture", "hide-input"),
            folded("print(0.5)", "0.5\n"),
            new_markdown_cell(f"$$y = 2x \\tag{{1}}$$\n\n{BESIDE} {text}"),
            new_markdown_cell("## Summary\n\nIt was 4."),
            new_markdown_cell(f"## Check yourself\n\n**1.** So?\n\n{WRONG}\n\n{RIGHT}"),
            new_markdown_cell(f"## Exercises\n\n{ADDED}"),
            new_markdown_cell(f"{ASKED} {SOLUTION}"),
            folded("def f():\n    ...", "why-1 is not answered yet.\n"),
        ]
    )


def write(cell: int, old: str, new: str):
    """A sabotage that replaces text in a cell."""

    def change(notebook):
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return change


def untag(cell: int, tag: str):
    """A sabotage that opens a fold."""

    def change(notebook):
        metadata = notebook.cells[cell].metadata
        metadata["tags"].remove(tag)
        metadata["jupyter"].pop(dict(FOLDING)[tag])

    return change


def forget_jupyterlab(notebook):
    notebook.cells[3].metadata["jupyter"] = {}


def print_true(notebook):
    notebook.cells[7].outputs[0].text = "difference below 1e-12: True\n"


SABOTAGE = {
    "no answer": (write(2, ANSWER, ""), "no folded answer"),
    "no choices": (write(4, f"{WRONG}\n\n{RIGHT}", ""), "no folded answer"),
    "two right": (write(4, '"choice"', '"choice right"'), "choices of the kinds"),
    "one choice": (write(4, WRONG, ""), "choices of the kinds"),
    "no reason": (write(4, "One is missing.", "No."), "gives no reason"),
    "no class": (write(2, ' class="answer"', ""), "folds of the kinds"),
    "broken fold": (write(2, "\n\n</details>", "</details>"), "does not fold"),
    "open answer": (untag(3, "hide-output"), "an answer stands open"),
    "told": (write(3, "print", "assert 2 + 2 == 4\nprint"), "an assert tells the 4"),
    "book only": (forget_jupyterlab, "hide-output without outputs_hidden"),
    "open set-up": (untag(1, "hide-input"), "the set-up stands open"),
    "open drawing": (untag(6, "hide-input"), "drawing stands open"),
    "much code": (write(7, "print(0.5)", "x = 1\n" * 151), "lines of code stand open"),
    "true": (print_true, "prints 'difference below"),
    "no time": (write(0, "**Time:**", "Time:"), "time to read is not stated"),
    "wrong time": (write(0, "20 minutes", "40 minutes"), "says 40 minutes and takes"),
    "too long": (write(8, "word ", "three more words "), "split it"),
    "no link": (write(8, "[Eq. (1)]", "Eq. (1)"), "Eq. (1) is no link"),
    "wrong link": (write(8, "#equation-1", "#equation-2"), "Eq. (1) leads to 2"),
    "far from it": (write(8, BESIDE, ""), "no link beside the equation (1)"),
    "no solution": (write(12, SOLUTION, ""), "why-1 does not end with"),
    "other minutes": (write(12, "4 minutes", "5 minutes"), "do not add up"),
    "no minutes": (write(11, ADDED, ""), "do not add up"),
    "two right in a quiz": (write(10, '"choice"', '"choice right"'), "choices of the"),
    "no quiz": (write(10, "## Check yourself", "Check:"), "ends with"),
}


def test_a_good_notebook_has_no_faults():
    assert faults(good_notebook()) == []


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_guard_notices(name):
    change, message = SABOTAGE[name]
    notebook = copy.deepcopy(good_notebook())
    change(notebook)
    found = faults(notebook)
    assert any(message in fault for fault in found), found


def test_exercises_are_no_part_of_the_reading():
    notebook = good_notebook()
    write(12, "What is it?", "What is it? " * 1000)(notebook)
    write(13, "...", "...\n" * 100)(notebook)
    assert faults(notebook) == []
