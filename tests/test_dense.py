"""Eq. (1) against loops in plain Python, and against PyTorch's own attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import attn_tutorial as at


def by_hand(q, k, v, keep=None, scale=None):
    """Attention of 2-D lists, one query at a time, with math.exp and sum."""
    rows = []
    for i, query in enumerate(q):
        kept = [j for j in range(len(k)) if keep is None or keep[i][j]]
        factor = 1 / math.sqrt(len(query)) if scale is None else scale
        score = {
            j: factor * sum(a * b for a, b in zip(query, k[j], strict=True))
            for j in kept
        }
        top = max(score.values(), default=0.0)
        weight = {j: math.exp(s - top) for j, s in score.items()}
        total = sum(weight.values())
        rows.append(
            [
                sum(weight[j] / total * v[j][c] for j in kept)
                for c in range(len(v[0]) if v else 0)
            ]
        )
    return rows


def inputs(n_q, n_k, d, d_v, *lead, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(*lead, n_q, d), (*lead, n_k, d), (*lead, n_k, d_v)]
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)
        for s in shapes
    ]


@pytest.mark.equation(1)
@pytest.mark.parametrize(
    ("n_q", "n_k", "d", "d_v"), [(1, 1, 1, 1), (5, 5, 3, 3), (4, 7, 3, 2), (7, 2, 1, 5)]
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3, 2])
def test_attention_equals_loops(n_q, n_k, d, d_v, masked, scale):
    q, k, v = inputs(n_q, n_k, d, d_v)
    keep = torch.rand(n_q, n_k, generator=torch.Generator().manual_seed(1)) < 0.6
    keep = keep if masked else None
    expected = by_hand(
        q.tolist(), k.tolist(), v.tolist(), None if keep is None else keep, scale
    )
    output = at.attention(q, k, v, keep, scale=scale)
    torch.testing.assert_close(output, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(0, 99),
)
def test_attention_and_gradients_equal_sdpa(n_q, n_k, d, d_v, lead, seed):
    q, k, v = [x.requires_grad_() for x in inputs(n_q, n_k, d, d_v, *lead, seed=seed)]
    keep = torch.rand(n_q, n_k, generator=torch.Generator().manual_seed(seed)) < 0.7
    keep[:, :1] = True
    ours = at.attention(q, k, v, keep)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    torch.testing.assert_close(ours, theirs)
    signal = torch.randn(
        ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(seed + 1)
    )
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), signal),
        torch.autograd.grad(theirs, (q, k, v), signal),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_rows_of_weights_sum_to_one_or_are_zero():
    q, k, _ = inputs(6, 8, 4, 4, 2)
    keep = torch.rand(6, 8, generator=torch.Generator().manual_seed(3)) < 0.5
    keep[2] = False
    weights = at.attention_weights(q, k, keep)
    expected = torch.ones(2, 6, dtype=torch.float64)
    expected[:, 2] = 0
    torch.testing.assert_close(weights.sum(-1), expected)
    assert (weights[:, ~keep] == 0).all()
    assert (weights[:, keep] > 0).all()


def test_a_query_without_keys_gets_zeros_and_zero_gradients():
    q, k, v = [x.requires_grad_() for x in inputs(3, 3, 2, 2)]
    keep = torch.tensor([[True, True, False], [False] * 3, [True] * 3])
    output = at.attention(q, k, v, keep)
    assert (output[1] == 0).all()
    gradients = torch.autograd.grad(output.sum() + output.pow(2).sum(), (q, k, v))
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][1] == 0).all()


def test_no_keys_at_all_gives_zeros():
    q, k, v = inputs(3, 0, 2, 4)
    assert at.attention(q, k, v).equal(torch.zeros(3, 4, dtype=torch.float64))
    assert at.attention_weights(q, k).shape == (3, 0)


def test_no_queries_gives_an_empty_result():
    q, k, v = inputs(0, 3, 2, 4, 2)
    assert at.attention(q, k, v).shape == (2, 0, 4)


def test_huge_scores_do_not_overflow():
    q, k, v = inputs(4, 4, 3, 3)
    output = at.attention(1e4 * q, 1e4 * k, v)
    best = (q @ k.T).argmax(-1)
    torch.testing.assert_close(output, v[best])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 3e-3), (torch.bfloat16, 2e-2)]
)
def test_half_precision_is_close_and_keeps_its_dtype(dtype, tolerance):
    q, k, v = inputs(9, 9, 8, 8, 2, dtype=dtype)
    keep = torch.ones(9, 9).tril().bool()
    output = at.attention(q, k, v, keep)
    assert output.dtype == at.attention_weights(q, k, keep).dtype == dtype
    exact = at.attention(q.double(), k.double(), v.double(), keep)
    torch.testing.assert_close(output.double(), exact, atol=tolerance, rtol=tolerance)


def test_half_precision_scores_beyond_its_range_are_summed_in_float32():
    q = torch.full((1, 64), 60.0, dtype=torch.float16)  # q . k = 230 400 > 65 504
    k = torch.stack([q[0], -q[0]])
    assert at.attention_weights(q, k).tolist() == [[1.0, 0.0]]


def test_keep_broadcasts_over_leading_dimensions():
    q, k, v = inputs(5, 5, 4, 4, 2, 3)
    keep = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    output = at.attention(q, k, v, keep)
    for batch in range(2):
        for head in range(3):
            x = [y[batch, head] for y in (q, k, v)]
            single = at.attention(*x, keep[batch, 0])
            torch.testing.assert_close(output[batch, head], single)


Q, K, V = inputs(4, 4, 3, 3)
BAD = [
    ((Q.tolist(), K, V), TypeError, "q must be a torch.Tensor, got list"),
    ((Q, None, V), TypeError, "k must be a torch.Tensor, got NoneType"),
    ((Q, K, V.numpy()), TypeError, "v must be a torch.Tensor, got ndarray"),
    ((Q.long(), K, V), TypeError, "q must have a floating dtype, got torch.int64"),
    ((Q[0], K, V), ValueError, r"q must have shape \(..., n, d\), got \(3,\)"),
    ((Q[:, :0], K[:, :0], V), ValueError, r"q must have a width .* got \(4, 0\)"),
    ((Q.float(), K, V), TypeError, "k must have the dtype of q, torch.float32.*64"),
    ((Q, K, V.half()), TypeError, "v must have the dtype of q.*got torch.float16"),
    ((Q, K.to("meta"), V), ValueError, "k must be on q's device, cpu, got meta"),
    ((Q[None], K, V), ValueError, r"k must have the leading dimensions of q, \(1,\)"),
    ((Q, K, V[None]), ValueError, r"v must have the leading dimensions of q, \(\)"),
    ((Q, K[:, :2], V), ValueError, r"k must have the width of q, 3, got .*\(4, 2\)"),
    ((Q, K, V[:3]), ValueError, r"v must have the length of k, 4, got .*\(3, 3\)"),
    ((Q, K, V, [[True]]), TypeError, "keep must be a torch.Tensor .*, got list"),
    ((Q, K, V, torch.ones(4, 4)), TypeError, "keep must be bool .*torch.float32"),
    (
        (Q, K, V, torch.ones(4, 5).bool()),
        ValueError,
        r"keep must have shape \(4, 4\), got \(4, 5\)",
    ),
    (
        (Q, K, V, torch.ones(2, 4, 4).bool()),
        ValueError,
        r"keep must have shape \(4, 4\), got \(2, 4, 4\)",
    ),
    (
        (Q, K, V, torch.ones(4, 4, device="meta").bool()),
        ValueError,
        "keep must be on q's device, cpu, got meta",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        at.attention(*arguments)


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        ("1", TypeError),
        (True, TypeError),
        (math.inf, ValueError),
        (math.nan, ValueError),
    ],
)
def test_a_bad_scale_is_named(scale, error):
    with pytest.raises(error, match="scale must be"):
        at.attention(Q, K, V, scale=scale)
