"""Layers read from a config are those of the model that Transformers builds from it."""

import json
import re

import pytest
import torch
from conftest import ROOT

from attn_tutorial.conventions import from_config
from attn_tutorial.conventions.config import BOTH, ONE, REFUSED
from attn_tutorial.patterns import blocks, causal, dense_mask, full, local

pytest.importorskip("transformers", reason="transformers is not installed")
from tests.real_models import config_of, layers_meet, model_of

pytestmark = pytest.mark.filterwarnings("ignore")

N = 40
QUERIES = (0, 1, 5, 12, 13, 20, 31, 32, 38, 39)
OPEN = {"use_sliding_window": True, "sliding_window": 8}

# Model type and what its config says besides sizes.
CASES = [
    ("mistral", {"num_hidden_layers": 2, "sliding_window": 8}),
    ("mistral", {"num_hidden_layers": 2, "sliding_window": None}),
    ("mixtral", {"num_hidden_layers": 2, "sliding_window": 8}),
    ("mixtral", {"num_hidden_layers": 2}),
    ("phi3", {"num_hidden_layers": 2, "sliding_window": 7}),
    ("phi3", {"num_hidden_layers": 2}),
    ("qwen2", {"num_hidden_layers": 3, "sliding_window": 8}),
    ("qwen2", {"num_hidden_layers": 3, "max_window_layers": 1} | OPEN),
    ("qwen2", {"num_hidden_layers": 3} | OPEN),
    ("qwen3", {"num_hidden_layers": 3, "max_window_layers": 2} | OPEN),
    ("qwen3", {"num_hidden_layers": 3, "sliding_window": 8, "max_window_layers": 0}),
    ("gemma2", {"num_hidden_layers": 3, "sliding_window": 8}),
    ("gemma3_text", {"num_hidden_layers": 7, "sliding_window": 8}),
    (
        "gemma3_text",
        {"num_hidden_layers": 3, "sliding_window": 8, "sliding_window_pattern": 2},
    ),
    (
        "gemma3_text",
        {
            "num_hidden_layers": 3,
            "sliding_window": 9,
            "sliding_window_pattern": 2,
            "use_bidirectional_attention": True,
        },
    ),
    ("gpt_oss", {"num_hidden_layers": 3, "sliding_window": 8}),
    ("cohere2", {"num_hidden_layers": 5, "sliding_window": 8}),
    (
        "cohere2",
        {"num_hidden_layers": 3, "sliding_window": 8, "sliding_window_pattern": 2},
    ),
    ("olmo3", {"num_hidden_layers": 5, "sliding_window": 8}),
    ("llama4_text", {"num_hidden_layers": 5, "attention_chunk_size": 8}),
    (
        "llama4_text",
        {
            "num_hidden_layers": 3,
            "attention_chunk_size": 8,
            "no_rope_layers": [1, 0, 1],
        },
    ),
    (
        "llama4_text",
        {
            "num_hidden_layers": 4,
            "attention_chunk_size": 8,
            "no_rope_layer_interval": 2,
        },
    ),
    ("llama", {"num_hidden_layers": 2}),
    ("gpt2", {"n_layer": 2}),
    (
        "gpt_neo",
        {
            "num_layers": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 8,
        },
    ),
    ("modernbert", {"num_hidden_layers": 4, "local_attention": 8}),
    (
        "modernbert",
        {
            "num_hidden_layers": 4,
            "local_attention": 9,
            "global_attn_every_n_layers": 2,
        },
    ),
    ("modernbert-decoder", {"num_hidden_layers": 4, "local_attention": 8}),
    ("bert", {"num_hidden_layers": 2}),
    ("bert", {"num_hidden_layers": 2, "is_decoder": True}),
    ("roberta", {"num_hidden_layers": 2}),
    ("distilbert", {"n_layers": 2}),
    ("longformer", {"num_hidden_layers": 2, "attention_window": [4, 8]}),
    ("longformer", {"num_hidden_layers": 2, "attention_window": 8}),
]
HALVES = {"encoder_layers": 2, "decoder_layers": 3}
PARTS = [
    ("led", HALVES | {"attention_window": [4, 8]}),
    ("bart", HALVES),
    ("t5", {"num_layers": 2, "num_decoder_layers": 3}),
    ("t5", {"num_layers": 2}),
    ("longt5", {"num_layers": 2, "local_radius": 5}),
]


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_each_layer_meets_what_its_pattern_keeps(kind, changes):
    patterns = from_config(config_of(kind, **changes).to_dict())
    found = layers_meet(model_of(kind, **changes), len(patterns), N, QUERIES)
    assert torch.equal(found, kept(patterns))


