"""The Chinese edition: its catalogues, and the sources that they make.

    python scripts/chinese.py extract         bring the catalogues up to date
    python scripts/chinese.py extract NAME    begin that of a page or chapter
    python scripts/chinese.py todo NAME       print what waits for its translation
    python scripts/chinese.py fill FILE       take translations in
    python scripts/chinese.py check           say what is missing, stale or unequal
    python scripts/chinese.py build           build the pages, after the English ones

A catalogue is a gettext file in ``book/locale``; a page that has one is translated.
What ``todo`` prints is what ``fill`` reads: after a line ``%%% key`` stands the English
message, after ``===`` its translation, in plain Markdown.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import re
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "_ext"))
import chinese_figures
import first_page
import paragraphs
import twins

ROOT = Path(__file__).resolve().parents[1]
CATALOGUES = ROOT / "book" / "locale" / "zh_CN" / "LC_MESSAGES"
SHARED = ("figures", "frame")  # catalogues that belong to no page
HEADER = """msgid ""
msgstr ""
"Language: zh_CN\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""


def source_of(name: str) -> Path:
    """The page or chapter of a name, such as ``faq``.

    Raises:
        SystemExit: If there is none.
    """
    for path in (ROOT / f"book/{name}.md", ROOT / f"notebooks/{name}.ipynb"):
        if path.exists():
            return path
    raise SystemExit(f"no page and no chapter is called {name!r}")


def source_of_document(document: str) -> Path:
    """The file of a document, by its name in _toc.yml."""
    paths = (ROOT / f"{document}{suffix}" for suffix in (".md", ".ipynb"))
    return next(path for path in paths if path.exists())


def names() -> list[str]:
    """The names of the pages and chapters that have a catalogue."""
    return sorted({path.stem for path in CATALOGUES.glob("*.po")} - {*SHARED})


def is_translated(document: str) -> bool:
    """Whether a document, by its name in _toc.yml, has a catalogue."""
    name = Path(document).name
    return name in names() and source_of(name) == source_of_document(document)


def catalogues() -> list[str]:
    """All catalogues: of pages, figures, the frame, and what the exercises say."""
    return [*names(), *SHARED, "messages"]


def read(name: str) -> Catalog:
    """The catalogue of a name; an empty one if there is none yet."""
    path = CATALOGUES / f"{name}.po"
    if name == "messages":
        return read_messages()
    if not path.exists():
        return Catalog(locale="zh_CN")
    with path.open("rb") as file:
        return read_po(file, locale="zh_CN")


def say(message: str) -> str:
    """A message of the frame in Chinese, or in English while it waits."""
    known = read("frame").get(message)
    return known.string if known and known.string else message


def write(name: str, catalogue: Catalog) -> None:
    """Store a catalogue, with what once was and the state of each message."""
    if name == "messages":
        return write_messages(catalogue)
    for message in catalogue:  # "#|" is read as a comment, and would stay for ever
        comments = message.user_comments
        message.user_comments = [c for c in comments if not c.startswith("|")]
    body, options = io.BytesIO(), {"ignore_obsolete": True, "include_previous": True}
    write_po(body, catalogue, omit_header=True, **options)
    text = HEADER + body.getvalue().decode()
    (CATALOGUES / f"{name}.po").write_text(text, encoding="utf-8")


def wanted(name: str) -> list[str]:
    """The messages that a catalogue should have: a page's, or those of all of them."""
    if name == "figures":
        return figure_messages()
    if name == "frame":
        return frame_messages()
    if name == "messages":
        return exercise_messages()
    return paragraphs.messages(source_of(name))


def figure_messages() -> list[str]:
    """What the figures of translated chapters say."""
    paths = (source_of(name) for name in names())
    chapters = (path for path in paths if path.suffix == ".ipynb")
    found = (m for path in chapters for m in chinese_figures.messages(path))
    return list(dict.fromkeys(found))


