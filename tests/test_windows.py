"""The advised window, on models whose needed window is known by construction."""

import math
import types

import numpy as np
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
    looks_ahead,
    losses_with_context,
    losses_with_windows,
    narrow,
    narrow_layers,
    needed_context,
    with_blocks,
    with_window,
)
from attn_tutorial.networks.layers import sinusoidal_positions
from attn_tutorial.networks.tasks import IGNORE
from attn_tutorial.networks.training import fit
from attn_tutorial.networks.transformer import Transformer


def looks_back(n, steps, batch=2, heads=1):
    """Weights of heads that attend to exactly the token ``steps`` before them."""
    place = torch.arange(n)
    weights = torch.zeros(n, n)
    weights[place, (place - steps).clamp(min=0)] = 1
    return weights.expand(batch, heads, n, n)


TOKENS = torch.randint(3, (2, 12), generator=torch.Generator().manual_seed(0))


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
            ([looks_back(3, 1)],),
            {"skip": -1},
            ValueError,
            "skip must be at least",
        ),
        (([looks_back(3, 1)],), {"skip": 3}, ValueError, "leave a query of the n=3"),
        (([],), {}, TypeError, "source must hold a tensor for each layer"),
        (([None],), {}, TypeError, "got \\['NoneType'\\]"),
        (([torch.ones(1, 1, 3, 3).long()],), {}, TypeError, "a floating dtype"),
        (([torch.ones(1, 1, 1, 1)],), {}, ValueError, "of 2 tokens or more"),
        (("gpt2",), {}, TypeError, "got str; load the model first"),
        (({"weight": torch.ones(2)},), {}, TypeError, "or load_state_dict"),
        ((Transformer(3, 3), [[1, 2]]), {}, TypeError, "token ids, got list"),
        ((Transformer(3, 3), torch.ones(1, 4)), {}, TypeError, "an integer dtype"),
        ((Transformer(3, 3), torch.arange(3)), {}, ValueError, r"\(batch, n\), got"),
        ((Transformer(3, 3), TOKENS[:, :1]), {}, ValueError, "texts of 2 tokens"),
        (([looks_back(12, 1)], TOKENS, TOKENS), {}, TypeError, "targets need a model"),
        ((5, TOKENS, TOKENS), {}, TypeError, "a model that can be called .* got int"),
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


# Evidence that is none.


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0, 0.5, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_shares_are_refused(wrong, dtype):
    weights = looks_back(32, 5).clone()
    weights[1, :, 20:23] *= wrong if math.isfinite(wrong) else 1
    weights[1, :, 20:23] += 0 if math.isfinite(wrong) else wrong
    with pytest.raises(ValueError, match="layer 1 must hold .* text 1, head 0, query"):
        advise_window([looks_back(32, 5).to(dtype), weights.to(dtype)])