def kept(patterns):
    return torch.stack([dense_mask(pattern, N)[list(QUERIES)] for pattern in patterns])


@pytest.mark.parametrize(("kind", "changes"), PARTS)
def test_both_halves_of_a_model(kind, changes):
    config = config_of(kind, **changes).to_dict()
    model = model_of(kind, **changes)
    patterns = from_config(config, part="encoder")
    found = layers_meet(model.get_encoder(), len(patterns), N, QUERIES)
    assert torch.equal(found, kept(patterns))
    patterns = from_config(config, part="decoder")
    source = {"encoder_hidden_states": torch.randn(1, N, 32)}
    found = layers_meet(model.get_decoder(), len(patterns), N, QUERIES, **source)
    assert torch.equal(found, kept(patterns))


@pytest.mark.parametrize("kind", sorted(ONE))
def test_a_missing_key_has_the_default_of_its_family(kind):
    names = {"gpt2": "n_layer", "gpt_neo": "num_layers", "distilbert": "n_layers"}
    depth = {names.get(kind, "num_hidden_layers"): 24 if kind == "gpt_neo" else 12}
    short = from_config({"model_type": kind, **depth})
    assert short == from_config(config_of(kind, **depth).to_dict())
    assert len(short) == next(iter(depth.values()))


def test_every_family_is_built_from_a_config_here():
    assert {kind for kind, _ in CASES} == set(ONE)
    assert {kind for kind, _ in PARTS} == set(BOTH)


# Files as they are published.

