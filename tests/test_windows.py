"""The advised window, on models whose needed window is known by construction."""

import math
import types

import pytest
import torch
from torch import nn

import attn_tutorial as at
from attn_tutorial import patterns
from attn_tutorial.instruments.advice import advise_window
from attn_tutorial.instruments.distances import (
    block_share,
    distance_profile,
    gradient_profile,
    smallest_block,
    smallest_window,
)
from attn_tutorial.instruments.limits import (
    losses_with_windows,
    narrow,
    narrow_layers,
    needed_context,
    with_blocks,
    with_window,
)
from attn_tutorial.networks.layers import sinusoidal_positions
from attn_tutorial.networks.training import fit
from attn_tutorial.networks.transformer import Transformer


def looks_back(n, steps, batch=2, heads=1):
    """Weights of heads that attend to exactly the token ``steps`` before them."""
    place = torch.arange(n)
    weights = torch.zeros(n, n)
    weights[place, (place - steps).clamp(min=0)] = 1
    return weights.expand(batch, heads, n, n)


def moved(model):
    """``model`` with weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return model


def test_the_public_name_is_this_function():
    assert at.advise_window is advise_window


@pytest.mark.parametrize("steps", [0, 1, 5, 17])
def test_a_head_that_looks_back_needs_that_window(steps):
    advice = advise_window([looks_back(64, steps), looks_back(64, 1)])
    assert advice.windows == [steps, 1]
    assert advice.window == max(steps, 1)
    assert advice.profiles[0][0, steps] == 1


def test_a_layer_needs_the_window_of_its_widest_head():
    weights = torch.cat([looks_back(32, s) for s in (2, 9, 4)], 1)
    advice = advise_window([weights])
    assert advice.by_head == [[2, 9, 4]]
    assert advice.windows == [9]


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("window", [3, 10])
def test_uniform_attention_in_a_window_has_a_closed_form(window, tolerance):
    """Of 2w + 1 equal keys, 2v + 1 lie within v."""
    n = 200
    mask = at.dense_mask(patterns.local(window), n)
    inner = slice(window, n - window)
    weights = (mask / mask.sum(-1, keepdim=True)).double()
    profile = distance_profile(weights[None, None, inner, inner], skip=0)
    expected = math.ceil(((1 - tolerance) * (2 * window + 1) - 1) / 2 - 1e-9)
    rows = weights[None, None]
    middle = torch.zeros_like(rows)
    middle[..., inner, :] = rows[..., inner, :]  # no row that an end cuts off
    assert smallest_window(distance_profile(middle), tolerance) == [expected]
    assert profile.sum() == pytest.approx(1)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_model_that_turns_positions_needs_that_window(steps):
    """Queries turned by ``steps`` positions fit the keys that far back best."""
    width, n, sharpness = 32, 40, 100.0
    model = Transformer(4, 4, width, num_heads=1, num_layers=1)
    sine, cosine = map(torch.diag, sinusoidal_positions(n, width)[steps].chunk(2))
    turn = torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
    attention = model.blocks[0].mixer
    with torch.no_grad():
        nn.init.zeros_(model.embedding.weight)
        model.blocks[0].norm_1 = nn.Identity()
        for layer, matrix in ((attention.query, turn.T), (attention.key, None)):
            eye = torch.eye(width) if matrix is None else matrix * sharpness
            layer.weight.copy_(eye)
            nn.init.zeros_(layer.bias)
    tokens = torch.zeros(1, n, dtype=torch.long)
    advice = advise_window(model, tokens, tolerance=0.05, skip=steps)
    assert advice.windows == [steps]


@pytest.mark.parametrize("window", [0, 2, 5])
def test_a_model_with_windows_never_needs_more(window):
    model = moved(Transformer(6, 3, 8, 2, 2, pattern=patterns.local(window)))
    tokens = torch.randint(6, (3, 24), generator=torch.Generator().manual_seed(0))
    assert advise_window(model, tokens, tolerance=0).window <= window
    assert advise_window(model, tokens, tolerance=0).window >= window - 1


def test_a_sink_widens_the_advice_unless_it_is_ignored():
    near, sink = looks_back(64, 3), looks_back(64, 64)
    weights = 0.6 * near + 0.4 * sink
    plain, ignoring = (
        advise_window([weights], ignore_first=flag) for flag in (False, True)
    )
    assert plain.window > 50
    assert ignoring.windows == [3]
    assert advise_window([weights], tolerance=0.45).first_token == [pytest.approx(0.4)]


def test_early_queries_do_not_count_when_none_looks_ahead():
    """In full causal attention spread evenly, the first queries see nothing far."""
    mask = at.dense_mask(patterns.causal(), 64)
    weights = (mask / mask.sum(-1, keepdim=True))[None, None]
    late, all_rows = advise_window([weights]), advise_window([weights], skip=0)
    assert late.window > all_rows.window
    both = torch.full((1, 1, 8, 8), 1 / 8)
    assert advise_window([both]).windows == advise_window([both], skip=0).windows


def test_a_model_of_the_hugging_face_kind_is_asked_for_its_weights():
    class Other(nn.Module):
        def forward(self, tokens, output_attentions=False):
            n = tokens.shape[-1]
            found = (looks_back(n, 2), looks_back(n, 4)) if output_attentions else None
            return types.SimpleNamespace(attentions=found)

    assert advise_window(Other(), torch.zeros(1, 32).long()).windows == [2, 4]


def test_a_model_without_weights_is_told_so():
    class Fused(nn.Module):
        def forward(self, tokens, output_attentions=False):
            return types.SimpleNamespace(attentions=(None,))

    with pytest.raises(ValueError, match="load the model with"):
        advise_window(Fused(), torch.zeros(1, 4).long())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (([torch.ones(1, 1, 3, 3)],), {"tolerance": 1}, ValueError, r"lie in \[0, 1\)"),
        (([torch.ones(3, 3)],), {}, ValueError, r"must have shape .* got \(3, 3\)"),
        ((Transformer(3, 3),), {}, TypeError, "tokens must be given with a model"),
        (
            ([torch.ones(1, 1, 3, 3)],),
            {"skip": -1},
            ValueError,
            "skip must be at least",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, options, error, text):
    with pytest.raises(error, match=text):
        advise_window(*arguments, **options)


def test_advice_reads_as_text():
    advice = advise_window([looks_back(16, 3, heads=2)])
    assert repr(advice) == (
        "layer 0: window 3 (heads 3, 3; first token 0%)\nholds 95% of the attention"
    )


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gradients_end_where_reach_ends(layers):
    pattern = patterns.local(2) & patterns.causal()
    model = moved(Transformer(6, 3, 8, 2, layers, pattern=pattern))
    tokens = torch.randint(6, (2, 24), generator=torch.Generator().manual_seed(0))
    profile = gradient_profile(model, tokens)
    assert profile.sum() == pytest.approx(1)
    assert (profile > 0).nonzero().flatten().tolist() == list(range(2 * layers + 1))


def test_a_window_is_given_to_a_copy():
    causal = patterns.causal()
    model = moved(Transformer(6, 3, 8, 2, 2, pattern=[None, causal]))
    limited = with_window(model, [3, 4])
    assert [b.mixer.pattern for b in model.blocks] == [None, causal]
    trained = moved(
        Transformer(
            6, 3, 8, 2, 2, pattern=[patterns.local(3), patterns.local(4) & causal]
        )
    )
    tokens = torch.randint(6, (2, 24), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(limited(tokens), trained(tokens), atol=1e-5)
    with pytest.raises(ValueError, match="window must have 2 entries"):
        with_window(model, [3])


def test_a_window_as_wide_as_the_text_changes_nothing():
    model = moved(Transformer(6, 3, 8, 2, 2, pattern=patterns.causal()))
    tokens = torch.randint(6, (2, 24), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(with_window(model, 23)(tokens), model(tokens), atol=1e-5)
    assert not torch.allclose(with_window(model, 5)(tokens), model(tokens), atol=1e-3)


def two_steps_back(generator, n=16, labels=5):
    """Tokens, to be named again two steps later."""
    tokens = torch.randint(labels, (16, n), generator=generator)
    targets = tokens.roll(2, 1)
    targets[:, :2] = -100
    return tokens, targets


def test_imposed_windows_cost_what_they_hide():
    torch.manual_seed(0)
    options = {"pattern": patterns.causal(), "positions": "rotary"}
    model = Transformer(5, 5, 16, 1, 1, **options)
    fit(model, two_steps_back, steps=150, lr=1e-2)
    batch = two_steps_back(torch.Generator().manual_seed(1))
    near, enough, all_of_it = losses_with_windows(model, *batch, [1, 2, 16])
    assert near > 1 > 0.1 > enough
    assert all_of_it < 0.1


# Blocks.


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_block_shares_are_those_of_masks_averaged_over_offsets(size):
    """Blocks that begin anywhere, cut out of a longer row, by mask and by distance."""
    n, margin = 24, 64
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(2, 3, n, n, generator=generator, dtype=torch.float64)
    profile = distance_profile(weights, skip=0)
    mask = at.dense_mask(patterns.adjacent_blocks(size), n + margin)
    kept = [
        (weights * mask[start : start + n, start : start + n]).sum((0, 2, 3))
        for start in range(size)
    ]
    expected = torch.stack(kept).mean(0) / weights.sum((0, 2, 3))
    assert torch.allclose(block_share(profile, size), expected)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_blocks_hold_a_distance_for_certain_from_that_size_on(steps):
    profile = torch.zeros(1, 20, dtype=torch.float64)
    profile[0, steps] = 1
    assert smallest_block(profile, 0.0) == [steps]
    assert block_share(profile, steps) == 1
    # Half of all offsets keep it for 2 - d / b = 1 / 2.
    assert smallest_block(profile, 0.5) == [math.ceil(steps / 1.5)]
    assert advise_window([looks_back(40, steps)]).block_sizes == [steps]


def test_blocks_are_given_to_a_copy():
    causal = patterns.causal()
    model = moved(Transformer(6, 3, 8, 2, 2, pattern=causal))
    trained = moved(
        Transformer(6, 3, 8, 2, 2, pattern=patterns.adjacent_blocks(3) & causal)
    )
    tokens = torch.randint(6, (2, 24), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(with_blocks(model, 3)(tokens), trained(tokens), atol=1e-5)


# The loss as adviser, on models whose need is known by construction.


class Remembers(nn.Module):
    """Names the token ``steps`` before each position (or behind it), if it is there."""

    def __init__(self, steps, labels=5):
        super().__init__()
        self.steps, self.labels = steps, labels

    def forward(self, tokens):
        n, steps = tokens.shape[-1], self.steps
        scores = torch.zeros(*tokens.shape, self.labels)
        known = tokens[:, : max(0, n - steps)] if steps > 0 else tokens[:, -steps:]
        right = 20.0 * nn.functional.one_hot(known, self.labels)
        if steps > 0:
            scores[:, steps:] = right
        else:
            scores[:, : max(0, n + steps)] = right
        return scores


@pytest.mark.parametrize("steps", [1, 2, 7, 31, 33, 48, -1, -12])
def test_a_model_that_remembers_needs_that_context(steps):
    tokens = torch.randint(5, (8, 100), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(steps, 1)
    found = needed_context(Remembers(steps), tokens, targets)
    sizes = [found, found - max(1, (found - 1) // 16)]
    assert sizes[1] < abs(steps) <= sizes[0]
    if abs(steps) <= 33:
        assert found == abs(steps) + (abs(steps) == 33)


def test_a_model_that_needs_nothing_needs_no_context():
    tokens = torch.randint(5, (8, 20), generator=torch.Generator().manual_seed(0))
    alone = {"pattern": patterns.local(0), "positions": "rotary"}
    model = moved(Transformer(5, 5, 8, 1, 1, **alone))
    assert needed_context(model, tokens, tokens) == 0


def test_scores_may_stand_in_an_object():
    class Other(Remembers):
        def forward(self, tokens):
            return types.SimpleNamespace(logits=super().forward(tokens))

    tokens = torch.randint(5, (8, 40), generator=torch.Generator().manual_seed(0))
    assert needed_context(Other(3), tokens, tokens.roll(3, 1)) == 3


@pytest.fixture(scope="module")
def trained():
    """Two layers of full attention that name the token two steps back."""
    torch.manual_seed(0)
    options = {"pattern": patterns.causal(), "positions": "rotary"}
    model = Transformer(5, 5, 16, 1, 2, **options)
    fit(model, two_steps_back, steps=150, lr=1e-2)
    return model.eval(), two_steps_back(torch.Generator().manual_seed(1))


def test_layers_share_the_context_that_a_trained_model_needs(trained):
    model, (tokens, targets) = trained
    advice = at.advise_window(model, tokens, targets)
    assert advice.context == 2
    assert advice.windows == advice.block_sizes == [1, 1]
    assert repr(advice).endswith("the loss needs 2 tokens of context")
    # Attention looks further than the loss needs.
    assert at.advise_window(model, tokens).window >= 2


def test_layers_are_narrowed_until_the_loss_notices(trained):
    model, batch = trained
    windows = narrow_layers(model, *batch)
    (full, limited) = losses_with_windows(model, *batch, [16, windows])
    assert limited <= full + 0.02
    assert sum(windows) >= 2
    last = [*windows[:-1], windows[-1] - 1]
    assert losses_with_windows(model, *batch, [last])[0] > full + 0.02
    blocks = narrow_layers(model, *batch, limit=with_blocks)
    assert all(b >= 1 for b in blocks)


def test_narrowing_shares_the_tolerance():
    def loss(windows):
        return float(sum(10 - w for w in windows))

    assert narrow(loss, range(11), layers=2, tolerance=4.0) == [8, 8]
    assert narrow(loss, range(11), layers=4, tolerance=4.0) == [9, 9, 9, 9]


def test_a_negative_rise_of_the_loss_is_refused(trained):
    model, batch = trained
    with pytest.raises(ValueError, match="tolerance must be finite and at least 0"):
        at.advise_window(model, *batch, tolerance=-0.1)


# Models of the Hugging Face library, where it is installed.


def test_a_hugging_face_model_is_asked_like_any_other():
    """A small Llama learns to name the token two steps back."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=5, num_hidden_layers=2, attn_implementation="eager", **size
    )
    model = transformers.LlamaForCausalLM(config)

    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens):
            return self.model(tokens).logits

    fit(Scores(), two_steps_back, steps=200, lr=1e-2)
    tokens, targets = two_steps_back(torch.Generator().manual_seed(1))
    model.eval()
    advice = at.advise_window(model, tokens, targets)
    assert advice.context == 2
    assert advice.windows == [1, 1]
