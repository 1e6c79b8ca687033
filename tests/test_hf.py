"""Models of Transformers served by this package: the same numbers, or a refusal."""

import contextlib
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")
import transformers

from attn_tutorial import patterns as P
from attn_tutorial.backends import hf
from attn_tutorial.backends.hf_masks import Mask, pattern_of
from tests.real_models import SIZES, meets, model_of, width_of

RELEASE = tuple(map(int, transformers.__version__.split(".")[:2]))
if not hf.OLDEST <= RELEASE < hf.BEYOND:
    pytest.skip(
        f"transformers {transformers.__version__} is refused", allow_module_level=True
    )

masking = transformers.masking_utils
W, N = 8, 40
WINDOW = {"sliding_window": W, "num_hidden_layers": 2}
QWEN = WINDOW | {"use_sliding_window": True, "max_window_layers": 1}
EVERY_OTHER = WINDOW | {"sliding_window_pattern": 2}
PLAIN = {"num_hidden_layers": 2}
BOTH = {"encoder_layers": 2, "decoder_layers": 2}
TILED, CAUSAL, FULL = "local 7,0 by tiles", "causal by SDPA", "full by SDPA"

# Family -> (changes of its config, what serves its layers when nothing is hidden).
SERVED = {
    "mistral": (WINDOW, {TILED}),
    "mixtral": (WINDOW, {TILED}),
    "phi3": (WINDOW, {TILED}),
    "qwen2": (QWEN, {CAUSAL, TILED}),
    "qwen3": (QWEN, {CAUSAL, TILED}),
    "gemma3_text": (EVERY_OTHER, {TILED, CAUSAL}),
    "cohere2": (EVERY_OTHER, {TILED, CAUSAL}),
    "olmo3": (WINDOW | {"num_hidden_layers": 4}, {TILED, CAUSAL}),
    "gpt_oss": (WINDOW, {TILED, "causal by tiles"}),
    "modernbert": (PLAIN | {"local_attention": 2 * W}, {FULL, "local 8 by tiles"}),
    "modernbert-decoder": (PLAIN | {"local_attention": 2 * W}, {CAUSAL, TILED}),
    "llama4_text": (
        {"num_hidden_layers": 4, "attention_chunk_size": W},
        {"blocks 8 & causal by tiles", CAUSAL},
    ),
    "llama": (PLAIN, {CAUSAL}),
    "gpt2": ({"n_layer": 2}, {CAUSAL}),
    "bert": (PLAIN, {FULL}),
    "roberta": (PLAIN, {FULL}),
    "distilbert": ({"n_layers": 2}, {FULL}),
    "bart": (BOTH, {FULL, CAUSAL}),
    "pegasus_x": (BOTH | {"block_size": W}, {FULL, CAUSAL}),
    "whisper": ({}, {"no mask by SDPA", CAUSAL}),
}
BIDIRECTIONAL = EVERY_OTHER | {"use_bidirectional_attention": True}
NO_SDPA = {"gpt_oss", "pegasus_x"}
DECODERS = ["mistral", "qwen2", "gemma3_text", "gpt_oss", "cohere2", "llama4_text"]
DECODERS += ["llama", "modernbert-decoder"]


def changes_of(kind):
    changes = SERVED[kind][0] | {"attn_implementation": reference_of(kind)}
    # grouped_mm knows no float64
    experts = {"mixtral", "gpt_oss", "llama4_text"}
    return changes | ({"experts_implementation": "eager"} if kind in experts else {})


def reference_of(kind):
    return "eager" if kind in NO_SDPA else "sdpa"


def build(kind, head="Model", dtype=torch.float64, **changes):
    return model_of(kind, head, **changes_of(kind) | changes).to(dtype)


def words(batch=2, n=N, seed=0):
    return torch.randint(3, 97, (batch, n), generator=torch.manual_seed(seed))


def inputs_of(model, dtype=torch.float64):
    """Arguments of a forward pass."""
    if model.config.model_type == "whisper":
        sound = torch.randn(2, 8, 100, dtype=dtype, generator=torch.manual_seed(1))
        return {"input_features": sound, "decoder_input_ids": words(n=20)}
    inputs = {"input_ids": words()}
    both = model.config.is_encoder_decoder
    return inputs | ({"decoder_input_ids": words(n=20)} if both else {})


def outputs(model, **inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False)[0]


def ways(served):
    return {how for _, how in served.calls}


# The same numbers.


