"""The built site in a browser: local, silent, narrow enough, movable, accessible."""

import functools
import gzip
import json
import re
import sys
from urllib.parse import unquote, urlsplit

import pytest
from conftest import HTML, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import book_pdf

pytestmark = pytest.mark.browser

WIDTHS = (1280, 390)
# Faults of the theme's own frame around the page; inside an article nothing is excused.
THEME_FAULTS = {"label-content-name-mismatch", "region"}


def built_pages() -> list[str]:
    """Every page of the site except the redirects at its roots."""
    pages = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    names = (page.as_posix() for page in pages if "_static" not in page.parts)
    return sorted(name for name in names if name not in ("index.html", "zh/index.html"))


LISTINGS = [name for name in built_pages() if name.startswith("_modules/")]
# Listings of code are made alike: three of them stand for all.
PAGES = [name for name in built_pages() if name not in LISTINGS[3:]]
CONTENT = [name for name in PAGES if re.match(r"(zh/)?(book|notebooks)/", name)]


def article(name: str) -> str:
    html = (HTML / name).read_text(encoding="utf-8")
    return html[html.index("<article") : html.index("</article>")]


MOVING = [name for name in CONTENT if 'class="attn-x"' in article(name)]
DRAWN = [name for name in CONTENT if re.search('class="attn-(fig|s)"', article(name))]
NOTED = [name for name in CONTENT if 'class="beside"' in article(name)]


def test_the_site_is_built(site, tab):
    """Where the site is missing, this fails in CI and skips elsewhere."""
    tab.page.goto(site + "index.html")
    tab.page.wait_for_url("**/book/index.html")
    assert CONTENT, "the site has no pages"


def address(name: str, width: int) -> str:
    """On a phone, a page of the book is opened from the file system."""
    from_file = width == min(WIDTHS) and name in CONTENT
    return (HTML / name).as_uri() if from_file else name


# A page is loaded once for each width, and all that is asked of it there is asked then.


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_works(tab, name, width):
    page = tab.open(address(name, width), width=width)
    assert_local_silent_and_fits(tab, width)
    if name in CONTENT:
        assert_light(tab)
        if "\\(" in article(name):
            assert page.locator("mjx-container").count(), "mathematics is not set"
    page.evaluate(FOLDS, True)
    if name in DRAWN and width == min(WIDTHS):
        assert not page.evaluate(ILLEGIBLE, LETTER)
    if name in MOVING:
        assert_explorers_move(tab, by_keys=width == max(WIDTHS))
    page.evaluate(FOLDS, False)
    if name in LOOKED_INTO and width == max(WIDTHS):
        assert_accessible(page)


def assert_local_silent_and_fits(tab, width):
    """It needs nothing from elsewhere, says nothing, and is as wide as the screen."""
    page = tab.page
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


# Kilobytes, compressed, of all that a page loads before one scrolls.
FIRST_VIEW, LATER = 1000, 300


@functools.cache
def weight(path: str) -> float:
    """Kilobytes of a file on the wire; servers compress all but pictures and fonts."""
    content = (HTML / path).read_bytes()
    packed = path.endswith((".png", ".woff", ".woff2"))
    return len(content if packed else gzip.compress(content)) / 1000


def assert_light(tab):
    """What the tab loaded is within both limits."""
    paths = {unquote(urlsplit(url).path) for url in tab.loaded}
    files = {path.removeprefix(HTML.as_posix()).lstrip("/") for path in paths}
    assert any(path.endswith(".css") for path in files)
    kept = {path for path in files if path.startswith("_static/")}  # by the browser
    first, later = (sum(map(weight, group)) for group in (files, files - kept))
    assert first <= FIRST_VIEW and later <= LATER, (
        f"{first:.0f} kB, then {later:.0f} kB; heaviest: "
        f"{sorted(files, key=weight, reverse=True)[:5]}"
    )


@pytest.mark.parametrize("name", CONTENT)
def test_images_have_real_alternative_text(name):
    for image in re.findall(r"<img\b[^>]*>", article(name)):
        alt = re.search(r'alt="([^"]*)"', image)
        assert alt, f"no alternative text: {image[:150]}"
        words = alt[1].split()
        enough = 4 if alt[1].isascii() or not name.startswith("zh/") else 1
        assert len(words) >= enough and len(alt[1]) > 8, (
            f"alternative text says too little: {alt[1]!r}"
        )
        assert not alt[1].startswith(("<", "../", "_images")), alt[1]


