"""What the Markdown pages print is true, and what they link to exists."""

import ast
import doctest
import functools
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

import attn_tutorial as at
from attn_tutorial.instruments import document

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "_ext"))
import first_page

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
FOLDERS = ("", "api/", "teaching/")
PAGES = sorted(page for folder in FOLDERS for page in BOOK.glob(f"{folder}*.md"))


def text_of(name: str) -> str:
    return (BOOK / f"{name}.md").read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)


def table(page: str, label: str) -> list[list[str]]:
    """Rows of the table that follows ``(label)=``, without its two header lines."""
    lines = text_of(page).split(f"\n({label})=\n")[1].splitlines()
    rows = [line for line in lines[: lines.index("")] if line.startswith("|")][2:]
    assert rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def numbers(cell: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", cell)]


# Sessions.


def sessions(text: str) -> str:
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, re.DOTALL | re.M))


@pytest.mark.parametrize(
    "path", [p for p in PAGES if sessions(p.read_text("utf-8"))], ids=lambda p: p.stem
)
def test_sessions_on_pages_run_as_printed(path):
    source = sessions(path.read_text(encoding="utf-8"))
    examples = doctest.DocTestParser().get_doctest(source, {}, path.stem, None, 0)
    assert examples.examples
    printed = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(
        examples, out=printed.append
    )
    assert not printed, "".join(printed)


# The introduction.


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("full", at.patterns.full()),
        ("local", at.patterns.local(2)),
        ("blocks", at.patterns.adjacent_blocks(2)),
    ],
)
def test_masks_of_the_introduction_are_the_patterns(name, pattern):
    figure = first_page.draw_mask(name)
    keep = at.dense_mask(pattern, 16)
    path = re.search(r'<path data-kept d="(.*?)"', figure)[1]
    assert torch.equal(drawn_cells(path), keep)
    count = int(keep.sum())
    assert re.search(rf"<figcaption.*\b{count} pairs", figure)
    assert re.search(rf'aria-label="[^"]*\b{count}\b[^"]*" data-mask="{name}"', figure)
    turns = re.findall(r'<g class="turn.*?d="(.*?)".*?>query (\d+): (\d+) keys', figure)
    assert [int(query) for _, query, _ in turns] == list(range(16))
    for path, query, number in turns:
        assert torch.equal(drawn_cells(path)[int(query)], keep[int(query)])
        assert int(number) == int(keep[int(query)].sum())


def drawn_cells(path: str) -> torch.Tensor:
    drawn = torch.zeros(16, 16, dtype=torch.bool)
    for column, row, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path):
        drawn[int(row), int(column) : int(column) + int(width)] = True
    return drawn


def test_the_code_of_the_introduction_is_true():
    q, k, v = (torch.randn(16, 4) for _ in range(3))
    code = re.search(r"```python\n(.*?)```", text_of("index"), re.DOTALL)[1]
    names = {"q": q, "k": k, "v": v}
    exec(code, names)
    kept, total = int(names["keep"].sum()), names["keep"].numel()
    assert f"# {total} booleans, {kept} True" in code
    assert torch.allclose(names["slow"], names["fast"], atol=1e-6)


# The source document.


def test_the_module_on_the_page_is_the_document_s():
    assert f"```python\n{document.MODULE}```" in text_of("source_document")


@pytest.mark.parametrize(
    "formula",
    [document.ATTENTION, document.LOCAL_ATTENTION, document.SPARSE_ATTENTION],
)
def test_the_formulas_on_the_page_are_the_document_s(formula):
    whole = text_of("source_document").replace(r" \end{aligned}$$", "$$")
    assert f"{formula}$$" in whole


def test_columns_that_the_slice_keeps():
    for w, columns, count in table("source_document", "slice-of-scores"):
        kept = torch.arange(8).expand(8, 8)[:, -int(w) : int(w)]
        assert kept[0].tolist() == numbers(columns)
        assert (kept == kept[0]).all()  # the same in every row
        assert kept.shape[1] == int(count)


@pytest.mark.parametrize("n", range(1, 12))
def test_how_many_columns_the_slice_keeps_in_general(n):
    for w in range(2 * n + 1):
        kept = list(range(n))[-w:w]
        expected = 0 if 2 * w <= n else 2 * w - n if w < n else n
        assert len(kept) == expected
        if kept:
            assert kept[0] == n - 1 - kept[-1]  # in the middle


def test_features_that_the_slice_of_v_keeps():
    for w, shape, features in table("source_document", "slice-of-values"):
        kept = torch.arange(6).expand(8, 6)[:, -int(w) : int(w)]
        assert str(tuple(kept.shape)) in shape
        assert kept[0].tolist() == numbers(features)