@pytest.mark.parametrize("kind", SERVED)
def test_a_model_computes_what_it_computes_without(kind):
    model = build(kind)
    inputs = inputs_of(model)
    wanted = outputs(model, **inputs)
    with hf.use(model) as served:
        found = outputs(model, **inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert ways(served) == SERVED[kind][1]
    assert wanted.abs().mean() > 0.5, "the weights are too small to show an error"


@pytest.mark.parametrize("kind", SERVED)
def test_in_float32_it_agrees_with_the_eager_code(kind):
    model = build(kind, dtype=torch.float32, attn_implementation="eager")
    inputs = inputs_of(model, torch.float32)
    wanted = outputs(model, **inputs)
    with hf.use(model):
        found = outputs(model, **inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_gemma_3_in_both_directions():
    model = build("gemma3_text", **BIDIRECTIONAL)
    wanted = outputs(model, input_ids=words())
    with hf.use(model) as served:
        found = outputs(model, input_ids=words())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert ways(served) == {"local 4 by tiles", "an unknown pattern by SDPA"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", sorted(set(SERVED) - {"whisper"}))
def test_padding_changes_nothing(kind, side):
    model = build(kind)
    inputs, hidden = inputs_of(model), torch.ones(2, N, dtype=torch.long)
    hidden[1, slice(13) if side == "left" else slice(-13, None)] = 0
    inputs["attention_mask"] = hidden
    wanted = outputs(model, **inputs)
    with hf.use(model) as served:
        found = outputs(model, **inputs)
    seen = torch.ones(2, 20) if "decoder_input_ids" in inputs else hidden
    torch.testing.assert_close(
        found[seen.bool()], wanted[seen.bool()], rtol=0, atol=1e-12
    )
    tiled = {how for how in SERVED[kind][1] if "tiles" in how}
    if kind == "llama4_text" and side == "left":  # its chunks begin after the padding
        tiled = {"an unknown pattern by SDPA"}
    assert tiled <= ways(served)


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "gpt_oss", "modernbert"])
def test_gradients_agree(kind):
    model = build(kind)
    hidden = torch.ones(2, N, dtype=torch.long)
    hidden[1, :13] = 0

    def gradients():
        model.zero_grad()
        found = model(input_ids=words(), attention_mask=hidden)[0]
        (found[hidden.bool()] ** 3).mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    wanted = gradients()
    with hf.use(model) as served:
        found = gradients()
    assert any("tiles" in how for how in ways(served))
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11)
    assert max(g.abs().max() for g in found.values()) > 0.1


# Packed documents.


def restarted(*lengths):
    return torch.cat([torch.arange(n) for n in lengths])[None]


PACKS = {
    "mistral": "documents 13,27 & local 7,0 by tiles",
    "qwen2": "documents 13,27 & causal by tiles",
    "llama": "documents 13,27 & causal by tiles",
}


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma3_text", "llama"])
def test_packed_documents_do_not_meet(kind):
    model, x = build(kind), words(1)
    positions = restarted(13, 27)
    wanted = outputs(model, input_ids=x, position_ids=positions)
    with hf.use(model) as served:
        found = outputs(model, input_ids=x, position_ids=positions)
        alone = outputs(model, input_ids=x[:, 13:])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[:, 13:], alone, rtol=0, atol=1e-9)
    assert PACKS.get(kind, PACKS["mistral"]) in ways(served)


def test_rows_that_are_packed_differently_get_a_matrix():
    model = build("mistral")
    positions = torch.cat([restarted(13, 27), restarted(30, 10)])
    wanted = outputs(model, input_ids=words(), position_ids=positions)
    with hf.use(model) as served:
        found = outputs(model, input_ids=words(), position_ids=positions)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert ways(served) == {"an unknown pattern by SDPA"}


def test_chunks_of_packed_documents_begin_with_each_document():
    model = build("llama4_text")
    positions = restarted(13, 27)
    wanted = outputs(model, input_ids=words(1), position_ids=positions)
    with hf.use(model) as served:
        found = outputs(model, input_ids=words(1), position_ids=positions)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert "an unknown pattern by SDPA" in ways(served)


# Decoding.

CACHES = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "none": {"use_cache": False},
}


