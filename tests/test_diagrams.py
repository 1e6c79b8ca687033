"""Diagrams: valid pictures that fit their page, and numbers that are true."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from attn_tutorial import cost, patterns
from attn_tutorial.backends.halo import plan_halo
from attn_tutorial.cache import RollingCache
from attn_tutorial.dense import attention, attention_weights
from attn_tutorial.online import online_attention
from attn_tutorial.patterns import dense_mask
from attn_tutorial.pictures import diagrams
from attn_tutorial.pictures.style import COLORS, KEPT, WASTED
from attn_tutorial.pictures.svg import CHARACTER, FONT, Frame

NAME = "{http://www.w3.org/2000/svg}"
FULL, WINDOW = patterns.full(), patterns.local(64)


def traffic(n=1024, d=64):
    """Three programs' bytes: scores written and read, weights written and read."""
    scores = 4 * cost.score_bytes(FULL, n)
    inputs = "Q, K, V, output"
    return {
        "plain": {inputs: cost.io_bytes(n, d), "scores, weights": scores},
        "in tiles": {inputs: cost.tile_bytes(FULL, n, d, 128, 64)},
        "window in tiles": {inputs: cost.tile_bytes(WINDOW, n, d, 128, 64)},
    }


def layers(lengths=(512, 2048, 8192, 32768), d_model=512):
    names, costs = ("attention", "projections", "MLP"), {}
    for n in lengths:
        flops = cost.layer_flops(FULL, n, d_model)
        costs[f"n = {n:,}"] = dict(zip(names, flops, strict=True))
    return costs


GERMAN = {
    "inputs": ["Press", "the", "key", "F5", "now"],
    "outputs": ["Drücken", "Sie", "jetzt", "die", "Taste", "F5"],
    "links": [(0, 0), (1, 0), (2, 4), (3, 1), (4, 2), (5, 3)],
    "query": 2,
    "met": [1, 2, 3],
    "title": "A window of 1 misses the word",
}
LENGTHS = [512, 1024, 2048]
GROWTH = {
    "lengths": LENGTHS,
    "curves": {
        "every pair": [n * n for n in LENGTHS],
        "window of 64": [cost.kept_pairs(WINDOW, n) for n in LENGTHS],
    },
    "title": "Slope 2 becomes slope 1",
    "unit": "pairs",
}
MAPS = {
    "maps": {
        "every pair": dense_mask(FULL, 12),
        "window of 2": dense_mask(patterns.local(2), 12),
    },
    "title": "A window keeps a band",
}
READINGS = {
    "readings": {"4 keys": (7, 10), "4 to each side": (6, 14)},
    "n": 18,
    "query": 10,
    "title": "Which keys?",
}
STEPS = {"rows": [["config"], ["eager", "tiles"], ["logits"]], "title": "Two ways"}
THREE = ((0.5, -1), (1, 2), (-1, 0.25))
CASES = [
    ("connectivity", {}),
    ("connectivity", {"n": 12, "window": 3, "block_size": 4, "query": 0}),
    ("connectivity", {"n": 8, "columns": 5, "kernel": 5, "query": 7}),
    ("connectivity", {"n": 3, "columns": 1, "query": 1}),
    ("attention_steps", {}),
    (
        "attention_steps",
        {"x": THREE, "w_v": ((1, 0, 2), (0, 1, 1)), "names": "abc", "query": 0},
    ),
    (
        "attention_steps",
        {
            "x": ((1, 0, 1), (0, 1, 0)),
            "w_q": ((1,), (0,), (1,)),
            "w_k": ((1,), (1,), (0,)),
            "w_v": ((1,), (2,), (3,)),
            "names": ("I", "am"),
            "query": 1,
        },
    ),
    ("attention_heads", {}),
    ("attention_heads", {"heads": 6, "d_model": 768, "n": 8}),
    ("attention_heads", {"heads": 1, "d_model": 16}),
    ("transformer_block", {}),
    ("transformer_block", {"d_model": 12288, "heads": 96, "layers": 1}),
    *[("online_softmax", {"step": k}) for k in range(6)],
    ("online_softmax", {"scores": [3, -1, 2.5, 3.5, 9, 1, 0, 9], "values": range(8)}),
    ("online_softmax", {"chunk": 2, "step": 2}),
    ("rectangle_and_band", {}),
    ("rectangle_and_band", {"n": 16, "windows": (8, 15)}),
    ("rectangle_and_band", {"n": 5, "windows": (3, 4)}),
    ("tile_and_run", {}),
    ("tile_and_run", {"n": 32, "window": 8, "tile": 8, "index": 0}),
    ("tile_and_run", {"n": 10, "window": 1, "tile": 4, "index": 2}),
    ("tile_and_run", {"n": 4, "window": 0, "tile": 1, "index": 3}),
    ("window_over_blocks", {}),
    ("window_over_blocks", {"n": 48, "window": 8, "rows": 16, "columns": 8}),
    ("window_over_blocks", {"n": 10, "window": 2, "rows": 4, "columns": 3}),
    ("reach_and_influence", {}),
    ("reach_and_influence", {"window": 4, "layers": 5, "beside": 0}),
    ("reach_and_influence", {"window": 1, "layers": 1}),
    ("halo_exchange", {}),
    ("halo_exchange", {"shards": (5, 5, 5, 5), "window": 2}),
    ("halo_exchange", {"shards": (4, 7), "window": 4}),
    ("rolling_cache", {}),
    ("rolling_cache", {"slots": 12, "tokens": 99}),
    ("rolling_cache", {"slots": 3, "tokens": 0}),
    ("rolling_cache", {"slots": 8, "tokens": 5}),
    ("two_memories", {"traffic": traffic()}),
    ("layer_shares", {"costs": layers()}),
    ("application", GERMAN),
    ("application", GERMAN | {"query": 4, "met": range(5), "writes": "German"}),
    ("application", GERMAN | {"inputs": list("abcdefghij"), "met": []}),
    ("small_maps", MAPS),
    ("small_maps", {"maps": {"a": [[0.2, 1]], "b": [[1]] * 9}, "title": "Shades"}),
    ("one_query", READINGS),
    ("one_query", READINGS | {"needed": 6}),
    ("one_query", READINGS | {"readings": {"a": (0, 1)}, "n": 2, "query": 0}),
    ("two_paths", {}),
    ("two_paths", {"n": 12}),
    ("weighted_average", {"words": list("abc"), "scores": [1, 2, 0], "asked": "it"}),
    ("flow", STEPS),
    ("flow", STEPS | {"stressed": ["logits"], "both": True}),
    (
        "amounts",
        {"values": {"a": 1, "b": 99_999}, "title": "Two amounts", "unit": "pairs"},
    ),
    ("growth", GROWTH),
    ("covered_share", {"weights": [4, 3, 2, 1, 0, 0], "window": 1, "title": "Near"}),
    ("covered_share", {"weights": [1] * 40, "window": 9, "title": "Far"}),
]
IDS = [f"{name}-{k}" for k, (name, _) in enumerate(CASES)]
every_case = pytest.mark.parametrize("name, options", CASES, ids=IDS)