# Index and content of each frame that shows.
SHOWN = """element => [...element.querySelectorAll(".attn-f")].flatMap((f, i) =>
    f.checkVisibility({visibilityProperty: true}) ? [[i, f.innerHTML]] : [])"""
LETTER = 12  # pixels of the screen
# Words of figures that are smaller, cut off at a side, or lie over another word.
ILLEGIBLE = """least => [...document.querySelectorAll(".attn-fig, .attn-s")].flatMap(
  svg => {
    const words = [...svg.querySelectorAll("text")]
        .filter(t => t.checkVisibility({visibilityProperty: true}))
        .map(t => ({text: t.textContent, box: t.getBoundingClientRect(),
            size: parseFloat(getComputedStyle(t).fontSize)
                * t.ownerSVGElement.getScreenCTM().a}));
    let left = 0, right = words.length ? innerWidth : 0;
    for (let e = svg; right && e !== document.body; e = e.parentElement) {
        if (getComputedStyle(e).overflowX === "visible") continue;
        const box = e.getBoundingClientRect();
        left = Math.max(left, box.left), right = Math.min(right, box.right);
    }
    const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5;
    return words.flatMap(({text, box, size}, k) => [
        ...(size < least ? [text + ": " + size.toFixed(1) + " px"] : []),
        ...(box.left < left - 1 || box.right > right + 1 ? [text + ": cut off"] : []),
        ...words.slice(k + 1).filter(other => over(box, other.box))
            .map(other => text + " over " + other.text),
    ]);
})"""
# The smallest text of the frame that shows, in pixels of the screen.
SMALLEST = """element => Math.min(100, ...[...element.querySelectorAll("svg text")]
    .filter(t => t.checkVisibility({visibilityProperty: true}))
    .map(t => parseFloat(getComputedStyle(t).fontSize)
        * t.ownerSVGElement.getScreenCTM().a))"""


class Explorer:
    """One explorer on a page: its inputs, and the frame that shows."""

    def __init__(self, element):
        self.element = element
        self.axes = element.locator(".attn-a").all()

    def shown(self) -> tuple[int, str]:
        """Index and content of the one visible frame."""
        visible = self.element.evaluate(SHOWN)
        assert len(visible) == 1, f"{len(visible)} frames show at once"
        return tuple(visible[0])

    def move(self, axis, end: str) -> tuple[int, str]:
        """Go to the first or the last value of an axis by the keyboard."""
        control = axis.locator("input[type=range], select, input:checked")
        control.focus()
        if control.get_attribute("type") == "radio":  # arrows choose, and go round
            many = axis.locator("input").count()
            now = int(control.get_attribute("value"))
            for _ in range(now if end == "Home" else many - 1 - now):
                self.element.page.keyboard.press(
                    "ArrowLeft" if end == "Home" else "ArrowRight"
                )
        else:
            control.press(end)
        return self.shown()

    def click(self, axis, end: str) -> tuple[int, str]:
        """Go there by the mouse, and by choosing in a menu."""
        if axis.locator("select").count():
            last = axis.locator("option").count() - 1
            axis.locator("select").select_option(index=0 if end == "Home" else last)
        elif axis.locator("input[type=radio]").count():
            axis.locator("label").nth(0 if end == "Home" else -1).click()
        else:
            slider = axis.locator("input")
            slider.scroll_into_view_if_needed()
            box = slider.bounding_box()
            x = 2 if end == "Home" else box["width"] - 2
            slider.click(position={"x": x, "y": box["height"] / 2})
        return self.shown()


# Some answer a prediction and are folded.
FOLDS = "o => document.querySelectorAll('details').forEach(d => d.open = o)"


