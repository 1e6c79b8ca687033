"""Sphinx extension: docstrings are written to be read in an editor, and say |i - j|.

reStructuredText would take the bars for a substitution, so they are escaped. The
fields of a named tuple say only "Alias for field number 0", so they are left out.
"""

PRIORITY = 600  # after napoleon, which turns Google sections into fields


def escape_bars(app, what, name, obj, options, lines):
    """Escape the bars of absolute values; leave doctests and ``literals`` alone."""
    doctest = False
    for number, line in enumerate(lines):
        doctest = line.lstrip().startswith(">>>") or (doctest and bool(line.strip()))
        if doctest:
            continue
        parts = line.split("``")
        parts[::2] = [text.replace("|", r"\|") for text in parts[::2]]
        lines[number] = "``".join(parts)


def skip_field(app, what, name, obj, skip, options):
    """Skip the fields of named tuples."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    """Connect the hooks."""
    app.connect("autodoc-skip-member", skip_field)
    app.connect("autodoc-process-docstring", escape_bars, priority=PRIORITY)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
