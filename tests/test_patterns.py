"""A pattern keeps exactly the pairs that its sentence says, and combines as a set."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask

from attn_tutorial.patterns import (
    adjacent_blocks,
    causal,
    dense_mask,
    dilated,
    full,
    global_tokens,
    intersection,
    local,
    random_blocks,
    strided,
    union,
)

CASES = [
    (full(), lambda i, j: True),
    (causal(), lambda i, j: j <= i),
    (local(0), lambda i, j: i == j),
    (local(3), lambda i, j: j in range(i - 3, i + 4)),
    (local(50), lambda i, j: True),
    (adjacent_blocks(1), lambda i, j: j in (i - 1, i, i + 1)),
    (adjacent_blocks(4), lambda i, j: i // 4 in (j // 4 - 1, j // 4, j // 4 + 1)),
    (adjacent_blocks(50), lambda i, j: True),
    (global_tokens(0), lambda i, j: False),
    (global_tokens(2), lambda i, j: min(i, j) in (0, 1)),
    (dilated(2, 3), lambda i, j: i - j in (-6, -3, 0, 3, 6)),
    (dilated(3, 1), lambda i, j: i - j in range(-3, 4)),
    (strided(4), lambda i, j: i % 4 == j % 4),
    (strided(1), lambda i, j: True),
]
LENGTHS = [(0, 0), (1, 1), (5, 5), (13, 13), (13, 5), (5, 13)]


@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS)
@pytest.mark.parametrize(("pattern", "keep"), CASES, ids=[repr(p) for p, _ in CASES])
def test_dense_mask_is_the_predicate_pair_by_pair(pattern, keep, n_q, n_k):
    mask = dense_mask(pattern, n_q, n_k)
    assert mask.shape == (n_q, n_k)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[keep(i, j) for j in range(n_k)] for i in range(n_q)]


@pytest.mark.parametrize(("pattern", "keep"), CASES, ids=[repr(p) for p, _ in CASES])
def test_a_pattern_is_a_flex_attention_mask_mod(pattern, keep):
    mask = create_mask(pattern, None, None, 9, 9, device="cpu")
    assert torch.equal(mask[0, 0], dense_mask(pattern, 9))


def test_a_square_mask_needs_one_length():
    assert torch.equal(dense_mask(local(2), 7), dense_mask(local(2), 7, 7))


@pytest.mark.equation(12)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 3), st.integers(1, 5))
def test_union_and_intersection_are_or_and_and(n, block, count, stride):
    parts = [adjacent_blocks(block), global_tokens(count), strided(stride)]
    masks = torch.stack([dense_mask(p, n) for p in parts])
    assert torch.equal(dense_mask(union(*parts), n), masks.any(0))
    assert torch.equal(dense_mask(intersection(*parts), n), masks.all(0))
    assert torch.equal(dense_mask(parts[0] | parts[1], n), masks[:2].any(0))
    assert torch.equal(dense_mask(parts[0] & parts[1], n), masks[:2].all(0))


def test_one_pattern_combines_to_itself():
    assert torch.equal(dense_mask(union(local(1)), 5), dense_mask(local(1), 5))
    assert torch.equal(dense_mask(intersection(local(1)), 5), dense_mask(local(1), 5))


def test_patterns_compare_by_value_and_hash_alike():
    assert local(3) == local(3)
    assert hash(local(3)) == hash(local(3))
    assert local(3) != local(4)
    assert local(3) != adjacent_blocks(3)
    assert dilated(2, 3) != dilated(3, 2)
    assert causal() & local(3) == intersection(causal(), local(3))
    assert causal() & local(3) != causal() | local(3)
    assert random_blocks(2, 4, 1, seed=1) != random_blocks(2, 4, 1, seed=2)


def test_repr_names_the_pattern_and_its_parameters():
    assert repr(causal()) == "causal()"
    assert repr(dilated(2, 3)) == "dilated(window=2, step=3)"
    combined = causal() & (local(2) | global_tokens(1))
    assert repr(combined) == (
        "intersection(causal(), union(local(window=2), global_tokens(count=1)))"
    )


def test_random_blocks_draws_whole_blocks_as_many_as_asked():
    mask = dense_mask(random_blocks(block_size=3, num_blocks=5, count=2, seed=7), 15)
    blocks = mask.reshape(5, 3, 5, 3).permute(0, 2, 1, 3).flatten(2)
    assert torch.equal(blocks.all(-1), blocks.any(-1))
    assert blocks.all(-1).sum(1).tolist() == [2] * 5


def test_random_blocks_depends_on_its_seed_and_on_nothing_else():
    draws = [dense_mask(random_blocks(2, 16, 3, seed=s), 32) for s in (0, 1)]
    torch.manual_seed(123)
    again = dense_mask(random_blocks(2, 16, 3, seed=0), 32)
    assert torch.equal(draws[0], again)
    assert not torch.equal(draws[0], draws[1])
    assert random_blocks(2, 16, 3) == random_blocks(2, 16, 3, seed=0)


def test_random_blocks_may_draw_none_or_all():
    assert not dense_mask(random_blocks(2, 4, 0), 8).any()
    assert dense_mask(random_blocks(2, 4, 4), 8).all()


def test_random_blocks_serve_a_shorter_last_block_but_no_longer_sequence():
    pattern = local(1) | random_blocks(2, 4, 1)
    assert dense_mask(pattern, 7).shape == (7, 7)
    assert dense_mask(pattern, 8).shape == (8, 8)
    with pytest.raises(ValueError, match=r"n_q must be at most 8.*got 9"):
        dense_mask(pattern, 9)
    with pytest.raises(ValueError, match=r"n_k must be at most 8.*got 9"):
        dense_mask(pattern, 8, 9)
    smaller = intersection(random_blocks(2, 4, 1), random_blocks(1, 6, 1))
    with pytest.raises(ValueError, match="at most 6"):
        dense_mask(smaller, 7)


BAD = [
    (lambda: local(-1), ValueError, "window must be at least 0, got -1"),
    (lambda: local(1.5), TypeError, "window must be an integer, got 1.5"),
    (lambda: local(True), TypeError, "window must be an integer, got True"),
    (lambda: local(torch.tensor(True)), TypeError, "window must be an integer"),
    (lambda: local(torch.tensor([1, 2])), TypeError, "window must be an integer"),
    (lambda: local("3"), TypeError, "window must be an integer, got '3'"),
    (lambda: adjacent_blocks(0), ValueError, "block_size must be at least 1, got 0"),
    (lambda: global_tokens(-2), ValueError, "count must be at least 0, got -2"),
    (lambda: dilated(-1, 1), ValueError, "window must be at least 0, got -1"),
    (lambda: dilated(1, 0), ValueError, "step must be at least 1, got 0"),
    (lambda: strided(0), ValueError, "stride must be at least 1, got 0"),
    (lambda: random_blocks(0, 1, 1), ValueError, "block_size must be at least 1"),
    (lambda: random_blocks(1, 0, 1), ValueError, "num_blocks must be at least 1"),
    (lambda: random_blocks(1, 2, 3), ValueError, "count .* num_blocks=2, got 3"),
    (lambda: random_blocks(1, 2, -1), ValueError, "count must be at least 0"),
    (lambda: random_blocks(1, 2, 1, seed=-1), ValueError, "seed must be at least 0"),
    (lambda: union(), ValueError, "union needs at least one pattern"),
    (lambda: intersection(), ValueError, "intersection needs at least one"),
    (lambda: union(local(1), "x"), TypeError, "patterns must be .* got 'x'"),
    (lambda: local(1) | 3, TypeError, "patterns must be .* got 3"),
    (lambda: dense_mask("local", 3), TypeError, "pattern must be .* got 'local'"),
    (lambda: dense_mask(local(1), -1), ValueError, "n_q must be at least 0, got -1"),
    (lambda: dense_mask(local(1), 1, -1), ValueError, "n_k must be at least 0"),
    (lambda: dense_mask(local(1), 2.0), TypeError, "n_q must be an integer, got 2.0"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_integers_of_numpy_and_torch_are_integers():
    import numpy as np

    assert local(np.int64(3)) == local(3) == local(torch.tensor(3))
