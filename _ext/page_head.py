"""Sphinx extension: what a page says of itself, and what a site has beside its pages.

* A description (the first paragraph, which in a chapter is its question) for search
  engines and for the card that a link becomes elsewhere.
* ``sitemap.xml`` and ``404.html``.
* No half megabyte of icons: the pages draw their own (``book/_assets/icons.css``).
* The style sheet that a page names in its head as ``sheet``, on that page alone: what
  it asks with ``:has()``, a browser asks again of all elements when a slider moves.
"""

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

LONGEST = 200  # characters of a description
UNLISTED = ("genindex", "py-modindex", "search", "_modules/")
LAST = 900  # in the order of the style sheets: those of _config.yml have 800
HEAVY = ("scripts/fontawesome.js", "vendor/fontawesome")
FONT_AWESOME = re.compile(
    r"@font-face\{[^}]*(?:Font Awesome|FontAwesome)[^}]*\}"
    r"|(?:\.fa-[\w-]+:before,?)+\{content:[^}]*\}"
)


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut after a word."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    return text[:longest].rsplit(" ", 1)[0].rstrip(",;:.") + " …"


def describe(app, pagename, templatename, context, doctree):
    from docutils import nodes

    # Docutils repeats the viewport that Sphinx has already set.
    tags = context.get("metatags", "")
    context["metatags"] = re.sub(r'<meta [^>]*name="viewport"[^>]*>', "", tags)
    if doctree is None:
        return
    for paragraph in doctree.findall(nodes.paragraph):
        context["description"] = shortened(paragraph.astext())
        context["html_baseurl"] = app.config.html_baseurl
        return


def add_own_sheet(app, pagename, templatename, context, doctree):
    sheet = (context.get("meta") or {}).get("sheet")
    if sheet:
        app.add_css_file(sheet, priority=LAST)


def write_sitemap(app, names):
    base = app.config.html_baseurl
    listed = [name for name in sorted(names) if not name.startswith(UNLISTED)]
    lines = [f"<url><loc>{escape(f'{base}{name}.html')}</loc></url>" for name in listed]
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        + "\n".join(lines)
        + "\n</urlset>\n",
        encoding="utf-8",
    )


def write_not_found(app):
    """A server shows this page at any address, so its links begin at the root."""
    page = Path(__file__).with_name("templates") / "404.html"
    root = urlsplit(app.config.html_baseurl).path.rstrip("/") + "/"
    text = page.read_text(encoding="utf-8").replace("ROOT/", root)
    Path(app.outdir, "404.html").write_text(text, encoding="utf-8")


def drop_icons(app):
    static = Path(app.outdir, "_static")
    for name in HEAVY:
        heavy = static / name
        shutil.rmtree(heavy) if heavy.is_dir() else heavy.unlink(missing_ok=True)
    for source_map in static.rglob("*.map"):
        source_map.unlink()
    sheet = static / "styles" / "pydata-sphinx-theme.css"
    light = FONT_AWESOME.sub("", sheet.read_text(encoding="utf-8"))
    sheet.write_text(light, encoding="utf-8")


def finish_site(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    write_sitemap(app, app.env.found_docs)
    write_not_found(app)
    drop_icons(app)


def setup(app):
    """Connect the hooks."""
    app.connect("html-page-context", describe)
    app.connect("html-page-context", add_own_sheet)
    app.connect("build-finished", finish_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
