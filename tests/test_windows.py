"""The advised window, on models whose needed window is known by construction."""

import math
import types

import pytest
import torch
from torch import nn

import attn_tutorial as at
from attn_tutorial import patterns
from attn_tutorial.modules import Transformer, sinusoidal_positions
from attn_tutorial.training import fit
from attn_tutorial.windows import (
    advise_window,
    distance_profile,
    gradient_profile,
    losses_with_windows,
    smallest_window,
    with_window,
)


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
