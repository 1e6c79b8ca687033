"""Which routine a pattern goes to: what is multiplied, and what is refused alike."""

import pytest
import torch

import attn_tutorial as at
from attn_tutorial import cost
from attn_tutorial import patterns as P
from attn_tutorial.instruments import clinic
from attn_tutorial.networks.dispatch import pattern_attention
from attn_tutorial.networks.layers import MultiHeadAttention

AHEAD = P.Pattern("ahead", (("most", 2),), keep=lambda i, j: j - i <= 2)
NARROW = [P.local(5) & AHEAD, P.local((5, 2)), P.blocks(16), P.documents([100] * 6)]
NARROW += [P.shifted(P.local(3), 2), P.dilated(2, 3) & P.causal()]


@pytest.mark.parametrize("pattern", NARROW, ids=str)
def test_only_a_band_of_a_narrow_pattern_is_multiplied(pattern):
    n = 512
    stained = clinic.dye(lambda q, k, v: pattern_attention(q, k, v, pattern), n).sum()
    band = sum(len(P.run(pattern, range(i, i + 1), n)) for i in range(n))
    assert stained <= 8 * band and stained <= n * n / 3


@pytest.mark.parametrize("pattern", [*NARROW, P.prefix(2), P.strided(5)], ids=str)
def test_every_pattern_equals_its_mask_with_gradients(pattern):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 61, 4, dtype=torch.float64).requires_grad_()
    real = torch.rand(2, 61) < 0.8
    ours = pattern_attention(q, k, v, pattern, real)
    keep = at.dense_mask(pattern, 61) & real[:, None, None]
    wanted = at.attention(q, k, v, keep)
    torch.testing.assert_close(ours, wanted)
    found = [torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (ours, wanted)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "text", ["", "local 1", "adjacent_blocks 2", "causal", "strided 2"]
)
def test_masks_are_refused_alike_under_every_pattern(text):
    layer, x = (
        MultiHeadAttention(8, 2, P.parse(text) if text else None),
        torch.ones(2, 5, 8),
    )
    with pytest.raises(TypeError, match=r"key_keep must be bool .*key_keep\.bool\(\)"):
        layer(x, key_keep=torch.ones(2, 5, dtype=torch.long))
    with pytest.raises(TypeError, match="key_keep must be bool .*key_keep == 0"):
        layer(x, key_keep=torch.zeros(2, 5))
    with pytest.raises(
        ValueError, match=r"key_keep must have shape \(5,\) or \(2, 5\)"
    ):
        layer(x, key_keep=torch.ones(2, 1, dtype=torch.bool))


def test_a_mask_of_texts_is_not_taken_for_one_of_heads():
    q = torch.zeros(2, 2, 5, 4)
    real = torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"write key_keep\[:, None\]"):
        at.local_attention(q, q, q, 1, key_keep=real)
    with pytest.raises(ValueError, match=r"write keep\[:, None\]"):
        at.attention(q, q, q, torch.ones(2, 5, 5, dtype=torch.bool))


def test_chunks_of_a_readers_own_are_counted_in_linear_memory():
    chunk, n = 1024, 4096
    own = P.Pattern(
        "own", (("size", chunk),), keep=lambda i, j: i // chunk == j // chunk
    )
    wanted = n // chunk * chunk * (chunk + 1) // 2
    assert cost.kept_pairs(own & P.causal(), n) == wanted
    found = clinic.examine(own & P.causal(), n)
    assert found.kept == wanted
    assert found.computed == cost.grid_pairs(P.blocks(chunk) & P.causal(), n, 128, 128)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 1)])
def test_a_mask_of_keys_names_each_key(shape):
    q, real = torch.zeros(1, 5, 4), torch.ones(shape, dtype=torch.bool)
    for attend in (at.local_attention, at.sparse_attention):
        with pytest.raises(ValueError, match=r"key_keep must have shape \(5,\)"):
            attend(q, q, q, 1, key_keep=real)


@pytest.mark.parametrize("causal", [False, True])
def test_one_block_is_full_attention(causal):
    q, k, v = torch.randn(3, 2, 7, 4, dtype=torch.float64)
    keep = at.dense_mask(P.causal() if causal else P.full(), 7)
    ours = at.sparse_attention(q, k, v, 1, causal=causal)
    torch.testing.assert_close(ours, at.attention(q, k, v, keep))
    layer = at.SparseAttention(d_k=4, n=1)
    torch.testing.assert_close(layer(q, k, v), at.attention(q, k, v))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        at.SparseAttention(d_k=4, n=0)


@pytest.mark.parametrize("name", ["n", "d", "heads", "bytes_per_number"])
def test_sizes_that_cannot_be_are_refused(name):
    right = {"n": 8, "d": 4, "heads": 1, "bytes_per_number": 4}
    smaller = right | {name: -1 if name == "n" else 0}
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        cost.io_bytes(**smaller)
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        cost.tile_bytes(P.full(), **smaller, rows=2, columns=2)


def test_weights_of_a_batch_sum_to_one_over_the_keys():
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)
    weights = at.attention_weights(q, k)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    scores = (q @ k.mT / 2).exp()
    torch.testing.assert_close(weights, scores / scores.sum(-1, keepdim=True))


def test_shared_heads_without_a_batch():
    torch.manual_seed(0)
    layer = MultiHeadAttention(16, 4, P.local(2), num_kv_heads=2, rotary=True)
    x = torch.randn(3, 9, 16)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])


def test_a_mask_of_ones_and_one_of_scores_get_different_advice():
    q, keep = torch.zeros(4, 4), torch.tril(torch.ones(4, 4))
    with pytest.raises(TypeError, match="write keep != 0"):
        at.attention(q, q, q, keep)
    with pytest.raises(TypeError, match="write keep == 0"):
        at.attention(q, q, q, keep.log())


def test_a_pattern_given_as_text_is_named():
    q = torch.zeros(1, 4, 4)
    with pytest.raises(
        TypeError, match="pattern must be attn_tutorial patterns, got 'c"
    ):
        pattern_attention(q, q, q, "causal")