def draw(name, options):
    return getattr(diagrams, name)(**options)


def parse(frame):
    return ElementTree.fromstring(str(frame))


def texts(frame):
    return ["".join(text.itertext()) for text in parse(frame).iter(f"{NAME}text")]


def size_of(frame):
    return [float(x) for x in parse(frame).get("viewBox").split()[2:]]


# Where things lie on the page.


def placed(element, x=0.0, y=0.0):
    """Every part with how far its groups are moved."""
    for child in element:
        move = re.fullmatch(r"translate\((\S+) (\S+)\)", child.get("transform", ""))
        right, down = map(float, move.groups()) if move else (0.0, 0.0)
        yield child, x + right, y + down
        yield from placed(child, x + right, y + down)


def text_box(text, x, y):
    """Estimated left, top, right and bottom of a text, as wide as it may be."""
    size = float(text.get("font-size", FONT))
    bold = 1.06 if text.get("font-weight") else 1.0
    width = CHARACTER * size / FONT * len("".join(text.itertext())) * bold
    start = {"start": 0, "middle": -width / 2, "end": -width}[text.get("text-anchor")]
    x, y = x + float(text.get("x")), y + float(text.get("y"))
    if text.get("transform"):
        return x - 0.8 * size, y - start - width, x + 0.2 * size, y - start
    return x + start, y - 0.8 * size, x + start + width, y + 0.2 * size


def path_points(path):
    """Corners of a path, of the commands that diagrams use."""
    x = y = 0.0
    for command, given in re.findall(r"([MLHVhvCAz])([^MLHVhvCAz]*)", path):
        numbers = [float(t) for t in re.findall(r"-?[\d.]+", given)]
        if command in "MLCA":
            x, y = numbers[-2:]
        elif command in "Hh":
            x = numbers[0] + (x if command == "h" else 0)
        elif command in "Vv":
            y = numbers[0] + (y if command == "v" else 0)
        yield x, y


