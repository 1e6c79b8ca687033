"""Frames and explorers: what is drawn, what is said, and what a page needs."""

import re
import xml.etree.ElementTree as ElementTree

import numpy
import pytest
import torch

from attn_tutorial.pictures import explore
from attn_tutorial.pictures.style import KEPT, LEVELS, WASTED


def band(n, window):
    i = torch.arange(n)
    return (i[:, None] - i).abs() <= window


def parse(frame):
    """Every SVG frame must be XML by itself."""
    return ElementTree.fromstring(str(frame))


def drawn_cells(frame, ink):
    """Count the cells of one colour: each run is as many cells long as it is wide."""
    svg = parse(frame)
    name = "{http://www.w3.org/2000/svg}"
    group = next(g for g in svg.iter(f"{name}g") if g.get("stroke-dasharray"))
    cell = sum(map(float, group.get("stroke-dasharray").split()))
    paths = (p.get("d") for p in group.iter(f"{name}path") if p.get("stroke") == ink)
    return sum(
        round(float(run) / cell) for d in paths for run in re.findall(r"h([\d.]+)", d)
    )


SVG_FRAMES = [
    explore.shades([[0.0, 1.0], [0.5, 0.25]], alt="A & B", title="<two> by two"),
    explore.mask(band(5, 1), alt="A & B", title="<five>"),
    explore.chart({"a<b": ([1, 2, 3], [1, 4, 9])}, alt="A & B", mark=(2, 4, "<2>")),
    explore.boxes({"<slot>": range(20), "b": ["<", ""]}, alt="A & B", title="<two>"),
]


@pytest.mark.parametrize("frame", SVG_FRAMES)
def test_svg_frames_are_xml_with_role_and_description(frame):
    svg = parse(frame)
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == frame.alt == repr(frame) == "A & B"
    assert "max-width:100%" in svg.get("style")


@pytest.mark.parametrize("frame", SVG_FRAMES)
def test_text_stays_legible_on_a_phone(frame):
    svg = parse(frame)
    width = float(svg.get("viewBox").split()[2])
    assert float(svg.get("font-size")) * min(1, 340 / width) >= 10


def test_boxes_stand_beside_each_other_with_their_texts_and_marks():
    rows = {"slot": [0, 1, 2], "holds": [6, "", 5]}
    svg = parse(explore.boxes(rows, alt="A ring.", marked={"holds": {0, 2}}))
    name = "{http://www.w3.org/2000/svg}"
    drawn = list(svg.iter(f"{name}rect"))
    assert [rect.get("fill") == KEPT for rect in drawn] == [False] * 3 + [
        *[True, False, True],
    ]
    assert [rect.get("fill-opacity") for rect in drawn[3:]] == [None, "0", None]
    places = [float(rect.get("x")) for rect in drawn[:3]]
    assert places[1] - places[0] == places[2] - places[1] > float(drawn[0].get("width"))
    texts = [text.text or "" for text in svg.iter(f"{name}text")]
    assert texts == ["slot", "0", "1", "2", "holds", "6", "", "5"]


@pytest.mark.parametrize(
    ("rows", "marked", "message"),
    [
        ({}, {}, "rows must hold at least one box"),
        ({"slot": []}, {}, "rows must hold at least one box"),
        ({"slot": [1]}, {"slot": [1]}, r"marked names slot: \[1\], which has no box"),
        ({"slot": [1]}, {"other": [0]}, "marked names other"),
    ],
)
def test_boxes_that_are_not_there_are_refused(rows, marked, message):
    with pytest.raises(ValueError, match=message):
        explore.boxes(rows, alt="None.", marked=marked)


@pytest.mark.parametrize("n, window", [(1, 0), (5, 0), (8, 2), (24, 3), (24, 23)])
def test_mask_draws_and_counts_each_kept_pair(n, window):
    frame = explore.mask(band(n, window), alt="band")
    kept = int(band(n, window).sum())
    assert drawn_cells(frame, KEPT) == kept
    assert f"{kept:,} of {n * n:,} pairs kept" in frame


def test_mask_draws_wasted_pairs_in_another_colour():
    i = torch.arange(12) // 4
    blocks = (i[:, None] - i).abs() <= 1
    frame = explore.mask(band(12, 2), computed=blocks, alt="tiles")
    assert drawn_cells(frame, KEPT) == int(band(12, 2).sum())
    assert drawn_cells(frame, WASTED) == int((blocks & ~band(12, 2)).sum())
    assert f"{int(blocks.sum())} of 144 pairs computed" in frame


