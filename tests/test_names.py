"""One public name, one thing: what two rooms of the package both call something.

A room is a folder of the package; the equations at the root are one room.
"""

import ast
from collections import defaultdict
from pathlib import Path

from conftest import ROOT

import attn_tutorial as at

PACKAGE = ROOT / "attn_tutorial"

# What modules of several rooms share on purpose: it is always used with its module's
# name before it, which says of what it is.
SHARED = {
    "ATTENTION": "the line of an exercise; the document's",
    "SMALL": "the size of a model; the size of letters",
    "VARIANTS": "of a notebook; of a model's structure",
    "cache_bytes": "of a pattern; of a study's setting",
    "cells": "of a notebook; of a drawing",
    "counted": "processor time; a model's parameters",
    "decode": "from JSON; from a task's numbers",
    "difference": "of an answer from the right one; of two studies' values",
    "draw": "the questions of a paper; the examples of a task",
    "encode": "to JSON; to a task's numbers",
    "lines": "of a made-up text; of a chart",
    "load": "the records of a device; of a study",
    "main": "what a command runs",
    "mask": "of an exercise; drawn as frames",
    "numbers": "of a sentence and its translation; of a picture's input",
    "recorded": "the records that a figure is drawn from",
    "run": "of keys; the document's code; a suite",
    "table": "of records, as text or as a picture",
    "write": "a record; a notebook",
    "written": "a value as Python; a text by a model",
}


def room(path: Path) -> str:
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else "equations"


def public(path: Path) -> dict[str, ast.AST]:
    """What a module lists in `__all__` and defines itself."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    listed, defined = [], {}
    for node in body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = [x.id for x in targets if isinstance(x, ast.Name)]
        if "__all__" in names and isinstance(node.value, ast.List):
            listed = [x.value for x in node.value.elts if isinstance(x, ast.Constant)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        defined |= dict.fromkeys(names, node)
    return {name: defined[name] for name in listed if name in defined}


def places() -> dict[str, dict[Path, ast.AST]]:
    """Public name -> the modules that define it."""
    found = defaultdict(dict)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, node in public(path).items():
            found[name][path] = node
    return found


def test_every_type_has_a_name_of_its_own():
    types = {
        name: [str(path.relative_to(ROOT)) for path in where]
        for name, where in places().items()
        if any(isinstance(node, ast.ClassDef) for node in where.values())
    }
    assert len(types) > 50
    assert {name: where for name, where in types.items() if len(where) > 1} == {}


def test_names_that_rooms_share_are_shared_on_purpose():
    shared = {
        name for name, where in places().items() if len(set(map(room, where))) > 1
    }
    assert shared == set(SHARED)


def test_what_the_package_exports_means_one_thing():
    import attn_tutorial as at

    found = places()
    for name in at.__all__:
        assert len(found.get(name, ())) <= 1, name


def test_the_tab_key_offers_every_public_name():
    assert set(at.__all__) <= set(dir(at))
