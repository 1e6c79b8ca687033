"""Figures in the built pages: of the page's colours, inside their frame, described."""

import re

import pytest
from conftest import HTML
from test_figures import contrast

pytestmark = pytest.mark.browser

PAGES = sorted(path.name for path in (HTML / "notebooks").glob("*.html"))
LOOKED_AT = [name for name in PAGES if name[:5] in ("local", "scali", "patte")]
OPEN_FOLDS = "document.querySelectorAll('details').forEach(d => (d.open = true))"
# Colours as the page resolves them: of the ground, of letters, of all that is drawn.
LOOK = """() => {
    const hex = c => "#" + c.match(/[\\d.]+/g).slice(0, 3)
        .map(x => (+x).toString(16).padStart(2, "0")).join("");
    const style = e => getComputedStyle(e);
    const all = (what, part) => [...new Set([...document.querySelectorAll(what)]
        .map(e => style(e)[part]).filter(c => c !== "none").map(hex))];
    return { paper: hex(style(document.body).backgroundColor),
        letters: all(".attn-fig text", "fill"),
        lines: all(".attn-fig path[stroke]:not([stroke='#e8e8e8'], [stroke='#ffffff'])",
            "stroke") };
}"""


def article(name: str) -> str:
    html = (HTML / "notebooks" / name).read_text(encoding="utf-8")
    return html[html.index("<article") : html.index("</article>")]


@pytest.mark.parametrize("name", PAGES)
def test_figures_are_parts_of_their_page_and_described(name):
    text = article(name)
    assert not re.search(r"<img\b(?![^>]*logo)", text), "an image where an SVG is due"
    figures = re.findall(r'<svg[^>]*class="attn-fig"[^>]*>', text)
    assert figures
    for figure in figures:
        alt = re.search(r'aria-label="([^"]*)"', figure)[1]
        assert len(alt.split()) >= 5, alt


@pytest.mark.parametrize("name", PAGES)
def test_the_opener_stands_below_the_question(name):
    text = article(name)
    (start,) = [m.start() for m in re.finditer(r'<div class="[^"]*\bopener\b', text)]
    before = text[text.index("</h1>") + len("</h1>") : start]
    assert len(re.findall(r"<p\b", before)) == 1, "the question alone comes before"
    assert "cell_input" not in before and '<div class="highlight' not in before
    assert 'role="img"' in text[start : start + 2000]


@pytest.mark.parametrize("how", ["light", "dark", "print"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_is_drawn_is_legible(tab, name, how):
    page = tab.open(f"notebooks/{name}")
    if how == "print":
        page.emulate_media(media="print")
    else:
        page.evaluate(f"document.documentElement.dataset.theme = '{how}'")
    page.wait_for_timeout(300)  # the theme fades its colours in
    look = page.evaluate(LOOK)
    page.emulate_media(media="null")
    assert (contrast(look["paper"], "#000000") > 10) == (how != "dark")
    assert look["letters"] and look["lines"]
    for colour in look["letters"]:
        assert contrast(colour, look["paper"]) >= 4.5, colour
    if how != "print":
        for colour in look["lines"]:
            assert contrast(colour, look["paper"]) >= 3, colour


FRAMES = """() => [...document.querySelectorAll(".attn-fig")].flatMap(figure => {
    const frame = figure.getBoundingClientRect(), found = [];
    for (const text of figure.querySelectorAll("text")) {
        const box = text.getBoundingClientRect();
        if (box.left < frame.left - 1 || box.right > frame.right + 1
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
            found.push(text.textContent);
    }
    if (frame.right > innerWidth + 1) found.push(`${frame.right} px`);
    return found;
})"""
SIZES = """() => [...document.querySelectorAll(".attn-fig")].map(figure => {
    const sizes = [...figure.querySelectorAll("text")];
    const scale = figure.getBoundingClientRect().width / figure.viewBox.baseVal.width;
    return scale * Math.min(...sizes.map(text => text.getAttribute("font-size")));
})"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_letters_stay_inside_their_figure(tab, name, width):
    page = tab.open(f"notebooks/{name}", width=width)
    page.evaluate(OPEN_FOLDS)
    assert page.evaluate(FRAMES) == []
    assert min(page.evaluate(SIZES)) >= (8.5 if width == 390 else 13), "pixels"
