"""Measures of heads, on weights and models whose behaviour is known."""

import pytest
import torch

from attn_tutorial import patterns
from attn_tutorial.experiments.studies import inside
from attn_tutorial.instruments.heads import (
    entropy,
    gradient_size,
    induction_score,
    looks_back,
    rank_correlation,
    replacement_effect,
    rollout,
    sink_share,
    without_heads,
)
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.transformer import Transformer
from attn_tutorial.patterns import dense_mask


def points(n, target):
    """Weights of a head whose query i attends to key target(i) alone."""
    weights = torch.zeros(1, 1, n, n)
    for i in range(n):
        weights[..., i, max(0, target(i))] = 1
    return weights


def even(pattern, n):
    """Weights that are spread evenly over what a pattern keeps."""
    mask = dense_mask(pattern, n).double()
    return (mask / mask.sum(-1, keepdim=True))[None, None]


def moved(**sizes):
    """A model with weights that are not zero anywhere."""
    torch.manual_seed(0)
    options = {"pattern": patterns.causal(), "positions": "rotary"}
    model = Transformer(7, 7, 16, **options, **sizes).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) / 4
    return model


# Entropy.


@pytest.mark.parametrize("keys", [1, 2, 8, 64])
def test_an_even_spread_has_as_many_effective_keys(keys):
    weights = torch.zeros(64)
    weights[:keys] = 1 / keys
    assert entropy(weights[None]).exp2().item() == pytest.approx(keys)


def test_a_window_bounds_the_entropy():
    weights = even(patterns.local(3) & patterns.causal(), 20)
    assert entropy(weights)[..., 3:].exp2().flatten().tolist() == pytest.approx(
        [4] * 17
    )


# Where a head looks.


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_head_that_looks_back_is_found(steps):
    heads = [points(12, lambda i: i), points(12, lambda i: i - 1)]
    weights = torch.cat([*heads, points(12, lambda i: i - 4)], 1)
    found = looks_back(weights, steps, first=6)
    assert found.tolist() == [float(s == steps) for s in (0, 1, 4)]


def test_only_queries_that_count_are_averaged():
    weights = points(6, lambda i: i - 1 if i >= 4 else 0)
    assert looks_back(weights, 1, first=4).item() == 1
    assert looks_back(weights, 1).item() == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="steps and first must be below n=6"):
        looks_back(weights, 6)


def test_a_sink_is_found_and_a_window_cannot_see_it():
    assert sink_share(points(9, lambda i: 0), first=4).item() == 1
    causal = even(patterns.causal(), 8)
    expected = sum(1 / (i + 1) for i in range(4, 8)) / 4
    assert sink_share(causal, first=4).item() == pytest.approx(expected)
    near = patterns.local(3) & patterns.causal()
    assert sink_share(even(near, 8), first=4).item() == 0
    kept = (patterns.local(3) | patterns.global_tokens(1)) & patterns.causal()
    assert sink_share(even(kept, 8), first=4).item() == pytest.approx(1 / 5)


@pytest.mark.parametrize("period", [3, 8])
def test_an_induction_head_is_one_that_looks_where_it_came_next(period):
    text = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:period]
    text = text.repeat(2).tolist()

    def came_next(i):
        earlier = [j for j in range(1, i + 1) if text[j - 1] == text[i]]
        return earlier[-1] if earlier else 0

    heads = points(2 * period, came_next), points(2 * period, lambda i: i - period)
    assert induction_score(torch.cat(heads, 1), period).tolist() == [1, 0]


def test_induction_needs_two_copies():
    with pytest.raises(ValueError, match=r"n = 2 \* period = 8 keys, got shape"):
        induction_score(torch.zeros(1, 1, 9, 9), 4)


# Attributions.


def test_rollout_of_one_layer_is_half_of_it():
    maps = [torch.rand(2, 3, 5, 5).softmax(-1) for _ in range(2)]
    identity = torch.eye(5)
    first = (maps[0].mean(1) + identity) / 2
    torch.testing.assert_close(rollout(maps[:1]), first)
    second = (maps[1].mean(1) + identity) / 2
    torch.testing.assert_close(rollout(maps), second @ first)
    torch.testing.assert_close(rollout(maps).sum(-1), torch.ones(2, 5))


def test_ranks_count_and_not_sizes():
    a = torch.tensor([[3.0, 1, 2, 10], [1, 2, 3, 4]])
    assert rank_correlation(a, a.exp()).tolist() == [1, 1]
    assert rank_correlation(a, -a).tolist() == [-1, -1]
    assert rank_correlation(a, torch.ones(2, 4)).tolist() == [0, 0]


def test_ties_share_their_ranks():
    """Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: the correlation of the ranks, by hand."""
    a, b = torch.tensor([1.0, 5, 5, 7]), torch.tensor([1.0, 2, 3, 4])
    ranks = torch.tensor([[1, 2.5, 2.5, 4], [1, 2, 3, 4]])
    expected = torch.corrcoef(ranks)[0, 1].item()
    assert rank_correlation(a, b).item() == pytest.approx(expected)


