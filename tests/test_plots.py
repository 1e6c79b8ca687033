"""Figures: described, sharp, free of pyplot and of the reader's settings."""

import re
import struct
import subprocess
import sys

import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")

from attn_tutorial.pictures import plots  # noqa: E402


def band(n, window):
    i = torch.arange(n)
    return (i[:, None] - i).abs() <= window


MAKERS = {
    "lines": lambda: plots.lines(
        {"a": ([1, 2, 3], [1, 4, 9]), "b": (torch.arange(1, 4), torch.arange(1, 4))},
        title="Squares leave lines behind",
        xlabel="x",
        ylabel="y",
        alt="alt",
        logx=True,
        logy=True,
        marks=[(1, 1, "start"), 2],
    ),
    "bars": lambda: plots.bars({"a": 1, "b": 2.5}, title="t", ylabel="y", alt="alt"),
    "heatmap": lambda: plots.heatmap(
        torch.eye(3, requires_grad=True), title="t", alt="alt", rows="abc", cols="abc"
    ),
    "masks": lambda: plots.masks(
        {"one": band(6, 1), "two": band(6, 2).numpy()}, title="t", alt="alt"
    ),
    "tile": lambda: plots.tile(band(12, 2), (4, 8), (2, 10), title="t", alt="alt"),
}


@pytest.fixture(params=MAKERS, scope="module")
def made(request):
    return MAKERS[request.param]()


def test_repr_is_the_description(made):
    assert isinstance(made, plots.Picture)
    assert repr(made) == made.alt == "alt"


def test_png_is_twice_as_fine_as_it_is_shown(made):
    png, size = made._repr_png_()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width == 2 * size["width"]
    assert abs(height - 2 * size["height"]) <= 1


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_same_figure_gives_same_bytes(make):
    assert make()._repr_png_()[0] == make()._repr_png_()[0]


def test_text_is_large_enough(made):
    made._repr_png_()
    for axes in made.axes:
        words = [axes.title, axes.xaxis.label, *axes.get_xticklabels()]
        assert all(word.get_fontsize() >= 10 for word in words if word.get_text())


def test_empty_description_is_refused():
    with pytest.raises(ValueError, match="alt"):
        plots.picture(" ")


def test_picture_gives_the_axes_asked_for():
    figure, axes = plots.picture("two by three", rows=2, cols=3)
    assert axes.shape == (2, 3)
    assert len(figure.axes) == 6


def test_masks_colour_each_kept_pair():
    figure = plots.masks({"band": band(7, 2)}, title="t", alt="alt")
    cells = figure.axes[0].collections[0].get_array()
    assert int(cells.sum()) == int(band(7, 2).sum())


def test_masks_stand_in_rows_and_nothing_where_there_is_none():
    three = {f"w = {w}": band(6, w) for w in range(3)}
    figure = plots.masks(three, title="t", alt="alt", cols=2)
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols, len(figure.axes)) == (2, 2, 4)
    assert [axes.get_title() for axes in figure.axes] == [*three, ""]
    drawn = [int(axes.collections[0].get_array().sum()) for axes in figure.axes[:3]]
    assert drawn == [int(keep.sum()) for keep in three.values()]
    assert [axes.axison for axes in figure.axes] == [True] * 3 + [False]
    one = plots.masks(three, title="t", alt="alt", cols=7)
    assert one.axes[0].get_gridspec().ncols == 3
    tall, low = (f.get_size_inches()[1] for f in (figure, one))
    assert tall > 2 * low - 1


def test_narrow_masks_have_fewer_numbers():
    def numbers(cols):
        many = {str(k): band(24, 1) for k in range(cols)}
        place = plots.masks(many, title="t", alt="alt").axes[0]
        return [tick.get_text() for tick in place.get_xticklabels()]

    assert numbers(2) == ["0", "4", "8", "12", "16", "20"]
    assert numbers(3) == ["0", "8", "16"]


def test_names_below_lie_on_no_curve():
    curves = {"rises": ([0, 1], [0, 1]), "falls": ([0, 1], [1, 0])}
    words = {"title": "t", "xlabel": "x", "ylabel": "y", "alt": "alt"}
    figure = plots.lines(curves, below=True, **words)
    figure._repr_png_()
    assert figure.axes[0].get_legend() is None
    (names,) = figure.legends
    bottom = figure.axes[0].get_tightbbox().y0
    assert names.get_window_extent().y1 <= bottom


