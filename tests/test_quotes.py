"""Every measured quantity in the prose of Speed, Quality and Practice has a source.

A quantity is a number with a unit of time, memory, rate, or with x, times or percent:
"0.12 s", "4.2 to 5.1x", "43 %", "three times". In the Quality and Practice chapters
bits count too, and every number with a decimal point, such as an accuracy of 0.97.
Headings, lists, tables and folded answers count; code and mathematics do not. Each
quantity must be one of these:

measured    printed with the same digits by a cell of the chapter that nbval compares
            (which computes it from records), or on the committed records by `show` of
            the benchmarks (Speed) or `report` of the experiments (Quality);
            a whole number below 100 must be printed with its unit, such as `5x`
cited       its paragraph links to bibliography.md or to an address on the web
arithmetic  its paragraph says so: "arithmetic", "by counting", "counted", or
            "by definition"
asked       its paragraph ends with a question mark, or starts with **Predict,
            **Exercise or **You need (the time to read the chapter), or it is an item
            of the list that follows such a paragraph

A paragraph is what blank lines part; an item of a list and a row of a table are
paragraphs too, and share the marks of the line that introduces them with a colon.
"""

import functools
import re

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_notebooks_are_real import code_cells, is_ignored, output_text

from attn_tutorial import benchmark
from attn_tutorial.experiments import records
from attn_tutorial.experiments.registry import EXPERIMENTS

SPEED = ("from_masks_to_kernels", "scaling", "speed_clinic", "many_devices")
QUALITY = ("does_sparsity_hurt", "choosing_a_window", "other_improvements",
           "looking_inside")  # fmt: skip
PRACTICE = ("window_conventions", "decoding", "hugging_face", "applications")
CHAPTERS = [
    path
    for name in (*SPEED, *QUALITY, *PRACTICE)
    if (path := ROOT / "notebooks" / f"{name}.ipynb").exists()
]

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
         "nine", "ten", "eleven", "twelve"]  # fmt: skip
NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
SPELT = "|".join(WORDS[2:])
FAMILIES = {
    "factor": r"(?:x|×)(?!\s*[\dn(])|times\b|-?fold\b",
    "share": r"%|percent\b",
    "time": r"(?:ms|s|µs|μs|us|ns|(?:micro|milli|nano)?seconds?|minutes?|hours?)\b",
    "memory": r"(?:[KMGT]i?B|bytes)\b(?!/)",
    "rate": r"(?:[KMGTP]?FLOP/s|[KMGT]i?B/s|FLOPs? (?:per|/) ?byte|FLOP/byte)",
}
JOINED = r"\s*(?:to|and|or|-|–|,|\(|\))\s*"
CHAIN = rf"(?:{NUMBER}|\b(?:{SPELT})\b)"
QUANTITY = {
    family: re.compile(
        rf"(?<![\w.^*/=])({CHAIN}(?:(?:{JOINED})+{CHAIN})*)\s*\)?\s*(?:{unit})",
        re.IGNORECASE if family == "factor" else 0,
    )
    for family, unit in FAMILIES.items()
}
SCORES = {
    "bits": re.compile(
        rf"(?<![\w.^*/=])({CHAIN}(?:(?:{JOINED})+{CHAIN})*)\s*bits?\b", re.IGNORECASE
    ),
    "score": re.compile(r"(?<![\w.^*/=])(\d+\.\d+)(?![\w.]*\d)"),
}
CITED = re.compile(r"\]\([^)]*bibliography\.md[^)]*\)|https?://")
ARITHMETIC = re.compile(
    r"\barithmetic\b|\bby counting\b|\bcounted\b|\bby definition\b", re.IGNORECASE
)
ASKED = re.compile(r"^\W*(?:Predict|Exercise|You need)\b|\?\W*$")


# Prose into paragraphs


