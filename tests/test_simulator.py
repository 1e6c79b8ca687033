"""The simulator computes attention, and its counts are those of the closed forms."""

import itertools

import numpy as np
import pytest
import torch

import attn_tutorial as at
from attn_tutorial import cost
from attn_tutorial.backends.flex import block_states
from attn_tutorial.instruments import simulator
from attn_tutorial.patterns import adjacent_blocks, causal, full, global_tokens, local

PATTERNS = [
    full(),
    causal(),
    local(0),
    local(5),
    local(5) & causal(),
    local(99),
    adjacent_blocks(4),
    adjacent_blocks(6) & causal(),
]
SIZES = [(1, 1), (4, 1), (1, 4), (4, 4), (8, 3), (3, 8), (24, 24), (50, 7)]
cases = pytest.mark.parametrize(
    ("pattern", "rows", "columns"),
    [(p, *size) for p, size in itertools.product(PATTERNS, SIZES)],
    ids=str,
)


def inputs(n, d=4, d_v=4, seed=0):
    made = np.random.default_rng(seed)
    return [made.standard_normal((n, width)) for width in (d, d, d_v)]


@pytest.mark.parametrize("n", [1, 24, 29])
@cases
def test_the_result_is_attention(pattern, rows, columns, n):
    q, k, v = inputs(n, d_v=6)
    found, _ = simulator.simulate(q, k, v, pattern, rows, columns)
    expected = at.attention(*map(torch.tensor, (q, k, v)), at.dense_mask(pattern, n))
    assert np.abs(found - expected.numpy()).max() < 1e-13


def test_a_query_without_keys_gets_zeros():
    q, k, v = inputs(9)
    found, _ = simulator.simulate(q, k, v, global_tokens(0), 2, 4)
    assert (found == 0).all()
    some = simulator.simulate(q, k, v, causal() & global_tokens(0) | local(0), 2, 4)[0]
    assert np.allclose(some, v)


def test_large_scores_do_not_overflow():
    q, k, v = inputs(20)
    found, _ = simulator.simulate(1e4 * q, k, v, local(3), 4, 4)
    assert np.isfinite(found).all()


def by_hand(pattern, n, rows, columns):
    """Visited tiles, and keys that exist in them, by looking at every pair."""
    keep = at.dense_mask(pattern, n).tolist()
    visited, met = 0, 0
    for top, left in itertools.product(range(0, n, rows), range(0, n, columns)):
        some = any(any(row[left : left + columns]) for row in keep[top : top + rows])
        visited += some
        met += some * len(range(left, min(left + columns, n)))
    return visited, met


@pytest.mark.equation(16)
@pytest.mark.parametrize("n", [1, 24, 29])
@cases
def test_bytes_are_loads_of_tiles_and_one_store(pattern, rows, columns, n):
    q, k, v = inputs(n)
    _, chip = simulator.simulate(q, k, v, pattern, rows, columns)
    _, met = by_hand(pattern, n, rows, columns)
    assert chip.bytes == 8 * 4 * (n + 2 * met + n)
    closed = cost.tile_bytes(pattern, n, 4, rows, columns, bytes_per_number=8)
    assert chip.bytes == closed
    assert cost.tile_bytes(pattern, n, 4, rows, columns, heads=3) == 3 * closed // 2


@pytest.mark.parametrize("n", [1, 24, 29])
@cases
def test_flops_are_those_of_the_visited_tiles(pattern, rows, columns, n):
    _, chip = simulator.simulate(*inputs(n), pattern, rows, columns)
    visited, _ = by_hand(pattern, n, rows, columns)
    assert chip.flops == 4 * 4 * visited * rows * columns
    assert chip.flops == 4 * 4 * cost.grid_pairs(pattern, n, rows, columns)
    if columns == 1 and n % rows == 0:  # runs that begin where they like
        assert chip.flops == 4 * 4 * cost.computed_pairs(pattern, n, rows)


@pytest.mark.parametrize("n", [24, 29])
@pytest.mark.parametrize("size", [1, 4, 7, 50])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_states_are_those_of_the_block_table_for_flex_attention(pattern, n, size):
    found = simulator.tile_states(simulator.tiles(pattern, n, size, size))
    assert found.tolist() == block_states(pattern, n, block_size=size).tolist()


def test_nothing_in_nothing_out():
    output, chip = simulator.simulate(*inputs(0), full(), 4, 4)
    assert output.shape == (0, 4) and chip == simulator.Chip(0, 0)


@pytest.mark.parametrize("count", [cost.grid_pairs, cost.tile_bytes])
def test_bad_sizes_are_named(count):
    width = (4,) if count is cost.tile_bytes else ()
    for rows, columns, name in ((0, 1, "rows"), (1, 0, "columns")):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            count(full(), 8, *width, rows, columns)
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            simulator.simulate(*inputs(8), full(), rows, columns)
    with pytest.raises(ValueError, match="pattern must have no global tokens"):
        count(global_tokens(1), 8, *width, 2, 2)


def test_inputs_that_do_not_fit_are_named():
    q, k, v = inputs(4)
    with pytest.raises(ValueError, match="k must be as long as q, 4, got 2"):
        simulator.simulate(q, k[:2], v[:2], full(), 2, 2)
    with pytest.raises(TypeError, match="q must have a floating dtype, got int64"):
        simulator.simulate(q.astype("int64"), k, v, full(), 2, 2)