def test_mask_says_the_keys_of_a_row():
    frame = explore.mask([[1, 1, 1, 0, 1], [0, 0, 0, 0, 0]], alt="two rows")
    assert "query 0 keeps keys 0–2, 4 (4 of them)" in frame
    assert "query 1 keeps no key" in frame


def test_heatmap_uses_sixteen_shades_and_clips():
    shades = [[k / 15 for k in range(16)]]
    frame = explore.shades(shades, alt="ramp", scale=False)
    inks = re.findall(r'<path fill="(#\w+)"', frame)
    assert inks == LEVELS
    clipped = explore.shades([[-5.0, 7.0]], alt="clipped", scale=False)
    inks = re.findall(r'<path fill="(#\w+)"', clipped)
    assert inks == [LEVELS[0], LEVELS[-1]]


def test_tensor_array_and_list_give_the_same_picture():
    matrix = torch.linspace(0, 1, 12).reshape(3, 4)
    kinds = (matrix, matrix.numpy(), matrix.tolist(), matrix.double().requires_grad_())
    assert len({str(explore.shades(m, alt="same")) for m in kinds}) == 1
    keep = band(4, 1)
    kinds = (keep, keep.numpy(), keep.tolist(), keep.int())
    assert len({str(explore.mask(m, alt="same")) for m in kinds}) == 1


def test_last_bits_of_a_number_do_not_change_a_heatmap():
    matrix = torch.tensor([[0.5, 0.1, 1 / 3], [0.7, 0.3, 0.9]], dtype=torch.float64)
    frame = explore.shades(matrix, alt="x")
    assert str(explore.shades(matrix + 1e-9, alt="x")) == str(frame)
    assert str(explore.shades(matrix - 1e-9, alt="x")) == str(frame)


def test_names_of_rows_and_columns_are_written():
    frame = explore.shades(
        [[0, 1], [1, 0]], alt="x", rows=["cat", "sat"], cols=["<s>", "mat"]
    )
    words = [t.text for t in parse(frame).iter("{http://www.w3.org/2000/svg}text")]
    assert {"cat", "sat", "<s>", "mat"} <= set(words)


NAN, INF = float("nan"), float("inf")
LINE = {"a": ([1, 2], [1, 2])}


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: explore.shades([[1], [1, 2]], alt="x"), "same length"),
        (lambda: explore.shades([1, 2], alt="x"), "matrix"),
        (lambda: explore.shades(torch.zeros(2, 2, 2), alt="x"), "2 dimensions"),
        (
            lambda: explore.shades([[1]], alt="x", vmin=1, vmax=1),
            "vmin, vmax must be finite",
        ),
        (lambda: explore.shades([[1]], alt="x", rows="ab"), "rows has 2 names"),
        (lambda: explore.mask([[1]], alt="x", computed=[[1, 1]]), "shape of keep"),
        (lambda: explore.chart({}, alt="x"), "at least one point"),
        (lambda: explore.chart({"a": ([1], [1, 2])}, alt="x"), "1 x and 2 y"),
        (lambda: explore.chart({"a": ([0], [1])}, alt="x", logx=True), "positive"),
        (lambda: explore.shades([[1, NAN]], alt="x"), "matrix must be finite, got nan"),
        (lambda: explore.shades([[-INF]], alt="x"), "matrix must be finite, got -inf"),
        (lambda: explore.shades([[1]], alt="x", vmin=NAN), "vmin, vmax must be"),
        (lambda: explore.shades([[1]], alt="x", vmin=1, vmax=0), "got 1, 0"),
        (lambda: explore.chart({"a": ([1], [INF])}, alt="x"), "'a' must be finite"),
        (lambda: explore.chart({"a": ([NAN], [1])}, alt="x"), "'a' must be finite"),
        (lambda: explore.chart(LINE, alt="x", xlim=(2, 0)), "xlim must be .* 2, 0"),
        (lambda: explore.chart(LINE, alt="x", ylim=(0, INF)), "ylim must be finite"),
        (lambda: explore.chart(LINE, alt="x", mark=(1, NAN)), "mark must be finite"),
        (lambda: explore.chart(LINE, alt="x", mark=INF), "mark must be finite"),
        (lambda: explore.table(["a"], [[1, 2]]), "needs 1 cells"),
        (lambda: explore.beside(), "at least one frame"),
    ],
)
def test_wrong_input_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize(
    "added",
    [
        torch.tensor([[0.0, -INF], [0.0, 0.0]]),
        numpy.array([[0.0, -INF], [0.0, 0.0]]),
        [[0.0, -10000.0], [0.0, 0.0]],
        [[0, -1], [0, 0]],
        torch.eye(2),
    ],
)
@pytest.mark.parametrize("name", ["keep", "computed"])
def test_a_mask_that_is_added_to_scores_is_refused(name, added):
    masks = {"keep": torch.ones(2, 2, dtype=torch.bool)} | {name: added}
    with pytest.raises(TypeError, match=f"{name} must be bool"):
        explore.mask(**masks, alt="x")


