"""Sphinx extension: a Markdown link may end in the name of any target of its page.

MyST resolves ``page.md#name`` for headings alone, while a solution is a fold with a
name. Jupyter follows such a link as it is written.
"""


def add_names(app, env):
    """Let MyST find each page's named targets beside its headings."""
    for name, (page, anchor) in env.get_domain("std").anonlabels.items():
        if page in env.metadata:
            slugs = env.metadata[page].setdefault("myst_slugs", {})
            slugs.setdefault(name, (0, anchor, name))


def setup(app):
    """Connect the hook."""
    app.connect("env-updated", add_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
