"""The training loop: it learns, it repeats itself, and it counts fairly."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attn_tutorial.networks.tasks import IGNORE, reverse
from attn_tutorial.networks.training import (
    OPTIMIZERS,
    _advance,
    _RoundedProducts,
    accuracy,
    fit,
    muon,
    trajectory,
)
from attn_tutorial.networks.transformer import Transformer
from attn_tutorial.networks.translator import EncoderDecoder


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


@pytest.mark.parametrize(
    ("name", "lr"), [("adamw", 1e-2), ("sgd", 0.3), ("muon", 0.05)]
)
def test_every_optimizer_learns(name, lr):
    losses = fit(model(), batch, steps=60, lr=lr, optimizer=name)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "built", [Transformer(5, 5, 16, 1, 2), EncoderDecoder(5, 5, 16, 2, 1)]
)
def test_muon_moves_the_matrices_inside_and_adamw_the_rest(built):
    inner, rest = muon(built, 0.1)
    names = {id(p): name for name, p in built.named_parameters()}
    inside, outside = (
        [names[id(p)] for group in o.param_groups for p in group["params"]]
        for o in (inner, rest)
    )
    assert sorted(inside + outside) == sorted(names.values())
    assert all(name.endswith("weight") for name in inside)
    outer = ("embedding", "head", "source", "target", "norm")
    assert not any(name.startswith(outer) for name in inside)
    assert any("mlp.0.weight" in name for name in inside)
    assert inner.param_groups[0]["lr"] == pytest.approx(0.1)
    assert rest.param_groups[0]["lr"] == pytest.approx(0.01)


class Products(TorchDispatchMode):
    """Notes the types of the matrices that are multiplied."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.types |= {x.dtype for x in args}
        return func(*args, **(kwargs or {}))


def test_a_step_of_muon_multiplies_in_float32_and_stays_the_same_within_rounding():
    torch.manual_seed(0)
    start, gradient = torch.randn(24, 40), torch.randn(24, 40)
    moves = []
    for advance in (lambda o: o.step(), lambda o: _advance([o], 1.0)):
        weight = torch.nn.Parameter(start.clone())
        weight.grad = gradient.clone()
        with Products() as products:
            advance(torch.optim.Muon([weight], lr=1.0, weight_decay=0.0))
        moves.append(weight.detach() - start)
        expected = torch.bfloat16 if len(moves) == 1 else torch.float32
        assert products.types == {expected}
    plain, ours = moves
    assert (plain - ours).norm() < 0.02 * plain.norm()
    assert ours.norm() == pytest.approx(plain.norm().item(), rel=0.01)


def test_all_groups_follow_the_schedule():
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, *_):
            rates.append([group["lr"] for group in self.param_groups])

    def watched(model, lr, weight_decay):
        first, *others = model.parameters()
        return [Watched([{"params": [first]}, {"params": others, "lr": lr / 4}], lr=lr)]

    OPTIMIZERS["watched"] = watched
    try:
        fit(model(), batch, steps=40, lr=1.0, optimizer="watched")
    finally:
        del OPTIMIZERS["watched"]
    assert max(first for first, _ in rates) == 1.0
    assert rates[0] == [0.5, 0.125] and rates[-1][0] < 0.01
    assert all(second == pytest.approx(first / 4) for first, second in rates)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="optimizer must be one of .* got 'newton'"):
        fit(model(), batch, steps=1, optimizer="newton")


def test_smoothed_targets_leave_a_loss():
    sharp = fit(model(), batch, steps=150, lr=1e-2)
    smooth = fit(model(), batch, steps=150, lr=1e-2, label_smoothing=0.2)
    assert smooth[-1] > sharp[-1] + 0.2


def alone(name, length, *, decay, warm_up, seed):
    """A training of one length, written out: rise, constant rate, fall along a line."""
    trained, generator = model(), torch.Generator().manual_seed(seed)
    optimizers = OPTIMIZERS[name](trained, 0.01, 0.1)
    falling = round(decay * length)
    for step in range(length):
        left = length - step
        factor = min(1.0, (step + 1) / warm_up, left / (falling + 1))
        inputs, targets = batch(generator)
        scores = trained(inputs).flatten(0, -2)
        loss = nn.functional.cross_entropy(scores, targets.flatten())
        trained.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group.setdefault("highest", group["lr"])
                group["lr"] = group["highest"] * factor
            with _RoundedProducts():
                optimizer.step()
    return trained


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trajectory_ends_where_trainings_of_each_length_end(name):
    """Weights, optimizer and batches go on: equal to the last digit."""
    options = {"decay": 0.3, "warm_up": 3, "seed": 5}
    numbers = {"lr": 0.01, "weight_decay": 0.1, "optimizer": name}
    trunk, ends = model(), {}
    for length, end in trajectory(
        trunk, batch, lengths=(20, 5, 10), **options, **numbers
    ):
        assert end is not trunk
        ends[length] = end
    assert list(ends) == [5, 10, 20]
    for length, end in ends.items():
        expected = alone(name, length, **options).state_dict()
        found = end.state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_rate_of_a_trajectory_must_have_risen_before_it_falls():
    with pytest.raises(ValueError, match="warm_up must be at most 8, .* got 9"):
        next(trajectory(model(), batch, lengths=(10,), decay=0.2, warm_up=9))


def test_a_trajectory_may_begin_at_its_full_rate():
    ends = dict(trajectory(model(), batch, lengths=(4, 8), decay=0.5, warm_up=0))
    assert set(ends) == {4, 8}
    with pytest.raises(ValueError, match="warm_up must be at least 0, got -1"):
        next(trajectory(model(), batch, lengths=(10,), warm_up=-1))