@pytest.mark.parametrize("position", [3, 6])
def test_nothing_later_matters(position):
    model = moved(num_layers=2)
    tokens = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    gradient = gradient_size(model, tokens[None], position)[0]
    effect = replacement_effect(model, tokens, position, shifts=(1, 2))
    for found in (gradient, effect):
        assert (found[: position + 1] > 0).all()
        assert (found[position + 1 :] == 0).all()
    assert (effect <= 1).all()


def test_the_effect_is_that_of_the_changed_text():
    model, tokens = moved(num_layers=1), torch.tensor([0, 1, 2, 3, 4])
    changed = torch.tensor([0, 1, 1, 3, 4])
    with torch.no_grad():
        a, b = (model(x[None])[0, 4].softmax(-1) for x in (tokens, changed))
    effect = replacement_effect(model, tokens, 4, shifts=(1,))
    assert effect[2].item() == pytest.approx((a - b).abs().sum().item() / 2, abs=1e-6)


def test_the_gradient_is_that_of_the_best_label():
    model, tokens = moved(num_layers=1), torch.tensor([[0, 1, 2, 3]])
    size = gradient_size(model, tokens, 3)[0, 1].item()
    column = model.embedding.weight[1]
    step = torch.randn(16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(tokens)[0, 3]
        best = before.argmax()
        column += 1e-3 * step
        rise = (model(tokens)[0, 3, best] - before[best]).item() / 1e-3
    assert abs(rise) <= size * step.norm().item() * 1.01


# Ablation.


def test_silencing_all_heads_leaves_the_bias():
    model = moved(num_layers=1, num_heads=4)
    x = torch.randn(1, 5, 16)
    silent = without_heads(model, [(0, head) for head in range(4)])
    expected = silent.blocks[0].mixer.output.bias.expand(1, 5, 16)
    torch.testing.assert_close(silent.blocks[0].mixer(x), expected)


def test_silencing_heads_one_by_one_adds_up():
    """A layer is the sum of its heads and the bias."""
    model, x = moved(num_layers=2, num_heads=4), torch.randn(1, 5, 16)
    mixer = model.blocks[1].mixer
    parts = [
        mixer(x) - without_heads(model, [(1, head)]).blocks[1].mixer(x)
        for head in range(4)
    ]
    torch.testing.assert_close(sum(parts) + mixer.output.bias, mixer(x))
    assert torch.equal(
        without_heads(model, [(1, 0)]).blocks[0].mixer.output.weight,
        model.blocks[0].mixer.output.weight,
    )


@pytest.mark.parametrize("head", [(2, 0), (0, 4), (-1, 0)])
def test_a_head_that_there_is_not_is_named(head):
    with pytest.raises(ValueError, match="heads must be pairs of layers below 2"):
        without_heads(moved(num_layers=2, num_heads=4), [head])


def test_one_of_several_shared_layers_is_silenced():
    model = moved(num_layers=2, num_heads=4, share_layers=True)
    silenced = without_heads(model, [(1, 0)])
    weights = [block.mixer.output.weight[:, :4] for block in silenced.blocks]
    assert weights[0].abs().sum() > 0 and weights[1].abs().sum() == 0


def test_the_first_query_must_be_a_count():
    with pytest.raises(ValueError, match="first must be at least 0, got -1"):
        looks_back(points(6, lambda i: i), 1, first=-1)


# The copying task.


def test_a_sequence_repeats_and_its_repetition_is_the_target():
    generator = torch.Generator().manual_seed(0)
    inputs, targets = inside.draw(40, 30, generator, (4, 9))
    for row, wanted in zip(inputs.tolist(), targets.tolist(), strict=True):
        period = row.index(row[0], 1)
        assert 4 <= period <= 9 and len(set(row[:period])) == period
        assert row == (row[:period] * 8)[:30]
        assert wanted[:period] == [IGNORE] * period
        assert wanted[period:-1] == row[period + 1 :]


def test_a_probe_is_two_copies_that_no_training_saw():
    inputs, targets = inside.probe(6, count=5)
    assert torch.equal(inputs[:, :6], inputs[:, 6:])
    assert ((targets != IGNORE).sum(-1) == 6).all()
    assert torch.equal(inputs, inside.probe(6, count=5)[0])


def test_all_measures_are_there_for_every_head():
    model = moved(num_layers=2, num_heads=4)
    inputs = torch.randint(7, (3, 12), generator=torch.Generator().manual_seed(0))
    found = inside.measures(model, inputs)
    within = torch.tensor(found.pop("within")).view(8, -1)
    assert all(len(heads) == 8 for heads in found.values())
    assert (within.diff(dim=-1) >= 0).all() and within.shape[1] == 5
    assert found["available_keys"] == [9.5] * 8
    silent = inside.silenced(model, inputs, inputs)
    assert len(silent["loss_without"]) == 8 and len(silent["loss_without_layer"]) == 2


def test_a_sink_needs_a_query():
    with pytest.raises(ValueError, match="first must be below n=4, got 9"):
        sink_share(torch.full((1, 2, 4, 4), 0.25), first=9)
