"""Sphinx extension: folds that links open, and that say what they hold.

* A label, such as a solution's name, can be linked like a heading: ``page.md#label``.
* The name of a folded text stands inside the fold: browsers open a fold when a link
  leads into it, and leave it shut when a link leads to it.
* Folded code says "Show the code" and a folded output "Show the output".
"""

from myst_nb.sphinx_ import HideCodeCellNode
from sphinx_design.dropdown import dropdown_main


def link_labels_like_headings(app, env):
    for label, (docname, anchor) in env.domaindata["std"]["anonlabels"].items():
        slugs = env.metadata[docname].setdefault("myst_slugs", {})
        slugs.setdefault(label, (0, anchor, label))


def open_when_linked(app, doctree, docname):
    for fold in doctree.findall(dropdown_main):
        fold.children[-1]["ids"] += fold["ids"]
        fold["ids"] = []


def call_source_code(app, doctree, docname):
    for fold in doctree.findall(HideCodeCellNode):
        for prompt in ("prompt_show", "prompt_hide"):
            fold[prompt] = fold[prompt].replace("source", "code")


def setup(app):
    app.connect("env-updated", link_labels_like_headings)
    app.connect("doctree-resolved", open_when_linked)
    app.connect("doctree-resolved", call_source_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
