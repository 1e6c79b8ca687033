"""nbval compares numbers, tables and explorers, and not how matplotlib draws a figure.

Another version of it moves a label by a tenth of a point. What a figure shows is
asserted or printed beside it, and its description is compared.
"""

DRAWN = ("image/svg+xml",)


def pytest_collection_modifyitems(items):
    """Add figures to what nbval skips, as it skips images."""
    notebooks = {item.parent for item in items if hasattr(item.parent, "skip_compare")}
    for notebook in notebooks:
        notebook.skip_compare += DRAWN