def shape_box(shape, x, y):
    kind, get = shape.tag.removeprefix(NAME), lambda name: float(shape.get(name))
    if kind == "rect":
        left, top = x + get("x"), y + get("y")
        return left, top, left + get("width"), top + get("height")
    if kind == "circle":
        left, top, r = x + get("cx"), y + get("cy"), get("r")
        return left - r, top - r, left + r, top + r
    if kind == "path":
        points = list(path_points(shape.get("d")))
        xs, ys = zip(*points, strict=True)
        return x + min(xs), y + min(ys), x + max(xs), y + max(ys)
    return None


@every_case
def test_a_diagram_is_xml_with_a_description(name, options):
    frame = draw(name, options)
    svg = parse(frame)
    assert isinstance(frame, Frame)
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == frame.alt == repr(frame)
    assert len(frame.alt) > 40 and frame.alt[-1] == "."


@every_case
def test_nothing_depends_on_anything_but_the_arguments(name, options):
    assert str(draw(name, options)) == str(draw(name, options))


@every_case
def test_only_the_palette_and_the_page_give_colours(name, options):
    frame = draw(name, options)
    inks = set(re.findall(r'(?:fill|stroke)="([^"]*)"', frame))
    assert inks <= {*COLORS.values(), "currentColor", "none"}
    assert not re.search(r"(fill|stroke|color):|#[0-9a-f]{3}\b|rgb|url\(", frame)


@every_case
def test_a_diagram_may_stand_on_a_page_twice(name, options):
    assert not re.search(r"\bid=|<style|<defs", draw(name, options))


@every_case
def test_no_text_leaves_the_page(name, options):
    frame = draw(name, options)
    width, height = size_of(frame)
    for text, x, y in placed(parse(frame)):
        if text.tag == f"{NAME}text":
            left, top, right, bottom = text_box(text, x, y)
            words = "".join(text.itertext())
            assert left >= 0 and right <= width, (words, left, right)
            assert top >= 0 and bottom <= height, (words, top, bottom)


@every_case
def test_no_text_lies_on_another(name, options):
    boxes = [
        ("".join(text.itertext()), *text_box(text, x, y))
        for text, x, y in placed(parse(draw(name, options)))
        if text.tag == f"{NAME}text"
    ]
    for (a, *one), (b, *other) in itertools.combinations(boxes, 2):
        across = min(one[2], other[2]) - max(one[0], other[0])
        down = min(one[3], other[3]) - max(one[1], other[1])
        assert across <= 1 or down <= 1, (a, b)


@every_case
def test_no_shape_leaves_the_page(name, options):
    frame = draw(name, options)
    width, height = size_of(frame)
    for shape, x, y in placed(parse(frame)):
        if found := shape_box(shape, x, y):
            left, top, right, bottom = found
            assert left >= 0 and right <= width, (shape.attrib, found)
            assert top >= 0 and bottom <= height, (shape.attrib, found)


@every_case
def test_text_is_12_pixels_high_in_a_column_of_340(name, options):
    frame = draw(name, options)
    width, _ = size_of(frame)
    sizes = [float(s) for s in re.findall(r'font-size="([\d.]+)"', frame)]
    if options.get("columns", 2) <= 2:
        assert min(sizes) * min(340 / width, 1.25) >= 12


# What is drawn and said, against the package and by hand.


def filled(frame, ink, shape="circle"):
    """Parts that are wholly in one colour."""
    return [
        part
        for part in parse(frame).iter(f"{NAME}{shape}")
        if part.get("fill") == ink and part.get("fill-opacity") == "1"
    ]


def cells_of(frame, ink):
    """Number of cells in one colour: a run is as many long as it is wide."""
    count = 0
    for path in parse(frame).iter(f"{NAME}path"):
        dash = path.get("stroke-dasharray")
        if path.get("stroke") != ink or not dash or float(dash.split()[0]) < 5:
            continue
        if path.get("stroke-width") != dash.split()[0]:
            continue
        cell = sum(map(float, dash.split()))
        count += sum(
            round((float(run) + 1) / cell)
            for run in re.findall(r"h([\d.]+)", path.get("d"))
        )
    return count


@pytest.mark.parametrize("n, window, size, query", [(8, 2, 2, 5), (11, 3, 4, 0)])
def test_links_are_the_pairs_that_patterns_keep(n, window, size, query):
    frame = diagrams.connectivity(n, window=window, block_size=size, query=query)
    for pattern, color in (
        (FULL, "vermillion"),
        (patterns.local(window), "blue"),
        (patterns.adjacent_blocks(size), "green"),
        (patterns.local(1), "purple"),
    ):
        keep = dense_mask(pattern, n)
        drawn = filled(frame, COLORS[color])
        assert len(drawn) == 1 + int(keep[query].sum()), "the output and its inputs"
        if color != "purple":
            assert f"{int(keep.sum())} pairs" in frame
    assert len(filled(frame, COLORS["sky"])) == query + 2, "inputs up to the query"


