"""A black box is given its right name or none."""

import random

import pytest
import torch
from identify_census import CHANGES, census, truth
from torch.nn import functional

import attn_tutorial as at
from attn_tutorial import patterns as P
from attn_tutorial.conventions import CONVENTIONS, identify
from attn_tutorial.patterns import dense_mask

KNOWN = [
    *["full", "causal", "local 0", "local 5", "local 5,0", "local 0,5", "local 7,2"],
    *["blocks 8", "blocks 8 & causal", "blocks 7", "blocks 1", "adjacent_blocks 8"],
    *["adjacent_blocks 8 & causal", "(prefix 4 | local 9,0) & causal"],
    *["prefix 6 | causal", "prefix 6", "global_tokens 3 | local 4"],
    *["prefix 3 | local 4", "prefix 3 | local 4,0", "strided 5", "strided 5 & causal"],
    *["dilated 4 3", "dilated 4,0 3", "dilated 2,5 4"],
    *["documents 30,50,16", "documents 30,50,16 & causal"],
]


def at_places(pattern, n):
    return dense_mask(pattern, n)


@pytest.mark.parametrize("text", KNOWN)
def test_a_known_pattern_is_named(text):
    pattern = P.parse(text)
    found = identify(pattern.keep, 96)
    assert torch.equal(at_places(found.pattern, 96), at_places(pattern, 96))
    assert found.places == 96 * 96


@pytest.mark.parametrize("text", ["local 4095,0", "local 3000", "blocks 512 & causal"])
def test_windows_of_large_models_are_named_in_a_long_text(text):
    pattern = P.parse(text)
    found = identify(pattern.keep)
    assert found.pattern == pattern and found.n == 16384
    assert found.places < 0.02 * found.n**2


def test_a_window_beyond_the_text_is_none():
    assert identify(P.local((50, 0)).keep, 40).pattern == P.causal()


# Predicates that are nearly, or not at all, a pattern.


@pytest.mark.parametrize("seed", range(4))
def test_of_random_predicates_none_is_named_wrong(seed):
    counts = census(150, seed)
    assert counts["wrong"] == 0
    assert counts["missed"] == 0
    assert min(counts["right"], counts["unknown"]) > 20


@pytest.mark.parametrize("change", CHANGES[1:])
def test_in_a_long_text_a_changed_pattern_is_not_named_wrong(change):
    draw = random.Random(0)
    for pattern in (P.local((40, 0)), P.local(300), P.blocks(100)):
        keep = change(pattern.keep, 5000, draw)
        found = identify(keep, 5000)
        assert found.places < 5000**2 or found.pattern is None
        if found.pattern is not None:
            assert torch.equal(dense_mask(found.pattern, 5000), truth(keep, 5000))


# Mask functions and attention functions.


def test_a_mask_function_is_asked_as_flex_attention_asks_it():
    assert identify(P.local(3), 64).pattern == P.local(3)


@pytest.mark.filterwarnings("ignore")
def test_mask_functions_of_transformers():
    masks = pytest.importorskip(
        "transformers.masking_utils", reason="transformers is not installed"
    )
    zero = torch.zeros(1, dtype=torch.long)
    for theirs, ours in [
        (masks.sliding_window_causal_mask_function(16), P.local((15, 0))),
        (masks.sliding_window_bidirectional_mask_function(16), P.local(16)),
        (masks.chunked_causal_mask_function(16, zero), P.blocks(16) & P.causal()),
        (masks.causal_mask_function, P.causal()),
    ]:
        assert identify(theirs, 200).pattern == ours


def windowed(window, **options):
    def attention(q, k, v):
        first = k.shape[-2] - q.shape[-2]
        return at.local_attention(q, k, v, window, first=first, **options)

    return attention


