"""Eq. (15), the printed document and the memory counters that the chapters rely on."""

import math

import pytest
import torch

import attn_tutorial as at
from attn_tutorial.gradients import attention_gradients
from attn_tutorial.instruments import document, memory

PATTERNS = {
    "full": at.patterns.full(),
    "causal": at.patterns.causal(),
    "window 0": at.patterns.local(0),
    "causal window": at.patterns.local(2) & at.patterns.causal(),
    "blocks": at.patterns.adjacent_blocks(2),
    "blocks and a global token": at.patterns.adjacent_blocks(2)
    | at.patterns.global_tokens(1),
}


def qkv(n_q, n_k=None, d=3, d_v=5, leading=(2,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    n_k = n_q if n_k is None else n_k
    shapes = [(n_q, d), (n_k, d), (n_k, d_v), (n_q, d_v)]
    return [
        torch.randn(*leading, *s, dtype=torch.float64, generator=generator)
        for s in shapes
    ]


def by_autograd(q, k, v, grad_output, keep, scale=None):
    """An oracle of its own: plain exponentials, differentiated by PyTorch."""
    q, k, v = (x.clone().requires_grad_() for x in (q, k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    e = torch.where(keep, (q @ k.transpose(-2, -1) * scale).exp(), 0.0)
    total = e.sum(-1, keepdim=True)
    weights = e / torch.where(total == 0, 1.0, total)
    return torch.autograd.grad(weights @ v, (q, k, v), grad_output)


def assert_equal(actual, expected):
    for name, a, e in zip(("dq", "dk", "dv"), actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.equation(15)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_gradients_by_hand_equal_autograd(pattern, n):
    keep = at.dense_mask(pattern, n)
    inputs = qkv(n)
    assert_equal(attention_gradients(*inputs, keep), by_autograd(*inputs, keep))


def test_no_mask_means_all_pairs_and_other_lengths_and_scales_work():
    inputs = qkv(4, 7, leading=(2, 3))
    keep = torch.ones(4, 7, dtype=torch.bool)
    assert_equal(
        attention_gradients(*inputs, scale=0.3), by_autograd(*inputs, keep, scale=0.3)
    )


def test_a_query_that_keeps_nothing_moves_nothing():
    keep = at.dense_mask(at.patterns.local(1), 6).clone()
    keep[2] = False
    inputs = qkv(6)
    gradients = attention_gradients(*inputs, keep)
    assert_equal(gradients, by_autograd(*inputs, keep))
    assert (gradients[0][..., 2, :] == 0).all()


def test_a_key_that_nobody_keeps_gets_no_gradient():
    keep = torch.ones(5, 5, dtype=torch.bool)
    keep[:, 3] = False
    _, dk, dv = attention_gradients(*qkv(5), keep)
    assert (dk[..., 3, :] == 0).all()
    assert (dv[..., 3, :] == 0).all()


def test_gradients_of_the_fast_forms_equal_the_formula():
    q, k, v, grad_output = qkv(12)
    calls = {
        at.patterns.local(2): lambda *qkv: at.local_attention(*qkv, 2),
        at.patterns.adjacent_blocks(3): lambda *qkv: at.sparse_attention(*qkv, 4),
        at.patterns.adjacent_blocks(5): lambda *qkv: at.sparse_attention(
            *qkv, block_size=5
        ),
    }
    for pattern, call in calls.items():
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        actual = torch.autograd.grad(call(*leaves), leaves, grad_output)
        keep = at.dense_mask(pattern, 12)
        assert_equal(attention_gradients(q, k, v, grad_output, keep), actual)


def test_wrong_shape_of_grad_output_is_named():
    q, k, v, _ = qkv(4)
    with pytest.raises(ValueError, match=r"grad_output .*\(2, 4, 5\), got \(2, 4, 3\)"):
        attention_gradients(q, k, v, q)


def test_printed_module_lacks_its_import():
    module = document.run().SparseAttention(4, 2)
    with pytest.raises(NameError, match="math"):
        module(*torch.randn(3, 2, 8, 4))


def call_printed_module(n, *inputs):
    module = document.run(math=math).SparseAttention(inputs[0].shape[-1], n)
    try:
        return module(*inputs)
    except RuntimeError:
        return None


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (1, 4), (2, 3, 2)])
@pytest.mark.parametrize("d_v", [3, 8])
def test_printed_module_raises_or_is_a_slice_of_full_attention(leading, d_v):
    q, k, v, _ = qkv(6, d=3, d_v=d_v, leading=leading)
    ran = 0
    for n in range(1, 10):
        output = call_printed_module(n, q, k, v)
        if output is not None:
            ran += 1
            torch.testing.assert_close(output, at.attention(q, k, v)[:, -n:n])
    assert ran > 0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_printed_module_never_runs_on_a_batch_when_n_is_below_the_length(n):
    assert call_printed_module(n, *torch.randn(3, 2, 6, 4)) is None


def test_repaired_module_keeps_the_printed_signature():
    q, k, v, _ = qkv(8)
    keep = at.dense_mask(at.patterns.adjacent_blocks(2), 8)
    torch.testing.assert_close(
        at.SparseAttention(3, 4)(q, k, v), at.attention(q, k, v, keep)
    )


def test_saved_bytes_counts_distinct_storages_once():
    x = torch.ones(10, requires_grad=True)
    y = torch.ones(10)
    assert memory.saved_bytes(lambda: x * y) == 40  # only y is needed for x's gradient
    assert memory.saved_bytes(lambda: (x * x) * x) == 80
    assert memory.saved_bytes(lambda: x + y) == 0


def test_allocations_count_results_and_not_views():
    x = torch.ones(10)
    with memory.Allocations() as counted:
        _ = (x + 1).view(5, 2).T
        x.mul_(2)
    assert counted.bytes == 40
    assert counted.by_operation == {"add": 40}


def test_backward_of_a_slice_allocates_the_full_length():
    x = torch.ones(100, requires_grad=True)
    y = x[10:20].sum()
    with memory.Allocations() as counted:
        y.backward()
    assert counted.by_operation["slice_backward"] == 400


def test_shared_heads_and_padding_that_holds_nan():
    q, k, v = (torch.randn(2, h, 6, 4, dtype=torch.float64) for h in (3, 1, 1))
    keep = at.dense_mask(at.patterns.local(2), 6).clone()
    keep[:, 5] = False
    k[..., 5, :], v[..., 5, :] = torch.nan, torch.nan
    inputs = [x.requires_grad_() for x in (q, k, v)]
    output = at.attention(*inputs, keep)
    grad = torch.randn_like(output)
    expected = torch.autograd.grad(output, inputs, grad)
    found = attention_gradients(*inputs, grad, keep)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_gradient_that_is_no_tensor_is_named():
    q = torch.ones(2, 3)
    with pytest.raises(TypeError, match=r"grad_output must be a torch.Tensor, got \[1"):
        attention_gradients(q, q, q, [1])
