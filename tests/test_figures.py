"""Figures as SVG: of the palette, of text, with nothing that depends on where it is."""

import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy
import pytest
import torch
from conftest import ROOT

matplotlib = pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402
from test_plots import MAKERS, band  # noqa: E402

from attn_tutorial.pictures import plots  # noqa: E402
from attn_tutorial.pictures.style import COLORS  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
QUIET = "#595959"  # what stands below a figure
SHEET = (ROOT / "book/_assets/figures.css").read_text(encoding="utf-8")


def drawn(figure) -> ElementTree.Element:
    return ElementTree.fromstring(figure._repr_svg_())


def parts(figure, kind: str) -> list[ElementTree.Element]:
    return list(drawn(figure).iter(SVG + kind))


def words(figure) -> dict[str, ElementTree.Element]:
    return {"".join(text.itertext()): text for text in parts(figure, "text")}


def colours(svg: str) -> set[str]:
    return set(re.findall(r'(?:fill|stroke|color)="([^"]*)"', svg)) - {"none"}


def plotted(**axes_options):
    figure, axes = plots.picture("alt")
    axes.set(**axes_options)
    return figure, axes


@pytest.fixture(params=MAKERS, scope="module")
def made(request):
    return MAKERS[request.param]()


def test_a_figure_is_one_described_element_without_names(made):
    root = drawn(made)
    assert (root.get("role"), root.get("aria-label")) == ("img", "alt")
    assert (root.get("width"), made._repr_png_()[1]["width"]) == ("576", 576)
    for element in root.iter():
        assert "id" not in element.attrib
        assert element.tag.removeprefix(SVG) in {
            "svg",
            "path",
            "text",
            "tspan",
            "image",
        }


def test_where_no_page_gives_a_ground_a_figure_stands_on_white(made):
    first = next(drawn(made).iter(SVG + "path"))
    assert first.get("fill") == COLORS["white"]
    corners = points(first.get("d"))
    size = [72 * side for side in made.get_size_inches()]
    assert corners.min(0).tolist() == [0, 0]
    assert corners.max(0).tolist() == pytest.approx(size, abs=0.1)


def test_only_the_palette_gives_colours(made):
    assert colours(made._repr_svg_()) <= set(COLORS.values())


def test_the_same_figure_gives_the_same_svg(made):
    again = made._repr_svg_()
    assert made._repr_svg_() == again
    assert "nan" not in again.lower().replace("nana", "")


@pytest.mark.parametrize("maker", ["bars", "masks"])
def test_a_reader_s_settings_change_nothing(maker):
    plain = MAKERS[maker]()._repr_svg_()
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 30}):
        assert MAKERS[maker]()._repr_svg_() == plain


def test_a_figure_can_still_be_drawn_as_an_image():
    figure = MAKERS["lines"]()
    before = figure._repr_png_()[0]
    figure._repr_svg_()
    assert figure._repr_png_()[0] == before


# Text.


def test_text_is_text_and_stays_in_place_in_other_letters():
    figure, axes = plotted(title="A finding", xlabel="key j", ylabel="query i")
    axes.set_xticks([0, 1], ["first", "last"])
    found = words(figure)
    middle = [
        found[name].get("text-anchor") for name in ("A finding", "key j", "first")
    ]
    assert middle == ["middle"] * 3
    left, low, right, high = (figure.axes[0].get_position().extents).tolist()
    assert float(found["A finding"].get("x")) == pytest.approx(
        216 * (left + right), abs=2
    )
    turn = re.fullmatch(r"rotate\(-90 (\S+) (\S+)\)", found["query i"].get("transform"))
    height = 72 * figure.get_size_inches()[1]
    assert float(turn[2]) == pytest.approx(height * (1 - (low + high) / 2), abs=2)


def test_each_line_of_a_title_is_centred():
    figure, axes = plots.picture("alt")
    axes.set_title("a long title " * 9)
    lines = [t for s, t in words(figure).items() if "title" in s]
    assert len(lines) > 1
    assert {t.get("text-anchor") for t in lines} == {"middle"}
    places = [float(t.get("x")) for t in lines]
    assert max(places) - min(places) < 1