@pytest.mark.parametrize(
    ("attention", "pattern", "alignment"),
    [
        (at.attention, P.full(), "either"),
        (windowed((9, 0)), P.local((9, 0)), "bottom-right"),
        (windowed(9), P.local(9), "bottom-right"),
        (
            lambda q, k, v: functional.scaled_dot_product_attention(
                q, k, v, is_causal=True
            ),
            P.causal(),
            "top-left",
        ),
        (
            lambda q, k, v: at.sparse_attention(q, k, v, block_size=16),
            P.adjacent_blocks(16),
            "refused",
        ),
    ],
)
def test_an_attention_function_is_named_and_its_alignment(
    attention, pattern, alignment
):
    found = identify(attention)
    assert (found.pattern, found.alignment) == (pattern, alignment)
    assert alignment in found.words


def test_an_attention_function_with_another_alignment():
    def attention(q, k, v):
        return at.local_attention(q, k, v, 5, first=3 * (len(q[0, 0]) != len(k[0, 0])))

    assert identify(attention).alignment == "unknown"


def test_a_mask_that_depends_on_the_length_is_unknown():
    def attention(q, k, v):
        return at.local_attention(q, k, v, k.shape[-2] // 8, first=0)

    assert identify(attention).pattern is None


@pytest.mark.filterwarnings("ignore")
def test_local_attention_is_named():
    library = pytest.importorskip(
        "local_attention", reason="local-attention is not installed"
    )
    options = {"use_rotary_pos_emb": False, "window_size": 16}
    exact = library.LocalAttention(causal=True, exact_windowsize=True, **options)
    blocks = library.LocalAttention(causal=True, look_forward=0, **options)
    found = [identify(lambda q, k, v, f=f: f(q, k, v)).pattern for f in (exact, blocks)]
    assert found == [P.local((16, 0)), P.adjacent_blocks(16) & P.causal()]


# What is said.


def test_words_and_values():
    found = identify(lambda i, j: (j <= i) & (i - j < 9), 64)
    assert found.words == (
        "local 8,0: a query meets itself and 8 keys before it: 9 keys "
        "(compared at all 4,096 pairs of positions)"
    )
    assert found.values["hf.sliding_window"] == 9
    assert found.values["sglang.sliding_window_size"] == 8
    assert "keras.sliding_window" not in found.values
    assert set(found.values) < set(CONVENTIONS)


def test_an_open_end_is_said_in_words_alone():
    words = identify(lambda i, j: i - j < 8, 64).words
    assert words.startswith("a query meets itself, 7 keys before it and all keys after")
    assert str(P.FAR) not in words


def test_words_of_a_long_text_say_how_much_was_compared():
    words = identify(P.local(40).keep, 5000).words
    assert "of the 25,000,000 pairs" in words and "all" not in words


def test_unknown_is_said():
    found = identify(lambda i, j: (i + j) % 3 == 0, 64)
    assert found.words.startswith("Unknown: ") and found.values == {}
    assert identify(P.dilated(3, 4).keep, 64).values == {}


# Wrong arguments.


def keep_one(i):
    return i == i


def keep_five(a, b, c, d, e):
    return a == b


@pytest.mark.parametrize("keep", [3, None, "local 3", keep_one, keep_five, max])
def test_what_cannot_be_asked_is_refused(keep):
    with pytest.raises(TypeError, match="keep must"):
        identify(keep)


@pytest.mark.parametrize("keep", [lambda i, j: i - j, lambda i, j: True])
def test_answers_that_are_not_bool_are_refused(keep):
    with pytest.raises(TypeError, match="keep must answer a bool tensor"):
        identify(keep, 64)


def test_attention_that_answers_something_else_is_refused():
    with pytest.raises(TypeError, match="must answer a tensor of shape"):
        identify(lambda q, k, v: q[..., :1])


def test_a_table_that_ends_before_n_is_refused_with_the_repair():
    table = dense_mask(P.local(3), 50)
    with pytest.raises(ValueError, match="give the n up to which it is defined"):
        identify(lambda i, j: table[i, j])
    assert identify(lambda i, j: table[i, j], 50).pattern == P.local(3)


@pytest.mark.parametrize(("n", "error"), [(3, ValueError), (2.5, TypeError)])
def test_a_wrong_n_is_refused(n, error):
    with pytest.raises(error, match="n must be"):
        identify(P.local(3), n)