def test_none_of_the_three_meanings_of_n_gives_blocks():
    rows = table("source_document", "three-meanings")
    assert [int(value) for _, value, _ in rows] == [12 // 4, 4, 12]
    for _, value, columns in rows:
        kept = list(range(12))[-int(value) : int(value)]
        assert len(kept) == (12 if columns.startswith("all") else 0)
    assert len(list(range(12))[-8:8]) == 4


def literal(shape: tuple[int, ...], n: int):
    """The document's module, with ``math`` supplied: (output or error, full)."""
    q, k, v = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    module = document.run(math=math).SparseAttention(shape[-1], n)
    try:
        output = module(q, k, v)
    except RuntimeError as error:
        output = error
    return output, at.attention(q, k, v)


def test_outcomes_of_the_document_s_module():
    for row in table("source_document", "module-outcomes"):
        shape, n = tuple(numbers(row[0])), int(row[1])
        scores = torch.empty(*shape[:-1], shape[-2])
        assert list(scores[:, -n:n].shape) == numbers(row[2])
        assert list(torch.empty(shape)[:, -n:n].shape) == numbers(row[3])
        output, full = literal(shape, n)
        if row[4] == "RuntimeError":
            assert isinstance(output, RuntimeError)
            continue
        printed, words = row[4].split(":")
        assert list(output.shape) == numbers(printed)
        assert (output.numel() == 0) == ("empty" in words)
        if words.strip() == "full attention":
            assert torch.allclose(output, full)
        elif "features" in words:
            assert torch.allclose(output, full[:, -n:n])
            assert numbers(words) == [output.shape[-1], shape[-1]]
        elif "heads" in words:
            assert torch.allclose(output, full[:, -n:n])
            assert numbers(words) == [output.shape[1], shape[1]]


SIZES = [(t, d) for t in range(1, 7) for d in range(1, 7)]
SMALL_SHAPES = [
    *SIZES,
    *((2, t, d) for t, d in SIZES),
    *((2, h, t, d) for h in range(1, 5) for t, d in SIZES),
]


@pytest.mark.parametrize("n", range(8))
def test_the_document_s_module_is_never_block_sparse(n):
    for shape in SMALL_SHAPES:
        output, full = literal(shape, n)
        if isinstance(output, RuntimeError):
            continue
        if len(shape) == 3:
            assert torch.allclose(output, full)
        else:  # features or heads may be missing
            assert torch.allclose(output, full[:, -n:n])


# The solutions.


def solutions() -> dict[str, str]:
    """The text of each solution, by the exercise's name."""
    folded = r"^````\{dropdown\} (\S+)\n:name: \1\n\n(.*?)^````$"
    return dict(re.findall(folded, text_of("solutions"), re.DOTALL | re.M))


def exercises(markdown: str) -> list[str]:
    return re.findall(r"^\*\*Exercise \d+ \(`?([a-z]+-\d+)", markdown, re.M)


def test_every_exercise_has_a_solution():
    chapters = (ROOT / "notebooks").glob("*.ipynb")
    asked = [
        name for path in chapters for name in exercises(markdown_of_notebook(path))
    ]
    assert sorted(asked) == sorted(solutions())


def promised(line: str):
    """The value in a trailing comment such as ``# 704`` or ``# tensor([1])``."""
    comment = line.rpartition("  # ")[2] if "  # " in line else ""
    return comment if re.match(r"-?\d|tensor\(|True|False|[\[(]", comment) else None


def check_value(value, printed: str) -> None:
    if isinstance(value, tuple) and not printed.startswith("("):
        for one, its_print in zip(value, printed.split(", "), strict=True):
            check_value(one, its_print)
    elif isinstance(value, torch.Tensor) and not printed.startswith("tensor"):
        check_value(value.item(), printed)
    elif isinstance(value, float) and "." in printed:
        digits = len(printed.partition(".")[2])
        assert f"{value:.{digits}f}" == printed
    else:
        assert str(value) == printed


def sections() -> dict[str, str]:
    """The text of each chapter's solutions, by the chapter's title."""
    parts = re.split(r"^## (.+)$", text_of("solutions"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("chapter", sections())
def test_the_code_of_the_solutions_does_what_it_says(chapter):
    blocks = re.findall(r"^```python\n(.*?)^```$", sections()[chapter], re.S | re.M)
    code = "\n".join(blocks)
    names = {"math": math, "torch": torch, "at": at}
    _ = torch.manual_seed(0)
    for statement in ast.parse(code).body:
        source = ast.get_source_segment(code, statement)
        if not isinstance(statement, ast.Expr):
            exec(source, names)
            continue
        value = eval(source, names)
        printed = promised(code.splitlines()[statement.end_lineno - 1])
        if printed:
            check_value(value, printed)


# Links and citations.


def bib_keys() -> list[str]:
    return re.findall(r"^@\w+\{(.+),$", (BOOK / "references.bib").read_text(), re.M)


def markdown_of_notebook(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join(
        "".join(c["source"]) for c in cells if c["cell_type"] == "markdown"
    )


SOURCES = {p.relative_to(ROOT).as_posix(): p.read_text("utf-8") for p in PAGES} | {
    p.relative_to(ROOT).as_posix(): markdown_of_notebook(p)
    for p in sorted((ROOT / "notebooks").glob("*.ipynb"))
}


def test_no_work_is_listed_twice():
    keys = bib_keys()
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", SOURCES)
def test_every_citation_is_in_the_bibliography(name):
    cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", SOURCES[name])
    missing = {key for keys in cited for key in keys.split(",")} - set(bib_keys())
    assert not missing


NAMED = re.compile(  # "Yun et al., 2020", "Alman and Song (2023)", "Amos et al. ([2024"
    r"([^\W\d_][\w-]+)(?:\s+et\s+al\.|\s+and\s+[^\W\d_][\w-]+),?\s+[(\[]*(\d{4})\b"
)
ALONE = re.compile(r"\[([^\W\d_][\w-]+), (\d{4})\]\(")  # "[NVIDIA, 2019](" links


@pytest.mark.parametrize("name", SOURCES)
def test_every_work_named_in_the_text_is_in_the_bibliography(name):
    entries = (BOOK / "references.bib").read_text(encoding="utf-8").split("\n@")
    for author, year in set(NAMED.findall(SOURCES[name])):
        first_author = rf"author = \{{+[^,]*\b{author}\b"
        assert any(
            re.search(first_author, entry) and f"year = {{{year}}}" in entry
            for entry in entries
        ), f"{author} et al., {year}"


def test_the_bibliography_says_what_each_work_is_used_for():
    cited = set(re.findall(r"\{cite:t\}`([^`]+)`", text_of("bibliography")))
    assert cited == set(bib_keys())


@functools.cache
def named_in(name: str) -> list[tuple[str, str]]:
    """Author and year of each work that a page or a chapter names."""
    return NAMED.findall(SOURCES[name]) + ALONE.findall(SOURCES[name])


def named_or_cited(key: str, author: str) -> bool:
    year = re.search(r"\d{4}", key)[0]
    for name, text in SOURCES.items():
        if name == "book/bibliography.md":
            continue
        if f"`{key}`" in text or any(
            who in author and when == year for who, when in named_in(name)
        ):
            return True
        if f"({THREADS.get(key)})" in text:
            return True
    return False


THREADS = dict(  # discussions are cited by their address
    re.findall(
        r"@misc\{(\w+thread\d+),.*?  url = \{(.+?)\}",
        (BOOK / "references.bib").read_text(encoding="utf-8"),
        re.S,
    )
)


@pytest.mark.parametrize("name", SOURCES)
def test_every_discussion_linked_is_in_the_bibliography(name):
    linked = r"\]\((https://github\.com/[^/]+/[^/]+/(?:issues|pull)/\d+)"
    assert not set(re.findall(linked, SOURCES[name])) - set(THREADS.values())


def test_works_outside_further_reading_are_used():
    authors = dict(
        re.findall(
            r"^@\w+\{(\w+),\n  author = \{+([^,}]+)",
            (BOOK / "references.bib").read_text(encoding="utf-8"),
            re.M,
        )
    )
    used = text_of("bibliography").split("### Further reading")[0]
    keys = re.findall(r"\{cite:t\}`([^`]+)`", used)
    assert not [key for key in keys if not named_or_cited(key, authors[key])]


def link_targets(text: str) -> list[str]:
    text = without_code(text)
    links = re.findall(r"\]\(([^()\s]+)\)", text)
    links += [f"{target}.md" for target in re.findall(r"\{doc\}`([^`<]+)`", text)]
    return links + re.findall(r"^:link: (\S+)$", text, re.M)


def exists(page: Path, target: str) -> bool:
    """A file, or a page or notebook named without its ending; a deck, by its source."""
    path = page.parent / target
    if path.parent.parts[-2:] == ("_static", "slides"):
        path = ROOT / "book" / "teaching" / "slides" / path.with_suffix(".md").name
    stem = path.with_suffix("") if path.suffix == ".md" else path
    candidates = (path, stem.with_suffix(".md"), stem.with_suffix(".ipynb"))
    return any(p.is_file() for p in candidates)


def anchors(text: str) -> set[str]:
    labels = set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.M)
    return labels | {slug(heading) for heading in headings}


def slug(heading: str) -> str:
    """The anchor that MyST gives to a heading; a formula leaves no trace in it."""
    words = re.sub(r"\$[^$]*\$", "", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


@pytest.mark.parametrize("name", SOURCES)
def test_internal_links_resolve(name):
    page = ROOT / name
    broken = []
    for link in link_targets(SOURCES[name]):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        label = target in anchors(SOURCES[name])
        if target and not label and not exists(page, target):
            broken.append(link)
        elif anchor and not target and anchor not in anchors(SOURCES[name]):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("name", SOURCES)
def test_raw_notebook_links_stay_in_the_book(name):
    html = re.findall(r'(?:href|src)="([^"]+)"', without_code(SOURCES[name]))
    assert not html, "raw HTML links are not rewritten by the build"
