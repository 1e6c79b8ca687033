"""nbval compares what is stored. These rules stop a notebook that stores nothing."""

import ast
import copy
import html
import re

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from attn_tutorial.pictures.style import COLORS

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_LINES = 15
MAX_IGNORED = 0.10
MIN_ASSERTED = 3
IGNORING_TAGS = {"nbval-ignore-output", "nbval-skip"}
IGNORING_COMMENT = re.compile(r"#\s*NBVAL_(IGNORE_OUTPUT|SKIP)")
MYST_ONLY = re.compile(r"^(?:```+|:::+)\{|\{(?:cite|ref|eq|doc|numref)[:\w]*\}`", re.M)
HTML_TAG = re.compile(r"</?([A-Za-z]\w*)[^>\n]*>")
PLAIN_TAGS = {"aside", "details", "summary", "br", "sub", "sup"}
# One paragraph, below one of the text: not below a list, a heading, a table or a fold.
ASIDE = re.compile(
    r"(?:\A|\n\n)(?!\* |- |\d+\. |[>#|<]|\$\$).+(?:\n.+)*\n\n"
    r"<aside>\n\n.+\n\n</aside>(?=\n\n|\Z)"
)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SVG = "image/svg+xml"
INK = re.compile(r'(?:fill|stroke)="([^"]*)"')
PALETTE = {*COLORS.values(), "#595959", "none"}


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_ignored(cell) -> bool:
    tags = set(cell.metadata.get("tags", []))
    return bool(tags & IGNORING_TAGS or IGNORING_COMMENT.search(cell.source))


def output_text(cell) -> str:
    parts = (
        o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs
    )
    return "\n".join(parts)


def syntax_tree(cell) -> ast.Module:
    """The cell's code without IPython's magics."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.M))


def has_assert(cell) -> bool:
    return any(isinstance(node, ast.Assert) for node in ast.walk(syntax_tree(cell)))


def faults_of_the_run(notebook):
    """One clean run from top to bottom, stored whole."""
    code = code_cells(notebook)
    counts = [cell.execution_count for cell in code]
    if not any(cell.outputs for cell in code):
        yield "no stored outputs"
    if counts != list(range(1, len(code) + 1)):
        yield f"execution counts are not 1 to {len(code)}: {counts}"
    if "widgets" in notebook.metadata:
        yield "widget state is stored"
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"stored error: {output.ename}"
            if output.get("name") == "stderr":
                yield f"stored stderr: {output.text[:80]}"
            if WIDGET_VIEW in output.get("data", {}):
                yield "a widget view is stored"


def faults_of_the_numbers(notebook):
    """Enough of what nbval compares carries a number that is also asserted."""
    code = code_cells(notebook)
    ignored = [cell for cell in code if is_ignored(cell)]
    if len(ignored) > MAX_IGNORED * len(code):
        yield f"nbval ignores {len(ignored)} of {len(code)} cells"
    compared = [cell for cell in code if not is_ignored(cell)]
    asserted = [
        cell
        for cell in compared
        if has_assert(cell) and re.search(r"\d", output_text(cell))
    ]
    if len(asserted) < MIN_ASSERTED:
        yield f"{len(asserted)} cells assert and print a number, need {MIN_ASSERTED}"
    if not any(re.search(r"\d[.,]\d", output_text(cell)) for cell in asserted):
        yield "no asserted cell prints a number like 0.25 or 1,024"


def faults_of_the_pictures(notebook):
    """Each is drawn for every page, and says in words what it shows."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            if SVG not in data:
                if any(kind.startswith("image/") for kind in data):
                    yield "an image where a page needs an SVG"
                continue
            alt = html.unescape(re.search(r'aria-label="([^"]*)"', data[SVG])[1])
            if alt != data.get("text/plain"):
                yield f"alternative text is not the stored text: {alt[:60]!r}"
            elif alt.startswith("<") or len(alt.split()) < 5:
                yield f"alternative text says too little: {alt[:60]!r}"
            if strange := set(INK.findall(data[SVG])) - PALETTE:
                yield f"colours that no page knows: {sorted(strange)}"


def faults_of_the_code(notebook):
    """Cells are short, hold no classes, and hide nothing behind a semicolon."""
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        first = lines[0] if lines else "(empty cell)"
        if len(lines) > MAX_LINES:
            yield f"{len(lines)} lines in the cell that starts {first!r}"
        if cell.source.rstrip().endswith(";"):
            yield f"trailing ';' in the cell that starts {first!r}"
        if any(isinstance(node, ast.ClassDef) for node in ast.walk(syntax_tree(cell))):
            yield f"a class in the cell that starts {first!r}"


def faults_of_the_text(notebook):
    """Plain Markdown: it must read well in Jupyter and Colab too."""
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        prose = re.sub(r"```.*?```|`[^`\n]*`|\$[^$]*\$", "", cell.source, flags=re.S)
        if MYST_ONLY.search(cell.source):
            yield f"MyST syntax in a notebook: {MYST_ONLY.search(cell.source)[0]!r}"
        tags = set(HTML_TAG.findall(prose)) - PLAIN_TAGS
        if tags:
            yield f"raw HTML in a notebook: {sorted(tags)}"
        if len(ASIDE.findall(cell.source)) != cell.source.count("<aside"):
            yield f"an aside that follows no paragraph: {cell.source[:60]!r}"


RULES = (
    faults_of_the_run,
    faults_of_the_numbers,
    faults_of_the_pictures,
    faults_of_the_code,
    faults_of_the_text,
)


