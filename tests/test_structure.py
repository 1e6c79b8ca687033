"""Structures: each is what it says, and costs what is said of it."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from attn_tutorial import patterns
from attn_tutorial.dense import attention
from attn_tutorial.experiments.figures import tradeoffs
from attn_tutorial.experiments.models import build
from attn_tutorial.experiments.records import Run, Runs
from attn_tutorial.experiments.studies import regularisation, step_time, structure
from attn_tutorial.experiments.studies.language_model import BYTES
from attn_tutorial.experiments.studies.structure import (
    LinearAttention,
    LowRankAttention,
)
from attn_tutorial.networks import dispatch
from attn_tutorial.networks.layers import MultiHeadAttention

ALL = structure.settings(False)
NAMES = [setting["variant"] for setting in ALL]


def named(variant):
    return ALL[NAMES.index(variant)]


def model_of(setting):
    return build(setting, BYTES, BYTES, causal=True, mixer=structure.mixer(setting))


@torch.no_grad()
def factored(low):
    """Plain causal attention whose keys and values have the products as weights."""
    d = low.query.in_features
    plain = MultiHeadAttention(d, low.num_heads, patterns.causal(), rotary=True)
    plain = plain.double()
    plain.query[0].load_state_dict(low.query.state_dict())
    plain.output.load_state_dict(low.output.state_dict())
    for wide, narrow in ((plain.key[0], low.key), (plain.value, low.value)):
        wide.weight.copy_(narrow.weight @ low.compress.weight)
        wide.bias.copy_(narrow.weight @ low.compress.bias + narrow.bias)
    return plain


def test_low_rank_is_attention_with_factored_weights():
    torch.manual_seed(0)
    low = LowRankAttention(8, 2, rank=3).double()
    plain = factored(low)
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    assert torch.allclose(low(x), plain(x))
    both = torch.cat([plain.key[0].weight, plain.value.weight])
    assert torch.linalg.matrix_rank(both) == 3


def test_at_full_rank_it_can_be_the_plain_one():
    torch.manual_seed(0)
    plain = MultiHeadAttention(8, 2, patterns.causal(), rotary=True)
    low = LowRankAttention(8, 2, rank=8)
    with torch.no_grad():
        low.compress.weight.copy_(torch.eye(8))
        low.compress.bias.zero_()
    low.query.load_state_dict(plain.query[0].state_dict())
    low.key.load_state_dict(plain.key[0].state_dict())
    low.value.load_state_dict(plain.value.state_dict())
    low.output.load_state_dict(plain.output.state_dict())
    x = torch.randn(2, 9, 8)
    assert torch.allclose(low(x), plain(x), atol=1e-6)


@pytest.mark.parametrize("setting", ALL, ids=NAMES)
def test_no_variant_looks_ahead(setting):
    torch.manual_seed(0)
    model = model_of(setting).double().eval()
    for block in model.blocks:  # zeros at first: nothing would be mixed
        torch.nn.init.normal_(block.mixer.output.weight, std=0.1)
    first = torch.randint(BYTES, (1, 24))
    second = first.clone()
    second[:, 13:] = (second[:, 13:] + 1) % BYTES
    one, other = model(first), model(second)
    assert torch.allclose(one[:, :13], other[:, :13])
    assert not torch.allclose(one[:, 13:], other[:, 13:])


def test_costs_of_the_variants():
    plain, d, n = named("plain"), 96, 256
    parameters = {
        name: sum(p.numel() for p in model_of(named(name)).parameters())
        for name in NAMES
    }
    cache = {name: structure.cache_bytes(named(name)) for name in NAMES}
    assert (plain["d_model"], plain["n"], plain["layers"]) == (d, n, 3)
    assert parameters["layers share their weights"] == parameters["1 layer"]
    saved = parameters["plain"] - parameters["low rank 16"]
    # d x 2d weights and 2d biases, or 3 d r weights and r + 2d biases
    assert saved == 3 * (2 * d * d - 3 * d * 16 - 16)
    assert parameters["linear attention"] == parameters["plain"]
    assert cache["plain"] == 3 * n * 2 * d * 4
    assert cache["low rank 64"] == cache["1 head of keys and values"]
    assert cache["low rank 16"] == cache["plain"] / 12
    assert cache["1 layer"] == cache["plain"] / 3
    assert cache["layers share their weights"] == cache["plain"]
    assert cache["linear attention"] == 3 * 3 * 32 * 33 * 4
    assert cache["window 16"] == 3 * 17 * 2 * d * 4


FULL = [s["variant"] for s in ALL if s["pattern"] == "full" and "linear" not in s]


@pytest.mark.parametrize("name", FULL)
def test_operations_are_those_that_pytorch_counts(name, monkeypatch):
    """It counts all pairs of full attention; we count those that causality keeps."""
    monkeypatch.setattr(dispatch, "_masked_attention", attention)  # fused: not counted
    setting = named(name)
    n, d = setting["n"], setting["d_model"]
    with FlopCounterMode(display=False) as counter:
        model_of(setting)(torch.zeros(1, n, dtype=torch.long))
    masked = n - (n + 1) / 2
    counted = counter.get_total_flops() / n - setting["layers"] * 4 * d * masked
    assert structure.token_flops(setting) == pytest.approx(counted)


def test_linear_attention_costs_its_state():
    plain, linear = named("plain"), named("linear attention")
    d, pairs = 96, (256 + 1) / 2
    saved = structure.token_flops(plain) - structure.token_flops(linear)
    assert saved == 3 * 4 * d * (pairs - 33)


def test_weights_of_linear_attention_factor():
    torch.manual_seed(0)
    layer = LinearAttention(8, 1).double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    q, k = (functional.elu(part(x)) + 1 for part in (layer.query, layer.key))
    weights = (layer.turn(q) @ layer.turn(k).mT).tril() / (q @ k.mT).tril().sum(
        -1, keepdim=True
    )
    assert torch.allclose(layer(x), layer.output(weights @ layer.value(x)))


def test_a_step_is_timed_against_the_plain_step_of_its_round():
    assert step_time._ratio([2.0, 6.0, 5.0], [1.0, 2.0, 10.0]) == 2.0
    found = {"variants": ["plain", "1 layer"]}
    runs = Runs(
        Run({}, seed, {**found, "seconds_over_plain": [1.0, ratio]}, {})
        for seed, ratio in enumerate((0.4, 0.5))
    )
    assert step_time.ratios(runs)["1 layer"] == [0.4, 0.5]
    assert "0.40 to 0.50" in step_time.report(runs)


def test_bits_of_the_training_text_are_recorded():
    (setting, _) = regularisation.settings(True)
    result = regularisation.train(setting, 0, torch.device("cpu"))
    assert 4 < result["train_bits"] < 10


def bits_of(variant, bits, costs):
    """Three runs of a made-up structure."""
    names = ("parameters", "cache_bytes", "token_flops")
    price = dict(zip(names, costs, strict=True))
    return [
        Run({"variant": variant}, seed, {"test_bits": bits + seed / 100, **price}, {})
        for seed in range(3)
    ]


def test_a_structure_dominates_if_it_costs_no_more_and_is_clearly_better():
    runs = Runs(
        bits_of("plain", 2.0, (4, 4, 4))
        + bits_of("as good for less", 2.001, (4, 3, 4))
        + bits_of("worse for less", 2.5, (1, 4, 4))
        + bits_of("worse for more", 2.5, (4, 4, 5))
    )
    assert tradeoffs.dominated_by(runs) == {
        "plain": [],
        "as good for less": [],
        "worse for less": [],
        "worse for more": ["plain", "as good for less"],
    }


def test_effects_say_which_are_clear():
    pairs = {"rate": ([3.0, 3.1, 3.2], [2.0, 2.1, 2.2]), "luck": ([1, 2, 3], [2, 3, 1])}
    picture = tradeoffs.effects(pairs, "Rates matter")
    assert "rate +1.00 (clear)" in picture.alt
    assert "luck +0.00 (not clear)" in picture.alt
    assert picture._repr_png_()[0].startswith(b"\x89PNG")


def test_no_remedy_is_the_same_as_none():
    settings = regularisation.settings(False)
    names = [regularisation.remedy(setting) for setting in settings]
    assert names.count("none") == 1 and len(set(names)) == len(settings)
    assert settings[0]["steps"] * 4 * 256 / settings[0]["text_bytes"] == 12.5
