"""The page of questions: each has a thread, an answer, a number and what proves it.

A number is a quantity as `test_quotes` reads it, a number of three digits or more, one
with a decimal point, or "8 of 10". It must be printed by what its answer leads to: a
snippet of its own, a compared cell of a chapter, the report of the experiments, or the
code of a test. Sentences that cite a work are that work's.
"""

import ast
import functools
import html
import importlib
import re
from typing import NamedTuple

import nbformat
import pytest
from conftest import ROOT
from test_notebooks_are_real import code_cells, is_ignored, output_text
from test_quotes import (
    NUMBER,
    QUANTITY,
    SCORES,
    printed,
    quantities,
    reported,
    value_of,
    without_code,
)

PAGE = (ROOT / "book" / "faq.md").read_text(encoding="utf-8")
GROUPS = {
    "The document's three questions": 3,
    "Meaning of a window": 3,
    "Masks and NaN": 3,
    "Speed and memory": 5,
    "Models and libraries": 3,
    "Training and quality": 2,
    "Decoding and caches": 4,
}
SNIPPET = re.compile(r"^```pycon\n(.*?)^```$", re.S | re.M)
SHARE = re.compile(r"\b\d+ of \d+\b")


class Question(NamedTuple):
    """A section of the page, in its four parts."""

    title: str
    asked: str
    answer: str
    snippet: str
    shown: str


def read(section: str) -> Question:
    title, _, body = section.partition("\n")
    snippet = "\n".join(SNIPPET.findall(body))
    asked, *answer, shown = SNIPPET.sub("", body).strip().split("\n\n")
    return Question(title, asked, "\n\n".join(answer).strip(), snippet, shown)


def groups() -> dict[str, list[Question]]:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.M)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = [read(s) for s in re.split(r"^### ", text, flags=re.M)[1:]]
    return found


QUESTIONS = [question for part in groups().values() for question in part]
each = pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.title)


def test_the_document_asks_three_and_others_twenty():
    assert {title: len(part) for title, part in groups().items()} == GROUPS
    assert sum(GROUPS.values()) == 3 + 20


@each
def test_a_question_is_asked_somewhere(question):
    links = re.findall(r"\]\((https://\S+|source_document\.md)\)", question.asked)
    assert question.asked.startswith("*Asked in* ") and len(links) == 1


def test_no_thread_is_asked_twice():
    asked = [q.asked for q in QUESTIONS if "https://" in q.asked]
    assert len(set(asked)) == 20


@each
def test_an_answer_is_two_to_four_sentences(question):
    text = re.sub(r"\]\([^)]*\)", "]", without_code(question.answer))
    assert 2 <= len(re.findall(r"[.!?]\)?(?=\s|$)", text)) <= 4, text


# What proves an answer


def links(question: Question) -> set[str]:
    """Pages and notebooks that the answer leads to."""
    found = re.findall(r"\]\(([^)#]+\.(?:ipynb|md))", question.shown)
    return {*found, *re.findall(r"\{doc\}`(\w+)`", question.shown)}


def named_tests(question: Question) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/\w+\.py)::(\w+)`", question.shown)


def named_objects(question: Question) -> list[str]:
    return re.findall(r"\{py:\w+\}`~?([\w.]+)`", question.shown)


@functools.cache
def code_of(path: str) -> dict[str, str]:
    """The tests of a file, decorators and all."""
    text = (ROOT / path).read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


@functools.cache
def shown_by(notebook: str) -> str:
    """What the compared cells of a chapter print, tables included."""
    chapter = nbformat.read(ROOT / "book" / notebook, as_version=4)
    cells = [cell for cell in code_cells(chapter) if not is_ignored(cell)]
    tables = [
        re.sub(r"<[^>]+>", " ", output.data["text/html"])
        for cell in cells
        for output in cell.outputs
        if "<table" in output.get("data", {}).get("text/html", "")
    ]
    return "\n".join([*map(output_text, cells), *map(html.unescape, tables)])


def proof(question: Question) -> str:
    """All texts that may prove a number of the answer."""
    chapters = [link for link in links(question) if link.endswith(".ipynb")]
    tests = [code_of(path)[name] for path, name in named_tests(question)]
    return "\n".join([question.snippet, *map(shown_by, sorted(chapters)), *tests])


def numbers(text: str) -> set[tuple[str, float]]:
    """What counts as a number of an answer."""
    plain = re.findall(rf"(?<![\w.]){NUMBER}", text)
    telling = {n for n in plain if "." in n or value_of(n) >= 100}
    return quantities(text, QUANTITY | SCORES) | {("any", value_of(n)) for n in telling}


def own(answer: str) -> str:
    """The sentences of an answer that cite no work, without code and addresses."""
    sentences = re.split(r"(?<=\.) (?=[A-Z`])", answer)
    text = " ".join(s for s in sentences if "{cite" not in s)
    return without_code(re.sub(r"\]\([^)]*\)", "]", text))


def unproved(question: Question) -> list[str]:
    answer, shown = own(question.answer), proof(question)
    known = printed(shown)
    if "experiments" in links(question):
        known = known | reported()
    values = {value for _, value in known}
    found = [
        f"{value:g} ({family})"
        for family, value in sorted(numbers(answer))
        if (family, value) not in known
        and ("any", value) not in known
        and not (family == "any" and value in values)
    ]
    return found + [share for share in SHARE.findall(answer) if share not in shown]


@each
def test_an_answer_has_a_number_that_its_proof_shows(question):
    assert numbers(without_code(question.answer)) or SHARE.search(question.answer)
    assert question.shown.startswith("*Shown by* ")
    assert unproved(question) == []


@each
@pytest.mark.parametrize("more", ["It is 77.77 times as fast.", "It keeps 7,771 keys."])
def test_a_number_without_a_proof_is_found(question, more):
    assert unproved(question._replace(answer=f"{question.answer} {more}"))


@each
def test_what_is_named_as_proof_exists(question):
    assert named_tests(question) or named_objects(question) or links(question)
    assert all(name in code_of(path) for path, name in named_tests(question))
    for name in named_objects(question):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_snippet_line_is_a_session():
    assert PAGE.count("```pycon") == len(SNIPPET.findall(PAGE))
    assert "```python" not in PAGE  # nobody would run it
