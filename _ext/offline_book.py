"""Sphinx extension: every page works with no network.

* MathJax 3 comes from the Python package sphinx-mathjax-offline, which is used as a
  source of files; the pages need a tenth of its 24 MB.
* Scripts of the theme that would call another host are left out.
* Markup that accessibility checkers rightly refuse is mended.
* A displayed equation with a ``\\tag{N}`` keeps its tag and gets the anchor ``eq-N``.
"""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

# The parts that ``mathjax3_config`` in _config.yml loads, and what they load in turn.
MATHJAX = "startup.js"
PARTS = (
    "startup.js",
    "core.js",
    "input/tex-base.js",
    "input/tex/extensions/ams.js",
    "output/chtml.js",
    "output/chtml/fonts/tex.js",
    "a11y/assistive-mml.js",
    "output/chtml/fonts/woff-v2",
)
ROOT = Path(__file__).resolve().parents[1]


def mathjax_source() -> Path:
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None:
        raise RuntimeError("sphinx-mathjax-offline is missing: run 'make book'")
    return Path(spec.origin).parent / "static" / "mathjax"


def quiet_header(app, config):
    """The sidebar has the title and the search already: no second bar on top."""
    options = config.html_theme_options
    for place in ("start", "center", "end", "persistent"):
        options[f"navbar_{place}"] = []
    options["logo"] = {"text": config.html_title or config.project, "alt_text": ""}


def copy_mathjax(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    source, target = mathjax_source(), Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        if (target / part).exists():
            continue
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy2
        copy(source / part, target / part)


def drop_thebe(app, pagename, templatename, context, doctree):
    """Thebe fetches itself from another host, and declares its constant twice."""

    def stays(asset) -> bool:
        body = getattr(asset, "attributes", {}).get("body", "")
        name = str(getattr(asset, "filename", None) or asset)
        return "THEBE_JS_URL" not in body and "sphinx-thebe" not in name

    for key in ("script_files", "css_files"):
        if key in context:
            context[key][:] = [asset for asset in context[key] if stays(asset)]


MENDED = {
    # Docutils gives citations ARIA roles that a div in a list may not have.
    ' role="doc-biblioentry"': "",
    '<div role="list" class="citation-list">': "<div>",
    # The empty corner of a table heads nothing.
    '<th class="head"><p></p></th>': "<td></td>",
    # A wide table scrolls, so the keyboard must reach it.
    '<table class="table">': '<table class="table" tabindex="0">',
    # Folded cells, in the words of the chapters.
    "Show code cell source": "Show the code",
    "Hide code cell source": "Hide the code",
    "Show code cell output": "Show the output",
    "Hide code cell output": "Hide the output",
    "Show code cell content": "Show the cell",
    "Hide code cell content": "Hide the cell",
}
# A chapter's number stands above its title.
NUMBER = re.compile(r'(<h1[^>]*>)<span class="section-number">(\d+)\. ?</span>')
# Pictures load when they are near, and keep their place until then.
SIZED = re.compile(r'(<img [^>]*?)style="width: (\d+)px; height: (\d+)px;"')


def mend_markup(app, pagename, templatename, context, doctree):
    body = context.get("body", "")
    for before, after in MENDED.items():
        body = body.replace(before, after)
    body = NUMBER.sub(r'\1<span class="chapter-number">Chapter \2</span> ', body)
    context["body"] = SIZED.sub(r'\1width="\2" height="\3" loading="lazy"', body)


def keep_tags(app, doctree, docname):
    r"""Sphinx would wrap lines of math in ``split``, where ``\tag`` is an error."""
    from docutils import nodes

    if app.builder.format != "html":
        return
    for node in doctree.findall(nodes.math_block):
        text = node.astext()
        tag = re.search(r"\\tag\{(\d+)\}", text)
        if tag is None:
            continue
        if not node.get("nowrap"):
            node["nowrap"] = True
            node.children = []
            node += nodes.Text(f"\\[{text}\\]")
        anchor = f"eq-{tag.group(1)}"
        if anchor not in node["ids"]:
            node["ids"].append(anchor)


def setup(app):
    sys.path.insert(0, str(ROOT))  # the API pages import the package from here
    app.config.mathjax_path = f"mathjax/{MATHJAX}"
    app.connect("config-inited", quiet_header)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", mend_markup)
    app.connect("doctree-resolved", keep_tags)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
