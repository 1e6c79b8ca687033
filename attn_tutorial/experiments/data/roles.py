"""Roles of the bytes of a program: what Python's own parser knows about them.

Some roles can be read off the letters (keyword, number, comment), some need the line
(attribute, definition), and some need the whole function or file: whether a name is a
parameter, a local variable, a name of the module, or one that Python brings along.
"""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["BY_SCOPE", "ROLES", "roles"]

ROLES = (
    "other",
    "comment",
    "string",
    "keyword",
    "number",
    "operator",
    "definition",
    "attribute",
    "parameter",
    "local",
    "module",
    "builtin",
)
BY_SCOPE = ("parameter", "local", "module", "builtin")  # need more than the line
TOKENS = {
    tokenize.COMMENT: "comment",
    tokenize.STRING: "string",
    tokenize.NUMBER: "number",
    tokenize.OP: "operator",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def roles(source: str) -> list[str]:
    """Name the role of every letter of an ASCII program.

    Raises:
        SyntaxError: If it is no program.

    Example:
        >>> from itertools import groupby
        >>> source = "def f(x): return len(x)"
        >>> named = zip(roles(source), source)
        >>> parts = groupby(named, key=lambda pair: pair[0])
        >>> [(role, "".join(c for _, c in part)) for role, part in parts][:5]
        [('keyword', 'def'), ('other', ' '), ('definition', 'f'), ('operator', '('),
         ('parameter', 'x')]
    """
    page = _Page(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        role = TOKENS.get(token.type)
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            role = "keyword"
        if role:
            page.mark(*token.start, *token.end, role)
    tree = ast.parse(source)
    _mark_names(tree, [_Scope(_bound(tree))], page)
    return page.roles


class _Page:
    """The letters of a program and their roles."""

    def __init__(self, source: str) -> None:
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.roles = ["other"] * len(source)

    def mark(self, row: int, column: int, end_row: int, end: int, role: str) -> None:
        """Give a role to the letters between two places; rows start at 1."""
        first, last = self.starts[row - 1] + column, self.starts[end_row - 1] + end
        self.roles[first:last] = [role] * (last - first)

    def mark_node(self, node: ast.AST, role: str) -> None:
        """Give a role to all letters of a part of the program."""
        place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        self.mark(*place, role)


@dataclass
class _Scope:
    """Names that a module or a function binds, and which are its parameters."""

    bound: set[str]
    parameters: set[str] = field(default_factory=set)


def _bound(tree: ast.AST) -> set[str]:
    """Names that are bound in a module or function, not inside its functions."""
    names, outer = set(), set()
    for node in _own_nodes(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (*FUNCTIONS[:2], ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            outer |= set(node.names)
    return names - outer


def _own_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, except what is inside another function."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, FUNCTIONS):
            yield from _own_nodes(node)


def _mark_names(node: ast.AST, scopes: list[_Scope], page: _Page) -> None:
    """Mark the names in a part of the program, given the functions around it."""
    if _is_text(node):  # an f-string as a whole: versions of Python read it differently
        return page.mark_node(node, "string")
    if isinstance(node, ast.Name):
        page.mark_node(node, _role(node.id, scopes))
    elif isinstance(node, ast.Attribute):
        end, row = node.end_col_offset, node.end_lineno
        page.mark(row, end - len(node.attr), row, end, "attribute")
    elif isinstance(node, (*FUNCTIONS[:2], ast.ClassDef)):
        _mark_definition(node, page)
    if isinstance(node, FUNCTIONS):
        scopes = [*scopes, _function_scope(node, page)]
    for child in ast.iter_child_nodes(node):
        _mark_names(child, scopes, page)


def _is_text(node: ast.AST) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    return literal or isinstance(node, ast.JoinedStr)


def _mark_definition(node: ast.AST, page: _Page) -> None:
    """Mark the name after ``def`` or ``class``."""
    word = "class" if isinstance(node, ast.ClassDef) else "def"
    line = page.lines[node.lineno - 1]
    after = line.index(word, node.col_offset) + len(word)
    first = line.index(node.name, after)
    page.mark(node.lineno, first, node.lineno, first + len(node.name), "definition")


def _function_scope(node: ast.AST, page: _Page) -> _Scope:
    """Mark the parameters of a function, and collect the names that it binds."""
    a = node.args
    extra = [p for p in (a.vararg, a.kwarg) if p]
    parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *extra]
    for parameter in parameters:
        row, first = parameter.lineno, parameter.col_offset
        page.mark(row, first, row, first + len(parameter.arg), "parameter")
    return _Scope(_bound(node), {p.arg for p in parameters})


def _role(name: str, scopes: list[_Scope]) -> str:
    """Find the innermost function that binds a name."""
    module, *functions = scopes
    for scope in reversed(functions):
        if name in scope.parameters:
            return "parameter"
        if name in scope.bound:
            return "local"
    known = name in module.bound or not hasattr(builtins, name)
    return "module" if known else "builtin"