def test_weights_may_be_rounded():
    weights = torch.randn(2, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        advise_window([weights.softmax(-1).to(dtype)])
    with pytest.raises(ValueError, match="has the sum 1.01"):
        advise_window([weights.softmax(-1) * 1.01])


def test_a_negative_share_is_refused_though_the_sum_is_right():
    weights = looks_back(8, 1).clone()
    weights[0, 0, 5, :2] = torch.tensor([-0.5, 0.5])
    with pytest.raises(ValueError, match="the least share -0.5"):
        advise_window([weights])


def test_profiles_refuse_what_is_no_number():
    with pytest.raises(ValueError, match="weights must be finite .* got nan"):
        distance_profile(torch.full((1, 1, 3, 3), torch.nan))
    for find in (smallest_window, smallest_block):
        with pytest.raises(ValueError, match="profile must be finite .* got nan"):
            find(torch.tensor([[torch.nan, 1]]), 0.05)


@pytest.mark.parametrize("leak", [0.0, 1e-6])
def test_a_head_that_has_a_sink_only_is_told_so(leak):
    """Rounding errors beside the sink are no attention either."""
    sink, near = looks_back(64, 64), looks_back(64, 3)
    sink = (1 - leak) * sink + leak * looks_back(64, 20)
    advice = advise_window([torch.cat([sink, near], 1), sink], ignore_first=True)
    assert advice.by_head == [[0, 3], [0]]
    assert advice.block_sizes == [3, 1]
    assert advice.first_token == pytest.approx([0.5, 1], abs=1e-5)
    assert repr(advice) == (
        "layer 0: window 3 (heads first token only, 3; first token 50%)\n"
        "layer 1: window 0 (heads first token only; first token 100%)\n"
        "holds 95% of the attention, the first token left out"
    )


def test_labels_must_count_where_the_loss_is_taken():
    tokens = torch.randint(5, (4, 40), generator=torch.Generator().manual_seed(0))
    targets = tokens.clone()
    targets[:, 24:] = IGNORE
    with pytest.raises(ValueError, match="at all positions from 24 to 39: give labels"):
        advise_window(Remembers(2), tokens, targets)
    assert needed_context(Remembers(2), tokens, tokens.roll(2, 1), queries=17) == 2
    with pytest.raises(ValueError, match="targets must have the shape of the tokens"):
        needed_context(Remembers(2), tokens, tokens[:, 1:])
    with pytest.raises(TypeError, match="targets must be a tensor of integers"):
        needed_context(Remembers(2), tokens, tokens.float())
    with pytest.raises(ValueError, match="model scores, 5, got 7"):
        needed_context(Remembers(2), tokens, tokens.where(tokens > 0, 7))


def test_a_loss_that_is_no_number_is_refused():
    def broken(tokens):
        return Remembers(2)(tokens) * torch.nan

    tokens = torch.randint(5, (4, 40), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="scores without NaN, got a loss of nan"):
        advise_window(broken, tokens, tokens)

    def impossible(tokens):
        return Remembers(2)(tokens).masked_fill(torch.arange(5) == 0, -torch.inf)

    with pytest.raises(ValueError, match="model must have a finite loss"):
        needed_context(impossible, tokens, tokens)


def test_what_is_no_model_is_named():
    with pytest.raises(TypeError, match="called with tokens, got dict; load the model"):
        needed_context({}, TOKENS, TOKENS)
    with pytest.raises(ValueError, match="scores of shape .* got Tensor with shape"):
        needed_context(lambda tokens: tokens.float(), TOKENS, TOKENS)
    with pytest.raises(ValueError, match="inputs must be texts of 2 tokens"):
        needed_context(Transformer(3, 3), TOKENS[:, :1], TOKENS[:, :1])


def test_a_model_in_training_is_sent_to_eval():
    model = moved(Transformer(3, 3, dropout=0.5)).train()
    with pytest.raises(ValueError, match=r"call eval\(\) on it"):
        advise_window(model, TOKENS, TOKENS)
    advise_window(model.eval(), TOKENS, TOKENS)


# Looking ahead.


def sees(*pairs, labels=3):
    """A model in whose text t the output ``query`` is the token ``key``, for pairs."""

    def model(tokens):
        scores = torch.zeros(*tokens.shape, labels)
        for text, query, key in pairs:
            if text < len(tokens) and max(query, key) < tokens.shape[1]:
                scores[text, query, tokens[text, key] % labels] = 9.0
        return scores

    return model


@pytest.mark.parametrize("text", [0, 1])
def test_every_text_is_looked_at(text):
    assert looks_ahead(sees((text, 3, 9)), TOKENS)
    assert not looks_ahead(sees((text, 9, 3), (text, 5, 5)), TOKENS)


@pytest.mark.parametrize("distance", [1, 2, 5, 11])
def test_any_distance_ahead_is_seen(distance):
    assert looks_ahead(Remembers(-distance, labels=3), TOKENS)
    assert not looks_ahead(Remembers(distance, labels=3), TOKENS)


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_blocks_that_look_ahead_inside_are_seen(size):
    def blocks(tokens):
        parts = tokens.split(size, 1)
        last = torch.cat([p[:, -1:].expand_as(p) for p in parts], 1)
        return 9.0 * nn.functional.one_hot(last, 3)

    assert looks_ahead(blocks, TOKENS)


def test_a_model_that_confuses_tokens_is_seen_to_look_ahead():
    """It knows odd from even only: some replacements change nothing."""

    def parity(tokens):
        odd = (tokens % 2).flip(1).cumsum(1).flip(1) % 2
        return 9.0 * nn.functional.one_hot(odd, 2)

    assert looks_ahead(parity, TOKENS)


@pytest.mark.parametrize("twin", [1, 2])
def test_a_token_with_a_twin_is_replaced_by_another(twin):
    """Only whether the last token is 0 (or its twin) is looked at."""

    def model(tokens):
        last = (tokens[:, -1:] == 0) | (tokens[:, -1:] == twin)
        return 9.0 * nn.functional.one_hot(last.expand_as(tokens).long(), 2)

    assert looks_ahead(model, torch.tensor([[1, 2, 0, 0, 0, 0]]))


def test_an_exchange_that_cancels_is_tried_one_by_one():
    """Two replaced tokens change nothing: only their parity is looked at."""

    def model(tokens):
        odd = tokens[:, 3:5].sum(1, keepdim=True).expand_as(tokens) % 2
        return 9.0 * nn.functional.one_hot(odd, 2)

    assert looks_ahead(model, torch.tensor([[0, 1, 1, 0, 0, 1]]))


@pytest.mark.parametrize("query", [0, 10])
def test_one_end_that_looks_ahead_is_seen(query):
    assert looks_ahead(sees((0, query, query + 1)), TOKENS)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_size_of_scores_does_not_matter(scale, dtype):
    """Nor labels that are ruled out."""
    for causal in (True, False):
        pattern = patterns.causal() if causal else None
        model = moved(Transformer(3, 3, 8, pattern=pattern)).to(dtype)

        def scaled(tokens, model=model):
            scores = scale * model(tokens)
            out = scores.new_full((*tokens.shape, 1), -torch.inf)
            return torch.cat([scores, out, out.clamp(torch.finfo(dtype).min)], -1)

        assert looks_ahead(scaled, TOKENS) != causal


def test_rounding_that_depends_on_the_length_is_not_looking_ahead():
    def model(tokens):
        noise = 0.02 * torch.sin(torch.arange(5) * 7.0 + tokens.shape[1])
        return Remembers(30)(tokens) + noise

    tokens = torch.randint(5, (8, 64), generator=torch.Generator().manual_seed(0))
    assert not looks_ahead(model, tokens)
    assert needed_context(model, tokens, tokens.roll(30, 1)) == 30


def test_texts_of_one_token_only_have_it_replaced_by_another():
    ones = torch.ones(2, 8).long()
    assert looks_ahead(Remembers(-1), ones) and not looks_ahead(Remembers(1), ones)
    with pytest.raises(ValueError, match="got token 0 only"):
        looks_ahead(Remembers(1), ones - 1)


def test_the_loss_is_taken_at_the_end_or_in_the_middle():
    """Only there does a model say something."""
    n, queries = 21, 5
    tokens = torch.randint(5, (3, n), generator=torch.Generator().manual_seed(0))
    for ahead, places in ((False, range(16, 21)), (True, range(8, 13))):
        only = torch.full_like(tokens, IGNORE)
        only[:, list(places)] = tokens[:, list(places)]
        options = {"queries": queries, "ahead": ahead}
        part = losses_with_context(Remembers(1), tokens, only, [0, 3], **options)
        every = losses_with_context(Remembers(1), tokens, tokens, [0, 3], **options)
        assert part == every
        with pytest.raises(ValueError, match=f"from {places[0]} to {places[-1]}"):
            rest = tokens.where(only == IGNORE, IGNORE)
            losses_with_context(Remembers(1), tokens, rest, [0], **options)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_text_may_be_shorter_than_the_queries_and_the_contexts(ahead):
    tokens = torch.randint(5, (1, 7), generator=torch.Generator().manual_seed(0))
    model = Remembers(-1 if ahead else 1)
    found = losses_with_context(model, tokens, tokens, [0, 6, 99], queries=50)
    assert found[1] == found[2]
    scores = model(tokens)[0]
    assert found[1] == pytest.approx(nn.functional.cross_entropy(scores, tokens[0]))


# Sizes and layers.


@pytest.mark.parametrize("window", [np.int64(3), torch.tensor(3), [3, np.int32(3)]])
def test_a_window_may_be_a_number_of_numpy(window):
    model = with_window(Transformer(5, 5, num_layers=2), window)
    assert [b.mixer.pattern for b in model.blocks] == [patterns.local(3)] * 2


def test_a_wrong_window_is_named():
    with pytest.raises(TypeError, match="window must be an integer, got True"):
        with_window(Transformer(5, 5), True)
    with pytest.raises(ValueError, match="block_size must have 2 entries"):
        with_blocks(Transformer(5, 5), [3])
    with pytest.raises(TypeError, match="MultiHeadAttention, got Linear"):
        with_window(nn.Linear(2, 2), 3)


def test_layers_that_share_their_parameters_get_their_own_windows():
    shared = moved(Transformer(5, 5, 8, 2, 3, share_layers=True))
    limited = with_window(shared, [1, 2, 3])
    expected = [patterns.local(w) for w in (1, 2, 3)]
    assert [b.mixer.pattern for b in limited.blocks] == expected
    assert sum(p.numel() for p in limited.parameters()) == sum(
        p.numel() for p in shared.parameters()
    )
    tokens = torch.randint(5, (4, 12), generator=torch.Generator().manual_seed(0))
    windows = narrow_layers(shared, tokens, tokens, tolerance=0.1)
    (full, narrowed) = losses_with_windows(shared, tokens, tokens, [12, windows])
    assert len(windows) == 3 and narrowed <= full + 0.1


def test_losses_with_windows_need_labels_and_numbers():
    model, none = moved(Transformer(3, 3)), torch.full_like(TOKENS, IGNORE)
    with pytest.raises(ValueError, match="targets must have a label"):
        losses_with_windows(model, TOKENS, none, [1])
    model.head.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="got a loss of nan"):
        narrow_layers(model, TOKENS, TOKENS)


