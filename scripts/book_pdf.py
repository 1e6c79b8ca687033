"""Print the whole book into one file, with contents and page numbers.

    python scripts/book_pdf.py [OUT]        # _build/book.pdf; `make pdf`

Chromium lays the built pages out as one document (`book_pdf.js`) and prints it twice:
first to learn on which sheet each chapter begins, then with these numbers in its
contents. The API is left out: it is a reference.
"""

import functools
import os
import re
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
LEFT_OUT = "book/api"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOOTER = (
    '<div style="width:100%;text-align:center;font:8pt sans-serif;color:#444">'
    '<span class="pageNumber"></span></div>'
)


def pages_in_order() -> list[tuple[str, str]]:
    """(part, page) of the table of contents, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [
        (part.get("caption", ""), chapter["file"])
        for part in toc["parts"]
        for chapter in part["chapters"]
    ]
    pages = [("", toc["root"]), *entries]
    return [(part, name) for part, name in pages if not name.startswith(LEFT_OUT)]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line on the terminal for each."""

    def log_message(self, *args):
        """Say nothing."""


def serve(folder: Path) -> ThreadingHTTPServer:
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def browser_path() -> str:
    names = (os.environ.get("CHROMIUM", ""), *BROWSERS)
    found = next(filter(None, map(shutil.which, filter(None, names))), None)
    if found is None:
        sys.exit("make pdf needs Chromium or Chrome; CHROMIUM=/path/to/it names one")
    return found


def printed(page) -> bytes:
    return page.pdf(
        prefer_css_page_size=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        tagged=True,
        outline=True,
    )


OBJECT = re.compile(rb"(?:^|\n)(\d+) 0 obj\s(.*?)\sendobj", re.DOTALL)
REFERENCE = re.compile(rb"(\d+) 0 R")
# A named place in the file, and the sheet that it is on.
PLACE = re.compile(rb"/([\w.-]+)\s*\[\s*(\d+) 0 R\s*/XYZ")


def sheets(pdf: bytes) -> list[bytes]:
    """The numbers of a file's page objects, in order; Chromium packs none of them."""
    objects = dict(OBJECT.findall(pdf))

    def below(number: bytes) -> list[bytes]:
        kids = re.search(rb"/Kids\s*\[(.*?)\]", objects[number], re.DOTALL)
        if kids is None:
            return [number]
        return [one for kid in REFERENCE.findall(kids[1]) for one in below(kid)]

    root = next(body for body in objects.values() if b"/Type /Catalog" in body)
    return below(re.search(rb"/Pages\s+(\d+) 0 R", root)[1])


def first_sheets(pdf: bytes, names: list[str]) -> dict[str, int]:
    """The number of the sheet that each chapter begins on."""
    order = {number: k for k, number in enumerate(sheets(pdf), start=1)}
    places = {place.decode(): order[number] for place, number in PLACE.findall(pdf)}
    return {name: places[name.replace("/", "-")] for name in names}


def print_book(page, base: str) -> bytes:
    """Lay out, print to learn the numbers, write the contents, print."""
    pages = pages_in_order()
    names = [name for _, name in pages]
    page.goto(f"{base}/book/index.html", wait_until="load")
    page.add_script_tag(path=str(Path(__file__).with_suffix(".js")))
    page.evaluate("pages => layOut(pages)", pages)
    first = first_sheets(printed(page), names)
    page.evaluate("first => numberContents(first)", first)
    pdf = printed(page)
    if first_sheets(pdf, names) != first:
        raise RuntimeError("the numbers in the contents moved the chapters")
    return pdf


def main(out: str = str(ROOT / "_build" / "book.pdf")) -> None:
    """Print the book that is built below ``_build/html``."""
    from playwright.sync_api import sync_playwright

    server = serve(HTML)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(), args=["--no-sandbox"] if root else []
        )
        page = browser.new_page(reduced_motion="reduce", color_scheme="light")
        page.set_default_timeout(300_000)
        pdf = print_book(page, f"http://127.0.0.1:{server.server_port}")
        browser.close()
    Path(out).write_bytes(pdf)
    print(f"{out}: {len(sheets(pdf))} pages, {len(pdf) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
