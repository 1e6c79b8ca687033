"""How a heading is addressed: in the book's sources, and in the built site."""

import re

from docutils.nodes import make_id

__all__ = ["in_site", "in_sources"]

FORMULA = re.compile(r"\$[^$]*\$")


def in_sources(heading: str) -> str:
    """What a link in Markdown names; MyST leaves formulas out of it."""
    words = re.sub("[`*]", "", FORMULA.sub("", heading)).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def in_site(heading: str) -> str:
    """The identifier of the heading in the page that Sphinx makes."""
    return make_id(re.sub("[$`*]", "", heading))
