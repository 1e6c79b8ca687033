"""Make the slides: `book/teaching/slides/*.md` and figures of chapters, as HTML.

    python scripts/slides.py           # into the built site; `make slides`

Every build of the site makes them as well (`_ext/decks.py`). A source is Markdown. A
line `---` parts slides, what follows `Note:` is for the speaker, and `From: chapter #
Heading` says where a slide belongs. A line such as `{{local_attention: The band of}}`
puts the explorer, the diagram or the picture there whose label or description begins
so, as it is stored in that chapter. With `later` before the chapter's name it comes
with the next step, when the class has bet.
"""

import html
import json
import re
from functools import cache
from pathlib import Path

import anchors
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "book" / "teaching" / "slides"
OUT = ROOT / "_build" / "html" / "_static" / "slides"
FIGURE = re.compile(r"^\{\{(later )?(\w+): (.+)\}\}$", re.MULTILINE)
FROM = re.compile(r"^From: (\w+) # (.+)$", re.MULTILINE)
LABEL = re.compile(r'class="attn-l"[^>]*>(.*?)<|aria-label="(.*?)"', re.DOTALL)
BET = re.compile(r"<p>(?=<strong>(?:Predict|Bet):)")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="../favicon.svg">
<link rel="stylesheet" href="../type.css">
<link rel="stylesheet" href="../figures.css">
<link rel="stylesheet" href="slides.css">
<link rel="stylesheet" href="cards.css" media="print, {small}">
<link rel="stylesheet" href="reveal/reveal.css" media="screen and {large}">
<link rel="stylesheet" href="screen.css" media="screen and {large}">
</head>
<body>
<p class="tools"><a href="../../book/teaching/index.html">For teachers</a>
<button type="button" id="notes">Notes</button>
<button type="button" id="theme">Light or dark</button></p>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script src="slides.js"></script>
</body>
</html>
"""
# Where a slide would be too small to read, a deck is a column of cards.
SMALL = "(max-width: 700px), (max-height: 450px)"
LARGE = "(min-width: 700.02px) and (min-height: 450.02px)"


@cache
def outputs(chapter: str) -> tuple[tuple[str, str], ...]:
    """(label or description, HTML) of all figures that a chapter stores."""
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    stored = [out.get("data", {}) for cell in cells for out in cell.get("outputs", [])]
    return tuple(found for data in stored for found in figures(data))


def figures(data: dict) -> list[tuple[str, str]]:
    markup = "".join(data.get("text/html", ""))
    if label := LABEL.search(markup):
        return [(html.unescape(label[1] or label[2]), markup)]
    if "image/svg+xml" in data:
        return [("".join(data["text/plain"]), "".join(data["image/svg+xml"]))]
    return []


def figure(later: str, chapter: str, label: str) -> str:
    stored = outputs(chapter)
    found = [markup for name, markup in stored if name == label]
    found = found or [markup for name, markup in stored if name.startswith(label)]
    if len(found) != 1:
        raise ValueError(f"{chapter} has {len(found)} figures that begin {label!r}")
    kind = "figure fragment" if later else "figure"
    return f'<div class="{kind}">{found[0]}</div>'


def link(chapter: str, heading: str) -> str:
    place = f"../../notebooks/{chapter}.html#{anchors.in_site(heading)}"
    return f'<p class="from"><a href="{place}">{html.escape(heading)}</a></p>'


def slide(source: str) -> str:
    """One slide as HTML: its text, then its figures, then its notes and its place."""
    text, _, note = source.partition("\nNote:")
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    drawn = "".join(figure(*found) for found in FIGURE.findall(text))
    place = "".join(link(*found) for found in FROM.findall(text))
    words = render(FROM.sub("", FIGURE.sub("", text)).strip())
    words = BET.sub('<p class="bet">', words)
    head, _, rest = words.partition("\n")
    body = f'<div class="words">{rest}</div>' if rest.strip() else ""
    kind = "both" if body and drawn else "words-only" if body else "figure-only"
    notes = f'<aside class="notes">{render(note.strip())}</aside>' if note else ""
    shown = f'<div class="slide {kind}">{head}<div>{body}{drawn}</div>{place}</div>'
    return f"<section>{shown}{notes}</section>"


def slides(source: str) -> list[str]:
    return [part.strip() for part in re.split(r"^---$", source, flags=re.MULTILINE)]


def deck(source: str) -> str:
    title = source.lstrip("# ").partition("\n")[0]
    made = "\n".join(map(slide, slides(source)))
    return PAGE.format(title=html.escape(title), slides=made, small=SMALL, large=LARGE)


def write(folder: Path) -> list[Path]:
    """Write all decks into a folder that has the site's `_static/slides`."""
    made = []
    for path in sorted(SOURCES.glob("*.md")):
        made.append(folder / f"{path.stem}.html")
        made[-1].write_text(deck(path.read_text(encoding="utf-8")), encoding="utf-8")
    return made


if __name__ == "__main__":
    print(*write(OUT), sep="\n")
