"""Recurrence, convolution and attention against their definitions, and their costs."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attn_tutorial.instruments.influence import influence
from attn_tutorial.networks.baselines import (
    Convolution,
    Recurrence,
    SelfAttention,
    sequential_products,
)

D = 6


@pytest.fixture(autouse=True)
def float64_weights():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_recurrence_is_its_definition():
    layer, x = Recurrence(D), torch.randn(7, D)
    w, u, state = layer.input.weight, layer.state.weight, torch.zeros(D)
    for i, token in enumerate(x):
        state = torch.tanh(w @ token + u @ state)
        torch.testing.assert_close(layer(x)[i], state)


@pytest.mark.parametrize("rounds", [0, 1, 4, 7, 9])
def test_after_r_rounds_the_first_r_states_are_final(rounds):
    layer, x = Recurrence(D), torch.randn(2, 7, D)
    states, final = layer.after(x, rounds), layer(x)
    torch.testing.assert_close(states[:, :rounds], final[:, :rounds])
    if rounds < 7:
        assert not torch.allclose(states[:, rounds], final[:, rounds])


@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (2, 1), (3, 1), (3, 2), (2, 5)])
def test_convolution_is_its_definition(size, dilation):
    layer, x = Convolution(D, size, dilation), torch.randn(1, 8, D)
    weight = layer.kernel.weight  # (out, in, size), the last tap meets the token itself
    for i in range(8):
        total = torch.zeros(D)
        for t in range(size):
            if i - t * dilation >= 0:
                total = total + weight[:, :, size - 1 - t] @ x[0, i - t * dilation]
        torch.testing.assert_close(layer(x)[0, i], total.tanh())


def test_self_attention_is_its_definition():
    layer, x = SelfAttention(D), torch.randn(2, 5, D)
    w = [getattr(layer, name).weight for name in ("query", "key", "value", "output")]
    q, k, v = (x @ weight.T for weight in w[:3])
    expected = (q @ k.mT / math.sqrt(D)).softmax(-1) @ v @ w[3].T
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("layer", "parameters", "flops"),
    [
        (lambda: Recurrence(D), 2 * D**2, lambda n: 4 * n * D**2),
        (lambda: Convolution(D, 3), 3 * D**2, lambda n: 2 * 3 * n * D**2),
        (lambda: Convolution(D, 2, 4), 2 * D**2, lambda n: 2 * 2 * n * D**2),
        (lambda: SelfAttention(D), 4 * D**2, lambda n: 8 * n * D**2 + 4 * n**2 * D),
    ],
)
def test_parameters_and_flops_are_those_promised(layer, parameters, flops):
    layer = layer()
    assert sum(p.numel() for p in layer.parameters()) == parameters
    for n in (1, 5, 16):
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(1, n, D))
        assert counter.get_total_flops() == flops(n)


@pytest.mark.parametrize("n", [1, 2, 9, 33])
def test_sequential_products(n):
    x = torch.randn(1, n, D)
    assert sequential_products(Recurrence(D)(x)) == n
    assert sequential_products(Convolution(D, 3)(x)) == 1
    assert sequential_products(SelfAttention(D)(x)) == 4
    stack = torch.nn.Sequential(*(Convolution(D, 2) for _ in range(5)))
    assert sequential_products(stack(x)) == 5


def test_sequential_products_of_a_very_deep_graph():
    x = torch.ones(1, 1, requires_grad=True)
    y = x
    for _ in range(3000):
        y = y @ x
    assert sequential_products(y) == 3000


def test_sequential_products_needs_a_graph():
    with pytest.raises(ValueError, match="output must be computed"):
        sequential_products(torch.ones(2))


def test_who_hears_whom():
    x = torch.randn(9, D)
    profile = influence(lambda x: Convolution(D, 3, 2)(x[None])[0], x, position=6)
    assert (profile > 0).nonzero().flatten().tolist() == [2, 4, 6]
    assert (influence(SelfAttention(D), x, position=6) > 0).all()
    heard = influence(Recurrence(D), x, position=6) > 0
    assert heard.tolist() == [True] * 7 + [False] * 2


@pytest.mark.parametrize("layer", [Recurrence, SelfAttention])
def test_bad_width(layer):
    with pytest.raises(ValueError, match="d must be at least 1, got 0"):
        layer(0)


def test_bad_kernel():
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        Convolution(D, 0)
    with pytest.raises(TypeError, match="dilation must be an integer"):
        Convolution(D, 2, 1.5)