def test_gradients_that_say_nothing_are_refused():
    model = Transformer(3, 3)
    for parameter in model.parameters():
        parameter.data.zero_()
    with pytest.raises(ValueError, match="must have finite gradients, not all 0"):
        gradient_profile(model, TOKENS)
    profile = gradient_profile(moved(model), TOKENS, queries=99)
    assert torch.equal(profile, gradient_profile(model, TOKENS, queries=12))


# Models that do not return their attention.


def test_the_loss_is_enough_where_attention_is_not_returned():
    tokens = torch.randint(5, (8, 40), generator=torch.Generator().manual_seed(0))
    advice = advise_window(Remembers(3), tokens, tokens.roll(3, 1))
    assert (advice.context, advice.windows, advice.block_sizes) == (3, [3], [3])
    assert advice.by_head == advice.profiles == advice.first_token == []
    assert repr(advice) == (
        "all layers together: window 3\nthe loss needs 3 tokens of context"
    )
    with pytest.raises(ValueError, match="being Remembers: .* or give targets"):
        advise_window(Remembers(3), tokens)
    model = Remembers(3)
    model.config = types.SimpleNamespace(num_hidden_layers=2)
    advice = advise_window(model, tokens, tokens.roll(3, 1))
    assert repr(advice).startswith("layer 0: window 2\nlayer 1: window 2\n")