def assert_explorers_move(tab, *, by_keys):
    """The mouse, and where there is one the keyboard, move each explorer of a page."""
    for element in tab.page.locator(".attn-x").all():
        explorer = Explorer(element)
        assert explorer.axes, "an explorer without an input"
        height = element.bounding_box()["height"]
        pictures = {explorer.shown()[1]}
        for axis in explorer.axes:
            first, last = explorer.click(axis, "Home"), explorer.click(axis, "End")
            assert first[0] != last[0], "the mouse changed nothing"
            if by_keys:
                assert explorer.move(axis, "Home") == first, "the keyboard is lost"
                assert explorer.move(axis, "End") == last
            pictures |= {first[1], last[1]}
            assert element.bounding_box()["height"] == height, "the page jumps"
            assert element.evaluate(SMALLEST) >= LETTER, "labels too small to read"
        assert len(pictures) > 1, "the picture never changed"
    tab.assert_clean()


# axe looks at each element in turn; of many that are made alike, a few are enough.
# It does not read the MathML inside a formula, so a word stands for each.
THIN_OUT = """() => {
    const later = (what, count) => [...document.querySelectorAll(what)].slice(count);
    for (const math of later("mjx-container", 0)) math.replaceWith("formula");
    for (const extra of [...later(".attn-f[hidden]", 0), ...later(".highlight", 4),
        ...later("dl.py", 40), ...later("div.citation", 40)]) extra.remove();
}"""


# A colour belongs to a kind of element under the same style sheets: of each kind, three
# are looked at, and of those that showed on earlier pages none.
THREE_OF_A_KIND = """known => {
    const file = sheet => /[^/]+[.]css/.exec(sheet.href);
    const sheets = [...document.styleSheets].map(file).join();
    const look = e => ["class", "style", "fill"].map(name => e.getAttribute(name));
    const kind = e => e ? kind(e.parentElement) + e.tagName + look(e) : sheets;
    const before = new Set(known), met = new Set();
    for (let depth = 0; depth < 5; depth++) {
        const seen = {};
        for (const e of document.body.querySelectorAll("*:not(style, script)")) {
            if (e.children.length) continue;
            const name = kind(e);
            if (e.checkVisibility()) met.add(name);
            seen[name] = (seen[name] || 0) + 1;
            if (seen[name] > 3 || before.has(name)) e.remove();
        }
    }
    return [...met];
}"""
KNOWN_KINDS = set()  # of the pages that this process has looked at
CONTRAST = "color-contrast"  # takes ten times as long as all other rules together


def axe_faults(page, **options) -> list:
    """What axe finds, less the known faults of the theme."""
    from axe_playwright_python.sync_playwright import Axe

    options["resultTypes"] = ["violations"]
    return [
        (violation["id"], [node["html"][:160] for node in violation["nodes"]])
        for violation in Axe().run(page, options=options).response["violations"]
        if violation["id"] not in THEME_FAULTS
    ]


# The pages of the API are written by one extension: one of them stands for all.
LOOKED_INTO = [
    n for n in CONTENT if n[:9] != "book/api/" or n.endswith("equations.html")
]


