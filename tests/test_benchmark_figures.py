"""Figures of records say where they come from, and show what the records hold."""

import pytest
from made_up_records import entry, limits
from matplotlib.colors import to_hex

from attn_tutorial.benchmark import Case, Plan, Record, Records, figures
from attn_tutorial.benchmark import here as live
from attn_tutorial.pictures import plots

LENGTHS = (512, 1024, 2048)


PROVENANCE = {
    "device": {"kind": "cpu", "name": "Abacus", "memory_bytes": 1, "units": 1},
    "clock": "processor",
    "threads": 1,
    "torch": "2.13.0",
    "revision": "0123456789",
    "date": "2026-11-23T12:00:00+00:00",
}


def record(name, factor):
    """A run in which tiled takes n, and full attention n^2 / 1000, microseconds."""
    cases = []
    for n in LENGTHS:
        times = {"tiled": factor * n * 1e-6, "sdpa full": factor * n * n * 1e-9}
        cases.append(entry(Case("local", n, 64), times, product=1.0))
    ceilings = {"float32": limits(product=1.0, copy=10.0)}
    data = {"provenance": PROVENANCE, "ceilings": ceilings, "cases": cases}
    return Record(name, data)


@pytest.fixture
def records():
    return Records([record("a", 1.0), record("b", 2.0), record("c", 1.5)])


CASE = Case("local", 512, 64)
NAMES = ("tiled", "sdpa full", "natten")


def drawn(records, **more):
    return figures.against(records, CASE, NAMES, title="T", alt="A", **more)


def labels(picture):
    return [text.get_text() for text in picture.axes[0].get_legend().get_texts()]


def test_a_figure_draws_medians_over_runs_and_leaves_out_who_did_not_run(records):
    axes = drawn(records).axes[0]
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == list(LENGTHS)
    assert list(line.get_ydata()) == pytest.approx([1.5e-6 * n for n in LENGTHS])
    assert labels(drawn(records)) == ["tiles (this book)", "full attention"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_bars_span_the_lowest_and_the_highest_run(records):
    bar = drawn(records).axes[0].containers[0].lines[2][0].get_segments()[0]
    assert [y for _, y in bar] == pytest.approx([512e-6, 1024e-6])


def test_every_figure_prints_its_source(records):
    roof = figures.roofline(records, {"tiled": [(1, 2)]}, title="T", alt="A")
    for picture in (drawn(records), roof):
        text = " ".join(picture._supxlabel.get_text().split())
        assert records.source in text and "Abacus" in text and "float32" in text
        assert picture._supxlabel.get_fontsize() >= 10
        assert repr(picture) == "A"
        picture._repr_png_()


def test_a_level_is_named(records):
    assert "far" in labels(drawn(records, levels={"far": 1.0}))


def test_nothing_to_draw_is_an_error(records):
    with pytest.raises(LookupError, match="no peak_bytes over n"):
        drawn(records, value="peak_bytes")


def test_own_times_are_rings_in_the_contender_s_colour(records):
    mine = Records([record("here", 4.0)])
    picture = figures.overlay(drawn(records), mine, CASE, NAMES[:2])
    ring = picture.axes[0].lines[-1]
    assert "full attention, here" in labels(picture)
    assert to_hex(ring.get_markerfacecolor()) == "#ffffff"
    assert ring.get_color() == plots.COLORS["vermillion"]
    assert list(ring.get_ydata()) == pytest.approx([4e-9 * n * n for n in LENGTHS])


def test_the_roof_is_the_lower_of_the_two_ceilings(records):
    picture = figures.roofline(records, {"x": [(1, 2), (50, 3)]}, title="T", alt="A")
    x, y = picture.axes[0].lines[0].get_data()
    rate, bandwidth = 1e9, 1e8
    assert list(y) == pytest.approx([min(rate, bandwidth * at) for at in x])
    assert x[0] < 1 and x[1] == pytest.approx(rate / bandwidth) and x[2] > 50


def test_contenders_of_a_figure_look_different():
    looks = [tuple(map(str, figures.look(n).values())) for n in list(figures.NAMES)[:8]]
    assert len(set(looks)) == len(looks)


def test_cases_can_be_measured_here():
    plans = [
        Plan(Case("local", n, 4, heads=1, d=8), contenders=("tiled",)) for n in (9, 17)
    ]
    mine = live.here(plans, rounds=2, budget=0)
    line = mine.series("tiled", plans[0].case)
    assert list(line) == [9, 17] and all(spread.low > 0 for spread in line.values())
    assert "1 run on" in mine.source
