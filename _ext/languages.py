"""Sphinx extension: one book in English, parts of it in Chinese too.

* Each page says in which other language it exists, to readers and to search engines.
* In the Chinese edition (``scripts/chinese_site.py``) the words around a page are
  Chinese, sections keep the addresses that they have in English, and the search knows
  that Chinese has no spaces.
"""

import re
import sys
from functools import cache
from pathlib import Path

from babel.messages.pofile import read_po
from docutils import nodes
from sphinx.search import SearchLanguage
from sphinx.search.en import SearchEnglish

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import anchors

ROOT = Path(__file__).resolve().parents[1]
CATALOGUES = ROOT / "book" / "locale" / "zh_CN" / "LC_MESSAGES"
BOTH = ("search",)  # made in every edition
CJK = "\u4e00-\u9fff"


@cache
def catalogue(name):
    with (CATALOGUES / f"{name}.po").open("rb") as file:
        return read_po(file)


@cache
def translated_pages():
    """The documents that have a catalogue."""
    names = {path.stem for path in CATALOGUES.glob("*.po")} - {"figures", "frame"}
    chapters = {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
    return {f"{'notebooks' if n in chapters else 'book'}/{n}" for n in names}


def is_chinese(config):
    return config.language == "zh_CN"


def say(config, message):
    """A message of the frame in the language of the edition."""
    known = catalogue("frame").get(message) if is_chinese(config) else None
    return known.string if known and known.string else message


# The switch.


def show_switch(app, config):
    config.html_theme_options["article_header_end"] = [
        "language.html",
        "article-header-buttons.html",
    ]


def name_twin(app, pagename, templatename, context, doctree):
    """The same page in the other language; none if there is none."""
    chinese = is_chinese(app.config)
    up = "../" * (pagename.count("/") + chinese)
    base = app.config.html_baseurl
    path = f"{pagename}.html" if chinese else f"zh/{pagename}.html"
    root = base.removesuffix("zh/") if chinese else base
    if pagename in translated_pages() | set(BOTH):
        lang, label = ("en", "English") if chinese else ("zh-CN", "中文")
        twin = {"lang": lang, "label": label, "href": up + path, "url": root + path}
        context["twin"] = twin


# The Chinese edition.


def mend_frame(app, pagename, templatename, context, doctree):
    context["pages_below"] = say(app.config, "Pages below this one")
    if not is_chinese(app.config):
        return
    body = context.get("body", "")
    for kind in ("code", "output", "cell"):
        for verb in ("Show", "Hide"):
            words = f"{verb} the {kind}"
            body = body.replace(words, say(app.config, words))
    chapter = say(app.config, "Chapter {number}")
    context["body"] = re.sub(
        r'(class="chapter-number">)Chapter (\d+)',
        lambda match: match[1] + chapter.format(number=match[2]),
        body,
    )


def keep_addresses(app, doctree):
    """Sections have the identifiers of the English page, which its links use."""
    env = app.env
    english = getattr(app, "english_headings", {}).get(env.docname, [])
    slugs = env.metadata[env.docname].setdefault("myst_slugs", {})
    for section, heading in zip(doctree.findall(nodes.section), english, strict=False):
        name = anchors.in_site(heading)
        holder = doctree.ids.get(name)
        if name and not isinstance(holder, nodes.section):
            if holder is not None:  # a label of the same name leads to the section
                holder["ids"].remove(name)
            section["ids"].insert(0, name)
            doctree.ids[name] = section
        address = anchors.in_sources(heading)
        slugs.setdefault(address, (0, section["ids"][0], heading))


def read_headings(app):
    """What ``scripts/chinese_site.py`` left beside the sources."""
    import json

    path = Path(app.srcdir, "headings.json")
    if path.exists():
        app.english_headings = json.loads(path.read_text(encoding="utf-8"))


class Chinese(SearchLanguage):
    """Chinese text is found by its pairs of characters, the rest by its words."""

    lang = "zh"
    language_name = "Chinese"
    js_stemmer_code = SearchEnglish.js_stemmer_code
    stopwords = SearchEnglish.stopwords
    js_splitter_code = f"""
var splitQuery = (query) =>
  (query.match(/[{CJK}]+|[^\\W_]+/gu) ?? []).flatMap((word) =>
    /^[{CJK}]{{2,}}$/.test(word)
      ? [...word].slice(1).map((letter, k) => word[k] + letter)
      : [word]);
"""

    def init(self, options):
        import snowballstemmer

        self.stemmer = snowballstemmer.stemmer("porter")

    def split(self, input):
        words = re.findall(rf"[{CJK}]+|[^\W{CJK}]+", input)
        return [pair for word in words for pair in self.pairs(word)]

    def pairs(self, word):
        if not re.match(f"[{CJK}]", word):
            return [word]
        return [*word, *(word[k : k + 2] for k in range(len(word) - 1))]

    def stem(self, word):
        return self.stemmer.stemWord(word.lower())


def setup(app):
    app.add_search_language(Chinese)
    app.connect("config-inited", show_switch, priority=600)
    app.connect("builder-inited", read_headings)
    app.connect("doctree-read", keep_addresses, priority=100)
    app.connect("html-page-context", name_twin)
    app.connect("html-page-context", mend_frame, priority=600)  # after offline_book
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