def test_chart_places_points_on_its_scales():
    frame = explore.chart(
        {"a": ([1, 10, 100], [1, 10, 100])}, alt="x", logx=True, logy=True
    )
    (line,) = re.findall(r'stroke-width="2.5" d="M([^"]+)"', frame)
    xs, ys = zip(*(map(float, point.split()) for point in line.split("L")), strict=True)
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.1)
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.1)
    assert ys[0] > ys[2], "larger is higher on the page"


def test_chart_with_given_limits_keeps_its_ticks():
    def ticks(top):
        frame = explore.chart({"a": ([0, 1], [0, top])}, alt="x", ylim=(0, 10))
        return re.findall(r'text-anchor="end">([^<]+)<', frame)

    assert ticks(1) == ticks(9) == ["0", "2", "4", "6", "8", "10"]


def test_table_writes_whole_numbers_in_full_and_escapes():
    frame = explore.table(["n", "<b>"], [[1048576, 0.123456], ["a&b", True]])
    assert "1,048,576" in frame and "0.1235" in frame
    assert "&lt;b&gt;" in frame and "a&amp;b" in frame and "True" in frame


def test_frames_add_up_and_show_themselves():
    frame = explore.mask([[1]], alt="One pair.") + explore.caption("So it is.")
    assert isinstance(frame, explore.Frame)
    assert repr(frame) == "One pair. So it is."
    assert frame._repr_html_().endswith(str(frame))
    assert explore.beside(frame, frame).count("<svg") == 2


@pytest.fixture
def windows():
    return explore.explorer(
        lambda n, window: explore.mask(band(n, window), alt=f"{n} {window}"),
        label='Window & "band"',
        play=True,
        start={"window": 2},
        n=[4, 6],
        window=[0, 1, 2],
    )


def test_explorer_has_one_frame_for_each_combination(windows):
    shown = re.findall(r'<div class="attn-f"( hidden)?>', windows.markup)
    assert len(windows.frames) == len(shown) == 6
    assert [k for k, hidden in enumerate(shown) if not hidden] == [2]
    assert re.findall(r'aria-label="(\d \d)"', windows.markup) == [
        f"{n} {w}" for n in (4, 6) for w in (0, 1, 2)
    ]


def test_each_slider_keeps_its_keys_and_says_its_value(windows):
    sliders = re.findall(r'<input type="range"[^>]*>', windows.markup)
    assert len(sliders) == 2
    assert all('data-lm-suppress-shortcuts="true"' in slider for slider in sliders)
    assert ['max="1"' in sliders[0], 'max="2"' in sliders[1]] == [True, True]
    assert 'aria-valuetext="2"' in sliders[1] and 'value="2"' in sliders[1]


def inputs(**axis) -> str:
    markup = explore.explorer(lambda **_: "x", label="a", **axis).markup
    return re.search(r'<p class="attn-l">a</p>(.*)<p class="attn-note">', markup)[1]


@pytest.mark.parametrize(
    "values",
    [[1, 2, 64], [0.5, 1e-5], ["w = 1", "w = 1,024"], ["−1 step", "2 step"], ["all"]],
)
def test_numbers_have_a_slider(values):
    found = inputs(w=values)
    assert found.count('type="range"') == 1
    assert "radio" not in found and "<select" not in found