def frame_messages() -> list[str]:
    """What stands around the pages: titles, captions, and the words of the theme."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    files = re.findall(r"file: (\S+)", toc)
    others = [file for file in files if not is_translated(file)]
    titles = [paragraphs.headings(source_of_document(file))[0] for file in others]
    masks = [text for *texts, _ in first_page.MASKS.values() for text in texts]
    drawn = [*masks, *first_page.ALT.values()]
    return [*FRAME, *drawn, *re.findall(r"caption: (.+)", toc), *titles]


FRAME = (
    "Efficient attention, step by step",
    "the attn_tutorial authors",
    "Chapter {number}",
    "Show the code",
    "Hide the code",
    "Show the output",
    "Hide the output",
    "Show the cell",
    "Hide the cell",
    "Pages below this one",
    "Stand still",
    "query {query}: {keys} keys",
    "{words}: {count} pairs",
)


# The messages of the exercises, which the package carries as JSON.

MESSAGES = ROOT / "attn_tutorial" / "exercises" / "zh.json"


def read_messages() -> Catalog:
    """What the exercises say, as a catalogue."""
    catalogue = Catalog(locale="zh_CN")
    for message, string in json.loads(MESSAGES.read_text(encoding="utf-8")).items():
        catalogue.add(message, string)
    return catalogue


def write_messages(catalogue: Catalog) -> None:
    """Store them; a message that was changed has lost its translation."""
    found = {m.id: "" if m.fuzzy else m.string for m in catalogue if m.id}
    text = json.dumps(found, indent=1, ensure_ascii=False)
    MESSAGES.write_text(text + "\n", encoding="utf-8")


def exercise_messages() -> list[str]:
    """Everything that a check may say, but for values; needs the package and torch."""
    sys.path.insert(0, str(ROOT))
    from attn_tutorial.exercises import exercises, judging, recognition

    changes = (text for text, _ in recognition.CHANGES.values())
    found = [*judging.RATIOS.values(), *changes]
    found += [m for file in sorted(MESSAGES.parent.rglob("*.py")) for m in said(file)]
    for exercise in exercises():
        found += [exercise.because, *(t for part in exercise.parts for t in told(part))]
    return [message for message in dict.fromkeys(found) if message]


def said(file: Path) -> list[str]:
    """What a file says itself: the texts that it hands to ``say``."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
            found += [a.value for a in node.args if isinstance(a, ast.Constant)]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
            "text",
            "RETURNS_NONE",
        ):
            found += [node.value.value] if isinstance(node.value, ast.Constant) else []
    return found


def told(part: object) -> list[str]:
    """What is told to those who get a part of an exercise wrong."""
    known = [*getattr(part, "wrong", {}).values()]
    known += [option.feedback for option in getattr(part, "options", ())]
    return known + [mistake.text for mistake in getattr(part, "mistakes", ())]


def extract(name: str) -> None:
    """Bring a catalogue up to date; a changed message keeps its old text, as fuzzy."""
    catalogue, template = read(name), Catalog()
    for message in wanted(name):
        template.add(message)
    # Near misses help with paragraphs; among short messages they cost minutes.
    catalogue.update(template, no_fuzzy_matching=name in ("figures", "messages"))
    for message in catalogue:
        message.locations = []
    write(name, catalogue)


def stale(name: str) -> list[str]:
    """The messages that have no translation, or one of an older text."""
    catalogue = read(name)
    found = ((m, catalogue.get(m)) for m in wanted(name))
    return [m for m, known in found if not (known and known.string and not known.fuzzy)]


def key(message: str) -> str:
    """A short name of a message."""
    return hashlib.sha256(message.encode()).hexdigest()[:8]


def todo(name: str) -> str:
    """What waits for its translation, as ``fill`` reads it."""
    catalogue = read(name)
    entries = []
    for message in stale(name):
        old = known.string if (known := catalogue.get(message)) else ""
        entries.append(f"%%% {key(message)}\n{message}\n===\n{old}")
    return "\n\n".join(entries)


def fill(text: str) -> None:
    """Take translations into every catalogue that has their messages.

    Raises:
        SystemExit: If a key belongs to no message; names it.
    """
    parts = re.split(r"^%%% (\w+) *\n", text, flags=re.M)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    given = {name: body.partition("===\n")[2].strip() for name, body in pairs}
    unknown = set(given)
    for name in catalogues():
        catalogue = read(name)
        for message in catalogue:
            string = given.get(key(message.id)) if message.id else None
            if string:
                message.string, message.previous_id = string, ()
                message.flags.discard("fuzzy")
            unknown.discard(key(message.id) if message.id else None)
        write(name, catalogue)
    if unknown:
        raise SystemExit(f"of no message: {', '.join(sorted(unknown))}")


def faults(name: str) -> list[str]:
    """What is wrong with a catalogue, in words."""
    catalogue = read(name)
    found = [f"{name}: not translated: {m[:70]!r}" for m in stale(name)]
    for m in wanted(name):
        known = catalogue.get(m)
        if known and known.string:
            unlike = twins.faults(m, known.string)
            if name == "figures":
                unlike += chinese_figures.faults(m, known.string)
            found += [f"{name}: {fault}: {m[:70]!r}" for fault in unlike]
    return found


def check() -> None:
    """Print all faults.

    Raises:
        SystemExit: If there are any.
    """
    found = [fault for name in catalogues() for fault in faults(name)]
    print(*found, sep="\n")
    if found:
        raise SystemExit(f"{len(found)} faults")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "command", choices=["extract", "todo", "fill", "check", "build"]
    )
    parser.add_argument("what", nargs="?", help="a name, or a file to fill in")
    options = parser.parse_args()
    if options.command == "extract":
        for name in [options.what] if options.what else catalogues():
            extract(name)
    elif options.command == "todo":
        print(todo(options.what))
    elif options.command == "fill":
        fill(Path(options.what).read_text(encoding="utf-8"))
    elif options.command == "check":
        check()
    else:
        import chinese_site

        chinese_site.build()


if __name__ == "__main__":
    main()
