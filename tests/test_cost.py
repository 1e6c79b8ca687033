"""Every closed form equals a count over an explicitly built set of pairs."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import attn_tutorial as at
from attn_tutorial import cost
from attn_tutorial import patterns as P
from attn_tutorial.instruments.graph import reach_mask
from attn_tutorial.patterns import (
    adjacent_blocks,
    causal,
    dilated,
    full,
    global_tokens,
    local,
    strided,
)

SIZES = [1, 2, 3, 4, 5, 7, 8, 12, 17, 24]


def near(kind, size):
    """The predicate by plain integers, written apart from the package."""
    if kind == "local":
        return lambda i, j: -size <= i - j <= size
    if kind == "blocks":
        return lambda i, j: abs(math.floor(i / size) - math.floor(j / size)) < 2
    return lambda i, j: kind == "full"


def cases():
    bases = [("full", 0, full()), ("none", 0, None)]
    bases += [("local", w, local(w)) for w in (0, 1, 2, 3, 7, 30)]
    bases += [("blocks", b, adjacent_blocks(b)) for b in (1, 2, 3, 5, 30)]
    for (kind, size, base), g, ahead in itertools.product(
        bases, (0, 1, 2, 6, 40), (True, False)
    ):
        if base is None and g == 0:
            continue
        pattern = base
        if g:
            pattern = global_tokens(g) if base is None else base | global_tokens(g)
        keep = near(kind, size)
        yield (
            pattern if ahead else causal() & pattern,
            lambda i, j, keep=keep, g=g, ahead=ahead: (
                (keep(i, j) or i < g or j < g) and (ahead or j <= i)
            ),
        )


CASES = list(cases())
IDS = [repr(pattern) for pattern, _ in CASES]


def matrix(keep, n):
    return torch.tensor([[keep(i, j) for j in range(n)] for i in range(n)]).reshape(
        n, n
    )


@pytest.mark.equation(8)
@pytest.mark.parametrize(("pattern", "keep"), CASES, ids=IDS)
def test_kept_pairs_equals_a_count(pattern, keep):
    for n in SIZES:
        assert cost.kept_pairs(pattern, n) == int(matrix(keep, n).sum()), n


def test_kept_pairs_of_nothing_is_zero():
    assert all(cost.kept_pairs(pattern, 0) == 0 for pattern, _ in CASES)


def test_kept_pairs_has_the_textbook_forms():
    for n, w in ((24, 3), (1000, 64), (65536, 512)):
        assert cost.kept_pairs(local(w), n) == n * (2 * w + 1) - w * (w + 1)
    for m, b in ((2, 8), (16, 64), (100, 5)):
        n = m * b
        assert cost.kept_pairs(adjacent_blocks(b), n) == (3 * m - 2) * b * b
        assert cost.kept_pairs(adjacent_blocks(b), n) == 3 * n * b - 2 * b * b


@pytest.mark.equation(3)
@pytest.mark.parametrize(("n", "d", "heads"), [(1, 1, 1), (7, 5, 3), (64, 16, 2)])
def test_flops_counts_the_multiply_adds_of_both_products(n, d, heads):
    products = 2 * (heads * n * n * d) + 2 * (heads * n * d * n)
    assert cost.flops(full(), n, d, heads) == products
    window = local(2)
    assert cost.flops(window, n, d, heads) * n * n == products * cost.kept_pairs(
        window, n
    )


@pytest.mark.equation(4)
def test_layer_flops_equals_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    n, d = 48, 32
    x, square = torch.randn(n, d), torch.randn(d, d)
    wide, narrow = torch.randn(d, 4 * d), torch.randn(4 * d, d)

    def count(run):
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    layer = cost.layer_flops(full(), n, d)
    assert layer.attention == count(lambda: (x @ x.T) @ x)
    assert layer.projections == count(lambda: [x @ square for _ in range(4)])
    assert layer.mlp == count(lambda: (x @ wide) @ narrow)
    total = layer.attention + layer.projections + layer.mlp
    assert layer.attention_share == pytest.approx(layer.attention / total)
    assert cost.layer_flops(full(), n, d, expansion=2).mlp == layer.mlp // 2
    assert cost.layer_flops(full(), 0, d).attention_share == 0.0


def test_narrow_keys_and_values_cost_less_to_make():
    whole, shared = (cost.layer_flops(full(), 6, 8, kv_width=w) for w in (8, 2))
    assert whole == cost.layer_flops(full(), 6, 8)
    assert whole.projections - shared.projections == 2 * (2 * 6 * 8 * (8 - 2))
    assert (whole.attention, whole.mlp) == (shared.attention, shared.mlp)
    with pytest.raises(ValueError, match="kv_width must be at least 1, got 0"):
        cost.layer_flops(full(), 6, 8, kv_width=0)


@pytest.mark.equation(4)
@pytest.mark.parametrize(("d_model", "expansion"), [(64, 4), (768, 4), (100, 0)])
def test_attention_is_half_of_the_layer_at_the_crossover(d_model, expansion):
    n = cost.crossover_length(d_model, expansion)
    layer = cost.layer_flops(full(), n, d_model, expansion)
    assert layer.attention == layer.projections + layer.mlp
    assert layer.attention_share == 0.5


@pytest.mark.equation(5)
def test_score_bytes_is_the_size_of_the_score_tensor():
    scores = torch.zeros(3, 20, 20, dtype=torch.float64)
    assert cost.score_bytes(full(), 20, 3, 8) == scores.numel() * 8
    assert cost.score_bytes(full(), 20) == scores[0].float().numel() * 4
    assert cost.score_bytes(local(1), 10, heads=2, bytes_per_number=2) == 2 * 28 * 2


def test_io_bytes_is_the_size_of_four_tensors():
    x = torch.zeros(3, 20, 16, dtype=torch.float64)
    assert cost.io_bytes(20, 16, 3, 8) == 4 * x.numel() * 8
    assert cost.io_bytes(20, 16) == 4 * 20 * 16 * 4


def runs(keep, n, tile):
    """Rectangle of each tile: its queries times the run from first to last key."""
    total = 0
    for start in range(0, n, tile):
        rows = range(start, min(n, start + tile))
        keys = [j for i in rows for j in range(n) if keep(i, j)]
        total += len(rows) * (max(keys) - min(keys) + 1)
    return total


RUNS = [(p, k) for p, k in CASES if "global" not in repr(p)]


@pytest.mark.equation(9)
@pytest.mark.parametrize(("pattern", "keep"), RUNS, ids=[repr(p) for p, _ in RUNS])
def test_tile_tax_equals_rectangles_over_kept_pairs(pattern, keep):
    for n, tile in itertools.product(SIZES, (1, 2, 3, 4, 50)):
        computed = runs(keep, n, tile)
        assert cost.computed_pairs(pattern, n, tile) == computed, (n, tile)
        expected = computed / int(matrix(keep, n).sum())
        assert cost.tile_tax(pattern, n, tile) == pytest.approx(expected)


def test_blocks_cut_on_tiles_pay_no_tax():
    assert cost.tile_tax(adjacent_blocks(8), 64, tile=8) == 1.0
    assert cost.tile_tax(local(8), 64, tile=8) > 1.0
    assert cost.tile_tax(local(8), 0, tile=8) == 1.0


def heard(keep, n, layers):
    """Who has influenced whom: one hop a layer, each token keeping what it has."""
    known = [{i} for i in range(n)]
    for _ in range(layers):
        known = [
            set().union(known[i], *(known[j] for j in range(n) if keep(i, j)))
            for i in range(n)
        ]
    return known


@pytest.mark.equation(10)
@pytest.mark.parametrize(("pattern", "keep"), CASES, ids=IDS)
def test_reach_equals_tokens_found_by_walking(pattern, keep):
    for n, layers in itertools.product((1, 4, 7, 17), (0, 1, 2, 3)):
        known = heard(keep, n, layers)
        for position in range(n):
            assert cost.reach(pattern, layers, n, position) == len(known[position])
        assert cost.reach(pattern, layers, n) == len(known[n // 2])


@pytest.mark.equation(13)
@pytest.mark.parametrize(("pattern", "keep"), CASES, ids=IDS)
def test_layers_to_connect_equals_the_first_depth_that_connects(pattern, keep):
    ahead = not repr(pattern).startswith("intersection")
    for n in (0, 1, 2, 3, 7, 12):
        goal = [set(range(n if ahead else i + 1)) for i in range(n)]
        depths = [d for d in range(n + 1) if heard(keep, n, d) == goal]
        expected = depths[0] if depths else math.inf
        assert cost.layers_to_connect(pattern, n) == expected, n


@pytest.mark.parametrize("window", [(1, 0), (3, 0), (0, 2), (2, 3), (0, 0)])
def test_a_window_of_one_side_connects_that_side(window):
    pattern = local(window)
    for n in (2, 7, 12):
        goal = reach_mask(pattern, n, n)
        depths = [d for d in range(n) if torch.equal(reach_mask(pattern, n, d), goal)]
        expected = depths[0] if any(window) else math.inf
        assert cost.layers_to_connect(pattern, n) == expected, n


@pytest.mark.equation(17)
@pytest.mark.parametrize(
    ("flops", "moved", "rate", "bandwidth"),
    [(0, 0, 1, 1), (12, 1, 4, 1), (12, 5, 4, 1), (1e12, 1e9, 3e11, 2e10), (1, 7, 3, 2)],
)
def test_roofline_is_the_first_second_that_both_limits_allow(
    flops, moved, rate, bandwidth
):
    least = cost.roofline_seconds(flops, moved, rate, bandwidth)
    assert rate * least >= flops * (1 - 1e-12)
    assert bandwidth * least >= moved * (1 - 1e-12)
    sooner = least * (1 - 1e-6)  # and no sooner: one of the two would not be done
    assert least == 0 or rate * sooner < flops or bandwidth * sooner < moved


def test_the_roofline_bends_where_the_intensity_is_rate_over_bandwidth():
    rate, bandwidth = 300.0, 20.0
    for intensity in (1, 14, 15, 16, 100):
        reached = intensity / cost.roofline_seconds(intensity, 1, rate, bandwidth)
        assert reached == pytest.approx(min(rate, intensity * bandwidth))


@pytest.mark.equation(14)
@pytest.mark.parametrize(("window", "layers"), [(0, 3), (1, 1), (4, 6), (8, 3)])
def test_influence_spread_equals_the_exact_convolution(window, layers):
    step = torch.full((2 * window + 1,), 1 / (2 * window + 1), dtype=torch.float64)
    share = torch.ones(1, dtype=torch.float64)
    for _ in range(layers):
        padded = torch.nn.functional.pad(share, (2 * window, 2 * window))
        share = padded.unfold(0, 2 * window + 1, 1) @ step
    lag = torch.arange(len(share), dtype=torch.float64) - (len(share) - 1) / 2
    spread = float((share * lag**2).sum().sqrt())
    assert cost.influence_spread(window, layers) == pytest.approx(spread)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 45), st.integers(0, 45), st.booleans())
def test_kept_pairs_of_a_window_with_global_tokens(n, w, g, ahead):
    pattern = local(w) | global_tokens(g)
    pattern = pattern if ahead else pattern & causal()
    kept = sum(
        (abs(i - j) <= w or i < g or j < g) and (ahead or j <= i)
        for i in range(n)
        for j in range(n)
    )
    assert cost.kept_pairs(pattern, n) == kept


@pytest.mark.parametrize(
    "pattern",
    [
        strided(3),
        dilated(2, 2),
        local(1) | adjacent_blocks(2),
        (causal() & local(1)) | global_tokens(1),
        local(1) & adjacent_blocks(2),
    ],
    ids=repr,
)
def test_a_pattern_without_closed_form_is_counted_but_has_no_reach(pattern):
    n = 37
    assert cost.kept_pairs(pattern, n) == at.dense_mask(pattern, n).sum()
    with pytest.raises(ValueError, match="no closed form"):
        cost.reach(pattern, 2, n)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(0, 0), (5, 2), (2, 5), (0, 3), (40, 1)])
@pytest.mark.parametrize("n", [0, 1, 2, 7, 23])
def test_windows_with_two_sides_are_counted(window, causal, n):
    pattern = P.local(window) & P.causal() if causal else P.local(window)
    assert cost.kept_pairs(pattern, n) == at.dense_mask(pattern, n).sum()


@pytest.mark.parametrize("size", [1, 3, 8, 50])
@pytest.mark.parametrize("extra", [0, 2, 9])
@pytest.mark.parametrize("n", [1, 8, 23])
def test_own_blocks_are_counted(size, extra, n):
    for pattern in (P.blocks(size), P.blocks(size) & P.causal()):
        assert cost.kept_pairs(pattern, n) == at.dense_mask(pattern, n).sum()
    pattern = P.blocks(size) | P.global_tokens(extra)
    assert cost.kept_pairs(pattern, n) == at.dense_mask(pattern, n).sum()


def test_causal_twice_is_causal_once():
    assert cost.kept_pairs(causal() & causal(), 7) == 28
    assert cost.kept_pairs(causal() & local(2) & causal(), 7) == 18
    assert cost.kept_pairs(causal() & (causal() & local(2)), 7) == 18


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cost.kept_pairs("local", 4), TypeError, "pattern .*'local'"),
        (lambda: cost.kept_pairs(full(), -1), ValueError, "n must be .*-1"),
        (lambda: cost.kept_pairs(full(), 2.5), TypeError, "n must be .*2.5"),
        (lambda: cost.kept_pairs(full(), True), TypeError, "n must be .*True"),
        (lambda: cost.flops(full(), 4, 0), ValueError, "d must be at least 1.*0"),
        (lambda: cost.flops(full(), 4, 4, 0), ValueError, "heads .*0"),
        (lambda: cost.score_bytes(full(), 4, 1, 0), ValueError, "bytes_per_number"),
        (lambda: cost.io_bytes(4, 0), ValueError, "d must be at least 1"),
        (lambda: cost.layer_flops(full(), 4, 0), ValueError, "d_model"),
        (lambda: cost.crossover_length(0), ValueError, "d_model"),
        (lambda: cost.computed_pairs(full(), 4, 0), ValueError, "tile .*0"),
        (lambda: cost.tile_tax(local(1) | global_tokens(1), 4, 2), ValueError, "glob"),
        (lambda: cost.computed_pairs(global_tokens(1), 4, 2), ValueError, "global"),
        (lambda: cost.reach(full(), -1, 4), ValueError, "layers .*-1"),
        (lambda: cost.reach(full(), 1, 0), ValueError, "n must be at least 1"),
        (lambda: cost.reach(full(), 1, 4, 4), ValueError, "position .*n=4.*4"),
        (lambda: cost.reach(full(), 1, 4, -1), ValueError, "position .*-1"),
        (lambda: cost.roofline_seconds(-1, 1, 1, 1), ValueError, "flops .*-1"),
        (lambda: cost.roofline_seconds(1, math.inf, 1, 1), ValueError, "moved .*inf"),
        (lambda: cost.roofline_seconds(1, 1, 0, 1), ValueError, "positive, got 0"),
        (lambda: cost.roofline_seconds(1, 1, 1, 0.0), ValueError, "bytes_per_second"),
        (lambda: cost.roofline_seconds("1", 1, 1, 1), TypeError, "flops .*'1'"),
        (lambda: cost.roofline_seconds(1, True, 1, 1), TypeError, "moved .*True"),
        (lambda: cost.influence_spread(-1, 1), ValueError, "window .*-1"),
        (lambda: cost.influence_spread(1, -1), ValueError, "layers .*-1"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def tiles_with_a_kept_pair(keep, n, rows, columns):
    """Cut the written-out matrix into tiles and look into each."""
    kept = matrix(keep, n)
    tiles = [
        kept[i : i + rows, j : j + columns].any()
        for i in range(0, n, rows)
        for j in range(0, n, columns)
    ]
    return sum(tile.item() for tile in tiles)


GRIDS = [(1, 1), (2, 4), (4, 2), (3, 3), (3, 5), (6, 4), (1, 7), (40, 3)]


@pytest.mark.equation(18)
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize("ahead", [True, False])
def test_grid_pairs_counts_the_tiles_that_keep_a_pair(rows, columns, ahead):
    bases = [("full", 0, full()), *(("local", w, local(w)) for w in (0, 1, 3, 8, 40))]
    bases += [("blocks", b, adjacent_blocks(b)) for b in (1, 3, 4, 40)]
    for kind, size, base in bases:
        near_enough = near(kind, size)

        def keep(i, j, near_enough=near_enough):
            return near_enough(i, j) and (ahead or j <= i)

        pattern = base if ahead else base & causal()
        for n in (1, 5, 12, 24, 37):
            tiles = tiles_with_a_kept_pair(keep, n, rows, columns)
            assert cost.grid_pairs(pattern, n, rows, columns) == tiles * rows * columns
            tax = cost.grid_pairs(pattern, n, rows, columns) / matrix(keep, n).sum()
            assert cost.grid_tax(pattern, n, rows, columns) == pytest.approx(tax.item())


@pytest.mark.equation(18)
@given(st.integers(0, 40), st.integers(1, 24), st.integers(1, 24), st.booleans())
@settings(max_examples=60, deadline=None)
def test_grid_keys_of_a_window_have_the_closed_form_away_from_the_ends(w, r, c, ahead):
    g, sides = math.gcd(r, c), 2 if ahead else 1
    expected = (
        r + c - g + sides * g * math.ceil(w / g)
    )  # keys that a query's tile meets
    period = math.lcm(r, c)
    start = period * math.ceil((w + c) / period)  # far enough from the first key
    last_key = w if ahead else 0
    tiles = sum(
        (row + r - 1 + last_key) // c - (row - w) // c + 1
        for row in range(start, start + period, r)
    )
    assert tiles * r * c == period * expected
    pattern = local(w) if ahead else local(w) & causal()
    longer, long = (
        cost.grid_pairs(pattern, start + k * period + start, r, c) for k in (3, 2)
    )
    assert longer - long == period * expected


def test_a_grid_of_columns_of_one_has_the_tax_of_equation_8():
    for w, tile in ((0, 4), (3, 4), (16, 8), (70, 8)):
        for pattern in (local(w), local(w) & causal(), adjacent_blocks(w + 1)):
            for n in (tile, 5 * tile, 64):
                assert cost.grid_tax(pattern, n, tile, 1) == cost.tile_tax(
                    pattern, n, tile
                )


def test_blocks_on_the_grid_pay_nothing():
    for rows, columns in ((64, 64), (32, 64), (64, 16)):
        assert cost.grid_tax(adjacent_blocks(64), 1024, rows, columns) == 1.0
    assert cost.grid_tax(full(), 0, 4, 4) == 1.0


def test_grid_pairs_refuses_what_is_no_single_run():
    with pytest.raises(ValueError, match="no global tokens, got union"):
        cost.grid_pairs(local(2) | global_tokens(1), 16, 4, 4)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        cost.grid_pairs(local(2), 16, 0, 4)
    with pytest.raises(TypeError, match="columns"):
        cost.grid_pairs(local(2), 16, 4, 2.0)


# A step of decoding


@pytest.mark.equation(21)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (8, 8), (8, 2), (12, 1)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_step_does_so_many_operations_a_byte(heads, kv_heads, dtype):
    n, d = 50, 16
    q = torch.ones(kv_heads, heads // kv_heads, d, dtype=dtype)
    k, v = torch.ones(2, kv_heads, n, d, dtype=dtype)
    with FlopCounterMode(display=False) as counter:
        (q @ k.mT).softmax(-1) @ v
    read = k.nbytes + v.nbytes
    assert read == cost.cache_bytes(
        causal(), n, d, kv_heads, bytes_per_number=k.itemsize
    )
    intensity = cost.decode_intensity(heads, kv_heads, k.itemsize)
    assert counter.get_total_flops() / read == intensity


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 3), "kv_heads must divide heads=8, got 3"),
        ((0, 1), "heads must be at least 1"),
        ((8, 0), "kv_heads must be at least 1"),
        ((8, 8, 0), "bytes_per_number must be at least 1"),
    ],
)
def test_the_intensity_of_no_heads_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        cost.decode_intensity(*sizes)
