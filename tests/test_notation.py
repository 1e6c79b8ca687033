r"""One letter, one meaning: every formula of the book against the tables of notation.

A symbol is a letter with what is fixed about it: an accent, a word or a name below or
above it. What runs, such as the j of s_j, is a symbol of its own.
"""

import re
from functools import cache

import nbformat
import pytest
from conftest import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("**/*.md"))
# These repeat what all chapters say, so that all rows of the tables are theirs.
OF_ALL_CHAPTERS = ("solutions", "equations", "cheat_sheet", "notation", "glossary")

MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", re.DOTALL)
CODE = re.compile(r"^```(?![`{])\w*\n.*?^```$|(?<![\\}`])`[^`\n]+`(?!`)", re.S | re.M)
# Commands that are no letters.
OPERATORS = set(
    """approx begin big Big bigvee binom bmod cap cdot cdots circ cos cup dots end exp
    frac gcd ge iff in infty land langle lceil le left leftarrow lfloor ln log
    longrightarrow lor lvert mathbf max min ne partial pm prod qquad quad rangle rceil
    rfloor right rvert sin sqrt sum tanh textstyle tfrac times to underbrace
    downarrow uparrow star""".split()
)
WORD = r"\\text\{\w+\}"
ATOM = re.compile(
    r"\\(?:text|begin|end|tag)\{[^}]*\}"  # words
    r"|\\(?:mathcal|mathbb|hat)\s*(?:\{\w\}|\w)|\\[A-Za-z]+|[A-Za-z]"
)
BELOW = re.compile(rf"_(?:\{{({WORD}|kv|\\min)\}}|({WORD})|([qkvx])(?![a-z]))")
ABOVE = re.compile(
    r"\^(?:\{(\\(?:down|up)arrow)\}|([QKVO*]|\\star)(?![a-z]))(_[KV](?![a-z]))?"
)


def symbols(tex: str) -> set[str]:
    """The symbols of a formula, in one spelling each."""
    found, at = set(), 0
    while atom := ATOM.search(tex, at):
        name, at = atom[0], atom.end()
        if "text" in name or name.lstrip("\\").split("{")[0] in OPERATORS | {"tag"}:
            continue
        for fixed in (BELOW, ABOVE):
            if match := fixed.match(tex, at):
                name, at = name + match[0], match.end()
        name = re.sub(r"\\text|[{}\s]", "", name)
        found.add(name)
    return found


def formulas(markdown: str) -> list[str]:
    """All formulas of a text, outside of its code."""
    return [a or b for a, b in MATH.findall(CODE.sub(" ", markdown))]


def symbols_of(markdown: str) -> set[str]:
    return set().union(*map(symbols, formulas(markdown)))


