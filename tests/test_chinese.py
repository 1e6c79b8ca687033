"""The Chinese edition: whole, equal in every number, and of one voice."""

import re
import sys

import pytest
from conftest import HTML, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import chinese
import chinese_site
import paragraphs
import twins

NAMES = [*chinese.names(), "frame"]
FILES = [chinese.source_of_document(name) for name in chinese_site.documents()]
CJK = "[\u4e00-\u9fff]"


def entries(name: str) -> list[tuple[str, str]]:
    """Messages with their translations, where there are any."""
    catalogue = chinese.read(name)
    known = ((m, catalogue.get(m)) for m in chinese.wanted(name))
    return [(m, entry.string) for m, entry in known if entry and entry.string]


ROLE = re.compile(r"\{([\w:]+)\}`(?:([^`<]*?) <)?[^`]*`")
QUOTED = re.findall(
    r"^> (.+)", (ROOT / "book/source_document.md").read_text("utf-8"), re.M
)


def prose(text: str) -> str:
    """The words that a reader sees; formulas and code as "x"."""
    text = twins.KINDS["formula"].sub("x", text)
    text = ROLE.sub(
        lambda match: match[2] or ("页" if match[1] == "doc" else "x"), text
    )
    text = twins.KINDS["code"].sub("x", text)
    text = twins.KINDS["link"].sub("]", text)
    return twins.KINDS["tag"].sub("", text).replace("[", "").replace("]", "")


# Messages.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pieces_put_together_are_the_file(path):
    text = path.read_text(encoding="utf-8")
    assert paragraphs.translated(path, lambda message: message) == text


def test_words_are_messages_and_code_is_not():
    text = """# A *title*

Two words,
on two lines.

```python
not = "this"
```

$$n^2 \\text{ pairs}$$

(label)=
:::{admonition} In short
:class: tip
* an item with `code`
:::

| head | $n$ |
|---|---|
| $w$ | 3 |
| a row | 4 |

<details class="choice"><summary>a choice</summary>

</details>
"""
    found = [piece for piece, message in paragraphs.pieces(text) if message]
    assert found == [
        "A *title*",
        "Two words,\non two lines.",
        "In short",
        "an item with `code`",
        "| head | $n$ |",
        "| a row | 4 |",
        "a choice",
    ]


# Whole, and equal.


@pytest.mark.parametrize("name", NAMES)
def test_every_paragraph_has_a_translation_with_its_numbers(name):
    assert not chinese.faults(name)


def test_a_changed_paragraph_is_stale_and_shown_in_english(monkeypatch, tmp_path):
    path = ROOT / "book/how_to_use.md"
    text = path.read_text(encoding="utf-8")
    before = "The rhythm is always the same"
    assert before in text
    changed = tmp_path / "how_to_use.md"
    changed.write_text(text.replace(before, "The rhythm is always new"), "utf-8")
    monkeypatch.setattr(chinese, "source_of", lambda name: changed)
    assert [m[:24] for m in chinese.stale("how_to_use")] == ["The rhythm is always new"]
    page = chinese_site.translated(changed)
    assert re.search(r"The rhythm is always new.*" + chinese_site.STALE, page)
    assert page.count(chinese_site.STALE) == 1


@pytest.mark.parametrize(
    "translation",
    [
        "[式 (7)](a.md) 保留 $2w+1$ 个键，`keep` 有 24 行，三种情形，1,024 个。",
        "`keep` 共 3 种情形、24 行：$2w+1$ 个键，1,024 个，见[式 (7)](a.md)。",
    ],
)
def test_equal_paragraphs_have_no_fault(translation):
    source = (
        "[Eq. (7)](a.md) keeps $2w+1$ keys, `keep` has 24 rows, three cases, 1,024."
    )
    assert twins.faults(source, translation) == []


@pytest.mark.parametrize(
    ("translation", "fault"),
    [
        ("三块 24 个，$n$，`f`，[x](b.md)，{doc}`页 <faq>`", "link 'a.md' is missing"),
        ("三块 42 个，$n$，`f`，[x](a.md)，{doc}`页 <faq>`", "number 24.0 is missing"),
        (
            "四块 24 个，$n$，`f`，[x](a.md)，{doc}`页 <faq>`",
            "number in words: 3 is missing",
        ),
        ("三块 24 个，$m$，`f`，[x](a.md)，{doc}`页 <faq>`", "formula 'n' is missing"),
        ("三块 24 个，$n$，`g`，[x](a.md)，{doc}`页 <faq>`", "code 'f' is missing"),
        (
            "三块 24 个，$n$，`f`，[x](a.md)，{doc}`页 <api>`",
            "role '{doc}`faq' is missing",
        ),
        (
            "三块 24 个，**“对。”**吗$n$，`f`，[x](a.md)，{doc}`页 <faq>`",
            "emphasis is not set",
        ),
    ],
)
def test_unequal_paragraphs_are_told(translation, fault):
    source = "Three blocks of 24, $n$, `f`, [x](a.md), {doc}`faq`"
    assert any(found.startswith(fault) for found in twins.faults(source, translation))


def test_large_numbers_may_be_written_the_chinese_way():
    assert twins.numbers("131 thousand") == twins.numbers("13.1 万")
    assert twins.numbers("2 million") != twins.numbers("2 万")


# One voice.

# Of the terms in the glossary, those that have one translation wherever they stand.
FIXED = (
    "attention",
    "attention score",
    "block",
    "causal",
    "gradient",
    "key",
    "local attention",
    "mask",
    "padding",
    "pattern",
    "predicate",
    "query",
    "softmax",
    "sparse attention",
    "tile",
    "token",
    "value",
    "window size",
)
OTHERS = {
    "注意机制": "注意力",
    "令牌": "词元",
    "标记符": "词元",
    "视窗": "窗口",
    "遮罩": "掩码",
}


def glossary() -> dict[str, str]:
    """The English terms of the glossary with their Chinese ones."""
    text = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+\|$", text, flags=re.M)
    pairs = ((a.split(", "), b.split("，")) for a, b in rows)
    return {a: b for left, right in pairs for a, b in zip(left, right, strict=False)}


TERMS = glossary()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("term", FIXED)
def test_a_term_is_translated_one_way(term, name):
    ours = re.sub(r"（.*）| 函数$|的$|^注意力(?=模式)", "", TERMS[term])
    whole = re.compile(rf"(?<![\w-]){term}s?(?![\w-])", re.I)
    for source, translation in entries(name):
        if whole.search(prose(source)):
            assert ours in translation, f"{term}: {source!r}"


@pytest.mark.parametrize("name", NAMES)
def test_no_other_word_stands_for_a_term(name):
    for _, translation in entries(name):
        for other, term in OTHERS.items():
            assert other not in translation, f"{other}, not {term}: {translation!r}"


UNLIKE_CHINESE = {
    "no space between Chinese and other letters": rf"{CJK}[A-Za-z0-9]|[A-Za-z0-9]{CJK}",
    "a comma or colon of another script": rf"{CJK} ?[,;:?!]|{CJK}\.(?!\w)",
    "a space beside a full-width sign": r"[（“]\s|\S [，。；：？！）”]",
    "a sign that the glossary rules out": r"[０-９Ａ-Ｚａ-ｚ「」『』]|\d %",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", UNLIKE_CHINESE)
def test_translations_are_set_by_the_rules(name, fault):
    """What is quoted from the source document keeps its own signs."""
    for source, translation in entries(name):
        found = re.search(UNLIKE_CHINESE[fault], prose(translation))
        assert not found or source in QUOTED, f"{found[0]!r} in {translation!r}"
