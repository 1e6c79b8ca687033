"""Draw the card that a link to the book becomes elsewhere: book/_assets/card.png.

    python scripts/social_card.py

The masks are those of the first page, in the site's own faces and colours.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "_ext"))
from book_pdf import ROOT, browser_path
from first_page import draw_masks

ASSETS = ROOT / "book" / "_assets"

WIDTH, HEIGHT = 1200, 630
PAGE = """<!DOCTYPE html><html data-theme="light"><head>
<link rel="stylesheet" href="type.css">
<link rel="stylesheet" href="first_page.css">
<style>
  body {{ margin: 0; width: 1200px; height: 630px; box-sizing: border-box;
    padding: 56px 72px; background: var(--paper); color: var(--ink);
    font-family: var(--sans); }}
  h1 {{ font: 720 66px/1.08 var(--sans); letter-spacing: -.026em; margin: 0 0 38px; }}
  .masks {{ gap: 64px; margin: 0; }} figure {{ margin: 0; }}
  figcaption {{ font-size: 0; text-align: center; }}
  .masks figcaption strong {{ font-size: 25px; line-height: 1.2; }}
  .masks .turn, .masks-pause {{ display: none; }}
  .masks [data-kept] {{ fill-opacity: 1; }} .masks svg {{ margin-bottom: -22px; }}
</style></head><body>
<h1>Efficient attention,<br>step by step</h1>{masks}
</body></html>"""


def main() -> None:
    """Draw the card."""
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    draft = ASSETS / "card.html"  # beside the style sheets that it names
    draft.write_text(PAGE.format(masks=draw_masks()), encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path(), args=["--no-sandbox"] if root else []
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(draft.as_uri())
            page.evaluate("() => document.fonts.ready")
            page.screenshot(path=str(ASSETS / "card.png"))
            browser.close()
    finally:
        draft.unlink()


if __name__ == "__main__":
    main()