def test_long_numbers_on_a_logarithmic_axis_are_powers():
    def ticks(last):
        words = {"title": "t", "xlabel": "x", "ylabel": "y", "alt": "alt"}
        curve = {"one": ([last / 100, last], [1, 2])}
        return plots.lines(curve, logx=True, **words)._repr_svg_()

    assert ">500</text>" in ticks(1000) and ">50,000</text>" not in ticks(100_000)


def test_tile_tells_kept_from_wasted():
    figure = plots.tile(band(12, 2), (4, 8), (2, 10), title="t", alt="alt")
    shade = figure.axes[0].collections[0].get_array()
    assert int((shade == 3).sum()) == int(band(12, 2)[4:8].sum())
    assert int((shade >= 2).sum()) == 4 * 8


def test_bars_have_the_heights_given():
    figure = plots.bars({"a": 1, "b": 2.5}, title="t", ylabel="y", alt="alt")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 2.5]


def test_long_title_runs_over_several_lines():
    figure, axes = plots.picture("alt")
    axes.set_title("word " * 30)
    figure._repr_png_()
    assert "\n" in axes.title.get_text()


def test_reader_settings_do_not_change_the_picture():
    plain = MAKERS["bars"]()._repr_png_()[0]
    with matplotlib.rc_context({"figure.facecolor": "red", "font.size": 30}):
        assert MAKERS["bars"]()._repr_png_()[0] == plain


def test_reader_font_writes_the_tokens_of_a_heatmap():
    with matplotlib.rc_context({"font.family": ["DejaVu Serif"]}):
        figure = MAKERS["heatmap"]()
        figure._repr_png_()
        plain = MAKERS["bars"]()
        serif = figure._repr_png_()[0]
    (axes, _) = figure.axes
    for token in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        assert token.get_fontfamily()[0] == "DejaVu Serif"
    assert axes.xaxis.label.get_fontfamily()[0] == "DejaVu Sans"
    assert "DejaVu Serif" in plain.axes[0].title.get_fontfamily(), "for letters we lack"
    assert serif != MAKERS["heatmap"]()._repr_png_()[0]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "matrix, ends, message",
    [
        ([[0, NAN]], {}, "matrix must be finite, got nan at [0, 1]"),
        ([[-INF]], {}, "matrix must be finite, got -inf at [0, 0]"),
        ([[0, 1]], {"vmin": 1, "vmax": 0}, "vmin, vmax must be finite"),
        ([[0, 1]], {"vmin": 1, "vmax": 1}, "vmin, vmax must be finite"),
        ([[0, 1]], {"vmax": NAN}, "vmin, vmax must be finite"),
        ([[0, 1]], {"vmin": 2}, "vmin=2, vmax=None leave out all of matrix, 0 to 1"),
        ([0, 1], {}, "matrix must be a matrix"),
    ],
)
def test_a_heatmap_of_what_has_no_shade_is_refused(matrix, ends, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plots.heatmap(matrix, title="t", alt="alt", **ends)


def test_a_heatmap_may_fix_one_end():
    plots.heatmap([[0.0, 0.0]], title="t", alt="alt", vmin=0)._repr_png_()


def test_a_mask_that_is_added_to_scores_is_refused():
    added = torch.zeros(3, 3).masked_fill(~band(3, 1), -INF)
    with pytest.raises(TypeError, match="band must be bool"):
        plots.masks({"band": added}, title="t", alt="alt")
    with pytest.raises(TypeError, match="keep must be bool"):
        plots.tile(added, (0, 1), (0, 2), title="t", alt="alt")


def test_no_pyplot_is_imported():
    code = (
        "import sys, attn_tutorial.pictures.plots as p;"
        "p.bars({'a': 1}, title='t', ylabel='y', alt='a')._repr_png_();"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_notebook_stores_image_and_description_only():
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    cell = "from attn_tutorial.pictures import plots\n"
    cell += "plots.bars({'a': 1}, title='t', ylabel='y', alt='One bar.')"
    pyplot = "import matplotlib.pyplot as plt; plt.figure(); None"
    cells = [nbformat.v4.new_code_cell(source) for source in (cell, pyplot, cell)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client.NotebookClient(notebook, kernel_name="python3").execute()
    for drawn in (notebook.cells[0], notebook.cells[2]):
        (output,) = drawn.outputs
        assert set(output.data) == {"image/svg+xml", "image/png", "text/plain"}
        assert output.data["text/plain"] == "One bar."
        assert 'aria-label="One bar."' in output.data["image/svg+xml"]
        assert output.metadata["image/png"]["width"] == 576