def paths_in(frame, ink):
    return "".join(
        p.get("d") for p in parse(frame).iter(f"{NAME}path") if p.get("stroke") == ink
    )


def test_a_curve_ends_at_each_key_of_the_query():
    frame = diagrams.connectivity(8, window=2, query=5)
    assert paths_in(frame, COLORS["blue"]).count("C") == 5
    assert paths_in(frame, COLORS["vermillion"]).count("C") == 8


def test_attention_by_hand_is_attention():
    x = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=torch.float64)
    w = [[[2, 0], [0, 1]], [[1, 1], [0, 1]], [[1, 0], [2, 1]]]
    q, k, v = x @ torch.tensor(w, dtype=torch.float64)
    scores, weights = q @ k.mT / 2**0.5, attention_weights(q, k)
    output = attention(q, k, v)
    frame = diagrams.attention_steps()
    shown = texts(frame)
    for numbers in (scores, weights, output):
        written = [f"{number:.2f}" for number in numbers.flatten().tolist()]
        for text in set(written):
            assert shown.count(text) >= written.count(text), text
    for numbers in (q, k, v):
        for number in numbers.flatten().tolist():
            assert f"{number:g}" in shown
    mean = ", ".join(f"{number:.2f}" for number in output[2].tolist())
    assert f"= ({mean})" in shown and frame.alt.endswith(f"its average ({mean}).")
    assert f"{weights[2, 1]:.2f}" in frame.alt


def test_attention_by_hand_takes_other_numbers():
    x = torch.tensor(THREE, dtype=torch.float64)
    eye = torch.eye(2).double()
    frame = diagrams.attention_steps(THREE, eye, eye, eye, names="abc", query=0)
    mean = attention(x, x, x)[0].tolist()
    said = ", ".join(f"{round(number, 2):g}" for number in mean).replace("-", "−")
    assert f"its average ({said})" in frame.alt


SCORES, VALUES = (1, 2, 0, 4, 3), (10, 20, 30, 40, 50)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_each_step_of_the_softmax_is_that_of_the_keys_so_far(chunk):
    s = torch.tensor(SCORES, dtype=torch.float64)
    v = torch.tensor(VALUES, dtype=torch.float64)
    old = -math.inf
    for step, seen in enumerate(range(chunk, 5 + chunk, chunk), start=1):
        seen = min(seen, 5)
        shown = texts(diagrams.online_softmax(chunk=chunk, step=step))
        top = s[:seen].max()
        powers = (s[:seen] - top).exp()
        total, mix = powers.sum(), powers @ v[:seen]
        shrink = math.exp(old - top)
        found = dict(zip(shown, shown[2:], strict=False))
        assert found["maximum"] == f"{top:g}"
        assert float(found["shrink by"]) == pytest.approx(shrink, abs=6e-4)
        assert float(found["sum"]) == pytest.approx(total.item(), abs=6e-4)
        assert float(found["value sum"]) == pytest.approx(mix.item(), abs=6e-3)
        assert float(found["mean"]) == pytest.approx((mix / total).item(), abs=6e-3)
        old = top.item()
    q, k = torch.ones(1, 1).double(), s[:, None]
    assert float(found["mean"]) == pytest.approx(
        online_attention(q, k, v[:, None], chunk).item(), abs=6e-3
    )


def test_a_sum_of_the_softmax_is_made_as_it_says():
    for step in range(1, 6):
        shown = texts(diagrams.online_softmax(step=step))
        for name in ("sum", "value sum"):
            made, result = shown[shown.index(name) + 1 :][:2]
            factor, old, new = map(float, re.split(r" · | \+ ", made))
            slack = 6e-4 * old + 2e-2
            assert factor * old + new == pytest.approx(float(result), abs=slack)


def test_bars_of_the_softmax_are_as_high_as_their_weights():
    frame = diagrams.online_softmax(step=4)
    bars = [
        float(rect.get("height"))
        for rect in parse(frame).iter(f"{NAME}rect")
        if rect.get("fill-opacity") in ("0.45", "1")
    ]
    expected = [math.exp(s - 4) for s in SCORES[:4]]
    assert [bar / max(bars) for bar in bars] == pytest.approx(expected, abs=2e-3)
    dashed = [r for r in parse(frame).iter(f"{NAME}rect") if r.get("stroke-dasharray")]
    before = [float(rect.get("height")) / max(bars) for rect in dashed]
    assert before == pytest.approx([math.exp(s - 2) for s in SCORES[:3]], abs=2e-3)