def assert_accessible(page):
    """Axe finds no fault of ours in either colour scheme; the page is spoilt by it."""
    page.evaluate(THIN_OUT)
    ours = axe_faults(page, rules={CONTRAST: {"enabled": False}})
    met = page.evaluate(THREE_OF_A_KIND, sorted(KNOWN_KINDS))
    page.add_style_tag(content="* { transition: none !important }")
    for theme in ("light", "dark"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        ours += axe_faults(page, runOnly=[CONTRAST])
    assert not ours, json.dumps(ours, indent=1)
    KNOWN_KINDS.update(met)


# What surrounds the pages.


@pytest.mark.parametrize("name", CONTENT)
def test_a_page_says_what_it_is_about(name):
    html = (HTML / name).read_text(encoding="utf-8")
    head = html[: html.index("</head>")]
    for tag in ('name="description"', 'property="og:title"', 'property="og:image"'):
        assert re.search(rf'<meta {tag} content="[^"]{{3,}}"', head), tag
    assert head.count('name="viewport"') == 1
    assert html.count("<h1") == 1
    assert "fontawesome" not in html


@pytest.mark.parametrize("name", CONTENT)
def test_a_style_sheet_of_one_page_is_loaded_by_that_page_alone(name):
    """On a page with explorers, its rules make each step of a slider dear."""
    html = (HTML / name).read_text(encoding="utf-8")
    for sheet, kind in (("first_page.css", "masks"), ("sheet.css", "sheet")):
        wanted = re.search(rf'class="(?:[^"]* )?{kind}[ "]', html) is not None
        assert (f"_static/{sheet}" in html) == wanted, sheet


def test_every_recorded_experiment_has_its_figure():
    html = (HTML / "book" / "experiments.html").read_text(encoding="utf-8")
    source = (ROOT / "book" / "experiments.md").read_text(encoding="utf-8")
    asked = source.count(":file: figures/")
    assert html.count('class="attn-fig" role="img" aria-label="') == asked > 10


def test_every_page_is_in_the_site_map():
    sitemap = (HTML / "sitemap.xml").read_text(encoding="utf-8")
    listed = re.findall(r"<loc>https://[^/]+/[^/]+/(.*?)</loc>", sitemap)
    assert sorted(listed) == sorted(CONTENT)


def test_a_wrong_address_leads_back(tab, site):
    page = tab.open("404.html")
    links = page.locator("a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    roots = {re.sub(r"(book/index|search)\.html$", "", link) for link in links}
    assert len(links) == 2 and len(roots) == 1
    assert all((HTML / link.removeprefix(*roots)).is_file() for link in links)
    assert not axe_faults(page)


def test_the_card_has_the_size_that_networks_expect():
    png = (HTML / "_static/card.png").read_bytes()
    size = [int.from_bytes(png[k : k + 4], "big") for k in (16, 20)]
    assert size == [1200, 630]


@pytest.mark.parametrize("query", ["local attention", "online softmax", "window"])
def test_search_puts_chapters_first(tab, query):
    page = tab.open(f"search.html?q={query.replace(' ', '+')}")
    page.wait_for_selector("#search-results ul.search li")
    page.wait_for_function(
        "() => /found/.test(document.querySelector('#search-results').textContent)"
    )
    found = page.locator("#search-results ul.search > li > a")
    links = found.evaluate_all("all => all.map(a => new URL(a.href).pathname)")
    kinds = ["api" if "/api" in link else link.split("/")[1] for link in links]
    assert kinds[0] == "notebooks"
    assert "api" not in kinds or kinds.index("api") > kinds.index("notebooks")
    excerpt = page.locator("#search-results p.context").first
    excerpt.wait_for()
    assert not re.search(r"Skip to main|Toggle|\{.*:.*\}", excerpt.inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_visit_follows_the_system(chromium, site, scheme):
    page = chromium.new_page(color_scheme=scheme)
    page.goto(site + "book/how_to_use.html")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.close()


def test_printing_opens_folds_and_closes_them_again(tab):
    page = tab.open("book/solutions.html")
    count = "() => document.querySelectorAll('article details[open]').length"
    assert page.evaluate(count) == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(count) == page.locator("article details").count() > 50
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(count) == 0


def test_a_fold_of_code_is_one_quiet_line_with_a_mark(tab):
    page = tab.open("notebooks/local_attention.html", width=1280)
    fold = page.locator("article .cell details.hide").first
    assert fold.evaluate("e => getComputedStyle(e).boxShadow") == "none"
    summary = fold.locator("summary")
    mark = "e => getComputedStyle(e, '::before')"
    assert summary.evaluate(f"e => ({mark})(e).content") == '""'
    assert summary.evaluate(f"e => ({mark})(e).borderRightWidth") != "0px"
    assert summary.bounding_box()["height"] < 32, "one line"
    assert summary.get_attribute("aria-label") is None, "its text is its name"
    summary.click()
    assert summary.inner_text().strip() == "Hide the code"


def test_printed_sentences_wrap_on_a_phone_and_columns_do_not(tab):
    page = tab.open("notebooks/other_improvements.html", width=390)
    answer = page.locator(".cell_output pre", has_text="other-1 is not answered yet")
    fits = "e => e.scrollWidth <= e.clientWidth + 1"
    assert answer.evaluate(fits)
    columns = page.locator(".cell_output pre", has_text="parameters").last
    assert columns.evaluate("e => getComputedStyle(e).whiteSpace") == "pre"


def test_a_phone_is_told_a_table_that_does_not_fit(tab):
    page = tab.open("book/benchmarks.html", width=390)
    cells = page.locator("table").first.locator("tbody tr").first.locator("td")
    right = cells.evaluate_all("all => all.map(c => c.getBoundingClientRect().right)")
    assert all(edge <= 390 for edge in right)
    assert cells.nth(1).get_attribute("data-column") == "Started (UTC)"
    page.set_viewport_size({"width": 1280, "height": 900})
    display = "cell => getComputedStyle(cell).display"
    assert cells.nth(1).evaluate(display) == "table-cell"


# Where each aside is, where its paragraph is, and the texts that it lies on.
ASIDES = """() => [...document.querySelectorAll("article .beside")].map(aside => {
    const box = aside.getBoundingClientRect();
    const texts = "p, h1, h2, h3, li, pre, table, svg, .attn-x, mjx-container, .beside";
    const meets = other => other.right > box.left && other.left < box.right
        && other.bottom > box.top && other.top < box.bottom;
    return {box, text: aside.innerText,
        paragraph: aside.previousElementSibling.getBoundingClientRect(),
        size: parseFloat(getComputedStyle(aside).fontSize),
        under: [...document.querySelectorAll("article :is(" + texts + ")")]
            .filter(e => !aside.contains(e) && e.checkVisibility()
                && meets(e.getBoundingClientRect()))
            .map(e => e.outerHTML.slice(0, 80))};
})"""
# Whether the page's contents can be read, and an aside lies on them.
COVERED = """aside => {
    const list = document.querySelector("nav.page-toc");
    const [a, b] = [aside, list].map(e => e.getBoundingClientRect());
    return +getComputedStyle(list).opacity > 0 && a.right > b.left
        && a.top < b.bottom && a.bottom > b.top;
}"""


@pytest.mark.parametrize("name", NOTED[::4])
def test_an_aside_stands_in_the_margin_or_below_its_paragraph(tab, name):
    page = tab.open(name, width=1280)
    column = page.locator("article p").first.bounding_box()["width"]
    for width in (1280, 1500, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for aside in page.evaluate(ASIDES):
            box, paragraph = aside["box"], aside["paragraph"]
            assert not aside["under"], (width, aside["text"])
            assert aside["size"] >= LETTER
            if width == 390:
                assert box["top"] >= paragraph["bottom"]
                assert paragraph["left"] <= box["left"]
                assert box["right"] <= paragraph["right"]
            else:
                assert abs(paragraph["width"] - column) < 1
                assert 16 <= box["left"] - paragraph["right"] <= 48
                assert box["right"] <= width - 16
                assert abs(box["top"] - paragraph["top"]) < 16


@pytest.mark.parametrize("width", [1280, 1500])
def test_contents_make_way_for_an_aside(tab, width):
    page = tab.open("notebooks/looking_inside.html", width=width)
    contents = page.locator("nav.page-toc")
    opacity = "() => +getComputedStyle(document.querySelector('nav.page-toc')).opacity"
    aside = page.locator("article .beside").last
    for block in ("start", "center", "end"):
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_function(f"() => ({opacity})() === 1")
        aside.evaluate("(e, block) => e.scrollIntoView({block})", block)
        way = 0 if width == 1280 else 1  # there is room for both
        page.wait_for_function(f"() => ({opacity})() === {way}")
        assert not aside.evaluate(COVERED)
    if width == 1280:
        contents.locator("a").first.focus()
        page.keyboard.press("Tab")  # by keyboard the list can still be read
        page.wait_for_function(f"() => ({opacity})() === 1")


def test_the_masks_stand_still_for_those_who_ask(chromium, site):
    moving = (
        "() => document.querySelector('.masks').getAnimations({subtree: true}).length"
    )
    for motion, count in (("reduce", 0), ("no-preference", 48)):
        page = chromium.new_page(reduced_motion=motion)
        page.goto(site + "book/index.html")
        assert page.evaluate(moving) == count
        page.close()


def test_the_sheets_of_a_printed_book_are_found(chromium):
    page = chromium.new_page()
    break_ = '<h1 id="{0}" style="break-before: page">{0}</h1>'
    links = "".join(f'<a href="#{name}">{name}</a> ' for name in ("a-b", "c"))
    long = "<p>line</p>" * 200  # more than one sheet
    page.set_content(links + break_.format("a-b") + long + break_.format("c"))
    pdf = book_pdf.printed(page)
    page.close()
    first = book_pdf.first_sheets(pdf, ["a/b", "c"])
    assert first["a/b"] == 2 and first["c"] == len(book_pdf.sheets(pdf)) > 4