def generated(model, **options):
    x, hidden = words(n=20), torch.ones(2, 20, dtype=torch.long)
    hidden[1, :6] = 0  # the shorter prompt is padded on the left
    return model.generate(
        input_ids=x,
        attention_mask=hidden,
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
        **options,
    )


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kind", DECODERS)
def test_the_same_tokens_are_generated(kind, cache, beams):
    model = build(kind, "ForCausalLM")
    wanted = generated(model, num_beams=beams, **CACHES[cache])
    with hf.use(model) as served:
        found = generated(model, num_beams=beams, **CACHES[cache])
    assert torch.equal(found, wanted)
    assert wanted[:, 20:].unique().numel() > 2 or kind == "gemma3_text"
    assert served.calls


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("kind", DECODERS)
def test_a_prompt_in_chunks_gives_what_it_gives_at_once(kind, cache):
    model, x = build(kind, "ForCausalLM"), words()
    wanted = outputs(model, input_ids=x)
    past = transformers.DynamicCache(config=model.config)
    if cache == "static":
        past = transformers.StaticCache(config=model.config, max_cache_len=64)
    parts = []
    with hf.use(model), torch.no_grad():
        for part in x.split([7, 1, 12, 3, 17], dim=1):
            parts.append(model(part, past_key_values=past, use_cache=True).logits)
    # Norms and rotations are computed in float32.
    torch.testing.assert_close(torch.cat(parts, 1), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cache", CACHES)
def test_a_narrower_window_holds_in_generation(cache):
    """Compared with a model whose config has that window."""
    wide = build("mistral", "ForCausalLM", sliding_window=None)
    narrow = build("mistral", "ForCausalLM", sliding_window=5)
    narrow.load_state_dict(wide.state_dict())
    wanted = generated(narrow, **CACHES[cache])
    assert not torch.equal(generated(wide, **CACHES[cache]), wanted)
    with hf.use(wide, window=4) as served:
        assert torch.equal(generated(wide, **CACHES[cache]), wanted)
    assert ways(served) == {"local 4,0 by tiles"}


# Who meets whom.


@pytest.mark.parametrize("kind", sorted(set(DECODERS) | {"mixtral", "phi3", "olmo3"}))
def test_the_future_never_leaks(kind):
    model = build(kind)
    x = torch.randn(1, N, width_of(model), dtype=torch.float64, requires_grad=True)
    with hf.use(model):
        output = model(inputs_embeds=x, use_cache=False)[0]
    for query in (0, 7, 8, 20, N - 2):  # a sum of a norm's outputs would be constant
        loss = (output[0, query] ** 3).sum()
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        assert (gradient[0, query + 1 :] == 0).all()
        assert (gradient[0, query] != 0).any()


PATTERNS = {
    "mistral": P.local((W - 1, 0)),
    "gemma3_text": P.local((W - 1, 0)),
    "gpt_oss": P.local((W - 1, 0)),
    "llama4_text": P.blocks(W) & P.causal(),
    "modernbert": P.local(W),
}


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("window", [None, 3, (5, 2)])
def test_a_layer_meets_what_its_pattern_says(kind, window):
    sliding = {"layer_types": ["sliding_attention"]} if kind == "modernbert" else {}
    model = build(kind, dtype=torch.float32, num_hidden_layers=1, **sliding)
    pattern = PATTERNS[kind]
    pattern = pattern if window is None else pattern & P.local(window)
    with hf.use(model, window) as served:
        found = meets(model, N, range(N))
    assert torch.equal(found, P.dense_mask(pattern, N))
    assert all("tiles" in how for how in ways(served))


@pytest.mark.parametrize(
    ("kind", "window"), [("bert", 3), ("bert", (5, 2)), ("bert", (99, 2)), ("llama", 3)]
)
def test_a_window_narrows_a_dense_model(kind, window):
    model = build(kind)
    pattern = P.local(window) & (P.causal() if kind == "llama" else P.full())
    hidden = torch.ones(2, N, dtype=torch.bool)
    hidden[1, -13:] = False
    keep = P.dense_mask(pattern, N) & hidden[:, None, None]
    wanted = outputs(model, input_ids=words(), attention_mask=keep)
    with hf.use(model, window) as served:
        found = outputs(model, input_ids=words(), attention_mask=hidden)
    torch.testing.assert_close(found[hidden], wanted[hidden], rtol=0, atol=1e-12)
    assert all("tiles" in how for how in ways(served))


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_window_wider_than_the_text_hides_nothing(kind):
    model = build(kind)
    wanted = outputs(model, input_ids=words())
    with hf.use(model, window=N) as served:
        found = outputs(model, input_ids=words())
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert not any("tiles" in how for how in ways(served))


def test_a_window_narrows_what_has_no_pattern():
    model = build("gemma3_text", **BIDIRECTIONAL)
    with hf.use(model, window=2) as served:
        x = torch.randn(1, N, width_of(model), dtype=torch.float64, requires_grad=True)
        output = model(inputs_embeds=x, use_cache=False)[0]
    (gradient,) = torch.autograd.grad(output[0, 20].sum(), x)
    met = (gradient[0] != 0).any(-1).nonzero().flatten()
    assert (met.min(), met.max()) == (16, 24)  # two layers
    assert "an unknown pattern by SDPA" in ways(served)


def test_a_window_narrows_what_has_no_pattern_in_pieces():
    model, x = build("llama4_text", "ForCausalLM"), words()
    hidden = torch.ones(2, N, dtype=torch.long)
    hidden[1, :13] = 0
    past, parts, end = transformers.DynamicCache(config=model.config), [], 0
    with hf.use(model, window=3) as served, torch.no_grad():
        wanted = outputs(model, input_ids=x, attention_mask=hidden)
        for part in x.split([7, 1, 12, 3, 17], dim=1):
            end += part.shape[1]
            options = {"attention_mask": hidden[:, :end], "past_key_values": past}
            parts.append(model(part, **options, use_cache=True).logits)
    found, real = torch.cat(parts, 1), hidden.bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=0, atol=1e-6)
    assert "an unknown pattern by SDPA" in ways(served)


