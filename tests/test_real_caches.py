"""Eq. (22) gives the bytes that the caches of Transformers hold."""

import pytest
import torch

from attn_tutorial.conventions import from_config
from attn_tutorial.cost import cache_bytes
from attn_tutorial.patterns import blocks, causal, local

pytest.importorskip("transformers", reason="transformers is not installed")
import transformers

from tests.real_models import model_of, width_of

pytestmark = pytest.mark.filterwarnings("ignore")

N = 40
WINDOW = {"sliding_window": 8}
CASES = [
    ("llama", {"num_hidden_layers": 2}),
    ("mistral", {"num_hidden_layers": 2} | WINDOW),
    ("mistral", {"num_hidden_layers": 2, "sliding_window": None}),
    ("qwen2", {"num_hidden_layers": 3, "use_sliding_window": False} | WINDOW),
    ("gemma2", {"num_hidden_layers": 3} | WINDOW),
    ("gemma3_text", {"num_hidden_layers": 7} | WINDOW),
    ("gpt_oss", {"num_hidden_layers": 3} | WINDOW),
    ("olmo3", {"num_hidden_layers": 5} | WINDOW),
    ("cohere2", {"num_hidden_layers": 5} | WINDOW),
    ("llama4_text", {"num_hidden_layers": 5, "attention_chunk_size": 8}),
]


def held_bytes(model, cache):
    """What a cache holds after a model has read N tokens, in two calls."""
    for tokens in (N - 3, 3):
        with torch.no_grad():
            x = torch.randn(1, tokens, width_of(model))
            model(inputs_embeds=x, past_key_values=cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def formula(model, patterns):
    config = model.config
    d = getattr(config, "head_dim", None) or width_of(model) // 4  # 4 heads
    sizes = {"n": N, "d": d, "kv_heads": config.num_key_value_heads}
    return sum(cache_bytes(p, bytes_per_number=4, **sizes) for p in patterns)


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_a_static_cache_allocates_what_the_formula_says(kind, changes):
    model = model_of(kind, **changes)
    cache = transformers.StaticCache(config=model.config, max_cache_len=N)
    patterns = from_config(model.config.to_dict())
    assert held_bytes(model, cache) == formula(model, patterns)


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_a_growing_cache_keeps_a_key_less_between_its_calls(kind, changes):
    model = model_of(kind, **changes)
    cache = transformers.DynamicCache(config=model.config)
    short = {local((7, 0)): local((6, 0)), blocks(8) & causal(): local((6, 0))}
    patterns = [short.get(p, p) for p in from_config(model.config.to_dict())]
    assert held_bytes(model, cache) == formula(model, patterns)