def test_all_steps_of_the_softmax_are_equally_high():
    heights = {tuple(size_of(diagrams.online_softmax(step=k))) for k in range(6)}
    assert len(heights) == 1


@pytest.mark.parametrize("n, windows", [(8, (2, 5)), (9, (4, 5)), (12, (1, 11))])
def test_the_slice_is_what_python_selects(n, windows):
    frame = diagrams.rectangle_and_band(n, windows)
    kept = 0
    boxes = [
        rect
        for rect in parse(frame).iter(f"{NAME}rect")
        if rect.get("stroke-width") == "2.5"
    ]
    for window in windows:
        columns = torch.arange(n)[-window:window].tolist()
        words = "none" if not columns else f"columns {columns[0]} to {columns[-1]}"
        words = f"column {columns[0]}" if len(columns) == 1 else words
        assert f"the slice [:, -{window}:{window}] takes {words}" in frame.alt
        pairs = int(dense_mask(patterns.local(window), n).sum())
        assert str(pairs) in frame.alt.split(": ")[-1]
        kept += pairs
        cell = math.floor(10 * 168 / n) / 10
        if columns:
            width = float(boxes.pop(0).get("width"))
            assert width == pytest.approx(len(columns) * cell, abs=0.1)
    assert not boxes
    taken = n * sum(len(range(n)[-w:w]) for w in windows)
    assert cells_of(frame, COLORS["vermillion"]) == taken
    assert cells_of(frame, KEPT) == kept - taken, "the slice lies inside the band"


@pytest.mark.parametrize(
    "n, window, tile, index", [(20, 3, 4, 2), (10, 1, 4, 2), (12, 9, 5, 0)]
)
def test_a_tile_meets_the_run_of_its_pattern(n, window, tile, index):
    frame = diagrams.tile_and_run(n, window=window, tile=tile, index=index)
    queries = range(index * tile, min(n, (index + 1) * tile))
    keys = patterns.run(patterns.local(window), queries, n)
    rows = dense_mask(patterns.local(window), n)[queries.start : queries.stop]
    kept = int(rows.sum())
    made = len(queries) * len(keys)
    assert f"keys {keys[0]} to {keys[-1]}: {len(queries)} x {len(keys)} = {made} " in (
        frame.alt
    )
    assert cells_of(frame, KEPT) == kept
    assert cells_of(frame, WASTED) == made - kept
    assert {f"kept: {kept}", f"in vain: {made - kept}"} <= set(texts(frame))


@pytest.mark.parametrize(
    "n, window, rows, columns", [(24, 3, 4, 4), (24, 5, 8, 3), (32, 0, 4, 8)]
)
def test_blocks_cost_what_the_package_counts(n, window, rows, columns):
    frame = diagrams.window_over_blocks(n, window=window, rows=rows, columns=columns)
    pattern = patterns.local(window)
    kept = cost.kept_pairs(pattern, n)
    made = cost.grid_pairs(pattern, n, rows, columns)
    assert cells_of(frame, KEPT) == kept
    assert cells_of(frame, WASTED) == made - kept
    assert cells_of(frame, "currentColor") == n * n - made
    words = {f"kept: {kept}", f"in vain: {made - kept}", f"skipped: {n * n - made}"}
    assert words <= set(texts(frame))
    tax = cost.grid_tax(pattern, n, rows, columns)
    (said,) = re.findall(r"([\d.]+) times the useful work", frame.alt)
    assert float(said) == pytest.approx(tax, abs=6e-3)


