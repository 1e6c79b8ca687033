"""Online softmax against float64 attention written from the definition."""

import itertools
import math

import pytest
import torch

import attn_tutorial as at
from attn_tutorial.instruments.memory import Allocations
from attn_tutorial.online import merge_attention, online_attention


def qkv(n_q, n_k, d=5, d_v=3, lead=(), scale=1.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)

    q, k, v = scale * draw(n_q, d), draw(n_k, d), draw(n_k, d_v)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def reference(q, k, v):
    """Softmax attention, one query at a time, with Python's exact sums."""
    output = torch.zeros(q.shape[0], v.shape[1], dtype=torch.float64)
    for i, query in enumerate(q.tolist()):
        scores = [dot(query, key) / math.sqrt(len(query)) for key in k.tolist()]
        weights = [math.exp(score - max(scores)) for score in scores]
        for c, column in enumerate(v.T.tolist()):
            output[i, c] = dot(weights, column) / math.fsum(weights)
    return output


@pytest.mark.equation(6)
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 7, 12, 13, 14, 100])
@pytest.mark.parametrize(("n_q", "n_k"), [(13, 13), (1, 13), (13, 1), (4, 12)])
def test_equals_the_definition_for_every_chunk(n_q, n_k, chunk):
    q, k, v = qkv(n_q, n_k)
    torch.testing.assert_close(
        online_attention(q, k, v, chunk), reference(q, k, v), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("lead", [(2,), (2, 3), (0,), (1, 1, 2)])
def test_leading_dimensions_are_kept(lead):
    q, k, v = qkv(6, 7, lead=lead)
    expected = (q @ k.mT / math.sqrt(5)).softmax(-1) @ v
    torch.testing.assert_close(online_attention(q, k, v, 3), expected)


@pytest.mark.parametrize("order", ["rising", "falling"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_scores_do_not_overflow(order, dtype):
    n = 9
    scores = torch.arange(n, dtype=dtype) * 1e4  # exp(1e4) overflows float64
    k = (scores if order == "rising" else scores.flip(0))[:, None]
    q, v = torch.ones(1, 1, dtype=dtype), torch.eye(n, dtype=dtype)
    expected = v[-1:] if order == "rising" else v[:1]
    for chunk in (1, 2, 4, 9):
        assert torch.equal(online_attention(q, k, v, chunk), expected)


def test_hugely_negative_scores_do_not_vanish():
    q, k = torch.ones(1, 1), torch.full((5, 1), -1e5)
    v = torch.arange(5.0)[:, None]
    assert online_attention(q, k, v, 2).item() == pytest.approx(2.0)


def test_first_chunk_far_below_the_second_is_forgotten():
    q, k = torch.ones(1, 1), torch.tensor([[-1e4], [-1e4], [0.0], [0.0]])
    v = torch.tensor([[9.0], [9.0], [1.0], [3.0]])
    assert online_attention(q, k, v, 2).item() == 2.0


def test_float32_error_is_rounding_only():
    q, k, v = qkv(50, 300, d=16, scale=3.0)
    exact = (q @ k.mT / 4).softmax(-1) @ v
    error = (online_attention(q.float(), k.float(), v.float(), 32) - exact).abs().max()
    assert error < 2e-6


def test_no_keys_give_zeros_and_no_queries_give_nothing():
    q, k, v = qkv(4, 0)
    assert torch.equal(online_attention(q, k, v, 2), torch.zeros_like(q[:, :3]))
    q, k, v = qkv(0, 4)
    assert online_attention(q, k, v, 2).shape == (0, 3)


def test_gradients_equal_those_of_dense_attention():
    inputs = [x.requires_grad_() for x in qkv(7, 7)]
    gradient = torch.randn(7, 3, dtype=torch.float64)
    dense = (inputs[0] @ inputs[1].mT / math.sqrt(5)).softmax(-1) @ inputs[2]
    online = online_attention(*inputs, 3)
    expected = torch.autograd.grad(dense, inputs, gradient)
    for ours, theirs in zip(
        torch.autograd.grad(online, inputs, gradient), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("n", "chunk"), [(128, 8), (256, 32)])
def test_no_tensor_is_larger_than_one_chunk_of_scores(n, chunk):
    q, k, v = qkv(n, n)
    with Allocations() as seen:
        online_attention(q, k, v, chunk)
    assert seen.largest == n * chunk * q.element_size()


def parts(q, k, v, cuts):
    """Outputs and logsumexps of attention to the keys between the cuts."""
    for start, stop in itertools.pairwise(cuts):
        scores = q @ k[start:stop].mT / math.sqrt(q.shape[-1])
        yield scores.softmax(-1) @ v[start:stop], scores.logsumexp(-1, keepdim=True)


@pytest.mark.parametrize("cuts", [(0, 6, 13), (0, 1, 13), (0, 2, 3, 9, 13)])
def test_merged_parts_equal_attention_to_all_keys(cuts):
    q, k, v = qkv(5, 13, scale=4.0)
    first, *others = parts(q, k, v, cuts)
    for part in others:
        first = merge_attention(*first, *part)
    torch.testing.assert_close(first[0], reference(q, k, v))
    scores = q @ k.mT / math.sqrt(5)
    torch.testing.assert_close(first[1], scores.logsumexp(-1, keepdim=True))


def test_merge_with_an_empty_part_changes_nothing():
    q, k, v = qkv(5, 6)
    ((output, lse),) = parts(q, k, v, (0, 6))
    empty = torch.zeros_like(output), torch.full_like(lse, float("-inf"))
    torch.testing.assert_close(merge_attention(output, lse, *empty)[0], output)


@pytest.mark.parametrize(
    ("chunk", "error", "text"),
    [
        (0, ValueError, "chunk must be at least 1, got 0"),
        (-3, ValueError, "chunk must be at least 1, got -3"),
        (2.0, TypeError, "chunk must be an integer, got 2.0"),
        (True, TypeError, "chunk must be an integer, got True"),
    ],
)
def test_a_bad_chunk_is_named(chunk, error, text):
    with pytest.raises(error, match=text):
        online_attention(*qkv(4, 4), chunk)


def test_bad_tensors_are_named():
    q, k, v = qkv(4, 4)
    with pytest.raises(ValueError, match="k must have the width of q"):
        online_attention(q, k[:, :3], v, 2)
    with pytest.raises(ValueError, match="v must have the length of k"):
        online_attention(q, k, v[:3], 2)


def test_a_logsumexp_without_its_axis_is_named():
    q, k, v = torch.randn(3, 8, 8)  # as many queries as features: it would broadcast
    one = at.local_attention(q, k[:4], v[:4], 99, first=0, return_lse=True)
    two = at.local_attention(q, k[4:], v[4:], 99, first=0, return_lse=True)
    with pytest.raises(ValueError, match=r"lse_a must have .*write lse_a\[..., None\]"):
        merge_attention(*one, *two)
    with pytest.raises(ValueError, match="lse_b must have"):
        merge_attention(one[0], one[1][..., None], *two)
    whole, _ = merge_attention(one[0], one[1][..., None], two[0], two[1][..., None])
    torch.testing.assert_close(whole, at.attention(q, k, v))


def test_a_query_without_keys_has_finite_gradients():
    q, k, v = torch.randn(3, 8, 8)
    q.requires_grad_()
    padded = torch.tensor([False] * 4 + [True] * 4)
    part, lse = at.local_attention(q, k, v, 1, key_keep=padded, return_lse=True)
    merged, both = merge_attention(part, lse[:, None], part, lse[:, None])
    (gradient,) = torch.autograd.grad(merged.sum(), q)
    assert gradient.isfinite().all() and (gradient[:3] == 0).all()
    assert (merged[:3] == 0).all() and (both[:3] == -math.inf).all()


def test_autocast_changes_no_digit():
    q, k, v = 2 * torch.randn(3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = online_attention(q, k, v, 16)
    torch.testing.assert_close(found, at.attention(q, k, v))
