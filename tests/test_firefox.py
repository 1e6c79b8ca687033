"""The built site in Firefox: explorers, folds, figures and the lab, no script error.

Where there is no Firefox these are skipped; FIREFOX=/path/to/firefox names one.
"""

import re
from contextlib import contextmanager
from urllib.parse import parse_qsl

import pytest
import torch
from conftest import HTML
from marionette import Firefox, find_firefox
from test_lab import (
    COMPOSE,
    MODEL,
    ONE,
    TASKS,
    TIMER,
    assert_is_attention,
    lab_model,
    numbers_of,
    pattern_of,
    read_by_pytorch,
)

import attn_tutorial as at
from attn_tutorial.exercises import quiz

pytestmark = pytest.mark.browser

CONTENT = sorted(
    path.relative_to(HTML).as_posix()
    for folder in ("book", "notebooks")
    for path in (HTML / folder).rglob("*.html")
)
CHAPTERS = [name for name in CONTENT if name.startswith("notebooks/")]
FILES = HTML.as_uri() + "/"
OPEN_FOLDS = "document.querySelectorAll('details').forEach(d => (d.open = true))"


@pytest.fixture(scope="module")
def firefox():
    with started() as firefox:
        yield firefox


@contextmanager
def started(**preferences):
    """A Firefox with these preferences, where there is one."""
    program = find_firefox()
    if program is None:
        pytest.skip("no Firefox found: install it, or set FIREFOX to its path")
    firefox = Firefox(program, preferences)
    try:
        yield firefox
    finally:
        firefox.close()


@pytest.fixture
def opened(firefox, site):
    """Load a page of the site; in the end none of its scripts may have failed."""

    def load(name: str, **how) -> Firefox:
        firefox.open(name if name.startswith("file:") else site + name, **how)
        return firefox

    yield load
    assert firefox.errors(site, FILES) == []


# A page is loaded once, and all that is asked of it there is asked then.


@pytest.mark.parametrize("name", CONTENT)
def test_a_page_works(opened, name):
    page = opened(name)
    assert page.run("return window.MathJax?.startup?.promise.then(() => true) ?? true")
    assert page.run("return document.querySelectorAll('mjx-merror').length") == 0
    wide = "const e = document.scrollingElement; return e.scrollWidth - e.clientWidth"
    assert page.run(wide) <= 0
    if name in CHAPTERS:
        page.run(OPEN_FOLDS)
        assert_explorers_move_by_the_keyboard(page)
        assert_explorers_move_by_the_mouse(page)


SHOWN = """
    const frames = [...arguments[0].closest(".attn-x").querySelectorAll(".attn-f")];
    return frames.flatMap((f, i) => f.hidden ? [] : [i]);
"""


def shown(page: Firefox, control: str) -> int:
    """Index of the one frame that an explorer shows."""
    (index,) = page.run(SHOWN, {"element-6066-11e4-a52e-4f735466cecf": control})
    return index


def assert_explorers_move_by_the_keyboard(page):
    for slider in page.find(".attn-x input[type=range]"):
        page.press(slider, "Home")
        before = shown(page, slider)
        page.press(slider, "ArrowRight")
        assert shown(page, slider) != before


def assert_explorers_move_by_the_mouse(page):
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


# The lab, served and from files: for Firefox each file is a place of its own.

PLACES = pytest.mark.parametrize("place", ["", FILES], ids=["served", "file"])
FOCUS = "document.querySelectorAll(arguments[0])[arguments[1]].focus()"


def test_a_quiz_is_answered_by_the_keyboard(opened):
    page = opened("notebooks/local_attention.html")
    choices = "#check-yourself details.choice"
    count = len(page.find(f"{choices} > summary"))
    assert count == sum(len(question.options) for question in quiz("local_attention"))
    page.run(FOCUS, f"{choices} > summary", 0)
    for number in range(count):
        closed = page.run(CHOSEN)
        assert closed["verdict"] == "" and closed["ring"] == "solid"
        page.type("Enter" if number % 2 else " ")
        chosen = page.run(CHOSEN)
        assert chosen["verdict"] == (" Yes." if chosen["right"] else " No.")
        assert chosen["height"] > closed["height"] + 15, "its feedback shows"
        page.type("Tab")
    assert len(page.find(f"{choices}[open]")) == count


CHOSEN = """
    const summary = document.activeElement, choice = summary.parentElement;
    return { right: choice.matches("#check-yourself .choice.right"),
        verdict: JSON.parse(getComputedStyle(summary, "::after").content),
        ring: getComputedStyle(summary).outlineStyle, height: choice.offsetHeight };
"""


# The composer.

