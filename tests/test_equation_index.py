"""The equation index is current and complete, and its check can fail."""

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import equation_index as index


def test_the_index_of_this_repository_is_current_and_complete(capsys):
    assert index.main(["--check"]) == 0, capsys.readouterr().err


MODULE = '''
"""About Eq. (7)."""

def first(x):
    """Eq. (1): twice x, which is not Eq. (2)."""

class Second:
    """A class."""

    def forward(self, x):
        """Eq. (2): nothing."""

def _private(x):
    """Eq. (9): not for readers."""
'''

TESTS = """
import pytest

@pytest.mark.equation(1)
def test_first(): ...

class TestSecond:
    @pytest.mark.parametrize("n", [1])
    @pytest.mark.equation(2)
    def test_forward(self, n): ...

TEXT = "@pytest.mark.equation(3)"
"""

CHAPTER = ["# A chapter\n", "$$y = 2x \\tag{1}$$\n", "and\n$$\nz = 0 \\tag{2}\n$$\n"]


def write_chapter(root: Path, name: str, source: list[str]) -> None:
    cells = [
        {"cell_type": "markdown", "source": source},
        {"cell_type": "code", "source": ["# $$ \\tag{8} $$"]},
    ]
    (root / f"notebooks/{name}.ipynb").write_text(json.dumps({"cells": cells}))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A repository with two equations and nothing missing."""
    monkeypatch.setattr(index, "NAMES", {1: "Double", 2: "Nothing"})
    for folder in ("attn_tutorial", "tests", "notebooks", "book"):
        (tmp_path / folder).mkdir()
    (tmp_path / "attn_tutorial/rule.py").write_text(MODULE)
    (tmp_path / "tests/test_rule.py").write_text(TESTS)
    write_chapter(tmp_path, "chapter", CHAPTER)
    assert index.main(["--root", str(tmp_path)]) == 0
    return tmp_path


def check(root: Path) -> int:
    return index.main(["--check", "--root", str(root)])


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_complete_repository_passes(small):
    assert check(small) == 0


def test_the_page_names_all_four_partners(small):
    text = (small / index.PAGE).read_text()
    assert "## (1) Double\n\n$$\ny = 2x\n$$" in text
    assert "{py:obj}`rule.first <attn_tutorial.rule.first>`" in text
    assert "**In the code's words:** twice x, which is not Eq. (2)." in text
    assert "<attn_tutorial.rule.Second.forward>`" in text
    assert "`tests/test_rule.py`: `TestSecond::test_forward`" in text
    assert "[A chapter](../notebooks/chapter.ipynb)" in text


def test_only_the_first_number_of_a_public_docstring_counts(small):
    found = index.collect(small)
    assert sorted(found) == [1, 2]
    assert found[2].functions == ["attn_tutorial.rule.Second.forward"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("attn_tutorial/rule.py", "Eq. (1): twice", "Twice", "Eq. (1) has no function"),
        ("tests/test_rule.py", "@pytest.mark.equation(2)", "", "Eq. (2) has no test"),
        ("tests/test_rule.py", "equation(1)", "equation(5)", "Eq. (5) is not in the"),
        ("tests/test_rule.py", "equation(1)", "equation(5)", "Eq. (5) has no function"),
        ("notebooks/chapter.ipynb", "tag{2}", "tag{6}", "Eq. (2) has no chapter"),
        ("notebooks/chapter.ipynb", "tag{2}", "tag{6}", "Eq. (6) has no test"),
        ("notebooks/chapter.ipynb", "tag{2}", "tag{1}", "(1) is tagged more than once"),
        ("notebooks/chapter.ipynb", "$$y", "y", "Eq. (1) has no chapter"),
    ],
)
def test_an_orphan_fails_the_check(small, capsys, file, old, new, message):
    replace(small / file, old, new)
    index.main(["--root", str(small)])  # the page is current: only the orphan is left
    capsys.readouterr()
    assert check(small) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "stale" not in error


def test_what_a_module_does_not_export_does_not_count(small, capsys):
    with (small / "attn_tutorial/rule.py").open("a") as file:
        file.write('\n__all__ = ["Second"]\n')
    index.main(["--root", str(small)])
    assert check(small) == 1
    assert "Eq. (1) has no function" in capsys.readouterr().err


def test_the_same_number_in_two_chapters_fails_the_check(small, capsys):
    write_chapter(small, "other", CHAPTER[:2])
    index.main(["--root", str(small)])
    assert check(small) == 1
    assert "tagged more than once: chapter, other" in capsys.readouterr().err


def test_a_stale_page_fails_the_check_and_is_left_alone(small, capsys):
    replace(small / "attn_tutorial/rule.py", "def first", "def renamed")
    before = (small / index.PAGE).read_text()
    assert check(small) == 1
    assert "stale" in capsys.readouterr().err
    assert (small / index.PAGE).read_text() == before


def test_a_missing_page_fails_the_check(small):
    (small / index.PAGE).unlink()
    assert check(small) == 1


def test_equations_are_found_in_every_way_to_display_them(tmp_path):
    (tmp_path / "notebooks").mkdir()
    source = [
        "$$a \\tag{1}$$ text\n$$\nb\n\\tag{2}\n$$\n",
        "\\begin{align}\nc &= d \\tag{3} \\\\ e &= f \\tag{4}\n\\end{align}\n",
    ]
    write_chapter(tmp_path, "chapter", source)
    found = list(index.displayed(tmp_path / "notebooks/chapter.ipynb"))
    assert [number for number, *_ in found] == [1, 2, 3, 4]
    assert found[1] == (2, "b", "")


def test_an_equation_is_found_below_the_heading_that_stands_above_it(small):
    source = ["# A chapter\n", "## One: first\n\n$$y \\tag{1}$$\n\n### Two\n\ntext\n"]
    write_chapter(small, "chapter", [*source, "$$z \\tag{2}$$\n\n## Three\n"])
    found = list(index.displayed(small / "notebooks/chapter.ipynb"))
    assert found == [(1, "y", "One: first"), (2, "z", "Two")]
    index.main(["--root", str(small)])
    text = (small / index.PAGE).read_text()
    assert "section [One: first](../notebooks/chapter.ipynb#one-first)" in text
    assert "(equation-2)=\n## (2)" in text


def test_numbers_out_of_the_reading_order_fail_the_check(small, capsys):
    write_chapter(small, "a_later_one", [CHAPTER[0], CHAPTER[1]])
    write_chapter(small, "chapter", [CHAPTER[0], CHAPTER[2]])
    index.main(["--root", str(small)])
    assert check(small) == 0
    contents = "- file: notebooks/chapter\n- file: notebooks/a_later_one\n"
    (small / "_toc.yml").write_text(contents)
    capsys.readouterr()
    assert check(small) == 1
    error = capsys.readouterr().err
    assert "Eq. (2) is read where Eq. (1) belongs" in error
    assert "stale" not in error
