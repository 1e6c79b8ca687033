"""Build the Chinese pages into the English site, which has been built before.

Translated pages are written as sources and built like the English ones. Pages without
a translation are represented by their titles and headings, so that numbers, contents
and links are right; what leads to them is then led to the English page. Pictures, style
sheets and scripts are those of the English site.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import chinese
import chinese_figures
import paragraphs
import yaml

ROOT = chinese.ROOT
WORK = ROOT / "_build" / "zh"
SOURCE = WORK / "source"
MADE = WORK / "_build" / "html"
HTML = ROOT / "_build" / "html"
# Files of Sphinx that differ between languages.
OWN_STATIC = ("documentation_options.js", "language_data.js", "translations.js")
WHY = "此段尚未翻译，或英文原文已有改动"
STALE = f'<span class="stale" title="{WHY}">英文</span>'
BIBLIOGRAPHY = "book/bibliography"
UNSEARCHED = "---\nnosearch: true\n---\n\n"
LINK = re.compile(r"\]\(([\w./-]*\.(?:md|ipynb))#([^)\s]+)\)")
ADDRESS = re.compile(r'((?:href|src)=")([^"#?]+)([^"]*")')


def build() -> None:
    """Write the sources, build them, and put the pages beside the English ones.

    Raises:
        SystemExit: If the English site is missing, the build complains, or a link leads
            nowhere.
    """
    if not (HTML / "objects.inv").exists():
        raise SystemExit("build the English site first: make book")
    write_sources()
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build"]
    command += [
        str(SOURCE),
        "-W",
        "-n",
        "--keep-going",
        "-q",
        "--path-output",
        str(WORK),
    ]
    if subprocess.run(command).returncode:
        shutil.rmtree(WORK)
        raise SystemExit("the Chinese pages were not built")
    publish()


# Sources.


def documents() -> list[str]:
    """The documents of the book, in the order of its contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *re.findall(r"'file': '([^']+)'", str(toc["parts"]))]


def translated_documents() -> list[str]:
    """Those that have a catalogue."""
    return [name for name in documents() if chinese.is_translated(name)]


def write_sources() -> None:
    """Everything that jupyter-book reads; what has not changed stays untouched."""
    paths = {n: chinese.source_of_document(n) for n in translated_documents()}
    pages = {name: translated(path) for name, path in paths.items()}
    for name, text in pages.items():
        keep(SOURCE / name, to_stubs(text), paths[name].suffix)
    for name in set(documents()) - set(pages):
        keep(SOURCE / name, to_stubs(stub(name, pages)), ".md")
    found = {name: paragraphs.headings(path) for name, path in paths.items()}
    keep(SOURCE / "headings", json.dumps(found), ".json")
    keep(SOURCE / "_config", yaml.safe_dump(config(), allow_unicode=True), ".yml")
    keep(SOURCE / "_toc", yaml.safe_dump(contents(), allow_unicode=True), ".yml")


def to_stubs(text: str) -> str:
    """A source whose links to chapters without a translation lead to their stubs."""

    def lead(match: re.Match) -> str:
        ours = match[2] in chinese.names()
        return match[0] if ours else f"{match[1]}{match[2]}.md"

    return re.sub(r"(\]\([\w./-]*?)(\w+)\.ipynb", lead, text)


