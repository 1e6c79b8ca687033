"""The built site in a browser: local, silent, narrow enough, movable, accessible."""

import json
import re

import pytest
from conftest import HTML

pytestmark = pytest.mark.browser

WIDTHS = (1280, 390)
# Faults of the theme's own frame around the page; inside an article nothing is excused.
THEME_FAULTS = {"label-content-name-mismatch", "region"}


def built_pages() -> list[str]:
    """Every page of the site except the redirect at its root."""
    pages = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    names = (page.as_posix() for page in pages if "_static" not in page.parts)
    return sorted(name for name in names if name != "index.html")


PAGES = built_pages()
CONTENT = [name for name in PAGES if name.startswith(("book/", "notebooks/"))]


def article(name: str) -> str:
    html = (HTML / name).read_text(encoding="utf-8")
    return html[html.index("<article") : html.index("</article>")]


MOVING = [name for name in CONTENT if 'class="attn-x"' in article(name)]


def test_the_site_is_built(site, tab):
    """Where the site is missing, this fails in CI and skips elsewhere."""
    tab.page.goto(site + "index.html")
    tab.page.wait_for_url("**/book/index.html")
    assert CONTENT, "the site has no pages"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_local_silent_and_fits(tab, name, width):
    page = tab.open(name, width=width)
    tab.assert_clean()
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0, "math error"
    wide = page.evaluate(
        """() => {
            const root = document.scrollingElement, limit = root.clientWidth;
            if (root.scrollWidth <= limit) return [];
            const scrolls = e => e && (getComputedStyle(e).overflowX !== "visible"
                || scrolls(e.parentElement));
            const out = [...document.querySelectorAll("main *")].filter(e =>
                e.getBoundingClientRect().right > limit + 1 && !scrolls(e));
            return ["page: " + root.scrollWidth,
                ...out.slice(0, 5).map(e => e.outerHTML.slice(0, 120))];
        }"""
    )
    assert not wide, f"wider than {width} px: {wide}"


@pytest.mark.parametrize("name", CONTENT)
def test_pages_open_from_the_file_system(tab, name):
    page = tab.open((HTML / name).as_uri())
    tab.assert_clean()
    assert page.locator("mjx-merror").count() == 0
    if "\\(" in article(name):
        assert page.locator("mjx-container").count() > 0, "mathematics is not set"


@pytest.mark.parametrize("name", CONTENT)
def test_images_have_real_alternative_text(name):
    for image in re.findall(r"<img\b[^>]*>", article(name)):
        alt = re.search(r'alt="([^"]*)"', image)
        assert alt, f"no alternative text: {image[:150]}"
        words = alt[1].split()
        assert len(words) >= 4, f"alternative text says too little: {alt[1]!r}"
        assert not alt[1].startswith(("<", "../", "_images")), alt[1]


class Explorer:
    """One explorer on a page: its sliders, and the frame that shows."""

    def __init__(self, element):
        self.element = element
        self.sliders = element.locator("input[type=range]").all()

    def shown(self) -> tuple[int, str]:
        """Index and content of the one visible frame."""
        visible = self.element.locator(".attn-f").evaluate_all(
            """frames => frames.flatMap((f, i) =>
                f.checkVisibility() ? [[i, f.innerHTML]] : [])"""
        )
        assert len(visible) == 1, f"{len(visible)} frames show at once"
        return tuple(visible[0])

    def after_key(self, slider, key: str) -> tuple[int, str]:
        slider.focus()
        slider.press(key)
        return self.shown()

    def after_click(self, slider, share: float) -> tuple[int, str]:
        """Click on the slider's track, at a share of its width."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        x = min(max(box["width"] * share, 2), box["width"] - 2)
        slider.click(position={"x": x, "y": box["height"] / 2})
        return self.shown()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MOVING)
def test_explorers_move_by_keyboard_and_mouse(tab, name, width):
    page = tab.open(name, width=width)
    for element in page.locator(".attn-x").all():
        explorer = Explorer(element)
        assert explorer.sliders, "an explorer without a slider"
        keys, clicks = {explorer.shown()[1]}, set()
        for slider in explorer.sliders:
            before = explorer.after_key(slider, "Home")
            step = explorer.after_key(slider, "ArrowRight")
            last = explorer.after_key(slider, "End")
            assert step[0] != before[0], "the arrow key changed nothing"
            assert slider.input_value() == slider.get_attribute("max")
            back = explorer.after_click(slider, 0.0)
            again = explorer.after_click(slider, 1.0)
            assert back == before and again == last, "the mouse changed nothing"
            keys |= {step[1], last[1]}
            clicks |= {back[1], again[1]}
        assert len(keys) > 1, "the keyboard never changed the picture"
        assert len(clicks) > 1, "the mouse never changed the picture"
    tab.assert_clean()


# axe looks at each element in turn; of many that are made alike, a few are enough.
# It does not read the MathML inside a formula, so a word stands for each.
THIN_OUT = """() => {
    const later = (what, count) => [...document.querySelectorAll(what)].slice(count);
    for (const math of later("mjx-container", 0)) math.replaceWith("formula");
    for (const extra of [...later(".attn-f[hidden]", 0), ...later(".highlight", 4),
        ...later("dl.py", 40)]) extra.remove();
}"""


def axe_faults(page, **options) -> list:
    """What axe finds, less the known faults of the theme."""
    from axe_playwright_python.sync_playwright import Axe

    options["resultTypes"] = ["violations"]
    return [
        (violation["id"], [node["html"][:160] for node in violation["nodes"]])
        for violation in Axe().run(page, options=options).response["violations"]
        if violation["id"] not in THEME_FAULTS
    ]


@pytest.mark.parametrize("name", CONTENT)
def test_axe_finds_no_fault_of_ours(tab, name):
    page = tab.open(name)
    page.evaluate(THIN_OUT)
    ours = axe_faults(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(300)  # the theme fades its colours in
    ours += axe_faults(page, runOnly=["color-contrast"])  # the rest has not changed
    assert not ours, json.dumps(ours, indent=1)