def test_no_matrix_is_made_where_tiles_serve(monkeypatch):
    model = build("mistral")
    wanted = outputs(model, input_ids=words())

    def forbidden(**options):
        raise AssertionError("a matrix")

    monkeypatch.setattr(masking, "sdpa_mask", forbidden)
    with hf.use(model):
        torch.testing.assert_close(outputs(model, input_ids=words()), wanted)


# What is refused, by name.


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gemma2", WINDOW, "Gemma2Attention layers.0.self_attn passes softcap: a soft"),
        (
            "t5",
            {"num_layers": 1},
            "T5Attention .* passes position_bias: a learned bias",
        ),
        ("longt5", {"num_layers": 1}, "LongT5Attention .* passes position_bias"),
        (
            "longformer",
            PLAIN,
            "LongformerModel never does: it has attention of its own",
        ),
        ("led", BOTH, r"LED\w+ never does"),
        ("big_bird", PLAIN, "BigBirdModel never does"),
        ("gpt_neo", {}, "GPTNeoModel never does"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused(kind, changes, reason):
    model = model_of(kind, **changes)
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=reason), hf.use(model):
        outputs(model, **inputs_of(model))
    assert model.config._attn_implementation == before


def test_an_encoder_that_never_asks_is_refused_after_its_first_pass():
    encoder = model_of("longt5", num_layers=1).get_encoder()
    with pytest.raises(ValueError, match="LongT5Stack never does"), hf.use(encoder):
        encoder(input_ids=words())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"output_attentions": True},
            "passes output_attentions: the weights are never",
        ),
        ({"cu_seq_lens_q": torch.tensor([0, 13, 40])}, "only flash kernels read"),
        ({"new_bias": torch.ones(1)}, "passes new_bias: what it does is not known"),
    ],
)
def test_an_argument_that_would_be_ignored_is_refused(options, reason):
    model = build("mistral")
    with pytest.raises(ValueError, match=reason), hf.use(model):
        model(input_ids=words(), **options)


def test_a_layer_that_contradicts_its_mask_is_refused():
    model, q = build("mistral"), torch.zeros(1, 4, 4, 8)
    with hf.use(model) as served:
        outputs(model, input_ids=words())
        layer = model.layers[0].self_attn
        with pytest.raises(ValueError, match="passes is_causal=False, unlike its mask"):
            served.attend(layer, q, q, q, mask_of(), is_causal=False)
        with pytest.raises(ValueError, match=r"has \(4, 4\) queries and keys"):
            served.attend(layer, q, q, q, mask_of(kv_length=5))
        served.attend(layer, q, q, q, mask_of(), is_causal=True)


def test_a_decoder_that_is_used_as_an_encoder():
    model = build("mistral")
    wanted = outputs(model, input_ids=words(), is_causal=False)
    with hf.use(model) as served:
        found = outputs(model, input_ids=words(), is_causal=False)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert ways(served) == {"local 8 by tiles"}


def test_dropped_weights_are_refused():
    model = build("mistral", attention_dropout=0.1)
    with hf.use(model):
        outputs(model, input_ids=words())
        with pytest.raises(ValueError, match=r"MistralAttention .* dropout=0\.1"):
            outputs(model.train(), input_ids=words())


