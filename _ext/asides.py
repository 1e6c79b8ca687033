"""Sphinx extension: an aside of a chapter stands in the margin, beside its paragraph.

A chapter writes it below the paragraph, as HTML around Markdown, which JupyterLab and
Colab show as one more paragraph:

    <aside>

    Text, with *Markdown* in it.

    </aside>

The paragraph and the aside get a common frame, from which the style sheet puts the
aside into the margin, or leaves it where it is if the screen is narrow.
"""

from docutils import nodes
from sphinx.util import logging

LOG = logging.getLogger(__name__)
OPENING, CLOSING = "<aside>", "</aside>"


def html(markup: str) -> nodes.raw:
    return nodes.raw("", markup, format="html")


def is_html(node, markup: str) -> bool:
    return isinstance(node, nodes.raw) and node.astext().strip() == markup


def frame(app, doctree):
    """Put each aside and what stands before it into one frame."""
    for opening in [raw for raw in doctree.findall(nodes.raw) if is_html(raw, OPENING)]:
        parent, first = opening.parent, opening.parent.index(opening)
        after = range(first + 1, len(parent))
        last = next((k for k in after if is_html(parent[k], CLOSING)), None)
        if last is None or not isinstance(parent[first - 1], nodes.paragraph):
            LOG.warning("an aside that follows no paragraph, or does not end")
            continue
        parent[first - 1 : last + 1] = [
            html('<div class="noted">'),
            parent[first - 1],
            html('<aside class="beside" role="note">'),
            *parent[first + 1 : last],
            html("</aside></div>"),
        ]


def setup(app):
    """Connect the hook."""
    app.connect("doctree-read", frame)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
