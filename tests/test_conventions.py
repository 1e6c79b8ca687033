"""Each row of the table that is said to be run is compared with the library here."""

import ast
import importlib.util
import os
import re
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

import attn_tutorial as at
from attn_tutorial.conventions import CONVENTIONS, as_table, convert, describe
from attn_tutorial.conventions.shapes import Shape, keys_of, shape_of, words_of
from attn_tutorial.conventions.table import END, READ, RUN, SAME, START
from attn_tutorial.patterns import (
    FAR,
    Pattern,
    adjacent_blocks,
    blocks,
    causal,
    dense_mask,
    dilated,
    full,
    global_tokens,
    local,
    parse,
    prefix,
)

N = 96
QUERIES = (0, 1, 7, 8, 15, 16, 17, 40, 47, 48, 79, 80, 94, 95)

TESTED = set()  # rows that a test below compares with their library


def compares(*names):
    """Mark a test as the one that compares these rows with their library."""

    def mark(test):
        TESTED.update(names)
        return test

    return mark


# Models of Transformers.


def gemma3(value):
    return {"sliding_window": value, "use_bidirectional_attention": True} | SLIDING


SLIDING = {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
ONE = {"num_hidden_layers": 1}
HALVES = {"encoder_layers": 1, "decoder_layers": 1}
OPEN = {"use_sliding_window": True, "max_window_layers": 0}

# Row, model type, a config with its value.
MODELS = [
    ("hf.sliding_window", "mistral", lambda v: ONE | {"sliding_window": v}),
    ("hf.sliding_window", "mixtral", lambda v: ONE | {"sliding_window": v}),
    ("hf.sliding_window", "phi3", lambda v: ONE | {"sliding_window": v}),
    ("hf.sliding_window", "qwen2", lambda v: ONE | OPEN | {"sliding_window": v}),
    ("hf.sliding_window", "qwen3", lambda v: ONE | OPEN | {"sliding_window": v}),
    ("hf.sliding_window", "gemma2", lambda v: SLIDING | {"sliding_window": v}),
    ("hf.sliding_window", "gemma3_text", lambda v: SLIDING | {"sliding_window": v}),
    ("hf.sliding_window", "gpt_oss", lambda v: SLIDING | {"sliding_window": v}),
    ("hf.sliding_window", "cohere2", lambda v: SLIDING | {"sliding_window": v}),
    ("hf.sliding_window", "olmo3", lambda v: SLIDING | {"sliding_window": v}),
    ("hf.qwen.sliding_window", "qwen2", lambda v: ONE | {"sliding_window": v}),
    ("hf.qwen.sliding_window", "qwen3", lambda v: ONE | {"sliding_window": v}),
    (
        "hf.gpt_neo.window_size",
        "gpt_neo",
        lambda v: {
            "num_layers": 1,
            "attention_types": [[["local"], 1]],
            "window_size": v,
        },
    ),
    (
        "hf.recurrent_gemma.attention_window_size",
        "recurrent_gemma",
        lambda v: ONE | {"attention_window_size": v, "block_types": ["attention"]},
    ),
    ("hf.gemma3_bidirectional.sliding_window", "gemma3_text", gemma3),
    (
        "hf.modernbert.local_attention",
        "modernbert",
        lambda v: SLIDING | {"local_attention": v},
    ),
    (
        "hf.modernbert_decoder.local_attention",
        "modernbert-decoder",
        lambda v: SLIDING | {"local_attention": v},
    ),
    (
        "hf.longformer.attention_window",
        "longformer",
        lambda v: ONE | {"attention_window": v},
    ),
    (
        "hf.llama4.attention_chunk_size",
        "llama4_text",
        lambda v: (
            ONE
            | {"attention_chunk_size": v, "layer_types": ["chunked_attention"]}
            | {"no_rope_layers": [1]}
        ),
    ),
]
HALF_MODELS = [
    ("hf.led.attention_window", "led", lambda v: HALVES | {"attention_window": v}),
    (
        "hf.longt5.local_radius",
        "longt5",
        lambda v: {"num_layers": 1, "local_radius": v},
    ),
    (
        "hf.pegasus_x.block_size",
        "pegasus_x",
        lambda v: (
            HALVES
            | {"block_size": v, "stagger_local_blocks": False, "num_global_tokens": 4}
        ),
    ),
]


@pytest.fixture
def real():
    """The tiny models; what Transformers warns of is not ours."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests import real_models

    return real_models


quiet = pytest.mark.filterwarnings("ignore")


@quiet
@compares(*(row for row, *_ in MODELS))
@pytest.mark.parametrize("value", [8, 16])
@pytest.mark.parametrize(("row", "kind", "config"), MODELS)
def test_a_model_meets_the_keys_that_its_row_says(real, row, kind, config, value):
    model = real.model_of(kind, **config(value))
    mask = dense_mask(CONVENTIONS[row].pattern(value), N)
    assert torch.equal(real.meets(model, N, QUERIES), mask[list(QUERIES)])


@quiet
@compares(*(row for row, *_ in HALF_MODELS))
@pytest.mark.parametrize("value", [8, 16])
@pytest.mark.parametrize(("row", "kind", "config"), HALF_MODELS)
def test_an_encoder_meets_the_keys_that_its_row_says(real, row, kind, config, value):
    model = real.model_of(kind, **config(value))
    mask = dense_mask(CONVENTIONS[row].pattern(value), N)
    found = real.meets(model.get_encoder(), N, QUERIES)
    assert torch.equal(found, mask[list(QUERIES)])


@compares("hf.longt5.transient_global")
@quiet
def test_transient_global_meets_more_than_its_window(real):
    config = {"num_layers": 1, "local_radius": 7}
    config["encoder_attention_type"] = "transient-global"
    found = real.meets(real.model_of("longt5", **config).get_encoder(), N, [40])[0]
    assert CONVENTIONS["hf.longt5.transient_global"].pattern(7) is None
    assert found.all() and not dense_mask(local(7), N)[40].all()


@compares("hf.bigbird.block_size")
@quiet
def test_big_bird_meets_five_blocks_the_last_one_among_them(real):
    config = {"block_size": 8, "num_random_blocks": 1, "num_hidden_layers": 1}
    n = 8 * 24
    found = real.meets(real.model_of("big_bird", **config), n, [100, 3, 190])
    row = CONVENTIONS["hf.bigbird.block_size"]
    ends = dense_mask(global_tokens(8), n) | dense_mask(global_tokens(8), n).flip(0, 1)
    assert torch.equal(found, (dense_mask(adjacent_blocks(8), n) | ends)[[100, 3, 190]])
    assert found[0].sum() == 5 * 8 and row.count(8) == "5 blocks"


@quiet
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 40), (7, 40), (40, 40)])
def test_queries_of_transformers_end_with_the_keys_of_the_cache(real, n_q, n_k):
    from transformers import DynamicCache

    model = real.model_of("mistral", num_hidden_layers=1, sliding_window=9)
    x = torch.randn(1, n_k, 32, requires_grad=True)
    cache = DynamicCache(config=model.config)
    if n_k > n_q:
        model(inputs_embeds=x[:, : n_k - n_q], past_key_values=cache)
    output = model(inputs_embeds=x[:, n_k - n_q :], past_key_values=cache)[0][0]
    rows = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0][0] for y in output]
    mask = dense_mask(local((8, 0)), n_q, n_k, first=n_k - n_q)
    assert torch.equal(torch.stack(rows).abs().sum(-1) > 0, mask)
    assert CONVENTIONS["hf.sliding_window"].alignment == END


PLACES = torch.arange(N)[:, None], torch.arange(N)[None, :]


@compares("hf.sliding_window_bidirectional_overlay")
@pytest.mark.parametrize("value", [0, 1, 16])
def test_the_bidirectional_mask_function_takes_a_radius(value):
    masks = pytest.importorskip(
        "transformers.masking_utils", reason="transformers is not installed"
    )
    row = "hf.sliding_window_bidirectional_overlay"
    theirs = masks.sliding_window_bidirectional_mask_function(value)(0, 0, *PLACES)
    assert torch.equal(theirs, dense_mask(CONVENTIONS[row].pattern(value), N))


# PyTorch.


def answers(attention, n_q=N, n_k=N):
    """The mask of an attention function: which keys have weight."""
    q, k = torch.zeros(1, 1, n_q, n_k), torch.zeros(1, 1, n_k, n_k)
    return attention(q, k, torch.eye(n_k)[None, None])[0, 0] > 0


@compares("torch.sdpa.is_causal")
@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(("n_q", "n_k"), [(N, N), (20, N)])
def test_is_causal_of_sdpa_starts_at_the_top_left(value, n_q, n_k):
    row = CONVENTIONS["torch.sdpa.is_causal"]
    theirs = answers(
        lambda q, k, v: functional.scaled_dot_product_attention(
            q, k, v, is_causal=value
        ),
        n_q,
        n_k,
    )
    assert torch.equal(theirs, dense_mask(row.pattern(value), n_q, n_k))
    assert row.alignment == START


@compares("torch.sdpa.attn_mask")
@pytest.mark.parametrize("pattern", [local((15, 0)), blocks(8), dilated(3, 2)])
def test_sdpa_takes_any_pattern_as_a_mask(pattern):
    row = "torch.sdpa.attn_mask"
    mask = convert(pattern, to=row)
    theirs = answers(
        lambda q, k, v: functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask(20, N)
        ),
        20,
    )
    assert torch.equal(theirs, dense_mask(pattern, 20, N))


@compares("torch.flex.mask_mod")
@quiet
@pytest.mark.parametrize("pattern", [local((15, 0)), blocks(8)])
def test_flex_attention_takes_a_pattern_as_it_is(pattern):
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    row = "torch.flex.mask_mod"
    mask = convert(pattern, to=row)
    block = flex.create_block_mask(mask, None, None, 20, N, device="cpu")
    theirs = answers(lambda q, k, v: flex.flex_attention(q, k, v, block_mask=block), 20)
    assert torch.equal(theirs, dense_mask(pattern, 20, N))


# Other libraries.

WINDOWS = [1, 4, 16]


@compares("jax.local_window_size")
@quiet
@pytest.mark.parametrize("value", [*WINDOWS, (5, 2), (0, 3), (4, 0), None])
@pytest.mark.parametrize(("n_q", "n_k"), [(32, 32), (12, 32)])
def test_jax(value, n_q, n_k):
    jax = pytest.importorskip("jax", reason="jax is not installed")
    row = CONVENTIONS["jax.local_window_size"]

    def attention(q, k, v):
        arrays = [jax.numpy.asarray(x[0, 0].numpy())[None, :, None] for x in (q, k, v)]
        output = jax.nn.dot_product_attention(
            *arrays, local_window_size=value, implementation="xla"
        )
        return torch.tensor(jax.device_get(output)[0, :, 0])[None, None]

    ours = dense_mask(row.pattern(value), n_q, n_k)
    assert torch.equal(answers(attention, n_q, n_k), ours)
    assert row.alignment == START


KERAS = """
import keras, numpy
for window in (1, 4, 16, None):
    layer = keras.layers.MultiHeadAttention(1, 8, sliding_window=window)
    for n_q in (32, 12):
        for causal in (False, True):
            x = numpy.random.rand(1, 32, 8).astype("float32")
            options = {"use_causal_mask": causal, "return_attention_scores": True}
            weights = keras.ops.convert_to_numpy(layer(x[:, :n_q], x, **options)[1])
            print([window, n_q, causal, (weights[0, 0] > 0).tolist()])
"""


@compares("keras.sliding_window", "keras.sliding_window.causal")
def test_keras():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", KERAS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    cases = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert len(cases) == 16, done.stderr
    for value, n_q, causal_too, theirs in cases:
        row = CONVENTIONS["keras.sliding_window" + ".causal" * causal_too]
        ours = dense_mask(row.pattern(value), n_q, 32)
        assert torch.equal(torch.tensor(theirs), ours), (value, n_q, causal_too)
        assert row.alignment == START


@compares("onnx.attention.window_size")
@quiet
@pytest.mark.parametrize("value", [(5, 2), (0, 3), (4, 0), (-1, 0), (3, -1), (-1, -1)])
@pytest.mark.parametrize(("n_q", "n_k"), [(32, 32), (12, 32)])
def test_onnx(value, n_q, n_k):
    pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx.defs import onnx_opset_version
    from onnx.helper import make_graph, make_model, make_node, make_opsetid
    from onnx.reference import ReferenceEvaluator

    if onnx_opset_version() < 25:
        pytest.skip("this onnx has no windows")
    row = CONVENTIONS["onnx.attention.window_size"]
    ends = dict(zip(("left_window_size", "right_window_size"), value, strict=True))
    graph = make_graph(
        [make_node("Attention", list("qkv"), ["y"], **ends)], "g", [], []
    )
    graph.output.add().name = "y"
    for name in "qkv":
        graph.input.add().name = name
    model = make_model(graph, opset_imports=[make_opsetid("", 25)])

    def attention(q, k, v):
        named = {name: x.numpy() for name, x in zip("qkv", (q, k, v), strict=True)}
        return torch.tensor(ReferenceEvaluator(model).run(None, named)[0])

    ours = dense_mask(row.pattern(value), n_q, n_k)
    assert torch.equal(answers(attention, n_q, n_k), ours)
    assert row.alignment == START


@compares("mlx_lm.window_size")
@pytest.mark.parametrize("value", [*WINDOWS, None])
@pytest.mark.parametrize("offset", [0, 9])
def test_mlx_lm_masks(value, offset):
    pytest.importorskip("mlx.core", reason="mlx is not installed")
    base = pytest.importorskip("mlx_lm.models.base", reason="mlx-lm is not installed")
    row = CONVENTIONS["mlx_lm.window_size"]
    mask = base.create_causal_mask(23, offset=offset, window_size=value)
    theirs = torch.tensor(mask.tolist())
    ours = dense_mask(row.pattern(value), 23, 23 + offset, first=offset)
    assert torch.equal(theirs, ours)
    assert row.alignment == END


@compares("mlx_lm.rotating_cache")
@pytest.mark.parametrize("value", [(8, 2), (8, 0), (5, 4)])
def test_mlx_lm_rotating_cache(value):
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    cache = pytest.importorskip("mlx_lm.models.cache", reason="mlx-lm is not installed")
    row = CONVENTIONS["mlx_lm.rotating_cache"]
    size, keep = value
    held = cache.RotatingKVCache(max_size=size, keep=keep)
    mask = dense_mask(row.pattern(value), 30)
    for query in range(30):
        keys, _ = held.update_and_fetch(*[mx.full((1, 1, 1, 1), query)] * 2)
        found = sorted(int(x) for x in keys.flatten().tolist())
        assert found == mask[query].nonzero().flatten().tolist()


@compares("attn_gym.sliding_window")
@pytest.mark.parametrize("value", [0, 3, 16])
def test_attention_gym(value):
    gym = pytest.importorskip("attn_gym.masks", reason="attn-gym is not installed")
    row = CONVENTIONS["attn_gym.sliding_window"]
    zero = torch.tensor(0)
    theirs = gym.generate_sliding_window(value)(zero, zero, *PLACES)
    assert torch.equal(theirs, dense_mask(row.pattern(value), N))


@compares("xformers.local_attention", "xformers.lower_triangular_local")
@quiet
@pytest.mark.parametrize(("n_q", "n_k"), [(32, 32), (12, 32)])
def test_xformers(n_q, n_k):
    bias = pytest.importorskip(
        "xformers.ops.fmha.attn_bias", reason="xformers is not installed"
    )
    names = ("xformers.local_attention", "xformers.lower_triangular_local")
    both = bias.LocalAttentionFromBottomRightMask(8, 3)
    lower = bias.LowerTriangularFromBottomRightLocalAttentionMask(8)
    cut = bias.BlockDiagonalMask.from_seqlens([n_q], [n_k])
    for name, theirs, value in [
        (names[0], both, (8, 3)),
        (names[1], lower, 8),
        (names[1], cut.make_local_attention_from_bottomright(8), 8),
    ]:
        row = CONVENTIONS[name]
        ours = dense_mask(row.pattern(value), n_q, n_k, first=n_k - n_q)
        assert torch.equal(theirs.materialize((n_q, n_k)) == 0, ours)
        assert row.alignment == END


@compares(
    "local_attention",
    "local_attention.causal",
    "local_attention.exact",
    "local_attention.exact.causal",
)
@quiet
@pytest.mark.parametrize("value", [4, 8])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("causal_too", [True, False])
def test_local_attention(value, exact, causal_too):
    library = pytest.importorskip(
        "local_attention", reason="local-attention is not installed"
    )
    name = "local_attention" + ".exact" * exact + ".causal" * causal_too
    attention = library.LocalAttention(
        window_size=value,
        causal=causal_too,
        exact_windowsize=exact,
        look_forward=0 if causal_too else 1,
        use_rotary_pos_emb=False,
    )
    theirs = answers(lambda q, k, v: attention(q, k, v))
    assert torch.equal(theirs, dense_mask(CONVENTIONS[name].pattern(value), N))


@compares("natten.kernel_size", "natten.kernel_size.causal")
@quiet
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("causal_too", [True, False])
def test_natten(size, causal_too):
    natten = pytest.importorskip("natten", reason="NATTEN is not installed")

    def attention(q, k, v):
        moved = [x.transpose(1, 2) for x in (q, k, v)]
        options = {"is_causal": causal_too, "backend": "flex-fna"}
        return natten.na1d(*moved, size, **options).transpose(1, 2)

    theirs = answers(attention, 32, 32)
    row = CONVENTIONS["natten.kernel_size" + ".causal" * causal_too]
    if causal_too:
        assert torch.equal(theirs, dense_mask(row.pattern(size), 32))
        return
    inside = dense_mask(local((size // 2, (size - 1) // 2)), 32)
    assert row.pattern(size) is None and (theirs.sum(1) == size).all()
    assert torch.equal(theirs[size:-size], inside[size:-size])
    assert not torch.equal(theirs, inside)


# The table itself.


def test_rows_said_to_be_run_are_run_here_and_no_others():
    run = {name for name, row in CONVENTIONS.items() if row.evidence == RUN}
    assert run == TESTED


def test_what_was_read_names_a_file():
    for row in CONVENTIONS.values():
        assert row.alignment in (START, END, SAME)
        if row.evidence == READ:
            assert re.search(r"\w+/[\w./-]+\.\w+", row.source), row.name
        if row.make is None:
            assert row.note and row.keys


@pytest.mark.parametrize("row", CONVENTIONS.values(), ids=CONVENTIONS)
def test_the_count_of_keys_is_that_of_the_pattern(row):
    if row.make is None:
        return
    mask = dense_mask(row.pattern(row.example), N)
    counts = {int(mask[query].sum()) for query in range(32, 64)}
    said = row.count(row.example)
    low, high = min(counts), max(counts)
    if said == "all before it":
        assert torch.equal(mask, dense_mask(causal(), N))
    else:
        assert said == (str(low) if low == high else f"{low} to {high}")


def test_the_table_has_a_line_a_row():
    lines = as_table().splitlines()
    assert len(lines) == len(CONVENTIONS) + 2 >= 27
    plain = [line.replace("\\|", "") for line in lines]
    assert {line.count("|") for line in plain} == {8}


# In words, and back.


@pytest.mark.parametrize("row", CONVENTIONS.values(), ids=CONVENTIONS)
def test_every_row_is_said_in_words(row):
    text = describe(row.name, row.example)
    assert f"{row.parameter}={row.example}" in text and row.source in text
    assert ("Ours: none" in text) == (row.make is None)


@pytest.mark.parametrize("row", CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_value_is_found_again(row):
    if row.make is None:
        with pytest.raises(ValueError, match="has no value that means"):
            convert(local(3), to=row.name)
        return
    pattern = row.pattern(row.example)
    value = convert(pattern, to=row.name)
    if row.name == "torch.sdpa.attn_mask":
        assert torch.equal(value(7, 9), dense_mask(pattern, 7, 9))
    else:
        assert shape_of(row.pattern(value)) == shape_of(pattern)


ANY = [
    *[local(w) for w in (0, 1, 7, 8, 4096)],
    *[local((w, 0)) for w in (1, 7, 8, 4095)],
    *[local(pair) for pair in ((0, 3), (5, 2), (FAR, 3), (3, FAR))],
    *[full(), causal(), blocks(8), blocks(8) & causal(), adjacent_blocks(8)],
    *[adjacent_blocks(8) & causal(), (prefix(2) | local((5, 0))) & causal()],
    *[blocks(8) & local(3), dilated(3, 2), global_tokens(2) | local(3)],
    Pattern("mine", keep=lambda i, j: i != j),
]


@pytest.mark.parametrize("to", CONVENTIONS)
@pytest.mark.parametrize("pattern", ANY, ids=str)
def test_what_is_converted_means_the_same_or_is_refused(pattern, to):
    try:
        value = convert(pattern, to=to)
    except ValueError as error:
        assert to in str(error) and str(pattern) in str(error)
        return
    if to == "torch.sdpa.attn_mask":
        assert torch.equal(value(20, 40), dense_mask(pattern, 20, 40))
        return
    found = CONVENTIONS[to].pattern(value)
    assert torch.equal(dense_mask(found, 50), dense_mask(pattern, 50))
    assert shape_of(found) == shape_of(pattern)


@pytest.mark.parametrize(
    ("pattern", "to", "value"),
    [
        (local((15, 0)), "hf.sliding_window", 16),
        (causal(), "hf.sliding_window", None),
        (local(8), "hf.modernbert.local_attention", 16),
        (local(8), "hf.longformer.attention_window", 16),
        (local((7, 0)), "hf.modernbert_decoder.local_attention", 16),
        (local(15), "keras.sliding_window", 16),
        (local(15), "vllm.encoder", 16),
        (local((15, 0)), "sglang.sliding_window_size", 15),
        (full(), "flash_attn.window_size", (-1, -1)),
        (local(8), "jax.local_window_size", 8),
        (local((8, 3)), "jax.local_window_size", (8, 3)),
        (parse("(prefix 2 | local 5) & causal"), "mlx_lm.rotating_cache", (8, 2)),
        (blocks(16) & causal(), "llama_cpp.n_swa.chunked", 16),
        (adjacent_blocks(8), "local_attention", 8),
    ],
)
def test_values_that_people_write(pattern, to, value):
    assert convert(pattern, to=to) == value


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("hf.sliding_window", 0, ValueError),
        ("hf.sliding_window", 1.5, TypeError),
        ("hf.sliding_window", True, TypeError),
        ("hf.longformer.attention_window", 7, ValueError),
        ("flash_attn.window_size", 4, TypeError),
        ("flash_attn.window_size", (-2, 0), ValueError),
        ("jax.local_window_size", (-1, 0), ValueError),
        ("mlx_lm.rotating_cache", (4, 4), ValueError),
        ("torch.sdpa.is_causal", 1, TypeError),
        ("torch.flex.mask_mod", 4, TypeError),
    ],
)
def test_values_that_a_library_does_not_have_are_refused(name, value, error):
    with pytest.raises(error, match="value must"):
        describe(name, value)


def test_unknown_names_are_refused_by_name():
    with pytest.raises(ValueError, match="name must be one of .* got 'nobody'"):
        describe("nobody", 4)
    with pytest.raises(ValueError, match="to must be one of .* got 'nobody'"):
        convert(local(3), to="nobody")
    with pytest.raises(TypeError, match="pattern must be an attn_tutorial pattern"):
        convert(3, to="hf.sliding_window")


def test_it_is_reached_from_the_package():
    assert at.conventions.describe is describe


# Plain forms.


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("local 3 & causal", Shape(3, 0)),
        ("local 5,1 & local 2,8", Shape(2, 1)),
        ("blocks 4 & local 9 & causal", Shape(None, 0, 4)),
        ("blocks 4 & local 2", Shape(2, 2, 4)),
        ("adjacent_blocks 4 & local 7", Shape(None, None, 4, 1)),
        ("(local 5,0 | prefix 2) & causal", Shape(5, 0, sinks=2)),
        ("(prefix 2 | causal) & causal", Shape(None, 0)),
        ("local 2 | local 2", Shape(2, 2)),
        ("prefix 2 | local 3,0", None),
        ("blocks 4 & blocks 6", None),
        ("blocks 4 & adjacent_blocks 4", None),
        ("(prefix 2 | local 3) & (prefix 1 | local 3) & causal", None),
        ("local 2 | local 3", None),
        ("dilated 2 3", None),
    ],
)
def test_plain_forms(text, shape):
    assert shape_of(parse(text)) == shape


def test_patterns_of_one_plain_form_are_one_set_of_pairs():
    texts = ["local 3", "local 3,0", "causal", "full", "blocks 4", "adjacent_blocks 4"]
    texts += ["blocks 3", "local 8", "(prefix 2 | local 3)", "(prefix 2 | causal)"]
    masks = {}
    for one in texts:
        for other in texts:
            pattern = parse(f"{one} & {other}")
            shape = shape_of(pattern)
            if shape is not None:
                mask = dense_mask(pattern, 40)
                assert torch.equal(masks.setdefault(shape, mask), mask), (one, other)
    assert len({tuple(m.flatten().tolist()) for m in masks.values()}) == len(masks)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local 0", "a query meets itself: 1 key"),
        ("local 1,0", "a query meets itself and 1 key before it: 2 keys"),
        ("local 2", "a query meets itself and 2 keys on each side: 5 keys"),
        ("causal", "a query meets itself and all keys before it: all before it"),
        ("full", "every query meets every key"),
        (
            "blocks 4 & local 2",
            "a query meets its own block of 4 keys, none more than "
            "2 before it, none more than 2 after it: at most 4 keys",
        ),
        (
            "(prefix 2 | local 5) & causal",
            "a query meets itself and 5 keys before it, and the first 2 keys: 8 keys",
        ),
        ("dilated 2 3", "a query meets the keys of the pattern dilated 2 3"),
    ],
)
def test_words(text, words):
    assert words_of(parse(text)) == words


def test_a_window_with_one_open_end_meets_all():
    assert keys_of(Shape(3, None)) == "all" and keys_of(Shape(None, 3)) == "all"
