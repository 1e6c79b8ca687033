"""Write book/equations.md: each equation, its function, its tests, its chapter.

Everything is read from the sources, nothing is imported:
a function says ``Eq. (N)`` in its docstring (the first number there counts), a test
is marked ``@pytest.mark.equation(N)``, and one chapter shows ``\\tag{N}``.

    python scripts/equation_index.py            # write the page
    python scripts/equation_index.py --check    # exit 1 if it is stale or has an orphan
"""

import argparse
import ast
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import anchors

ROOT = Path(__file__).resolve().parent.parent
PAGE = "book/equations.md"

NAMES = {
    1: "Attention",
    2: "Multi-head attention",
    3: "FLOPs of attention",
    4: "FLOPs of a layer",
    5: "Memory of the scores",
    6: "Online softmax",
    7: "Local attention",
    8: "Kept pairs",
    9: "Tile tax",
    10: "Reach after L layers",
    11: "Block-sparse attention",
    12: "Patterns and their algebra",
    13: "Layers until everyone is connected",
    14: "Spread of influence",
    15: "Gradients",
    16: "Bytes of a schedule of tiles",
    17: "Roofline",
    18: "Tile tax on a grid",
    19: "Bytes of the halo",
    20: "Bytes without a window",
    21: "Intensity of a step of decoding",
    22: "Bytes of a cache",
}

LABEL = re.compile(r"Eq\. \((\d+)\)(?:: (.+?)(?:\n\n|$))?", re.DOTALL)
TAG = re.compile(r"\\tag\{(\d+)\}")
DISPLAY = re.compile(
    r"\$\$(.+?)\$\$|(\\begin\{(equation|align)\*?\}.+?\\end\{\3\*?\})", re.DOTALL
)

HEADING = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)

HEAD = """\
# Equation index

Every numbered equation of the book with its three partners: the function that computes
it, the tests that compare the function with an independent computation, and the section
that derives it. The numbers follow the reading order. This page is generated from the
sources, and a test fails when an equation lacks one of its partners or stands out of
order.
"""


@dataclass
class Equation:
    """What was found for one number."""

    tex: list[str] = field(default_factory=list)
    chapters: list[str] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    words: str = ""


def collect(root: Path) -> dict[int, Equation]:
    found = defaultdict(Equation, {number: Equation() for number in NAMES})
    modules = sorted((root / "attn_tutorial").rglob("*.py"))
    labelled = [item for path in modules for item in functions(path, root)]
    for number, name, words in sorted(labelled, key=lambda item: not item[2]):
        found[number].functions.append(name)
        found[number].words = found[number].words or words
    for path in sorted((root / "tests").rglob("test_*.py")):
        for number, name in tests(path, root):
            found[number].tests.append(name)
    for path in chapters(root):
        for number, tex, section in displayed(path):
            found[number].chapters.append(path.stem)
            found[number].sections.append(section)
            found[number].tex.append(tex)
    return dict(sorted(found.items()))


def chapters(root: Path) -> list[Path]:
    """Notebooks in the order of the table of contents, the others after them."""
    contents = root / "_toc.yml"
    text = contents.read_text(encoding="utf-8") if contents.exists() else ""
    order = re.findall(r"file: notebooks/(\w+)", text)
    found = sorted((root / "notebooks").glob("*.ipynb"))
    place = {name: number for number, name in enumerate(order)}
    return sorted(found, key=lambda path: place.get(path.stem, len(order)))


def functions(path: Path, root: Path):
    """Yield (number, dotted name, words) for a module's public definitions.

    Words are what follows ``Eq. (N):``, with a colon: that definition comes first.
    """
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = exported(tree)
    for name, node in definitions(tree):
        parts = name.split(".")
        if any(part.startswith("_") for part in parts) or parts[0] not in public:
            continue
        match = LABEL.search(ast.get_docstring(node) or "")
        if match:
            yield int(match[1]), f"{module}.{name}", " ".join((match[2] or "").split())


def exported(tree: ast.Module) -> set[str]:
    """Names in ``__all__``, or all names of a module that has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return {name for name, _ in definitions(tree)}


def definitions(tree: ast.AST, prefix: str = ""):
    """Yield (qualified name, node) for functions, classes and methods."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in getattr(tree, "body", []):
        if isinstance(node, kinds):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{prefix}{node.name}.")


