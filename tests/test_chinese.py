"""The Chinese edition: whole, equal in every number, and of one voice."""

import html
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import HTML, ROOT

from attn_tutorial.exercises import assess, languages

sys.path.insert(0, str(ROOT / "scripts"))
import chinese
import chinese_figures
import chinese_site
import paragraphs
import twins

NAMES = chinese.catalogues()
FILES = [chinese.source_of_document(name) for name in chinese_site.documents()]
CJK = "[\u4e00-\u9fff]"


def entries(name: str) -> list[tuple[str, str]]:
    """Messages with their translations, where there are any; figures with numbers."""
    catalogue = chinese.read(name)
    known = ((m, catalogue.get(m)) for m in chinese.wanted(name))
    found = [(m, entry.string) for m, entry in known if entry and entry.string]
    if name == "figures":
        found = [tuple(ENTRY.sub(r"\1", text) for text in pair) for pair in found]
    return found


ENTRY = chinese_figures.ENTRY
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
    text = re.sub(r"\[([^][]*)\]\([^)\s]+\)", r"\1", text)
    return twins.KINDS["tag"].sub("·", text)


# What a translation takes over as it is: titles that are linked, and Chinese words.
VERBATIM = re.compile(rf"\[((?:\[[^][]*\]|[^][])+)\]\(|({CJK}.*)$")


def own_words(source: str, translation: str) -> tuple[str, str]:
    """Both texts as readers see them, less what the translation does not translate."""
    for linked, words in VERBATIM.findall(source):
        if (taken := linked or words) in translation:
            source, translation = (
                source.replace(taken, "x"),
                translation.replace(taken, "x"),
            )
    return prose(source), prose(translation)


# Messages.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pieces_put_together_are_the_file(path):
    text = path.read_text(encoding="utf-8")
    assert paragraphs.translated(path, lambda message: message) == text


OF_ALL_KINDS = """# A *title*

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
WORDS = [
    "A *title*",
    "Two words,\non two lines.",
    "In short",
    "an item with `code`",
    "| head | $n$ |",
    "| a row | 4 |",
    "a choice",
]


def test_words_are_messages_and_code_is_not():
    pieces = paragraphs.pieces(OF_ALL_KINDS)
    assert [piece for piece, message in pieces if message] == WORDS


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


# Figures.

CHAPTERS = [path for path in FILES if path.suffix == ".ipynb"]
DRAWING = """<style>.a>b{}</style><div aria-label="Kept pairs"
 data-axes="[[&quot;w = 2&quot;, &quot;every pair&quot;]]"><button>Play</button>