def test_sinks_need_a_pattern():
    model = build("gpt_oss")
    keep = P.dense_mask(P.causal(), N)[None, None]
    with pytest.raises(ValueError, match="has sinks and a mask"), hf.use(model):
        outputs(model, input_ids=words(), attention_mask=keep)


def test_a_given_matrix_is_used_as_it_is():
    model = build("mistral")
    keep = P.dense_mask(P.strided(3) & P.causal(), N)[None, None]
    wanted = outputs(model, input_ids=words(), attention_mask=keep)
    with hf.use(model) as served:
        found = outputs(model, input_ids=words(), attention_mask=keep)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert ways(served) == {"a given mask by SDPA"}
    with pytest.raises(ValueError, match="no mask that a window"), hf.use(model, 3):
        outputs(model, input_ids=words(), attention_mask=keep)


@pytest.mark.parametrize("kind", ["bart", "whisper"])
def test_a_window_of_an_encoder_with_a_decoder_is_refused(kind):
    message = r"window must be None for \w+Model, got \(3, 3\): its decoder also"
    with pytest.raises(ValueError, match=message), hf.use(build(kind), 3):
        pass


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="PreTrainedModel, got Linear"):
        with hf.use(torch.nn.Linear(2, 2)):
            pass
    with pytest.raises(ValueError, match="window must be at least 0, got -1"):
        with hf.use(build("mistral"), window=-1):
            pass


def pretend(monkeypatch, release):
    """Transformers replaces its own module when it builds a model."""
    monkeypatch.setattr(sys.modules["transformers"], "__version__", release)


@pytest.mark.parametrize("release", ["5.22.9", "5.25.0", "6.0.0", "4.57.1"])
def test_another_release_is_refused(monkeypatch, release):
    model = build("mistral")
    pretend(monkeypatch, release)
    with pytest.raises(ImportError, match=f"got {release}: pip install"):
        with hf.use(model):
            pass


@pytest.mark.parametrize("release", ["5.23.0", "5.23.4", "5.24.0", "5.24.0.dev0"])
def test_releases_that_were_checked_are_taken(monkeypatch, release):
    model = build("mistral")
    pretend(monkeypatch, release)
    with hf.use(model) as served:
        assert str(served) == "No layer has attended yet."


def test_it_is_imported_without_transformers_and_asks_for_it_on_use():
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from attn_tutorial.backends import hf\n"
        "with hf.use(None): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'hf.use needs Transformers: pip install "attn_tutorial[hf]"' in done.stderr


# What is left behind.


def test_afterwards_the_model_is_as_before():
    model = build("mistral")
    interfaces = [transformers.AttentionInterface, transformers.AttentionMaskInterface]
    known = [set(interface._global_mapping) for interface in interfaces]
    hooks = len(model._forward_hooks)
    with contextlib.suppress(ZeroDivisionError), hf.use(model):
        assert model.config._attn_implementation.startswith("attn_tutorial_")
        raise ZeroDivisionError
    assert model.config._attn_implementation == "sdpa"
    assert [set(interface._global_mapping) for interface in interfaces] == known
    assert len(model._forward_hooks) == hooks


def test_one_use_inside_another():
    model = build("mistral")
    with hf.use(model) as outer:
        with hf.use(model, window=2) as inner:
            narrow = outputs(model, input_ids=words())
        wide = outputs(model, input_ids=words())
    assert ways(outer) == {TILED}
    assert ways(inner) == {"local 2,0 by tiles"}
    assert not torch.equal(narrow, wide)


def test_what_served_each_layer_is_said():
    model = build("qwen2")
    with hf.use(model) as served:
        outputs(model, input_ids=words())
        outputs(model, input_ids=words())
    assert str(served).splitlines() == [
        "layers.0.self_attn  causal by SDPA      2x",
        "layers.1.self_attn  local 7,0 by tiles  2x",
    ]


# Their masks as patterns.


def at(positions):
    return torch.tensor([positions])


def packed(mask, positions, documents):
    """As Transformers 5.24 joins the two; 5.23 joins them the other way round."""
    own = masking.packed_sequence_mask_function(documents)
    moved = masking.remap_positions_for_packed_sequence(mask, positions)
    return masking.and_masks(moved, own)


