"""Ten places of the site look as they did when somebody last looked at them.

The pictures in ``screens/`` are of the built site. They are compared small and grey, so
that another machine's last pixel passes and a lost style sheet does not. After a change
that is meant: ``make screens``, look at what git says has changed, commit.
"""

import io
import os

import pytest
from conftest import ROOT

pytestmark = pytest.mark.browser

SCREENS = ROOT / "tests" / "screens"
SMALL = 8  # pixels of the screen for one that is compared
LIMIT = 9.0  # mean difference, of 255, that is a different page

# name -> page, width, colour scheme, media
PLACES = {
    "first-page": ("book/index.html", 1280, "light", "screen"),
    "first-page-phone": ("book/index.html", 390, "dark", "screen"),
    "first-page-print": ("book/index.html", 794, "light", "print"),
    "chapter": ("notebooks/local_attention.html", 1280, "light", "screen"),
    "chapter-dark": ("notebooks/local_attention.html", 1280, "dark", "screen"),
    "chapter-phone": ("notebooks/local_attention.html", 390, "light", "screen"),
    "table-phone": ("book/how_to_use.html#as-a-course", 390, "dark", "screen"),
    "notation-print": ("book/notation.html", 794, "light", "print"),
    "api": ("book/api/equations.html", 1280, "light", "screen"),
    "not-found": ("404.html", 1280, "light", "screen"),
}


def photograph(chromium, address: str, width: int, scheme: str, media: str) -> bytes:
    page = chromium.new_page(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page.emulate_media(media=media)
    page.goto(address, wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate("() => document.fonts.ready")
    png = page.screenshot()
    page.close()
    return png


def small(png: bytes):
    """A picture in grey, an eighth as wide and high, as numbers."""
    import numpy
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("L")
    return numpy.asarray(image.reduce(SMALL), dtype=float)


@pytest.mark.parametrize("name", PLACES)
def test_it_looks_as_it_did(chromium, site, name):
    page, *how = PLACES[name]
    now, kept = photograph(chromium, site + page, *how), SCREENS / f"{name}.png"
    if os.environ.get("SCREENS") == "write":
        kept.write_bytes(now)
    one, other = small(now), small(kept.read_bytes())
    assert one.shape == other.shape
    difference = abs(one - other).mean()
    assert difference < LIMIT, f"{difference:.1f} of 255, see {kept}"


def test_a_page_without_its_style_is_noticed(chromium, site):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.route("**/book.css*", lambda route: route.abort())
    page.goto(site + PLACES["chapter"][0])
    now = small(page.screenshot())
    page.close()
    kept = small((SCREENS / "chapter.png").read_bytes())
    assert abs(now - kept).mean() > LIMIT