def test_a_few_kinds_have_buttons():
    found = inputs(kind=["window", "blocks <b>"], start={"kind": "blocks <b>"})
    assert found.count('type="radio"') == 2 and 'role="radiogroup"' in found
    assert re.findall(r'value="(\d)"( checked)?>([^<]*)<', found) == [
        ("0", "", "window"),
        ("1", " checked", "blocks &lt;b&gt;"),
    ]
    assert len(set(re.findall(r'name="([^"]*)"', found))) == 1


def test_two_axes_of_buttons_do_not_share_a_choice():
    found = inputs(one=["a", "b"], other=["a", "b"])
    assert len(set(re.findall(r'name="([^"]*)"', found))) == 2


@pytest.mark.parametrize("kinds", [list("abcde"), ["a" * 30, "b" * 30]])
def test_many_kinds_or_long_ones_have_a_menu(kinds):
    found = inputs(kind=kinds, start={"kind": kinds[1]})
    assert re.findall(r'<option value="(\d)" selected>', found) == ["1"]
    assert found.count("<option") == len(kinds) and "radio" not in found


def test_live_region_holds_no_picture(windows):
    live = re.findall(r'aria-live="polite">(.*?)</p>', windows.markup)
    assert live == [""]


def test_explorer_names_its_content(windows):
    assert repr(windows).startswith("Explorer('Window & \"band\"'; n: 2, window: 3; 6")
    same = explore.explorer(lambda w: f"<p>{w}</p>", label="a", w=[1, 2])
    again = explore.explorer(lambda w: f"<p>{w}</p>", label="a", w=[1, 2])
    other = explore.explorer(lambda w: f"<p>{w}!</p>", label="a", w=[1, 2])
    assert same.markup == again.markup
    assert repr(same) != repr(other)


def test_play_button_only_where_wanted(windows):
    assert "<button" in windows.markup
    still = explore.explorer(lambda w: "x", label="a", w=[1])
    assert "<button" not in still.markup


def test_axis_may_name_its_values():
    picked = []
    explorer = explore.explorer(
        lambda w: picked.append(w) or "x", label="a", w={"narrow": 1, "wide": 9}
    )
    assert picked == [1, 9]
    assert "narrow" in explorer.markup


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "at least one axis"),
        ({"w": []}, "'w'"),
        ({"w": [1], "start": {"w": 2}}, "w=2"),
    ],
)
def test_explorer_without_values_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        explore.explorer(lambda **_: "x", label="a", **options)


def test_live_calls_back_and_says_one_sentence():
    pytest.importorskip("ipywidgets")
    live = explore.live(lambda text, w: f"{text} {w}", text="hello", w=(1, 9))
    sentence = "Live controls (text, w): run this cell in Jupyter or Colab to use them."
    assert repr(live) == sentence
    bundle = live._repr_mimebundle_()
    assert bundle["text/plain"] == sentence
    assert "application/vnd.jupyter.widget-view+json" in bundle
    live.controls["w"].value = 7
    live.controls["text"].value = "bye"
    assert ">bye 7</p>" in live.widget.children[-1].value


def test_live_shows_plain_text_as_it_is():
    pytest.importorskip("ipywidgets")
    live = explore.live(lambda text: f"read: {text}", text="<img src=x onerror=f()>")
    shown = live.widget.children[-1].value
    assert "read: &lt;img src=x onerror=f()&gt;" in shown
    assert "<img" not in shown


def test_live_shows_pictures_frames_and_errors():
    pytest.importorskip("ipywidgets")
    plots = pytest.importorskip("attn_tutorial.pictures.plots")

    def answer(kind):
        if kind == "picture":
            return plots.bars({"a": 1}, title="t", ylabel="y", alt="one bar")
        if kind == "frame":
            return explore.mask([[1]], alt="one pair")
        raise ValueError("kind must be <known>")

    live = explore.live(answer, kind=["picture", "frame", "other"])
    shown = live.widget.children[-1]
    assert 'alt="one bar"' in shown.value and "base64" in shown.value
    live.controls["kind"].value = "frame"
    assert 'aria-label="one pair"' in shown.value
    live.controls["kind"].value = "other"
    assert "kind must be &lt;known&gt;" in shown.value


def test_live_without_widgets_still_says_its_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    live = explore.live(lambda w: "x", w=(1, 3))
    assert live._repr_mimebundle_() == {"text/plain": repr(live)}


def test_numpy_numbers_in_a_table():
    assert "0.5" in explore.table(["a"], [[numpy.float32(0.5)]])