READABLE = {
    "causal": (masking.causal_mask_function, P.causal()),
    "full": (masking.bidirectional_mask_function, P.full()),
    "window": (masking.sliding_window_causal_mask_function(5), P.local((4, 0))),
    "one key": (masking.sliding_window_causal_mask_function(1), P.local(0)),
    "two sides": (masking.sliding_window_bidirectional_mask_function(5), P.local(5)),
    "chunks": (
        masking.chunked_causal_mask_function(5, torch.zeros(1, dtype=torch.int64)),
        P.blocks(5) & P.causal(),
    ),
    "packed": (
        packed(
            masking.sliding_window_causal_mask_function(3),
            restarted(5, 1, 10),
            at([0] * 5 + [1] + [2] * 10),
        ),
        P.documents([5, 1, 10]) & P.local((2, 0)),
    ),
    "packed as 5.23 does it": (
        masking.and_masks(
            masking.packed_sequence_mask_function(at([0] * 6 + [1] * 10)),
            masking.remap_positions_for_packed_sequence(
                masking.causal_mask_function, restarted(6, 10)
            ),
        ),
        P.documents([6, 10]) & P.causal(),
    ),
    "either": (
        masking.or_masks(
            masking.sliding_window_causal_mask_function(5),
            masking.sliding_window_bidirectional_overlay(2),
        ),
        P.local((4, 2)),
    ),
    "either of two kinds": (
        masking.or_masks(
            masking.sliding_window_causal_mask_function(3),
            masking.chunked_overlay(4, torch.zeros(1, dtype=torch.int64)),
        ),
        P.local((2, 0)) | P.blocks(4),
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_a_mask_function_is_read_as_its_pattern(name):
    function, pattern = READABLE[name]
    found = pattern_of(function)
    i, j = torch.arange(16)[:, None], torch.arange(16)[None, :]
    zero = torch.zeros(1, dtype=torch.int64)
    answer = function(zero, zero, i, j).expand(16, 16)
    assert torch.equal(found.keep(i, j).expand(16, 16), answer)
    assert found == pattern


def mine(batch, head, i, j):
    return j <= i


UNREADABLE = {
    "a reader's own": mine,
    "partly a reader's own": masking.and_masks(masking.causal_mask_function, mine),
    "images": masking.or_masks(
        masking.causal_mask_function, masking.blockwise_overlay(at([0, -1]))
    ),
    "chunks after padding": masking.chunked_causal_mask_function(4, torch.tensor([3])),
    "rows packed differently": masking.packed_sequence_mask_function(
        torch.tensor([[0, 0, 1], [0, 1, 1]])
    ),
    "chunks of documents": packed(
        masking.chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.int64)),
        restarted(2, 3),
        at([0, 0, 1, 1, 1]),
    ),
    "padding": masking.padding_mask_function(torch.ones(1, 4, dtype=torch.bool)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_not_known_has_no_pattern(name):
    assert pattern_of(UNREADABLE[name]) is None


def mask_of(**changes):
    options = {
        "batch_size": 1,
        "q_length": 4,
        "kv_length": 4,
        "q_offset": 0,
        "kv_offset": 0,
        "mask_function": masking.causal_mask_function,
        "attention_mask": None,
    }
    return Mask.of(options | changes, None)


def test_a_cache_that_forgot_its_first_keys_moves_chunks_but_no_window():
    window = masking.sliding_window_causal_mask_function(3)
    chunks = masking.chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.int64))
    late = {"q_offset": torch.tensor(9), "kv_offset": 6}
    found = mask_of(mask_function=window, **late)
    assert (found.first, found.pattern) == (3, P.local((2, 0)))
    assert mask_of(mask_function=chunks, **late).pattern is None


def test_a_padding_mask_follows_the_keys():
    mask = torch.tensor([[0, 1, 1, 1, 1, 0]]).bool()
    found = mask_of(attention_mask=mask, kv_offset=3, kv_length=5).key_keep
    assert found.tolist() == [[True, True, False, False, False]]
    assert mask_of(attention_mask=mask, kv_offset=1).key_keep is None


def test_a_mask_of_another_shape_has_no_pattern():
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    assert mask_of(attention_mask=mask).pattern is None
    assert mask_of(attention_mask=mask[0]).pattern == P.causal()


def test_who_computes_with_a_mask_is_told():
    with pytest.raises(
        AttributeError, match="has no 'shape': this model computes with"
    ):
        mask_of().shape  # noqa: B018
    with pytest.raises(TypeError):
        mask_of() + torch.zeros(1)


def test_every_family_of_the_table_is_tested():
    refused = {"gemma2", "t5", "longt5", "longformer", "led", "big_bird", "gpt_neo"}
    assert set(SERVED) | refused | {"recurrent_gemma"} == set(SIZES)