@pytest.mark.parametrize("window, layers", [(2, 3), (1, 1), (3, 4)])
def test_reach_and_shares_are_those_of_even_averages(window, layers):
    n = 2 * window * layers + 1
    keep = dense_mask(patterns.local(window), 3 * n).double()
    even = torch.matrix_power(keep / (2 * window + 1), layers)  # far from the ends
    row = even[3 * n // 2]
    row = row[row > 0]
    frame = diagrams.reach_and_influence(window, layers)
    assert len(row) == n == cost.reach(patterns.local(window), layers, 3 * n)
    assert f"reached by {n} tokens" in frame.alt
    bars = [
        float(rect.get("height"))
        for rect in parse(frame).iter(f"{NAME}rect")
        if rect.get("fill") == KEPT
    ]
    assert len(bars) == n
    expected = (row / row.max() * 64).clamp(min=0.8)
    assert bars == pytest.approx(expected.tolist(), abs=0.06)
    assert f"{100 * row.max():.0f} %" in texts(frame)
    percent, inner = re.findall(r"(\d+) percent of it .* inner (\d+)", frame.alt)[0]
    out = (n - int(inner)) // 2
    inside = float(row[out : n - out].sum())
    assert inside == pytest.approx(int(percent) / 100, abs=6e-3) and inside >= 0.9
    assert out * 2 == n - 1 or row[out + 1 : n - out - 1].sum() < 0.9


def test_the_bars_of_influence_are_as_wide_as_the_formula_says():
    frame = diagrams.reach_and_influence(3, 4)
    bars = [
        (float(rect.get("x")), float(rect.get("height")))
        for rect in parse(frame).iter(f"{NAME}rect")
        if rect.get("fill") == KEPT
    ]
    pitch = (bars[-1][0] - bars[0][0]) / (len(bars) - 1)
    weight = sum(height for _, height in bars)
    mean = sum(x * height for x, height in bars) / weight
    variance = sum((x - mean) ** 2 * height for x, height in bars) / weight
    spread = cost.influence_spread(3, 4)
    assert math.sqrt(variance) / pitch == pytest.approx(spread, rel=0.04)


@pytest.mark.parametrize("shards, window", [((6, 6, 6), 2), ((4, 7), 4), ((5,) * 4, 1)])
def test_what_travels_is_what_ranks_receive(shards, window):
    frame = diagrams.halo_exchange(shards, window=window)
    travel = 0
    for rank in range(len(shards)):
        plan = plan_halo(list(shards), rank, patterns.local(window))
        travel += sum(map(len, plan.received))
        assert plan.left in (0, window) and plan.right in (0, window)
    drawn = [r.get("stroke-dasharray") for r in parse(frame).iter(f"{NAME}rect")]
    assert len(drawn) - drawn.count(None) == travel
    assert f"{travel} tokens in all" in frame.alt
    assert drawn.count(None) == 2 * sum(shards), "the text, and each device's own"


@pytest.mark.parametrize("slots, tokens", [(4, 7), (4, 3), (5, 98), (12, 12), (3, 0)])
def test_slots_hold_what_the_cache_holds(slots, tokens):
    frame = diagrams.rolling_cache(slots, tokens)
    cache = RollingCache(patterns.causal() & patterns.local(slots - 1))
    x = torch.zeros(1, 1, 1)
    for _ in range(tokens):
        cache.attend(x, x, x)
    held = cache.positions.flatten().tolist() if tokens else []
    held += [-1] * (slots - len(held))
    said = ", ".join("nothing" if p < 0 else str(p) for p in held)
    assert f"slots hold the tokens {said}. Token {tokens} goes into slot " in frame.alt
    circles = list(parse(frame).iter(f"{NAME}circle"))
    full = [c.get("fill") in (KEPT, WASTED) for c in circles]
    assert full == [p >= 0 for p in held]
    if tokens >= slots:
        cache.attend(x, x, x)
        gone = set(held) - set(cache.positions.flatten().tolist())
        (oldest,) = gone
        assert f"over token {oldest}," in frame.alt
        inks = [c.get("fill") for c in circles]
        assert [p for p, ink in zip(held, inks, strict=True) if ink == WASTED] == [
            oldest
        ]


def test_pipes_are_as_thick_as_the_bytes_are_many():
    given = traffic()
    frame = diagrams.two_memories(given)
    pipes = [
        float(rect.get("height"))
        for rect in parse(frame).iter(f"{NAME}rect")
        if rect.get("fill") in (COLORS["blue"], COLORS["orange"])
    ]
    moved = [number for row in given.values() for number in row.values()]
    assert len(pipes) == len(moved)
    for thick, number in zip(pipes, moved, strict=True):
        assert thick == pytest.approx(max(44 * number / max(moved), 1.5), abs=0.06)
    shown = " ".join(texts(frame))
    plain = cost.io_bytes(1024, 64) + 4 * cost.score_bytes(FULL, 1024)
    assert f"plain: {plain / 1e6:.1f} MB" in shown
    assert f"{cost.tile_bytes(WINDOW, 1024, 64, 128, 64) / 1e6:.2f} MB" in shown


def test_shares_of_a_layer_are_drawn_to_scale():
    frame = diagrams.layer_shares(layers())
    bars = [
        float(rect.get("width"))
        for rect in parse(frame).iter(f"{NAME}rect")
        if rect.get("height") == "28"
    ]
    rows = [bars[k : k + 3] for k in range(0, len(bars), 3)]
    for n, row in zip((512, 2048, 8192, 32768), rows, strict=True):
        parts = cost.layer_flops(FULL, n, 512)
        share = parts.attention_share
        assert row[0] / sum(row) == pytest.approx(share, abs=1e-3)
        assert f"n = {n:,}: attention {100 * share:.0f} %" in frame.alt
        assert row[1] / row[2] == pytest.approx(parts.projections / parts.mlp, rel=0.02)
    assert f"{sum(cost.layer_flops(FULL, 8192, 512)) / 1e9:.0f} GFLOP" in texts(frame)


def test_heads_and_blocks_say_their_widths():
    frame = diagrams.attention_heads(4, 512)
    assert texts(frame).count("128") == 8, "before and after attention"
    assert "4 heads of 128" in frame.alt
    block = texts(diagrams.transformer_block(64, 4, expansion=3, layers=5))
    assert {"Attention: 4 heads of 16", "MLP: 64 → 192 → 64"} <= set(block)
    assert "the same again: 5 blocks in all" in block
    alone = texts(diagrams.transformer_block(32, 1, layers=1))
    assert {"Attention: 1 head of 32", "to the read-out"} <= set(alone)


def test_an_application_shows_what_its_window_misses():
    missed, met = COLORS["vermillion"], KEPT
    frame = diagrams.application(**GERMAN)
    edges = [part.get("stroke") for part in parse(frame).iter(f"{NAME}rect")]
    assert edges.count(missed) == 2, "the input, and the key to the colours"
    assert '"jetzt" may meet "the", "key", "F5"' in frame.alt
    assert frame.alt.endswith('it needs "now", which it cannot meet.')
    assert paths_in(frame, missed).count("L") == 1 and not paths_in(frame, met)
    wider = diagrams.application(**GERMAN | {"met": range(5)})
    assert missed not in wider and paths_in(wider, met).count("L") == 1
    assert wider.alt.endswith("among them all that it needs.")


def test_small_maps_fill_a_cell_for_each_pair():
    frame = diagrams.small_maps(**MAPS)
    full, window = (int(keep.sum()) for keep in MAPS["maps"].values())
    assert cells_of(frame, KEPT) == full + window
    assert {f"{full} pairs", f"{window} pairs"} <= set(texts(frame))


def test_a_weight_is_as_dark_as_it_is_large():
    frame = diagrams.small_maps({"weights": [[1.0, 0.5, 0.0]]}, title="One row")
    shades = [
        path.get("stroke-opacity", "1")
        for path in parse(frame).iter(f"{NAME}path")
        if path.get("stroke") == KEPT
    ]
    assert sorted(shades) == ["0.5", "1"]


@pytest.mark.parametrize("needed, words", [(None, "4 keys"), (3, "misses key 3")])
def test_one_query_fills_the_keys_that_it_meets(needed, words):
    frame = diagrams.one_query(**READINGS | {"needed": needed})
    assert (
        len([r for r in parse(frame).iter(f"{NAME}rect") if r.get("fill") == KEPT])
        == 13
    )
    assert words in texts(frame)
    edges = [rect.get("stroke") for rect in parse(frame).iter(f"{NAME}rect")]
    assert edges.count(COLORS["vermillion"]) == 2 * (needed is not None)


def test_two_paths_have_their_steps():
    frame = diagrams.two_paths(6)
    assert paths_in(frame, COLORS["vermillion"]).count("M") == 5
    assert paths_in(frame, KEPT).count("C") == 1
    assert "5 steps through a recurrence" in frame.alt


def test_an_average_shows_the_softmax_of_its_scores():
    scores = torch.tensor([1.0, 2.0, 0.0])
    frame = diagrams.weighted_average(list("abc"), scores.tolist(), "it")
    for weight in scores.softmax(-1).tolist():
        assert f"{weight:.2f}" in texts(frame)


def test_a_flow_leads_from_each_box_to_each_of_the_next():
    frame = str(diagrams.flow(**STEPS))
    assert frame.count('z" fill="currentColor"') == 2 + 2, "heads of arrows"


def test_amounts_are_to_one_scale():
    frame = diagrams.amounts({"a": 30, "b": 120}, title="Two", unit="pairs")
    one, four = (float(r.get("width")) for r in parse(frame).iter(f"{NAME}rect"))
    assert four / one == pytest.approx(4, rel=1e-3)


def test_growth_says_the_slopes_that_closed_forms_have():
    shown = texts(diagrams.growth(**GROWTH))
    pairs = GROWTH["curves"]["window of 64"]
    assert "slope 2.00" in shown
    assert f"slope {math.log2(pairs[-1] / pairs[-2]):.2f}" in shown


def test_a_window_covers_the_share_that_is_said():
    weights = [0.5**k for k in range(12)]
    frame = diagrams.covered_share(weights, 2, title="Halves")
    rects = list(parse(frame).iter(f"{NAME}rect"))
    assert [r.get("fill") for r in rects].count(KEPT) == 3
    assert f"covers {100 * sum(weights[:3]) / sum(weights):.0f} %" in frame.alt


NAN = float("nan")


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("connectivity", {"n": 2}, "n must be from 3 to 12, got 2"),
        ("connectivity", {"query": 8}, "query must be from 0 to 7, got 8"),
        ("connectivity", {"kernel": 4}, "kernel must be odd, got 4"),
        ("attention_steps", {"names": ["a"]}, "names must be 3"),
        ("attention_steps", {"w_q": ((1, 0),)}, "w_q must have 2 rows"),
        ("attention_steps", {"w_q": ((1,), (0,))}, "as many columns as each other"),
        ("attention_steps", {"x": ((1, NAN), (0, 1))}, "x must be finite"),
        ("attention_heads", {"heads": 3}, "heads must divide d_model=512, got 3"),
        ("transformer_block", {"heads": 3}, "heads must divide d_model=512, got 3"),
        ("online_softmax", {"step": 6}, "step must be from 0 to 5, got 6"),
        ("online_softmax", {"values": [1]}, "values must be 5, one a score, got 1"),
        ("rectangle_and_band", {"windows": (2, 8)}, "windows must be from 1 to 7"),
        ("rectangle_and_band", {"windows": (2,)}, "number of windows must be"),
        ("tile_and_run", {"index": 5}, "index must be from 0 to 4, got 5"),
        ("window_over_blocks", {"rows": 0}, "rows must be from 1 to 24, got 0"),
        ("reach_and_influence", {"window": 9}, "2 L w \\+ 1 must be .* got 55"),
        ("reach_and_influence", {"most": 1.0}, "most must be between 0 and 1"),
        ("halo_exchange", {"window": 7}, "window must be from 1 to 6, got 7"),
        ("halo_exchange", {"shards": (6,)}, "number of shards must be from 2 to 4"),
        ("rolling_cache", {"slots": 1}, "slots must be from 2 to 12, got 1"),
        ("two_memories", {"traffic": {}}, "number of programs must be from 1 to 4"),
        ("two_memories", {"traffic": {"a": {"b": -1}}}, "traffic must be finite"),
        ("two_memories", {"traffic": {"a" * 17: {"b": 1}}}, "at most 16 characters"),
        ("layer_shares", {"costs": {"a": {"b": 0}}}, "must not all be 0"),
        ("application", GERMAN | {"query": 6}, "query must be from 0 to 5, got 6"),
        ("application", GERMAN | {"inputs": ["word"] * 9}, "width of inputs must be"),
        ("layer_shares", {"costs": {"a": {"b": 1}, "c": {"d": 1}}}, "the same parts"),
        ("small_maps", {"maps": {}, "title": "t"}, "number of maps must be from 1"),
        ("small_maps", {"maps": {"a": [[2]]}, "title": "t"}, "weights from 0 to 1"),
        ("small_maps", {"maps": {"a" * 60: [[1]]}, "title": "t"}, "too long"),
        ("one_query", READINGS | {"query": 18}, "query must be from 0 to 17, got 18"),
        ("one_query", READINGS | {"readings": {"a": (5, 3)}}, "last key of 'a'"),
        ("two_paths", {"n": 2}, "n must be from 3 to 12, got 2"),
        (
            "weighted_average",
            {"words": ["long" * 40, "a"], "scores": [1, 2], "asked": "it"},
            "words must have room",
        ),
        ("flow", STEPS | {"rows": [["a"]]}, "number of rows must be from 2 to 4"),
        ("flow", STEPS | {"rows": [["a" * 80], ["b"]]}, "a row must fit into 360"),
        ("amounts", {"values": {"a": 0}, "title": "t", "unit": "u"}, "above 0"),
        ("growth", GROWTH | {"curves": {"a": [1, 2]}}, "a must have a positive amount"),
        (
            "covered_share",
            {"weights": [1] * 10, "window": 8, "title": "t"},
            "window must leave room",
        ),
        (
            "covered_share",
            {"weights": [1, -2, 3], "window": 0, "title": "t"},
            "weights must be at least 0",
        ),
    ],
)
def test_what_has_no_room_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        draw(name, options)


def test_a_count_that_is_no_integer_is_refused():
    with pytest.raises(TypeError, match="slots must be an integer, got 4.0"):
        diagrams.rolling_cache(4.0)