def test_a_turned_name_ends_at_its_axis():
    figure, axes = plots.picture("alt")
    axes.set_xticks([0, 1], ["upright", "too"], rotation=90)
    assert words(figure)["upright"].get("text-anchor") == "end"


def test_powers_are_text():
    figure, _ = plotted(xscale="log", xlim=(1, 1e8))
    assert "104" in words(figure), "10 to the 4"
    (power,) = words(figure)["104"].iter(SVG + "tspan")
    assert power.text == "4" and power.get("dy").startswith("-")


def test_other_formulas_are_outlines():
    figure, axes = plots.picture("alt")
    without = len(parts(figure, "path"))
    axes.set_title(r"$\sum_j p_j v_j$")
    assert not any("sum" in text for text in words(figure))
    assert len(parts(figure, "path")) > without


def test_signs_of_markup_are_escaped():
    figure, axes = plots.picture('less & "more"')
    axes.set_title("a < b & c")
    assert "a < b & c" in words(figure)
    assert drawn(figure).get("aria-label") == 'less & "more"'


# Lines, markers, areas.


def points(path: str) -> numpy.ndarray:
    return numpy.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)


def of_colour(figure, name: str, attribute: str = "stroke"):
    return [p for p in parts(figure, "path") if p.get(attribute) == COLORS[name]]


def test_a_line_ends_where_its_axes_end():
    figure, axes = plotted(xlim=(0, 1), ylim=(0, 1))
    axes.plot([-5, 5], [0.5, 0.5], color=COLORS["blue"])
    figure._repr_svg_()
    x = points(of_colour(figure, "blue")[0].get("d"))[:, 0]
    left, _, right, _ = figure.axes[0].get_position().extents
    assert (x.min(), x.max()) == pytest.approx((432 * left, 432 * right), abs=2)


def test_a_gap_in_a_line_stays_a_gap():
    figure, axes = plots.picture("alt")
    axes.plot([0, 1, 2, 3, 4], [1, 2, math.nan, 2, 1], color=COLORS["blue"])
    assert of_colour(figure, "blue")[0].get("d").count("M") == 2


def test_an_area_is_cut_off_at_its_axes():
    figure, axes = plotted(xlim=(0, 1), ylim=(0, 1))
    axes.fill_between([0, 1], [0, 0], [9, 9], color=COLORS["green"], alpha=0.25)
    (area,) = of_colour(figure, "green", "fill")
    assert area.get("fill-opacity") == "0.25"
    (window,) = [s for s in parts(figure, "svg") if s.get("x")]
    assert area in list(window) or area.attrib in [p.attrib for p in window]
    heights = points(area.get("d"))[:, 1]
    assert heights.max() - heights.min() > float(window.get("height")), "it is cut off"


def test_each_point_has_its_marker():
    figure, axes = plotted(xlim=(0, 5), ylim=(0, 5))
    axes.plot([1, 2, 3, 9], [1, 2, 3, 3], "s", color=COLORS["orange"])
    (markers,) = of_colour(figure, "orange", "fill")
    assert markers.get("d").count("M") == 3, "the fourth lies outside"
    shapes = {
        re.sub(r"^\S+ \S+?(?=m)", "", one) for one in markers.get("d").split("M")[1:]
    }
    assert len(shapes) == 1, "one shape, wherever it stands"


def test_dashes_and_widths_are_those_of_the_line():
    figure, axes = plots.picture("alt")
    axes.plot(
        [0, 1], [0, 1], color=COLORS["purple"], linestyle=(0, (5, 1)), linewidth=2
    )
    (line,) = of_colour(figure, "purple")
    assert (line.get("stroke-width"), line.get("stroke-dasharray")) == ("2", "10 2")


# Grids and images.


def cell_count(paths) -> int:
    count = 0
    for path in paths:
        cell, gap = map(float, path.get("stroke-dasharray").split())
        lengths = map(float, re.findall(r"h([\d.]+)", path.get("d")))
        count += sum(round((length + gap) / (cell + gap)) for length in lengths)
    return count


