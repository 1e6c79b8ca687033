"""Sphinx extension: figures are a part of their page, and a chapter opens with one.

* A figure is no file beside the page. Only so can it take the page's colours and
  letters (``book/_assets/figures.css``), and its words be selected and found.
* What a cell with the tag ``opener`` draws stands below the chapter's question. In the
  notebook the cell that imports what draws it has to come first.
"""

from pathlib import Path

PRIORITY = 400  # before Sphinx collects images, with its own 500
OPENER = "tag_opener"


def stored_svg(app, node) -> str | None:
    """The SVG that myst-nb wrote for an output, if the node shows one."""
    path = Path(app.env.relfn2path(node["uri"])[1])
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


def raise_opener(app, doctree):
    from docutils import nodes

    cells = list(doctree.findall(nodes.container))
    for cell in (cell for cell in cells if OPENER in cell["classes"]):
        question = next(iter(doctree.findall(nodes.paragraph)))
        drawn = [part for part in cell if "cell_output" in part["classes"]]
        cell.parent.remove(cell)
        question.parent.insert(question.parent.index(question) + 1, drawn)
        for part in drawn:
            part["classes"].append("opener")


def setup(app):
    """Connect the hooks."""
    app.connect("doctree-read", take_in, priority=PRIORITY)
    app.connect("doctree-read", raise_opener, priority=PRIORITY)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
