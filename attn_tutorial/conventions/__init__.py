"""What "window W" means elsewhere: a table, translations both ways, and a detective.

``describe`` says a library's value in words, ``convert`` turns a pattern into such a
value, ``from_config`` reads a model's config, ``identify`` asks a black box.
"""

from attn_tutorial.conventions.config import from_config
from attn_tutorial.conventions.identify import Identified, identify
from attn_tutorial.conventions.table import CONVENTIONS, Convention, as_table
from attn_tutorial.conventions.translate import convert, describe

__all__ = [
    "CONVENTIONS",
    "Convention",
    "Identified",
    "as_table",
    "convert",
    "describe",
    "from_config",
    "identify",
]