@pytest.mark.parametrize("n, window", [(7, 2), (24, 3)])
def test_a_mask_is_a_dash_for_each_pair(n, window):
    figure = plots.masks({"band": band(n, window)}, title="t", alt="alt")
    grid = [p for p in parts(figure, "path") if p.get("stroke-dasharray")]
    kept = [p for p in grid if p.get("stroke") == COLORS["blue"]]
    assert cell_count(kept) == int(band(n, window).sum())
    assert cell_count(grid) == n * n


def test_the_first_row_of_a_mask_is_on_top():
    keep = torch.zeros(4, 4, dtype=torch.bool)
    keep[0, 3] = True
    figure = plots.masks({"corner": keep}, title="t", alt="alt")
    (kept,) = of_colour(figure, "blue")
    (rest,) = [p for p in of_colour(figure, "pale") if p.get("stroke-dasharray")]
    starts = [
        tuple(map(float, s)) for s in re.findall(r"M(\S+) (\S+?)h", rest.get("d"))
    ]
    x, y = map(float, re.match(r"M(\S+) (\S+?)h", kept.get("d")).groups())
    assert y == min(b for _, b in starts) and x > max(a for a, _ in starts)


def embedded(image) -> numpy.ndarray:
    data = image.get("href").removeprefix("data:image/png;base64,")
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_heatmap_is_a_pixel_a_cell_and_stays_sharp():
    matrix = torch.zeros(5, 3)
    matrix[0, 2] = 1
    figure = plots.heatmap(matrix, title="t", alt="alt")
    image = next(i for i in parts(figure, "image") if embedded(i).shape == (5, 3, 3))
    assert image.get("style") == "image-rendering:pixelated"
    bright = embedded(image).sum(-1)
    assert bright.argmax() == 2, "the first row is on top"
    wide, high = float(image.get("width")), float(image.get("height"))
    assert wide / high == pytest.approx(3 / 5, abs=0.02)


def test_a_scale_is_an_image_too():
    figure = plots.heatmap(torch.eye(3), title="t", alt="alt")
    (scale,) = [i for i in parts(figure, "image") if embedded(i).shape[1] == 1]
    shades = embedded(scale)[:, 0].sum(-1)
    assert shades[0] > shades[-1], "bright on top"


# The style sheet.


def sheet_colours(theme: str) -> dict[str, str]:
    """Colours of the parts in a theme, of the page and of its figures."""
    found = {}
    for name in ("type.css", "figures.css"):
        sheet = (ROOT / "book/_assets" / name).read_text(encoding="utf-8")
        sheet = sheet.partition("@media print")[0]
        for selector, rules in re.findall(r"([^{}]+)\{([^{}]*)\}", sheet):
            of_dark = "dark" in selector and ":not" not in selector
            of_light = ":not" in selector
            if "html" in selector and not (of_light if theme == "dark" else of_dark):
                found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rules))
    return found


def brightness(code: str) -> float:
    def linear(x):
        return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(code[k : k + 2], 16) / 255) for k in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(brightness, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("attribute", ["fill", "stroke"])
@pytest.mark.parametrize("colour", [*COLORS.values(), QUIET])
def test_a_page_has_a_rule_for_each_colour(colour, attribute):
    rule = re.escape(f'.attn-fig [{attribute}="{colour}"]') + r" \{ (\w+): var\(--\w+\)"
    assert re.search(rule, SHEET)[1] == attribute


@pytest.mark.parametrize("size", [plots.TITLE, plots.LABEL, plots.TICK])
def test_a_page_has_letters_of_twelve_pixels_on_a_phone(size):
    rule = re.escape(f'[font-size="{size}"]') + r"[^{]*\{ font-size: (\S+)px; \}"
    assert float(re.search(rule, SHEET)[1]) * 390 / (72 * 6) >= 12


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_drawn_is_seen_on_the_page_s_ground(theme):
    found = sheet_colours(theme)
    curves = ("blue", "vermillion", "green", "purple", "orange", "sky", "grey")
    low = {n: contrast(found[n], found["paper"]) for n in curves}
    assert min(low.values()) >= 3, low
    assert contrast(found["ink"], found["paper"]) >= 7
    assert contrast(found["quiet"], found["paper"]) >= 4.5
    assert 1.1 < contrast(found["pale"], found["paper"]) < 1.6, "a grid stays behind"
    assert len({found[n] for n in curves}) == len(curves)
