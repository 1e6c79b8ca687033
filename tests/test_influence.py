import itertools
import math

import pytest
import torch

import attn_tutorial as at
from attn_tutorial.instruments import influence as inf
from attn_tutorial.instruments.graph import reach_mask


def test_influence_is_the_norm_of_the_jacobian():
    torch.manual_seed(0)
    mix = torch.randn(5, 5, dtype=torch.float64)
    x = torch.randn(5, 3, dtype=torch.float64)

    def layer(x):
        return torch.tanh(mix @ x)

    step, expected = 1e-6, torch.zeros(5, 3, 3, dtype=torch.float64)
    for j, c in itertools.product(range(5), range(3)):
        e = torch.zeros_like(x)
        e[j, c] = step
        expected[j, :, c] = (layer(x + e)[2] - layer(x - e)[2]) / (2 * step)
    norms = torch.linalg.matrix_norm(expected)
    assert torch.allclose(inf.influence(layer, x, 2), norms, atol=1e-8)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    "pattern",
    [
        at.patterns.local(2),
        at.patterns.local(2) & at.patterns.causal(),
        at.patterns.local(1) | at.patterns.global_tokens(1),
        at.patterns.dilated(1, 3),
    ],
    ids=repr,
)
def test_influence_ends_where_reach_ends(pattern, layers):
    torch.manual_seed(0)
    n, keep = 21, at.dense_mask(pattern, 21)
    x = torch.randn(n, 4, dtype=torch.float64)

    def stack(x):
        for _ in range(layers):
            x = x + at.attention(x, x, x, keep)
        return x

    profile = inf.influence(stack, x, 10)
    assert torch.equal(profile > 0, reach_mask(pattern, n, layers)[10])


def test_influence_leaves_the_input_alone():
    x = torch.randn(3, 2)
    inf.influence(torch.sin, x, 0)
    assert not x.requires_grad and x.grad is None


@pytest.mark.parametrize("position", [3, -1])
def test_position_must_be_inside(position):
    with pytest.raises(ValueError, match="position must be"):
        inf.influence(torch.sin, torch.ones(3, 2), position)


def test_spread_of_two_points():
    profile = torch.tensor([3.0, 0.0, 0.0, 0.0, 1.0])
    assert inf.profile_spread(profile, 1).item() == pytest.approx(math.sqrt(3.0))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("residual", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_shares_add_up_over_all_paths(window, layers, residual, causal):
    steps = range(0 if causal else -window, window + 1)
    start = 0 if causal else layers * window
    expected = [0.0] * (start + layers * window + 1)
    for path in itertools.product(steps, repeat=layers):
        weight = math.prod(
            (1 - residual) / len(steps) + residual * (step == 0) for step in path
        )
        expected[start + sum(path)] += weight
    shares = inf.lag_distribution(window, layers, residual=residual, causal=causal)
    assert shares.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("window, layers", [(1, 1), (4, 6), (16, 3), (64, 12)])
def test_spread_of_uniform_layers_is_the_closed_form(window, layers):
    shares = inf.lag_distribution(window, layers)
    spread = inf.profile_spread(shares, layers * window).item()
    assert spread == pytest.approx(math.sqrt(layers * window * (window + 1) / 3))


def test_quantile_of_a_uniform_layer():
    shares = inf.lag_distribution(99, 1, causal=True)
    assert inf.lag_quantile(shares, 0.985) == 98
    assert inf.lag_quantile(shares, 0.005) == 0


def test_shares_of_impossible_residuals():
    with pytest.raises(ValueError, match=r"residual must lie in \[0, 1\], got 1.5"):
        inf.lag_distribution(2, 1, residual=1.5)
    with pytest.raises(ValueError, match="window must be at least 0, got -1"):
        inf.lag_distribution(-1, 1)
    with pytest.raises(ValueError, match="layers must be at least 0, got -2"):
        inf.lag_distribution(1, -2)


def test_a_quantile_stays_within_the_lags():
    shares = inf.lag_distribution(9, 1, causal=True)
    assert inf.lag_quantile(shares, 1.0) == 9
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        inf.lag_quantile(shares, 1.5)
