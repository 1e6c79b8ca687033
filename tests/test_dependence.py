"""Mutual information: known values, the bias of counts, and where dependence ends."""

import math

import pytest
import torch

from attn_tutorial.instruments.dependence import dependence, mutual_information
from attn_tutorial.networks import tasks


def entropy(p):
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def chain(n, flip, seed=0):
    """A coin that is turned over with some probability at each step."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, generator=generator) < flip).cumsum(0) % 2


@pytest.mark.parametrize("flip", [0.02, 0.1, 0.3])
def test_a_markov_chain_has_its_closed_form(flip):
    """After d steps the coin differs with probability (1 - (1 - 2 flip)^d) / 2."""
    distances = [1, 2, 3, 5, 8]
    found = dependence(chain(400_000, flip), distances)
    for distance, bits in zip(distances, found.corrected, strict=True):
        expected = 1 - entropy((1 - (1 - 2 * flip) ** distance) / 2)
        assert bits == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("symbols", [2, 10, 60])
def test_chance_looks_like_dependence_and_is_taken_off(symbols):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(symbols, (20_000,), generator=generator)
    found = dependence(tokens, [1, 7], shuffles=5)
    bias = (symbols - 1) ** 2 / (2 * len(tokens) * math.log(2))
    for bits, chance, corrected in zip(
        found.found, found.chance, found.corrected, strict=True
    ):
        assert bits == pytest.approx(bias, rel=0.2, abs=2e-4)
        assert chance == pytest.approx(bias, rel=0.2, abs=2e-4)
        assert abs(corrected) < max(bias / 5, 2e-4)


def test_a_copy_depends_at_its_distance_only():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(8, (40, 400), generator=generator)
    found = dependence(tokens, range(6), targets=tokens.roll(3, 1))
    assert found.corrected[3] == pytest.approx(3, abs=0.05)
    others = [bits for d, bits in enumerate(found.corrected) if d != 3]
    assert max(map(abs, others)) < 0.01


@pytest.mark.parametrize("max_gap", [5, 9, 17])
def test_the_latch_ends_at_its_largest_gap(max_gap):
    generator = torch.Generator().manual_seed(0)
    drawn = tasks.latch(2000, 64, generator, max_gap=max_gap)
    found = dependence(drawn[0], range(25), targets=drawn[1])
    inside = found.corrected[:max_gap]
    assert inside == sorted(inside, reverse=True)
    assert min(inside) > 0.001
    assert max(map(abs, found.corrected[max_gap:])) < 0.001


def test_the_horizon_is_the_last_distance_beyond_chance():
    drawn = tasks.latch(2000, 64, torch.Generator().manual_seed(0), max_gap=9)
    for seed in range(5):
        found = dependence(drawn[0], range(30), targets=drawn[1], seed=seed)
        assert found.horizon == 8
    tokens = torch.zeros(50, dtype=torch.long)
    assert dependence(tokens, [1, 2]).horizon is None


def test_independent_tokens_have_no_horizon():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(8, (40, 100), generator=generator)
        assert dependence(tokens, range(1, 20), seed=seed).horizon is None


def test_pairs_stay_in_their_row():
    tokens = torch.tensor([[0, 1], [2, 3]])
    assert mutual_information(tokens[:, :1], tokens[:, 1:]) == 1
    assert dependence(tokens, [1]).found == [1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((torch.zeros(4).long(), [4]), "distance must be below the length 4, got 4"),
        ((torch.zeros(4).long(), [-1]), "distance must be at least 0"),
    ],
)
def test_wrong_distances_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        dependence(*arguments)


def test_wrong_shapes_are_named():
    x = torch.zeros(4).long()
    with pytest.raises(ValueError, match=r"targets must have shape \(4,\), got \(3,\)"):
        dependence(x, [1], targets=x[:3])
    with pytest.raises(ValueError, match="x and y must be as long"):
        mutual_information(x, x[:3])
    with pytest.raises(ValueError, match="shuffles must be at least 2"):
        dependence(x, [1], shuffles=0)


def test_what_is_no_symbol_is_named():
    x = torch.tensor([1, 1, 2, 2])
    with pytest.raises(ValueError, match="y must be at least 0, got -1"):
        mutual_information(x, torch.tensor([-1, -1, 0, 0]))
    with pytest.raises(TypeError, match="x must be integers, got torch.float32"):
        mutual_information(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="distances must name at least one"):
        dependence(x, [])