def test_a_mixer_without_attention_is_asked_for_its_loss():
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.output = nn.Linear(8, 8)

        def forward(self, x):
            return self.output(x)

    model = moved(Transformer(3, 3, 8, mixer=Nothing, num_layers=3))
    assert advise_window(model, TOKENS, TOKENS).windows == [0, 0, 0]
    with pytest.raises(ValueError, match="source returned no attention weights"):
        advise_window(model, TOKENS)


def test_an_error_inside_a_model_is_not_hidden():
    class Broken(nn.Module):
        def forward(self, tokens, output_attentions=False):
            raise TypeError("something else")

    with pytest.raises(TypeError, match="something else"):
        advise_window(Broken(), TOKENS)


SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}


def small(kind, implementation="eager", head=None):
    """A tiny model of the Hugging Face library with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    options = {"vocab_size": 11, "attn_implementation": implementation, **SMALL}
    options |= {} if kind == "GPT2" else {"intermediate_size": 32}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**options, **special)
    name = {"Llama": "ForCausalLM", "GPT2": "LMHeadModel", "Bert": "ForMaskedLM"}[kind]
    return getattr(transformers, kind + (name if head is None else head))(config).eval()


class Tuples(nn.Module):
    """A model that is asked for tuples."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, **options):
        return self.model(tokens, return_dict=False, **options)


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Bert"])
@pytest.mark.parametrize("as_tuple", [False, True])
def test_hugging_face_models_are_asked(kind, as_tuple):
    model = small(kind)
    tokens = torch.randint(3, 11, (3, 24), generator=torch.Generator().manual_seed(0))
    model = Tuples(model) if as_tuple else model
    assert looks_ahead(model, tokens) == (kind == "Bert")
    advice = advise_window(model, tokens, tokens, tolerance=0)
    assert len(advice.windows) == len(advice.profiles) == 2
    assert advice.profiles[0].shape == (2, 24)
    assert advice.context <= (12 if kind == "Bert" else 23)
    assert advise_window(model, tokens).window > 5


@pytest.mark.parametrize("kind", ["Llama", "Bert"])
def test_without_eager_attention_the_loss_is_enough(kind):
    model = small(kind, "sdpa")
    tokens = torch.randint(3, 11, (3, 24), generator=torch.Generator().manual_seed(0))
    advice = advise_window(model, tokens, tokens)
    assert len(advice.windows) == 2
    if not advice.profiles:  # some releases fall back to eager attention
        with pytest.raises(ValueError, match="load the model with attn_impl"):
            advise_window(model, tokens)


def test_a_model_without_a_head_is_told_so():
    model = small("Bert", head="Model")
    tokens = torch.randint(3, 11, (3, 24), generator=torch.Generator().manual_seed(0))
    assert len(advise_window(model, tokens).windows) == 2
    with pytest.raises(ValueError, match="a model without a head needs one"):
        advise_window(model, tokens, tokens)


def test_a_pair_is_no_list_of_layers():
    model = Transformer(5, 5, 8, 2, 2)
    with pytest.raises(TypeError, match=r"write \[\(3, 0\)\] \* 2"):
        with_window(model, (3, 0))
