"""The built site in Firefox: explorers, folds, figures and the lab, no script error.

Where there is no Firefox these are skipped; FIREFOX=/path/to/firefox names one.
"""

import pytest
from conftest import HTML
from marionette import Firefox, find_firefox

pytestmark = pytest.mark.browser

CONTENT = sorted(
    path.relative_to(HTML).as_posix()
    for folder in ("book", "notebooks")
    for path in (HTML / folder).rglob("*.html")
)
CHAPTERS = [name for name in CONTENT if name.startswith("notebooks/")]
OPEN_FOLDS = "document.querySelectorAll('details').forEach(d => (d.open = true))"


@pytest.fixture(scope="module")
def firefox():
    program = find_firefox()
    if program is None:
        pytest.skip("no Firefox found: install it, or set FIREFOX to its path")
    firefox = Firefox(program)
    yield firefox
    firefox.close()


@pytest.fixture
def opened(firefox, site):
    """Load a page of the site; in the end none of its scripts may have failed."""

    def load(name: str, **how) -> Firefox:
        firefox.open(site + name, **how)
        return firefox

    yield load
    assert firefox.errors(site) == []


@pytest.mark.parametrize("name", CONTENT)
def test_a_page_fits_and_its_formulas_are_set(opened, name):
    page = opened(name)
    assert page.run("return window.MathJax?.startup?.promise.then(() => true) ?? true")
    assert page.run("return document.querySelectorAll('mjx-merror').length") == 0
    wide = "const e = document.scrollingElement; return e.scrollWidth - e.clientWidth"
    assert page.run(wide) <= 0


SHOWN = """
    const frames = [...arguments[0].closest(".attn-x").querySelectorAll(".attn-f")];
    return frames.flatMap((f, i) => f.hidden ? [] : [i]);
"""


def shown(page: Firefox, control: str) -> int:
    """Index of the one frame that an explorer shows."""
    (index,) = page.run(SHOWN, {"element-6066-11e4-a52e-4f735466cecf": control})
    return index


@pytest.mark.parametrize("name", CHAPTERS)
def test_explorers_move_by_the_keyboard(opened, name):
    page = opened(name)
    page.run(OPEN_FOLDS)
    for slider in page.find(".attn-x input[type=range]"):
        page.press(slider, "Home")
        before = shown(page, slider)
        page.press(slider, "ArrowRight")
        assert shown(page, slider) != before


@pytest.mark.parametrize("name", CHAPTERS)
def test_explorers_move_by_the_mouse(opened, name):
    page = opened(name)
    page.run(OPEN_FOLDS)
    for choice in page.find(".attn-x label:has(input[type=radio]:not(:checked))")[:4]:
        page.click(choice)
    for one in page.run(
        "return [...document.querySelectorAll('.attn-x')].map(x => "
        "[...x.querySelectorAll('.attn-f')].filter(f => !f.hidden).length)"
    ):
        assert one == 1, "one frame of each explorer shows"


def test_a_choice_unfolds_with_its_verdict(opened):
    page = opened("notebooks/local_attention.html")
    choice = page.find("details.choice > summary")[0]
    closed = "return document.querySelector('details.choice').offsetHeight"
    before = page.run(closed)
    page.click(choice)
    assert page.run(closed) > before
    verdict = (
        "return getComputedStyle(document.querySelector('details.choice[open] > "
        "summary'), '::after').content"
    )
    assert page.run(verdict) in ('" Yes."', '" No."')


def test_a_link_to_a_solution_opens_its_fold(opened):
    page = opened("book/solutions.html#local-5")
    page.wait_for(
        "document.getElementById('local-5').closest('details').open && "
        "document.getElementById('local-5').getBoundingClientRect().top < innerHeight"
    )


def test_printing_opens_the_folds(opened):
    page = opened("notebooks/local_attention.html")
    count = "return document.querySelectorAll('details:not([open])').length"
    folded = page.run(count)
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert folded > 0 and page.run(count) == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run(count) == folded


INK = """
    document.documentElement.dataset.theme = arguments[0];
    const figure = document.querySelector(".attn-fig");
    return [getComputedStyle(figure.querySelector("text")).fill,
        getComputedStyle(document.body).backgroundColor];
"""


def test_figures_follow_the_theme(opened):
    page = opened("notebooks/scaling.html")
    assert page.run(INK, "light") != page.run(INK, "dark")
    ink, ground = page.run(INK, "dark")
    assert ink == "rgb(221, 228, 233)" and ground != ink


# The lab.


def test_the_lab_composes_a_pattern(opened):
    page = opened("book/lab/compose.html#n=20&left=2&right=2")
    page.wait_for("document.querySelector('main').innerText.includes('pairs')")


def test_the_lab_s_model_reads(opened):
    page = opened("book/lab/model.html")
    page.wait_for("document.querySelector('main').innerText.includes('bits')")


def test_without_webgpu_the_timer_says_what_to_do(opened):
    page = opened("book/lab/timer.html")
    if page.run("return lab.gpu.missing() === null && lab.gpu.open().then(Boolean)"):
        pytest.skip("this Firefox has WebGPU")
    for start in page.find("main button:not([disabled])")[:1]:
        page.click(start)
    page.wait_for("/WebGPU/.test(document.querySelector('.lab-status').innerText)")
