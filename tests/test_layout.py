"""The package is what CONTRIBUTING's tree says, and imports run down that tree."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "attn_tutorial"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in FILES}

BOTTOM = {"checks", "provenance", "pictures"}
EQUATIONS = {
    "patterns",
    "dense",
    "threads",
    "tiled",
    "local",
    "sparse",
    "cost",
    "online",
    "gradients",
    "cache",
    "lookback",
    "runs",
}
# What each room may import beside itself; the root's equations count as one room.
ABOVE = {
    "checks": set(),
    "provenance": set(),
    "pictures": set(),
    "equations": {"checks"},
    "conventions": {"equations", *BOTTOM},
    "networks": {"equations", *BOTTOM},
    "backends": {"equations", *BOTTOM},
    "instruments": {"equations", "networks", "backends", *BOTTOM},
}
ABOVE["benchmark"] = {*ABOVE, *BOTTOM}
ABOVE["experiments"] = {*ABOVE}
ABOVE["exercises"] = {*ABOVE}
# Backends stand alone, but for those that are made of others.
TOGETHER = {
    "exchange": {"halo"},
    "context_parallel": {"exchange", "halo"},
    "ring": {"context_parallel", "exchange", "halo"},
    "context_run": {"context_parallel", "exchange", "ring"},
    "hf": {"hf_masks"},
    "triton_local": {"flex"},  # the layout of q, k and v in memory
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: {ast.unparse(node)}"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            rooms = {n for n in names if n in MODULES or f"{n}.__init__" in MODULES}
            found |= rooms or {node.module}
    return found


def room(module: str) -> str:
    """The room of one of the package's modules."""
    name = [*module.split("."), "__init__"][1]
    return "equations" if name in {*EQUATIONS, "__init__"} else name


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "attn_tutorial"}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_none_that_stands_below_it(module):
    mine = room(module)
    wrong = {m for m in own(imports(MODULES[module])) if room(m) != mine}
    assert {room(m) for m in wrong} <= ABOVE[mine], wrong


@pytest.mark.parametrize("name", sorted(EQUATIONS))
def test_equations_import_nothing_but_torch(name):
    roots = {m.split(".")[0] for m in imports(PACKAGE / f"{name}.py")}
    assert roots - sys.stdlib_module_names <= {"torch", "attn_tutorial"}


@pytest.mark.parametrize("file", sorted((PACKAGE / "backends").glob("*.py")))
def test_a_backend_stands_alone_unless_it_is_made_of_others(file):
    others = {m.split(".")[2] for m in own(imports(file)) if room(m) == "backends"}
    assert others <= TOGETHER.get(file.stem, set())


def test_no_import_runs_in_a_circle():
    after = {m: own(imports(f)) & MODULES.keys() for m, f in MODULES.items()}
    while free := [m for m, used in after.items() if not used & after.keys()]:
        for module in free:
            del after[module]
    assert not after


# What is written about it.


def on_disk() -> set[str]:
    """Files of the root and all folders, as the tree names them."""
    files = {file.name for file in PACKAGE.glob("*.py")} - {"__init__.py"}
    return files | {f"{file.parent.name}/" for file in PACKAGE.glob("*/**/__init__.py")}


def test_the_tree_is_what_is_on_disk():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\nattn_tutorial/\n(.*?)```", text, re.DOTALL)[1]
    assert set(re.findall(r"\w+(?:\.py|/)", tree)) == on_disk()
    assert len(tree.splitlines()) <= 12


def test_the_tree_stands_in_the_order_of_the_imports():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    first = {name: re.search(rf"^  .*\b{name}(/|\.py)", text, re.M) for name in ABOVE}
    first["equations"] = re.search(r"^  patterns\.py", text, re.M)
    place = {name: found.start() for name, found in first.items()}
    for name, used in ABOVE.items():
        assert all(place[other] <= place[name] for other in used), name


def api_pages() -> list[str]:
    """The text of each page of the API, in the order of the contents."""
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    names = re.findall(r"file: (book/api\S*)", contents)
    return [(ROOT / f"{name}.md").read_text(encoding="utf-8") for name in names]


API = api_pages()
REGISTRY = "attn_tutorial.experiments.registry"  # it lists the studies: on their page


def documented(text: str = "\n".join(API)) -> list[str]:
    return re.findall(r"^\.\. automodule:: ([\w.]+)$", text, re.MULTILINE)


def test_every_module_is_on_a_page_of_the_api():
    parts = ("__init__", "__main__")  # names and command lines
    modules = [m for m in MODULES if m.rpartition(".")[2] not in parts]
    assert sorted(documented()) == modules


@pytest.mark.parametrize("module", documented())
def test_a_module_uses_only_what_stands_above_it(module):
    above = documented()[: documented().index(module)]
    assert own(imports(MODULES[module])) - {"attn_tutorial"} <= set(above)


def part(module: str) -> str:
    """The room of a module, or that folder of it which has a page of its own."""
    for name in ("studies", "figures"):
        if module.startswith(f"attn_tutorial.experiments.{name}."):
            return f"experiments/{name}"
    return room(module)


def test_the_pages_of_the_api_are_rooms():
    pages = [[m for m in documented(page) if m != REGISTRY] for page in API]
    found = [dict.fromkeys(map(part, modules)) for modules in pages]
    parts = [name for names in found for name in names]
    assert len(parts) == len(set(parts)), "a room stands on two pages"
    assert {name.split("/")[0] for name in parts} == ABOVE.keys()
    assert all(len(names) <= 1 for names in found[2:]), "a page, a folder"
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= ABOVE.keys()
