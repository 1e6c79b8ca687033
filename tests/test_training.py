"""The training loop: it learns, it repeats itself, and it counts fairly."""

import pytest
import torch
from torch import nn

from attn_tutorial.modules import Transformer
from attn_tutorial.tasks import IGNORE, reverse
from attn_tutorial.training import accuracy, fit


def batch(generator):
    return reverse(16, 6, 5, generator)


def model():
    torch.manual_seed(0)
    return Transformer(5, 5, d_model=16, num_heads=1, num_layers=1)


def test_training_repeats_itself_and_leaves_the_global_seed_alone():
    first, second = model(), model()
    state = torch.get_rng_state()
    losses = fit(first, batch, steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert fit(second, batch, steps=5) == losses
    other = model()
    assert fit(other, batch, steps=5, seed=1) != losses


def test_a_small_transformer_learns_to_reverse():
    trained = model()
    losses = fit(trained, batch, steps=150, lr=1e-2)
    assert len(losses) == 150
    assert losses[-1] < 0.1 * losses[0]
    assert accuracy(trained, batch) > 0.95


class Constant(nn.Module):
    """Always the first label."""

    def forward(self, tokens):
        return nn.functional.one_hot(torch.zeros_like(tokens), 3).float()


def test_accuracy_leaves_out_ignored_targets():
    targets = torch.tensor([[0, 1, IGNORE, IGNORE], [0, 0, IGNORE, 2]])
    share = accuracy(Constant(), lambda _: (torch.zeros(2, 4, dtype=int), targets))
    assert share == pytest.approx(3 / 5)


def test_ignored_targets_do_not_train():
    frozen = model()
    weights = [p.clone() for p in frozen.head.parameters()]

    def half(generator):
        inputs, targets = batch(generator)
        return inputs, targets.index_fill(-1, torch.arange(1, 6), IGNORE)

    fit(frozen, half, steps=1, lr=1e-2)
    moved = list(frozen.head.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(weights, moved, strict=True))
    assert fit(model(), half, steps=1) != fit(model(), batch, steps=1)


def test_no_steps_is_an_error():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        fit(model(), batch, steps=0)
