"""Sphinx extension: the figure of a recorded experiment, drawn when the site is built.

```{record-figure} topics
```
"""

from docutils import nodes
from docutils.parsers.rst import Directive


class RecordFigure(Directive):
    """Draw what ``report --figures`` draws first of an experiment."""

    required_arguments = 1  # its name

    def run(self):
        from attn_tutorial.experiments.figures.results import FIGURES
        from attn_tutorial.experiments.records import load, record_path

        (name,) = self.arguments
        self.state.document.settings.env.note_dependency(str(record_path(name)))
        picture = FIGURES[name][0](load(name).final)
        return [nodes.raw("", picture._repr_svg_(), format="html")]


def setup(app):
    """Register the directive."""
    app.add_directive("record-figure", RecordFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