def faults(notebook) -> list[str]:
    return [fault for rule in RULES for fault in rule(notebook)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_real(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert faults(notebook) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_gives_what_it_owes(path):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert prose.startswith("# "), "the chapter does not start with its title"
    for heading in ("## Exercises", "## Summary"):
        assert re.search(rf"^{heading}\b", prose, re.M), f"no section {heading!r}"
    assert 3 <= len(re.findall(r"^\*\*Exercise \d", prose, re.M)) <= 12
    html = "".join(
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in code_cells(notebook)
        for output in cell.outputs
    )
    assert 'class="attn-x"' in html, "no explorer"


# The rules can fail: each sabotage below turns a good chapter into a bad one.


def asserted_cell(count: int):
    text = new_output("stream", name="stdout", text=f"share kept: 0.{count}\n")
    source = f"share = 0.{count}\nassert share < 1\nprint('share kept:', share)"
    return new_code_cell(source, execution_count=count, outputs=[text])


def good_notebook():
    alt = "Line chart: the share kept falls as the length grows."
    drawn = f'<svg aria-label="{alt}"><path fill="{COLORS["blue"]}"/></svg>'
    data = {SVG: drawn, "image/png": "AAAA", "text/plain": alt}
    picture = new_code_cell(
        "plots.lines(curves)",
        execution_count=4,
        outputs=[new_output("execute_result", data, execution_count=4)],
    )
    title = new_markdown_cell("# A chapter\n\n$a < b > c$ and `<tag>`.")
    return new_notebook(cells=[title, *map(asserted_cell, (1, 2, 3)), picture])


def clear_outputs(notebook):
    for cell in code_cells(notebook):
        cell.outputs = []


def swap_counts(notebook):
    first, second, *_ = code_cells(notebook)
    first.execution_count, second.execution_count = 2, 1


def store_stderr(notebook):
    warning = new_output("stream", name="stderr", text="UserWarning: x")
    code_cells(notebook)[0].outputs.append(warning)


def store_error(notebook):
    error = new_output("error", ename="ValueError", evalue="x", traceback=[])
    code_cells(notebook)[0].outputs.append(error)


def store_widget_view(notebook):
    code_cells(notebook)[3].outputs[0].data[WIDGET_VIEW] = {"model_id": "0"}


def store_widget_state(notebook):
    notebook.metadata["widgets"] = {}


def ignore_a_cell(notebook):
    code_cells(notebook)[0].metadata["tags"] = ["nbval-ignore-output"]


def ignore_by_comment(notebook):
    code_cells(notebook)[0].source += "\n# NBVAL_IGNORE_OUTPUT"


def picture_of(notebook) -> dict:
    return code_cells(notebook)[3].outputs[0].data


def store_an_image(notebook):
    picture_of(notebook).pop(SVG)


def change_alt(notebook):
    other = "Line chart: the share kept rises as the length grows."
    picture_of(notebook)["text/plain"] = other


def default_alt(notebook):
    data = picture_of(notebook)
    data["text/plain"] = "<Figure size 600x360 with 1 Axes>"
    data[SVG] = f'<svg aria-label="{html.escape(data["text/plain"])}"/>'


def draw_in_a_strange_colour(notebook):
    data = picture_of(notebook)
    data[SVG] = data[SVG].replace(COLORS["blue"], "#0000ff")


def lengthen_a_cell(notebook):
    code_cells(notebook)[0].source += "\nx = 1" * MAX_LINES


def drop_an_assert(notebook):
    code_cells(notebook)[0].source = "print('share kept:', 0.1)"


def print_no_decimal(notebook):
    for cell in code_cells(notebook)[:3]:
        cell.outputs[0].text = "kept: 7"


def end_with_semicolon(notebook):
    code_cells(notebook)[3].source += ";"


def define_a_class(notebook):
    code_cells(notebook)[0].source += "\nclass Attention: pass"


def use_a_directive(notebook):
    notebook.cells[0].source += "\n\n```{note}\nx\n```"


def cite_with_a_role(notebook):
    notebook.cells[0].source += "\n\n{cite:p}`vaswani2017attention`"


def begin_with_an_aside(notebook):
    notebook.cells[0].source = "## A\n\n<aside>\n\nx\n\n</aside>"


def use_raw_html(notebook):
    notebook.cells[0].source += "\n\n<div>x</div>"


SABOTAGE = {
    clear_outputs: "no stored outputs",
    swap_counts: "execution counts",
    store_stderr: "stored stderr",
    store_error: "stored error",
    store_widget_view: "widget view",
    store_widget_state: "widget state",
    ignore_a_cell: "nbval ignores 1 of 4",
    ignore_by_comment: "nbval ignores 1 of 4",
    store_an_image: "an image where",
    draw_in_a_strange_colour: "colours that no page knows",
    change_alt: "not the stored text",
    default_alt: "says too little",
    lengthen_a_cell: "18 lines",
    drop_an_assert: "2 cells assert",
    print_no_decimal: "no asserted cell prints a number",
    end_with_semicolon: "trailing ';'",
    define_a_class: "a class",
    use_a_directive: "MyST syntax",
    cite_with_a_role: "MyST syntax",
    use_raw_html: "raw HTML",
    begin_with_an_aside: "follows no paragraph",
}


def test_a_good_notebook_has_no_faults():
    assert faults(good_notebook()) == []


@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda function: function.__name__)
def test_the_guard_notices(sabotage):
    notebook = copy.deepcopy(good_notebook())
    sabotage(notebook)
    found = faults(notebook)
    assert any(SABOTAGE[sabotage] in fault for fault in found), found