def tests(path: Path, root: Path):
    """Yield (number, test id) for tests marked with an equation's number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file = path.relative_to(root).as_posix()
    for name, node in definitions(tree):
        for decorator in node.decorator_list:
            for number in marked(decorator):
                yield number, f"{file}::{name.replace('.', '::')}"


def marked(decorator: ast.expr) -> list[int]:
    """Numbers in ``pytest.mark.equation(...)``; none for other decorators."""
    if not isinstance(decorator, ast.Call):
        return []
    if ast.unparse(decorator.func) != "pytest.mark.equation":
        return []
    return [argument.value for argument in decorator.args]


def displayed(path: Path):
    """Yield (number, TeX, section) for the tagged equations in a notebook's text."""
    section = ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        text = "".join(cell["source"])
        for match in sorted(
            (*DISPLAY.finditer(text), *HEADING.finditer(text)), key=re.Match.start
        ):
            if match.re is HEADING:
                section = match[1]
                continue
            tex = match[1] or match[2]
            for number in TAG.findall(tex):
                yield int(number), TAG.sub("", tex).strip().rstrip(" ,."), section


def problems(found: dict[int, Equation]) -> list[str]:
    """One sentence for each missing or doubled partner of an equation."""
    messages = []
    for number, equation in found.items():
        if number not in NAMES:
            messages.append(f"Eq. ({number}) is not in the list of equations")
        for partner in ("functions", "tests", "chapters"):
            if not getattr(equation, partner):
                messages.append(f"Eq. ({number}) has no {partner[:-1]}")
        if len(equation.chapters) > 1:
            places = ", ".join(equation.chapters)
            messages.append(f"Eq. ({number}) is tagged more than once: {places}")
    return messages


def disorder(root: Path) -> list[str]:
    """One sentence for each number that does not follow the one read before it."""
    read = [number for path in chapters(root) for number, *_ in displayed(path)]
    return [
        f"Eq. ({number}) is read where Eq. ({place}) belongs"
        for place, number in enumerate(read, start=1)
        if number != place
    ]


def page(found: dict[int, Equation], root: Path) -> str:
    """The text of the index."""
    parts = [HEAD]
    for number, equation in found.items():
        parts.append(f"(equation-{number})=")
        parts.append(f"## ({number}) {NAMES.get(number, 'Unknown')}\n")
        parts += [f"$$\n{tex}\n$$\n" for tex in equation.tex]
        if equation.words:
            parts.append(f"- **In the code's words:** {equation.words}")
        functions = ", ".join(function_link(name) for name in equation.functions)
        places = zip(equation.chapters, equation.sections, strict=True)
        sections = ", ".join(section_link(*place, root) for place in places)
        parts.append(f"- **Computed by** {functions or 'nothing yet'}")
        parts.append(f"- **Derived in** {sections or 'no chapter yet'}")
        parts.append(f"- **Tested by** {test_list(equation.tests) or 'nothing yet'}\n")
    return "\n".join(parts)


def function_link(name: str) -> str:
    return f"{{py:obj}}`{name.removeprefix('attn_tutorial.')} <{name}>`"


def test_list(tests: list[str]) -> str:
    by_file = defaultdict(list)
    for test in tests:
        file, name = test.split("::", 1)
        by_file[file].append(f"`{name}`")
    return "; ".join(f"`{file}`: {', '.join(names)}" for file, names in by_file.items())


def section_link(name: str, section: str, root: Path) -> str:
    """Links to an equation's chapter and to the heading above it."""
    notebook = json.loads((root / f"notebooks/{name}.ipynb").read_text("utf-8"))
    title = "".join(notebook["cells"][0]["source"]).splitlines()[0].lstrip("# ")
    chapter = f"[{title}](../notebooks/{name}.ipynb)"
    if section in ("", title):
        return chapter
    place = f"../notebooks/{name}.ipynb#{anchors.in_sources(section)}"
    return f"{chapter}, section [{section}]({place})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args(arguments)
    found = collect(options.root)
    text, file = page(found, options.root), options.root / PAGE
    messages = problems(found) + disorder(options.root)
    if options.check:
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            messages.append(f"{PAGE} is stale: run `make index`")
    else:
        file.write_text(text, encoding="utf-8")
    for message in messages:
        print(message, file=sys.stderr)
    return int(options.check and bool(messages))


if __name__ == "__main__":
    sys.exit(main())
