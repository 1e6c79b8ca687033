"""What several tests share: the repository's root and a browser on the built site."""

import functools
import http.server
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton
    os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing gets out
    "--no-first-run",
]


collect_ignore = ["hub_config.py"]  # JupyterHub reads it

# What takes longest comes first: two workers, who take a file at a time, then end
# together. In the order of `pytest --durations=0`, from minutes to ten seconds.
LONGEST = (
    "test_site",
    "test_triton_local",
    "test_exercises",
    "test_experiments",
    "test_lab",
    "test_firefox",
    "test_benchmark",
    "test_flex",
    "test_context_parallel",
    "test_pages",
    "test_benchmark_gpu",
    "test_looks",
    "test_windows",
    "test_decoding",
    "test_applications",
    "test_cache",
    "test_hf",
    "test_local",
    "test_identify",
    "test_packaging",
    "test_sparse",
)


def pytest_collection_modifyitems(items):
    """Put the files that take longest first, and leave the rest as it is."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def missing(what: str):
    """Skip at home; fail where nobody would see the skip."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def free_ports(count: int) -> int:
    """The first of some neighbouring ports that nobody uses."""
    for first in range(18000, 28000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line on the terminal for each."""

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="session")
def site():
    """The address of the built site, served on this computer."""
    if not (HTML / "index.html").exists():
        missing("the site is not built: run 'make book'")
    handler = functools.partial(QuietHandler, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def chromium():
    """One Chromium for all tests, from the system."""
    from playwright.sync_api import sync_playwright

    names = (os.environ.get("CHROMIUM", ""), *BROWSERS)
    executable = next(filter(None, map(shutil.which, filter(None, names))), None)
    if executable is None:
        missing("no Chromium or Chrome found: install it, or set CHROMIUM to its path")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    flags = FLAGS + (["--no-sandbox"] if root else [])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        yield browser
        browser.close()


class Tab:
    """A browser page that remembers what it asked for and what went wrong."""

    def __init__(self, browser, site: str):
        self.site = site
        self.outside, self.failed, self.errors, self.loaded = [], [], [], []
        self.page = browser.new_context(reduced_motion="reduce").new_page()
        self.page.set_default_timeout(90_000)  # for busy machines
        self.page.on("request", self._request)  # a route would cost the cache
        self.page.on("requestfailed", self._failure)
        self.page.on("response", self._response)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", self._console)

    def _request(self, request):
        if not request.url.startswith((self.site, "data:", "blob:", "file:")):
            self.outside.append(request.url)

    def _failure(self, request):
        if request.failure != "net::ERR_ABORTED":  # what the last page still wanted
            self.failed.append(request.url)

    def _response(self, response):
        self.loaded.append(response.url)
        if response.status >= 400:
            self.failed.append(f"{response.status} {response.url}")

    def _console(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, path: str, *, width: int = 1280):
        """Load a page of the site and wait until its mathematics is set."""
        self.page.goto("about:blank")
        for record in (self.outside, self.failed, self.errors, self.loaded):
            record.clear()
        self.page.set_viewport_size({"width": width, "height": 900})
        address = path if path.startswith("file:") else self.site + path
        self.page.goto(address, wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self.page

    def assert_clean(self):
        """Nothing left this computer, nothing was missing, no script failed."""
        assert not self.outside, f"requests to other hosts: {self.outside}"
        assert not self.failed, f"failed requests: {self.failed}"
        assert not self.errors, f"script errors: {self.errors}"


@pytest.fixture(scope="session")
def tab(chromium, site):
    """One browser tab, used by one test after the other."""
    tab = Tab(chromium, site)
    yield tab
    tab.page.context.close()