COMPOSED = """
    const facts = document.querySelectorAll(".lab-facts dd");
    return { facts: [...facts].map(fact => fact.innerText),
        keys: document.querySelector(".lab-met").innerText,
        drawn: document.querySelector(".lab-kept").getAttribute("d"),
        fields: [...document.querySelectorAll(".lab-composer input")].map(field =>
            field.type === "checkbox" ? field.checked : field.value),
        address: location.hash.slice(1),
        state: lab.state.read(location.hash.slice(1)) };
"""
BARS = re.compile(r"M(\d+) (\d+)h(\d+)v1h-\d+z")


def drawn_mask(path: str, n: int) -> torch.Tensor:
    """The matrix whose rows a path draws as bars."""
    mask = torch.zeros(n, n, dtype=torch.bool)
    for column, row, width in (map(int, bar) for bar in BARS.findall(path)):
        mask[row, column : column + width] = True
    return mask


def assert_says_what_the_package_says(found: dict) -> None:
    """All that the composer shows is that of the state in its address."""
    state, expected = found["state"], numbers_of(found["state"])
    text, kept, tax, flops, cache, reach = found["facts"]
    assert text == expected["text"]
    assert kept.startswith(f"{expected['kept']:,}, ")
    assert float(tax.split()[0]) == pytest.approx(expected["tax"], rel=5e-3)
    assert flops == f"{expected['flops']:,}"
    assert cache.startswith("none") == (expected["cache"] is None)
    if expected["cache"] is not None:
        amount, unit, *_ = cache.split()
        size = float(amount) * 1024 ** ("B", "KiB", "MiB").index(unit)
        assert size == pytest.approx(expected["cache"], rel=5e-3)
    assert reach.startswith(f"{expected['reach']} token")
    assert f"meets {len(expected['keys'])} key" in found["keys"]
    mask = at.dense_mask(pattern_of(state), state["n"])
    assert torch.equal(drawn_mask(found["drawn"], state["n"]), mask)


STATE = "n=20&left=2&sinks=1&documents=12%2C8"


@PLACES
def test_the_composer_obeys_the_keyboard(opened, place):
    page = opened(f"{place}{COMPOSE}#{STATE}")
    before = page.run(COMPOSED)
    assert_says_what_the_package_says(before)
    page.run("document.querySelectorAll('.lab-composer input')[7].select()")
    page.type("2", "Tab", "ArrowUp")  # right, and a dilation of 2
    page.run(FOCUS, ".lab-composer input[type=checkbox]", 4)
    page.type(" ")  # causal no more
    after = page.run(COMPOSED)
    assert dict(parse_qsl(after["address"])) == {
        "n": "20", "left": "2", "right": "2", "step": "2", "sinks": "1",
        "documents": "12,8", "causal": "0",
    }  # fmt: skip
    assert after["drawn"] != before["drawn"] and after["facts"] != before["facts"]
    assert_says_what_the_package_says(after)
    page.ask("Navigate", url=page.run("return location.href.split('#')[0]"))
    assert page.run(COMPOSED)["state"]["n"] == 32
    page.ask("Navigate", url=f"{page.run('return location.href')}#{after['address']}")
    page.wait_for("document.querySelector('.lab-composer input').value === '20'")
    assert page.run(COMPOSED) == after, "its address restores it"


def test_a_refused_number_is_told_and_leaves_the_pattern(opened):
    page = opened(COMPOSE)
    before = page.run(COMPOSED)
    page.run("document.querySelectorAll('.lab-composer input')[8].select()")
    page.type("0")  # a dilation of 0
    said = "return document.querySelector('.lab-status').innerText"
    assert page.run(said) == "dilation is not understood."
    assert page.run(COMPOSED)["facts"] == before["facts"]
    page.type("Home", "1")
    assert page.run(said) == "" and page.run(COMPOSED)["state"]["step"] == 10


def test_arrow_keys_choose_the_query_and_enter_copies_the_program(opened):
    page = opened(COMPOSE)
    page.run(FOCUS, ".lab-picture", 0)
    page.type("ArrowUp", "ArrowUp", "ArrowDown")
    assert page.run(COMPOSED)["keys"] == "Query 15 meets 5 keys: 11 to 15."
    page.run(FOCUS, ".lab button", 1)
    page.type("Enter")
    page.wait_for(
        "document.querySelector('.lab-status').innerText.includes('clipboard')"
    )


# The model.

READ = """
    const { width, height } = document.querySelector(".lab-map");
    const map = document.querySelector(".lab-map").getContext("2d");
    const pixels = map.getImageData(0, 0, width, height).data;
    return { verdict: document.querySelector(".lab-status").innerText,
        next: [...document.querySelectorAll(".lab-two tbody tr")].map(row =>
            [...row.cells].map(cell => cell.innerText)),
        map: [...pixels].filter((_, place) => place % 4 === 3) };
"""
TYPED = "if x in xs:"