PUBLISHED = {
    "Mistral 7B v0.1": (
        {"model_type": "mistral", "num_hidden_layers": 32, "sliding_window": 4096},
        {local((4095, 0)): 32},
    ),
    "Gemma 3 4B": (
        {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "num_hidden_layers": 34,
                "sliding_window": 1024,
            },
        },
        {local((1023, 0)): 29, causal(): 5},
    ),
    "Llama 4": (
        {
            "model_type": "llama4",
            "text_config": {
                "model_type": "llama4_text",
                "num_hidden_layers": 48,
                "attention_chunk_size": 8192,
                "no_rope_layers": [],
            },
        },
        {blocks(8192) & causal(): 36, causal(): 12},
    ),
    "Qwen 2.5 7B": (
        {
            "model_type": "qwen2",
            "num_hidden_layers": 28,
            "sliding_window": 131072,
            "use_sliding_window": False,
            "max_window_layers": 28,
        },
        {causal(): 28},
    ),
    "ModernBERT base": (
        {
            "model_type": "modernbert",
            "num_hidden_layers": 22,
            "local_attention": 128,
            "global_attn_every_n_layers": 3,
        },
        {full(): 8, local(64): 14},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_layers_in_large_models(name):
    config, counts = PUBLISHED[name]
    patterns = from_config(config)
    assert {pattern: patterns.count(pattern) for pattern in set(patterns)} == counts


def test_a_path_a_folder_a_text_and_a_dict_are_the_same(tmp_path):
    config = {"model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 8}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    layers = [local((7, 0)), causal()]
    for given in (config, json.dumps(config), file, str(file), tmp_path, str(tmp_path)):
        assert from_config(given) == layers


def test_a_saved_model_is_read_as_it_was(tmp_path):
    changes = {"num_hidden_layers": 3, "sliding_window": 9}
    changes["use_bidirectional_attention"] = True
    config = config_of("gemma3_text", **changes)
    config.save_pretrained(tmp_path)
    assert from_config(tmp_path) == from_config(config.to_dict()) == [local(4)] * 3


# Refusals.


@pytest.mark.parametrize(
    ("config", "part", "message"),
    [
        ({"model_type": "nobody"}, None, "got 'nobody': find the function"),
        ({}, None, "got None: find the function"),
        ({"model_type": "led"}, None, "part must be one of ['encoder', 'decoder']"),
        ({"model_type": "bart"}, "middle", "got 'middle'"),
        ({"model_type": "llama"}, "decoder", "part must be None for 'llama'"),
        ({"model_type": "llama"}, None, "config must have num_hidden_layers"),
        (
            {
                "model_type": "qwen2",
                "num_hidden_layers": 1,
                "layer_types": ["sliding_attention"],
            },
            None,
            "sliding_window must be a number for 'sliding_attention', got None",
        ),
        (
            {
                "model_type": "gemma2",
                "num_hidden_layers": 2,
                "layer_types": ["full_attention"],
            },
            None,
            "layer_types must name 2 layers",
        ),
        (
            {
                "model_type": "gemma2",
                "num_hidden_layers": 2,
                "use_bidirectional_attention": True,
            },
            None,
            "use_bidirectional_attention must be false",
        ),
        (
            {
                "model_type": "longformer",
                "num_hidden_layers": 2,
                "attention_window": [4],
            },
            None,
            "attention_window must name 2 sizes",
        ),
        (
            {"model_type": "gpt_neo", "num_layers": 3},
            None,
            "attention_types must name 3 layers",
        ),
        (
            {
                "model_type": "longt5",
                "num_layers": 2,
                "encoder_attention_type": "transient-global",
            },
            "encoder",
            "has no pattern: each query also meets one summary a block",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(config, part, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_config(config, part=part)


@pytest.mark.parametrize("kind", REFUSED)
def test_models_without_patterns_are_refused_with_the_reason(kind):
    message = f"model_type {kind!r} has no list of patterns: {REFUSED[kind]}"
    with pytest.raises(ValueError, match=re.escape(message)):
        from_config({"model_type": kind, "num_hidden_layers": 2})


@pytest.mark.parametrize("config", [3, None, ["mistral"]])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(TypeError, match="config must be a path, a text or a dict"):
        from_config(config)


CHAPTER = (ROOT / "notebooks/local_attention.ipynb").read_text(encoding="utf-8")
LINES = [line for cell in json.loads(CHAPTER)["cells"] for line in cell["source"]]
ROW = r"\| [^|`]+ \| `(\{[^`]+\})` \| `([^`]+)`([^|]*) \|"
ROWS = re.findall(ROW, "".join(LINES))
EVERY = {"sixth": 6, "second": 2, "third": 3, "fourth": 4}


@pytest.mark.parametrize(("config", "pattern", "rest"), ROWS)
def test_the_chapter_translates_config_files_as_from_config_does(config, pattern, rest):
    layers = from_config(json.loads(config) | {"num_hidden_layers": 12})
    assert pattern in map(str, layers)
    found = re.search(r"every (\w+) layer (\w+)", rest)
    others = [str(layer) for layer in layers if str(layer) != pattern]
    assert others == ([found[2]] * (12 // EVERY[found[1]]) if found else [])


def test_the_chapter_translates_at_least_eight_models():
    assert len(ROWS) >= 8


@pytest.mark.parametrize("interval", [0, None])
def test_an_interval_that_is_none_is_named(interval):
    config = {"model_type": "cohere2", "num_hidden_layers": 2}
    with pytest.raises((TypeError, ValueError), match="interval of full layers must"):
        from_config(config | {"sliding_window_pattern": interval})