def paragraphs(markdown: str) -> list[tuple[str, str]]:
    """Each paragraph with the text whose marks count for it."""
    found, introduction = [], ""
    for block in re.split(r"\n\s*\n", without_code(markdown)):
        lines = block.strip().splitlines()
        start = next((i for i, line in enumerate(lines) if is_item(line)), len(lines))
        head = " ".join(lines[:start]).strip()
        if head:
            found.append((head, head))
            introduces = head.endswith(":") or ASKED.search(head)
            introduction = head if introduces or start < len(lines) else ""
        for item in items(lines[start:]):
            found.append((item, f"{item} {introduction}"))
            if introduction and ASKED.search(introduction):
                found[-1] = (item, introduction)
    return found


def without_code(markdown: str) -> str:
    text = re.sub(r"```.*?```", "", markdown, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.S)
    return re.sub(r"`[^`\n]*`|</?\w+>", " ", text)


def is_item(line: str) -> bool:
    return bool(re.match(r"\s*(?:[-*+]|\d+\.)\s|\|", line))


def items(lines: list[str]) -> list[str]:
    """Items of a list with their further lines, or rows of a table."""
    found = []
    for line in lines:
        if is_item(line) or not found:
            found.append(line.strip())
        else:
            found[-1] += " " + line.strip()
    return found


# Quantities and what is printed


def quantities(text: str, families=QUANTITY) -> set[tuple[str, float]]:
    """Pairs of a family of units and a number."""
    found = set()
    for family, pattern in families.items():
        for match in pattern.finditer(text):
            numbers = re.findall(CHAIN, match[1], re.IGNORECASE)
            found |= {(family, value_of(number)) for number in numbers}
    return found


def value_of(number: str) -> float:
    if number.lower() in WORDS:
        return float(WORDS.index(number.lower()))
    return float(number.replace(",", ""))


def printed(text: str) -> set[tuple[str, float]]:
    """What a text shows: numbers with their units, and all telling ones without."""
    numbers = re.findall(rf"(?<![\w.]){NUMBER}", text)
    telling = {n for n in numbers if "." in n or value_of(n) >= 100}
    found = quantities(text, QUANTITY | SCORES)
    return found | {("any", value_of(number)) for number in telling}


def evidence(notebook) -> set[tuple[str, float]]:
    compared = (cell for cell in code_cells(notebook) if not is_ignored(cell))
    return printed("\n".join(map(output_text, compared)))


@functools.cache
def shown() -> set[tuple[str, float]]:
    """What `show` prints of all the committed records."""
    texts = (benchmark.show(benchmark.load(name)) for name in benchmark.devices())
    return printed("\n".join(texts))


@functools.cache
def reported() -> set[tuple[str, float]]:
    """What `report` prints of all the committed records."""
    recorded = [n for n in EXPERIMENTS if records.record_path(n).exists()]
    return printed(
        "\n".join(EXPERIMENTS[n].report(records.load(n).final) for n in recorded)
    )