@cache
def text_of(path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def named(path) -> str:
    return path.relative_to(ROOT).as_posix()


# The tables


@cache
def rows(label: str) -> list[list[str]]:
    """Rows of a table of the notation page."""
    text = text_of(ROOT / "book/notation.md")
    lines = text.split(f"\n({label})=\n")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def everywhere() -> list[list[str]]:
    return rows("symbols")


def of_a_chapter() -> list[list[str]]:
    return rows("symbols-of-a-chapter")


def entries(row: list[str]) -> list[str]:
    """The symbols that a row explains, one by one."""
    bare = row[0].replace("$, without an index", r"\text{ alone}$")
    return re.findall(r"\$([^$]+)\$", bare)


def rows_for(path) -> list[list[str]]:
    """The rows in which a reader of a page finds its symbols."""
    if path.stem in OF_ALL_CHAPTERS:
        return everywhere() + of_a_chapter()
    return everywhere() + [row for row in of_a_chapter() if f"/{path.stem}`" in row[1]]


def unexplained(path) -> set[str]:
    known = symbols_of("\n".join(" ".join(row) for row in rows_for(path)))
    return symbols_of(text_of(path)) - known


@pytest.mark.parametrize("path", CHAPTERS + PAGES, ids=named)
def test_every_symbol_is_in_the_tables(path):
    assert unexplained(path) == set()


def test_no_symbol_is_explained_twice():
    found = [s for row in everywhere() + of_a_chapter() for s in entries(row)]
    assert len(found) > 60
    assert sorted(found) == sorted(set(found))


def test_symbols_of_a_chapter_are_used_in_each_that_its_row_names():
    for row in of_a_chapter():
        paths = re.findall(r"\{doc\}`\.\./([\w/]+)`", row[1])
        for path in paths:
            text = text_of(ROOT / f"{path}.ipynb")
            assert symbols_of(row[0]) & symbols_of(text), (row, path)
        assert paths


# What the text calls a symbol

SYMBOL = r"\$([^$]+)\$"
PHRASE = r"(?!(?:a )?quarter)((?:[^\s$.,;:]+ ?){1,9})"
DEFINES = [
    re.compile(pattern.replace("$S$", SYMBOL) + PHRASE)
    for pattern in (
        "[Ll]et $S$ be ",
        "[Ww]rite $S$ for ",
        "[Ww]ith $S$ the ",
        r"\b[Ww]here $S$ (?:is|are) ",
        "$S$ (?:is|are) (?:the|a|an|how many) ",
    )
]
# Nouns that belong to some symbols only, before one and after one.
BEFORE = {
    "chunk": "C",
    "distance": r"\delta w l",
    "entropy": "H",
    "head": "l",
    "length": "n d",
    "offset": r"\xi",
    "output": "i O o y",
    "place": r"\xi",
    "query": "i q",
    "rank": "r d_low",
    "share": r"\rho a \varepsilon",
    "temperature": r"\tau",
    "weight": "p P",
    "width": "d d_k d_v d_low d_model",
    "window": "w W",
    "windows": "w",
}
AFTER = {
    "blocks": r"m \nu",
    "heads": "h h_kv",
    "layers": "L n",
    "processes": "G",
    "ranks": "G",
}
STEM = 5  # letters by which words are compared: "query" and "queries" are one


def stems(text: str) -> set[str]:
    words = re.findall(r"[a-z]{3,}", text.lower())
    return {word.rstrip("s")[:STEM] for word in words} - {"the", "and", "for", "are"}


def definitions(markdown: str):
    """Symbols and what a text says that they are, word by word."""
    text = re.sub(r"\s+", " ", CODE.sub(" ", markdown))
    for pattern in DEFINES:
        for match in pattern.finditer(text):
            found = symbols(re.sub(r"_\{?[ijlcr](?![a-z])\}?", "", match[1]))
            alone = re.fullmatch(r"[\\\w{}^']+", match[1])
            if alone and len(found) == 1:
                yield found.pop(), match[2]


def misnamed(markdown: str):
    """Symbols beside a noun that belongs to another."""
    text = re.sub(r"\s+", " ", CODE.sub(" ", markdown))
    for nouns, form in ((BEFORE, r"\b{} \$([^$]+)\$"), (AFTER, r"\$([^$]+)\$ {}\b")):
        for noun, own in nouns.items():
            for tex in re.findall(form.format(noun), text, re.I):
                alone = re.fullmatch(r"\\?[A-Za-z]+(?:_\{?[\\\w{}]+\}?)?'?", tex)
                if alone and symbols(tex) and not symbols(tex) & set(own.split()):
                    yield noun, tex


@pytest.mark.parametrize("path", CHAPTERS + PAGES, ids=named)
def test_symbols_are_what_the_tables_say(path):
    if path.stem in ("notation", "source_document"):
        pytest.skip("the tables themselves; letters of the document")
    for symbol, said in definitions(text_of(path)):
        meant = [row[-1] for row in rows_for(path) if symbol in symbols_of(row[0])]
        assert stems(said) & stems(" ".join(meant)), (symbol, said, meant)


@pytest.mark.parametrize("path", CHAPTERS + PAGES, ids=named)
def test_a_noun_stands_beside_its_own_symbol(path):
    if path.stem == "source_document":
        pytest.skip("letters of the document")
    assert list(misnamed(text_of(path))) == []


def test_enough_is_compared():
    texts = [text_of(path) for path in CHAPTERS]
    assert sum(1 for text in texts for _ in definitions(text)) > 25
    for nouns, form in ((BEFORE, r"\b{} \$"), (AFTER, r"\$ {}\b")):
        for noun in nouns:
            pattern = re.compile(form.format(noun), re.I)
            assert any(pattern.search(text) for text in texts), noun


# The rules can fail


def test_symbols_of_a_formula():
    tex = r"\text{max}\; \hat{s}_j \le \frac{QK^T}{\sqrt{d_{\text{model}}}} + \Delta"
    assert symbols(tex) == {r"\hats", "j", "Q", "K", "T", "d_model", r"\Delta"}
    tex = r"W^Q_l + h_{kv}\xi_{\min} + n_r d_k L^\star s_\text{sink} + W^{\uparrow}_K"
    names = {"W^Q", "l", "h_kv", r"\xi_\min", "n", "r", "d_k", r"L^\star", "s_sink"}
    assert symbols(tex) == names | {r"W^\uparrow_K"}
    assert symbols(r"\newletter + d_{model}") >= {r"\newletter", "o"}


def test_second_meanings_are_noticed():
    text = "Let $u$ be the bytes of a token. Head $r$ looks $p$ tokens back."
    assert list(definitions(text)) == [("u", "the bytes of a token")]
    assert list(misnamed(text)) == [("head", "r")]
    assert list(misnamed("There are $P$ ranks, and `head` $r$.")) == [("ranks", "P")]