def read_everywhere(page: Firefox) -> list[str]:
    """What the page says of each byte, by the slider's keys."""
    page.run(FOCUS, ".lab input[type=range]", 0)
    page.type("Home")
    said = [page.run("return document.querySelector('[aria-live]').innerText")]
    for _ in TYPED[1:]:
        page.type("ArrowRight")
        said.append(page.run("return document.querySelector('[aria-live]').innerText"))
    return said


def assert_reads_as_pytorch(page: Firefox, patterns: list[str], layer, head) -> list:
    """Probabilities, bits and one map on the page are the package's; returns bits."""
    model, text = lab_model.load(), TYPED.encode()
    _, full, _ = read_by_pytorch(model, text, ["causal"] * 4)
    scores, bits, maps = read_by_pytorch(model, text, patterns)
    expected = zip(bits, full, strict=True)
    for sentence, both in zip(read_everywhere(page)[1:], expected, strict=True):
        shown = list(map(float, re.findall(r"([\d.]+) bits", sentence)))
        assert shown == pytest.approx(list(both), abs=0.0051), sentence
    found = page.run(READ)
    mean = sum(bits) / len(bits)
    assert float(found["verdict"].split()[0]) == pytest.approx(mean, abs=0.0051)
    shares = scores[-1].softmax(0).sort(descending=True).values[:8]
    shown = [float(share.split()[0]) for _, share, _ in found["next"]]
    assert shown == pytest.approx((100 * shares).tolist(), abs=0.051)
    weights = maps[layer][head]
    expected = 255 * weights / weights.amax(1, keepdim=True)
    drawn = torch.tensor(found["map"]).view_as(weights)
    assert float((drawn - expected).abs().max()) < 1.5
    return bits


@PLACES
def test_typed_text_and_patterns_have_the_package_s_numbers(opened, place):
    page = opened(place + MODEL)
    page.run("document.querySelector('.lab textarea').select()")
    page.type(TYPED)
    done = "document.querySelector('.lab-status').innerText.includes(arguments[0])"
    page.wait_for(done, f"on {len(TYPED)} bytes")
    full = assert_reads_as_pytorch(page, ["causal"] * 4, 0, 0)
    page.run(FOCUS, ".lab textarea", 0)
    page.type(
        "Tab", "a", "Tab", "2", "Tab", "its", "Tab", "3"
    )  # by their first letters
    page.run(FOCUS, ".lab-two select", 0)
    page.type("2", "Tab", "4")
    patterns = ["local 2 & causal", "blocks 3 & causal", "causal", "causal"]
    near = assert_reads_as_pytorch(page, patterns, 1, 3)
    assert max(abs(a - b) for a, b in zip(full, near, strict=True)) > 0.1


@PLACES
def test_the_model_writes_on_by_the_keyboard(opened, place):
    page = opened(place + MODEL)
    page.run("document.querySelector('.lab textarea').select()")
    page.type(TYPED)
    page.wait_for(
        "document.querySelector('.lab-status').innerText.includes('on 11 bytes')"
    )
    page.run(FOCUS, ".lab button", 0)
    page.type("Enter")
    text = page.run("return document.querySelector('.lab textarea').value")
    assert text.startswith(TYPED) and len(text.encode()) == len(TYPED) + 80


# The timer.


@PLACES
def test_without_webgpu_the_timer_says_what_to_do(opened, place):
    page = opened(place + TIMER)
    said = page.run("return document.querySelector('.lab-status').innerText")
    assert said.startswith("This browser has no WebGPU") and "about:config" in said
    assert page.run("return document.querySelector('.lab-main').disabled")


@pytest.fixture(scope="module")
def webgpu(site):
    """The timer in a Firefox that may use WebGPU on any device, where it finds one."""
    allowed = {"dom.webgpu.enabled": True, "gfx.webgpu.ignore-blocklist": True}
    with started(**allowed) as firefox:
        firefox.open(site + TIMER)
        firefox.ask("SetTimeouts", script=120_000)
        if not firefox.run("return lab.gpu.open().then(Boolean)"):
            pytest.skip("Firefox finds no adapter: it needs a driver for Vulkan")
        yield firefox
        assert firefox.errors(site) == []


@pytest.mark.parametrize(("mechanism", "n", "size", "d"), TASKS)
def test_the_shader_computes_attention_in_firefox(webgpu, mechanism, n, size, d):
    task = {"mechanism": mechanism, "n": n, "size": size, "heads": 2, "d": d}
    assert_is_attention(task, *webgpu.run(f"return ({ONE})(arguments[0])", task))