def chapter_faults(path, *more) -> list[str]:
    """Quantities of a chapter without a source, with some more cells at its end."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.extend(more)
    if path.stem in SPEED:
        return faults(notebook, shown())
    if path.stem in PRACTICE:
        return faults(notebook, families=QUANTITY | SCORES)
    return faults(notebook, reported(), QUANTITY | SCORES)


def faults(notebook, shown=frozenset(), families=QUANTITY) -> list[str]:
    """Quantities without a source."""
    known, found = evidence(notebook) | shown, []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for text, marks in paragraphs(cell.source):
            if CITED.search(marks) or ARITHMETIC.search(marks) or ASKED.search(marks):
                continue
            for family, value in sorted(quantities(text, families)):
                if not known & {(family, value), ("any", value)}:
                    found.append(f"{value:g} ({family}) in: {text[:90]}")
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_measured_number_has_a_source(path):
    assert chapter_faults(path) == []


# The rule can fail


def chapter(prose: str, output: str = "", **metadata):
    text = new_output("stream", name="stdout", text=output)
    cell = new_code_cell("print(...)", outputs=[text], metadata=metadata)
    return new_notebook(cells=[new_markdown_cell(prose), cell])


UNSOURCED = [
    "Ours takes 0.12 s.",
    "It is 4.2x faster.",
    "It is 4.2 times faster than the mask.",
    "It is five times faster.",
    "It is 4.2 to 5.1× faster.",
    "It reaches 43 % of the peak.",
    "It needs 4.3 GB.",
    "A copy runs at 13.4 GB/s.",
    "It runs at 97 GFLOP/s.",
    "## Why 12 ms are lost",
    "Times:\n\n| n | time |\n|---|---|\n| 512 | 0.3 ms |",
    "We found:\n\n- it is 3.3x slower,\n- and more.",
    "<details>\n<summary>Answer</summary>\n\nAbout 7.7 seconds.\n\n</details>",
    "Which is faster?\n\nThe tiles are 6.1 times faster.",
]
SOURCED = [
    ("Ours takes 0.12 s.", "seconds: 0.12"),
    ("It is 4.2x faster.", "ratio 4.2 (4.0 to 4.5)"),
    ("It is five times faster.", "5x"),
    ("It is 4.2 to 5.1× faster.", "4.2 5.1"),
    ("It reaches 43 % of the peak.", "43 (41 to 44) % of matmul"),
    ("It reaches 41 to 44 percent.", "43 (41 to 44) % of matmul"),
    ("It needs 1,234 MB.", "1,234 bytes, really"),
    ("By arithmetic, an H100 would need 56 µs.", ""),
    ("They report 4.2x (see [the paper](../book/bibliography.md)).", ""),
    ("A thread reports 2.9 times (https://example.org/1).", ""),
    ("**Predict.** Is it 2, 20 or 200 times faster?", ""),
    ("Which is it?\n\n- 20 % faster\n- 5 times faster", ""),
    ("By counting:\n\n- 3.3x the pairs,\n- or 12 % more.", ""),
    ("An n x n mask of 64 x 64 tiles; `3.3x`; $4.2\\times$ ; 512 tokens.", ""),
]


@pytest.mark.parametrize("prose", UNSOURCED)
def test_a_number_without_a_source_is_found(prose):
    assert faults(chapter(prose))
    assert faults(chapter(prose, "6.66 and 7x, 8 %, 9 s, 10 GB, 11 GB/s, 512"))


@pytest.mark.parametrize(("prose", "output"), SOURCED)
def test_a_number_with_a_source_is_accepted(prose, output):
    assert faults(chapter(prose, output)) == []


def test_what_nbval_ignores_is_no_source():
    live = {"tags": ["nbval-ignore-output"]}
    assert faults(chapter("It is 4.2x faster.", "4.2", **live))


def test_whole_numbers_need_their_unit():
    assert faults(chapter("It is 5 times faster.", "n = 5, 5 runs"))
    assert faults(chapter("It is 5 times faster.", "5 %"))


def test_show_is_a_source():
    assert faults(chapter("It is 4.2x faster."), printed("4.2x tiled")) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_changed_number_is_found(path):
    """Sabotage: a sentence with a number that nothing supports."""
    more = new_markdown_cell("Altogether it is 77.77 times faster.")
    assert len(chapter_faults(path, more)) > len(chapter_faults(path))


SCORED = [
    "The window reaches 0.973.",
    "It costs 2.071 ± 0.012 bits per byte.",
    "It costs seven bits.",
]


@pytest.mark.parametrize("prose", SCORED)
def test_scores_count_in_the_quality_chapters(prose):
    assert faults(chapter(prose, "0.97 6 bits 2.07"), families=QUANTITY | SCORES)
    assert not faults(
        chapter(prose, "0.973 7 bits 2.071 0.012"), families=QUANTITY | SCORES
    )


def test_labels_are_no_scores():
    prose = "See Eq. (9), section 4.2.1, version v1.5, and `0.02`."
    assert not faults(chapter(prose), families=QUANTITY | SCORES)
