"""Sphinx extension: a figure of a chapter is a part of its page, not a file beside it.

Only so can it take the page's colours and letters (``book/_assets/figures.css``), and
only so can its words be selected and found. It runs before Sphinx collects images.
"""

from pathlib import Path

PRIORITY = 400  # before the collector, which has Sphinx's own 500


def stored_svg(app, node) -> str | None:
    """The SVG that myst-nb wrote for an output, if the node shows one."""
    path = Path(app.env.srcdir, node.get("uri", ""))
    outputs = Path(app.env.mystnb_config.output_folder)
    if path.suffix != ".svg" or outputs.resolve() not in path.resolve().parents:
        return None
    return path.read_text(encoding="utf-8")


def take_in(app, doctree):
    from docutils import nodes

    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.image)):
        if svg := stored_svg(app, node):
            node.replace_self(nodes.raw("", svg, format="html"))


def setup(app):
    """Connect the hook."""
    app.connect("doctree-read", take_in, priority=PRIORITY)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