<svg aria-label="Of 1,024 pairs 94.5 are kept."><text x="9" y="16">All of its</text>
<text x="9" y="16">A title of</text><text x="9" y="34">two lines</text>
<text x="9" y="60">7</text><text x="9" y="80">a &lt; b</text></svg>
<script>b.textContent=timer?'Pause':'Play';var other='Other';</script></div>"""
SAID = [
    "Kept pairs",
    "every pair",
    "Of {1} pairs {2} are kept.",
    "Play",
    "All of its",
    "A title of\ntwo lines",
    "Pause",
]


def chapter(markup: str) -> str:
    """A notebook with one drawn output, and one that is printed."""
    drawn = {"data": {"text/html": markup, "text/plain": "plain words"}}
    cells = [{"cell_type": "code", "outputs": [drawn, {"text": "printed words"}]}]
    return json.dumps({"cells": cells})


def drawn(source: str) -> str:
    return "".join(json.loads(source)["cells"][0]["outputs"][0]["data"]["text/html"])


def test_words_of_figures_are_messages_and_numbers_are_not():
    found = {}
    chinese_figures.translated(chapter(DRAWING), lambda m: found.setdefault(m, m))
    assert sorted(found) == sorted(SAID)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_figures_without_translations_stay_as_they_are(path):
    text = path.read_text(encoding="utf-8")
    (ours, theirs) = map(json.loads, (chinese_figures.translated(text, str), text))
    for cell, other in zip(ours["cells"], theirs["cells"], strict=True):
        outputs = zip(cell.get("outputs", ()), other.get("outputs", ()), strict=True)
        for output, like in outputs:
            for kind, content in output.get("data", {}).items():
                old, new = ("".join(x) for x in (like["data"][kind], content))
                assert html.unescape(old) == html.unescape(new), kind


def test_a_translation_has_the_numbers_of_its_figure_and_ends_at_its_last_line():
    words = {"Of {1} pairs {2} are kept.": "保留 {2}，共 {1} 对。"}
    words |= {"A title of\ntwo lines": "标题", "every pair": "<每一对>"}
    source = chinese_figures.translated(chapter(DRAWING), lambda m: words.get(m, m))
    assert 'aria-label="保留 94.5，共 1,024 对。"' in drawn(source)
    assert '<text x="9" y="16"></text><text x="9" y="34">标题</text>' in drawn(source)
    assert "&quot;w = 2&quot;, &quot;&lt;每一对&gt;&quot;" in drawn(source)
    assert "plain words" in source and "printed words" in source


def test_a_figure_without_its_translation_is_told_and_stays_english(monkeypatch):
    read, lost = chinese.read, "A window keeps a band"
    known = dict(entries("figures"))
    assert re.search(CJK, known[lost])

    def forgetful(name):
        catalogue = read(name)
        catalogue.delete(lost)
        return catalogue

    monkeypatch.setattr(chinese, "read", forgetful)
    assert chinese.faults("figures") == [f"figures: not translated: {lost!r}"]
    page = chinese_site.translated(chinese.source_of("local_attention"))
    assert f">{lost}<" in page and known["Tiles of a window"] in page


@pytest.mark.parametrize(
    ("translation", "fault"),
    [
        ("{2} 对中的 {1} 对\n和更多", "1 lines too many"),
        ("{2} 对中的 2 对", "placeholder '{1}"),
        ("{2} 对中的 {1} 对，3 次", "number 3.0 is added"),
    ],
)
def test_unequal_translations_of_figures_are_told(monkeypatch, translation, fault):
    catalogue = chinese.Catalog(locale="zh_CN")
    catalogue.add("{1} of {2} pairs", translation)
    monkeypatch.setattr(chinese, "figure_messages", lambda: ["{1} of {2} pairs"])
    monkeypatch.setattr(chinese, "read", lambda name: catalogue)
    assert any(f"figures: {fault}" in found for found in chinese.faults("figures"))


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
        english, words = own_words(source, translation)
        assert not whole.search(english) or ours in words, f"{term}: {source!r}"


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
        found = re.search(UNLIKE_CHINESE[fault], own_words(source, translation)[1])
        assert not found or source in QUOTED, f"{found[0]!r} in {translation!r}"


# The exercises.


def test_the_exercises_answer_in_chinese(monkeypatch):
    monkeypatch.setattr(languages, "_chosen", ["zh"])
    assert str(assess("self-1", 0.982)).startswith("self-1：不是 0.982。")
    assert languages.language("en") == "en"
    assert str(assess("self-1", 0.982)).startswith("self-1: not 0.982.")


def test_the_environment_sets_the_language(monkeypatch):
    monkeypatch.setattr(languages, "_chosen", [])
    monkeypatch.setenv("ATTN_TUTORIAL_LANGUAGE", "zh")
    assert languages.language() == "zh"
    monkeypatch.setattr(languages, "_chosen", [])
    monkeypatch.setenv("ATTN_TUTORIAL_LANGUAGE", "fr")
    with pytest.raises(ValueError, match="language must be one of .*'fr'"):
        languages.say("right")


def test_values_may_hold_braces():
    assert languages.say("not {answer}. {why}", answer="{}", why="x") == "not {}. x"
    assert languages.say(r"$\frac{1}{2}$") == r"$\frac{1}{2}$"


# The pages, built.

TRANSLATED = [f"{name}.html" for name in chinese_site.translated_documents()]


def sections(page: Path) -> list[str]:
    return re.findall(r'<section [^>]*?\bid="([^"]+)"', page.read_text("utf-8"))


@pytest.mark.browser
@pytest.mark.parametrize("name", TRANSLATED)
def test_sections_have_one_address_in_both_languages(site, name):
    english, ours = sections(HTML / name), sections(HTML / "zh" / name)
    assert len(english) == len(ours) > 1
    same = [a == b for a, b in zip(english, ours, strict=True)]
    assert all(same), dict(zip(english, ours, strict=True))


DRAWN = [name for name in TRANSLATED if name.startswith("notebooks/")]
WRITTEN = re.compile(r"<(?:text|th|caption|label|button|option)\b[^>]*>([^<]+)")


def written(page: Path) -> list[str]:
    """What the figures of a page say, on paper and aloud."""
    text = page.read_text(encoding="utf-8")
    text = text[text.index("<article") : text.index("</article>")]
    drawn = re.findall(r"<svg.*?</svg>|<table class=\"attn-t.*?</table>", text, re.S)
    inside = "".join(drawn)
    spoken = re.findall(r'<svg[^>]* aria-label="([^"]*)"', inside)
    return [html.unescape(words) for words in (*WRITTEN.findall(inside), *spoken)]


# English words that stay: those of examples, units and names.
STAY = {
    ENTRY.sub("#", message.string)
    for message in chinese.read("figures")
    if not re.search(CJK, message.string)
}


@pytest.mark.browser
@pytest.mark.parametrize("name", DRAWN)
def test_figures_speak_chinese_and_keep_their_numbers(site, name):
    english, ours = written(HTML / name), written(HTML / "zh" / name)
    for words in ours:
        known = chinese_figures.NUMBER.sub("#", words) in STAY
        assert known or re.search(CJK, words) or not re.search("[A-Za-z]{3}", words)
    here, there = (chinese_figures.NUMBER.findall(" ".join(x)) for x in (english, ours))
    assert Counter(here) == Counter(there) and here


@pytest.mark.browser
def test_pictures_and_styles_are_there_once(site):
    found = {p.relative_to(HTML / "zh").parts[0] for p in (HTML / "zh").rglob("*")}
    assert "_images" not in found
    own = {path.name for path in (HTML / "zh" / "_static").iterdir()}
    assert own <= set(chinese_site.OWN_STATIC)


@pytest.mark.browser
@pytest.mark.parametrize("name", TRANSLATED)
def test_the_switch_leads_there_and_back(tab, name):
    page = tab.open(name)
    page.click("a.language")
    page.wait_for_url(f"**/zh/{name}")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert re.search(CJK, page.locator("h1").first.inner_text())
    assert page.locator("link[rel=alternate][hreflang=en]").count() == 1
    assert page.locator(".stale").count() == 0
    page.click("a.language")
    page.wait_for_url(lambda address: address.endswith(name) and "/zh/" not in address)
    assert page.locator("html").get_attribute("lang") == "en"
    tab.assert_clean()


@pytest.mark.browser
def test_a_page_without_a_translation_says_so(tab):
    page = tab.open("book/benchmarks.html")
    assert page.locator(".language").inner_text() == "仅英文"


@pytest.mark.browser
@pytest.mark.parametrize("query", ["局部注意力", "窗口", "softmax"])
def test_the_search_finds_chinese(tab, query):
    page = tab.open(f"zh/search.html?q={query}")
    page.wait_for_selector("#search-results ul.search li a")
    links = page.locator("#search-results ul.search > li > a")
    found = links.evaluate_all("all => all.map(a => new URL(a.href).pathname)")
    assert all(link.startswith("/zh/") for link in found)
    tab.assert_clean()