def keep(path: Path, text: str, suffix: str) -> None:
    """Write a file if it changes, so that Sphinx reads it again only then."""
    path = path.with_name(path.name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def translated(path: Path) -> str:
    """A page in Chinese; what has no translation stands in English, with a mark."""
    of, stale = known(path.stem)
    headings = set(paragraphs.headings(path))

    def marked(message: str) -> str:
        unmarked = message not in stale or message in headings
        return of(message) if unmarked else mark(message)

    text = paragraphs.translated(path, marked)
    if path.suffix == ".ipynb":
        text = chinese_figures.translated(text, known("figures")[0])
    # A link within the page needs its name, where the heading's words have changed.
    return re.sub(r"\]\(#", f"]({path.name}#", text)


def known(name: str) -> tuple[Callable[[str], str], set[str]]:
    """A catalogue's translations, messages themselves for those that are stale."""
    stale = set(chinese.stale(name))
    catalogue = {m.id: m.string for m in chinese.read(name) if m.id not in stale}
    return lambda message: catalogue.get(message, message), stale


def mark(message: str) -> str:
    """A message with the mark behind it, in a table within its last cell."""
    if message.startswith("|"):
        return f"{message[:-1]} {STALE} |"
    return f"{message} {STALE}"


def stub(name: str, pages: dict[str, str]) -> str:
    """A page without a translation: its title, and what others link within it."""
    path = chinese.source_of_document(name)
    title, *others = paragraphs.headings(path)
    if name == BIBLIOGRAPHY:  # citations lead to its entries, which are numbered
        return UNSEARCHED + path.read_text(encoding="utf-8")
    lines = [f"{UNSEARCHED}# {chinese.say(title)}"]
    lines += [f"## {heading}" for heading in others]
    lines += [f"({label})=\n{label}" for label in sorted(linked(name, pages))]
    return "\n\n".join(lines) + "\n"


def linked(name: str, pages: dict[str, str]) -> set[str]:
    """The labels of a page that translated pages use; a heading's own is none."""
    text = chinese.source_of_document(name).read_text(encoding="utf-8")
    labels = set(re.findall(r"^\(([\w-]+)\)=$|^:name: ([\w-]+)$", text, flags=re.M))
    labels = {label for pair in labels for label in pair if label}
    used = set()
    for page, source in pages.items():
        for target, anchor in LINK.findall(source):
            where = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            used |= {anchor} if where.rpartition(".")[0] == name else set()
        used |= set(re.findall(r"\{ref\}`[^`]*<([\w-]+)>`", source))
    return used & labels


def config() -> dict:
    """The book's own configuration, with what differs."""
    made = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    made["title"], made["author"] = map(chinese.say, (made["title"], made["author"]))
    html, sphinx = made["html"], made["sphinx"]
    html["baseurl"] += "zh/"
    html["favicon"] = str(ROOT / html["favicon"])
    made["bibtex_bibfiles"] = [str(ROOT / path) for path in made["bibtex_bibfiles"]]
    used = set(sphinx["local_extensions"]) - {
        "docstrings"
    }  # that is for the API's pages
    sphinx["local_extensions"] = {name: str(ROOT / "_ext") for name in sorted(used)}
    sphinx["extra_extensions"] = ["sphinx.ext.intersphinx"]
    options = sphinx["config"]
    for key in [key for key in options if key.startswith("auto") or "napoleon" in key]:
        del options[key]
    options["language"] = "zh_CN"
    for key in ("templates_path", "html_static_path"):
        options[key] = [str(ROOT / path) for path in options[key]]
    options["intersphinx_mapping"] = {"en": ["..", str(HTML / "objects.inv")]}
    options["suppress_warnings"] += ["intersphinx.external"]
    return made


def contents() -> dict:
    """The book's table of contents, in Chinese."""
    text = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    text = re.sub(r"(?<=caption: ).+", lambda match: chinese.say(match[0]), text)
    entry = f"- file: {BIBLIOGRAPHY}"
    title = chinese.say("Bibliography")
    return yaml.safe_load(text.replace(entry, f"{entry}\n    title: {title}"))


# Pages.


def publish() -> None:
    """Copy what is Chinese; everything else is taken from the English site."""
    shutil.rmtree(HTML / "zh", ignore_errors=True)
    own = [f"{name}.html" for name in translated_documents()] + ["search.html"]
    own += [f"_static/{name}" for name in OWN_STATIC] + ["searchindex.js"]
    sources = [chinese.source_of(Path(n).name) for n in translated_documents()]
    own += [f"_sources/{path.relative_to(ROOT)}" for path in sources]
    broken = []
    for name in own:
        target = HTML / "zh" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".html"):
            page = (MADE / name).read_text(encoding="utf-8")
            target.write_text(led(page, name, set(own), broken), encoding="utf-8")
        elif (MADE / name).exists():
            shutil.copy2(MADE / name, target)
    shutil.copy2(MADE / "index.html", HTML / "zh" / "index.html")
    list_pages()
    if broken:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(broken))


def led(page: str, name: str, own: set[str], broken: list[str]) -> str:
    """A page whose addresses lead to English pages where there is nothing Chinese."""
    folder = posixpath.dirname(name)

    def lead(match: re.Match) -> str:
        before, address, after = match.groups()
        path = posixpath.normpath(posixpath.join(folder, address))
        if ":" in address or path in own or path.startswith(".."):
            return match[0]
        if not (HTML / path).exists():
            broken.append(f"{name}: {address}")
        elif path.endswith(".html") and not has_anchor(HTML / path, after):
            broken.append(f"{name}: {address}{after}")
        other = ' hreflang="en' if path.endswith(".html") else ""
        up = os.path.relpath(path, posixpath.join("zh", folder))
        return f"{before}{up}{after}" + (other + '"' if other else "")

    page = page.replace("/zh/_static/", "/_static/")  # addresses for other sites
    return ADDRESS.sub(lead, page)


def has_anchor(path: Path, after: str) -> bool:
    """Whether an English page has the place that an address names."""
    anchor = after.strip('"').partition("#")[2]
    return not anchor or f'id="{anchor}"' in path.read_text(encoding="utf-8")


def list_pages() -> None:
    """Add the Chinese pages to the site map."""
    base = config()["html"]["baseurl"]
    path = HTML / "sitemap.xml"
    known = path.read_text(encoding="utf-8")
    lines = (
        f"<url><loc>{base}{name}.html</loc></url>" for name in translated_documents()
    )
    added = "\n".join(line for line in lines if line not in known)
    if added:
        path.write_text(
            known.replace("</urlset>", f"{added}\n</urlset>"), encoding="utf-8"
        )
