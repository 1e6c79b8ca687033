"""Sphinx extension: the slides, made of figures of chapters by `scripts/slides.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import slides


def write_slides(app, exception):
    if exception is None and app.builder.format == "html":
        slides.write(Path(app.outdir) / "_static" / "slides")


def setup(app):
    """Connect the hook."""
    app.connect("build-finished", write_slides)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
