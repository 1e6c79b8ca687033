"""A chapter's sliders in a real JupyterLab, before and after it is trusted."""

import os
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from conftest import ROOT, free_ports
from nbconvert import HTMLExporter
from nbformat.sign import NotebookNotary

pytestmark = pytest.mark.browser
CHAPTER = ROOT / "notebooks/local_attention.ipynb"
NOTE = "Run this cell (or trust the notebook)"


def explorer_cell():
    """The first cell of a chapter whose stored output has a slider, unfolded."""
    for cell in nbformat.read(CHAPTER, as_version=4).cells:
        for output in cell.get("outputs", []):
            if 'type="range"' in output.get("data", {}).get("text/html", ""):
                cell.metadata.pop("jupyter", None)
                return cell
    raise LookupError(f"{CHAPTER.name} has no slider")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a notebook of one cell, and a home of its own for Jupyter."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(CHAPTER, as_version=4)
    notebook.cells = [explorer_cell()]
    nbformat.write(notebook, folder / "one.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """The address of a JupyterLab."""
    port = free_ports(1)
    known = os.environ | {
        f"JUPYTER_{name}_DIR": str(folder / name) for name in ("DATA", "CONFIG")
    }
    flags = {"ip": "127.0.0.1", "port": port, "token": "", "root_dir": folder}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.{name}={value}" for name, value in flags.items()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env=known, cwd=folder, **quiet)
    address = f"http://127.0.0.1:{port}/lab"
    for _ in range(120):
        try:
            urlopen(address, timeout=5).close()
            break
        except (URLError, ConnectionError):
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(30)


def opened(chromium, lab):
    page = chromium.new_context().new_page()
    page.set_default_timeout(90_000)
    page.goto(f"{lab}/tree/one.ipynb")
    page.locator(".attn-x").wait_for(state="attached")
    return page


def test_untrusted_one_line_of_text_stands_in_place_of_sliders(chromium, lab):
    page = opened(chromium, lab)
    assert page.get_by_text(NOTE).is_visible()
    assert page.locator(".attn-x input:enabled").count() == 0
    page.context.close()


def test_trusted_the_slider_moves_the_picture(chromium, lab, folder):
    notary = NotebookNotary(data_dir=str(folder / "DATA"))
    notary.sign(nbformat.read(folder / "one.ipynb", as_version=4))
    page = opened(chromium, lab)
    slider = page.locator(".attn-x input:enabled").first
    slider.wait_for()
    assert not page.get_by_text(NOTE).is_visible()
    shown = page.locator(".attn-f:visible")
    before = shown.inner_html()
    slider.press("ArrowLeft" if slider.input_value() != "0" else "ArrowRight")
    assert shown.inner_html() != before
    page.context.close()


def test_a_chapter_becomes_a_page_of_its_own():
    page, _ = HTMLExporter().from_filename(CHAPTER)
    assert 'class="attn-x"' in page and "<script>" in page
