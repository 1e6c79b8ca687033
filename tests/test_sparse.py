"""Eq. (11) against loops over queries and keys, and against PyTorch's own attention."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_local import LENGTHS, assert_same, by_definition, inputs, with_gradients

import attn_tutorial as at


def in_adjacent_blocks(n, size, causal):
    """Return the keys of each query, block by block."""
    blocks = [list(range(a, min(a + size, n))) for a in range(0, n, size)]

    def kept(i):
        (own,) = [number for number, block in enumerate(blocks) if i in block]
        near = [j for block in blocks[max(0, own - 1) : own + 2] for j in block]
        return [j for j in near if j <= i] if causal else near

    return kept


def block_sizes_of(n):
    """One block, n blocks, and sizes that leave a shorter last block."""
    return sorted({1, 2, 5, max(n // 2, 1), max(n - 1, 1), max(n, 1), n + 3})


@pytest.mark.equation(11)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_output_and_gradients_equal_the_definition(n, causal):
    for size in block_sizes_of(n):
        tensors = inputs(2, n, 3)
        kept = in_adjacent_blocks(n, size, causal)
        assert_same(
            with_gradients(
                lambda q, k, v, b=size: at.sparse_attention(
                    q, k, v, block_size=b, causal=causal
                ),
                tensors,
            ),
            with_gradients(
                lambda q, k, v, kept=kept: by_definition(q, k, v, kept), tensors
            ),
        )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", LENGTHS)
def test_padded_keys_are_never_attended(n, causal):
    key_keep = torch.rand(2, n, generator=torch.Generator().manual_seed(2)) < 0.4
    key_keep[1] = False  # no query of the second sequence has a key
    for size in (1, 5, n // 3 + 1):
        tensors = inputs(2, n, 4, d_v=2)
        kept = in_adjacent_blocks(n, size, causal)
        results = with_gradients(
            lambda q, k, v, b=size: at.sparse_attention(
                q, k, v, block_size=b, causal=causal, key_keep=key_keep
            ),
            tensors,
        )
        assert_same(
            results,
            with_gradients(
                lambda q, k, v, kept=kept: by_definition(q, k, v, kept, key_keep),
                tensors,
            ),
        )
        assert all(torch.count_nonzero(x[1]) == 0 for x in results)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 4, 6, 12])
def test_num_blocks_are_blocks_of_equal_size(num_blocks, causal):
    q, k, v = inputs(2, 12, 3)
    torch.testing.assert_close(
        at.sparse_attention(q, k, v, num_blocks, causal=causal),
        by_definition(q, k, v, in_adjacent_blocks(12, 12 // num_blocks, causal)),
    )
    torch.testing.assert_close(
        at.sparse_attention(q, k, v, num_blocks=num_blocks, causal=causal),
        at.sparse_attention(q, k, v, block_size=12 // num_blocks, causal=causal),
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 150),
    size=st.integers(1, 160),
    d=st.integers(1, 9),
    d_v=st.integers(1, 9),
    heads=st.integers(1, 5),
    causal=st.booleans(),
)
def test_any_shape_equals_the_masked_reference(n, size, d, d_v, heads, causal):
    tensors = inputs(heads, n, d, d_v=d_v)
    i = torch.arange(n)
    block = torch.div(i, size, rounding_mode="floor")
    keep = (block[:, None] - block).abs() < 2
    if causal:
        keep = keep.tril()
    assert_same(
        with_gradients(
            lambda q, k, v: at.sparse_attention(
                q, k, v, block_size=size, causal=causal
            ),
            tensors,
        ),
        with_gradients(lambda q, k, v: at.attention(q, k, v, keep), tensors),
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("n", "size"), [(700, 32), (1000, 130), (1500, 301), (2600, 1031), (1100, 1100)]
)
def test_long_sequences_equal_scaled_dot_product_attention(n, size, causal):
    tensors = inputs(1, 2, n, 8, dtype=torch.float32)
    block = torch.arange(n) // size
    keep = (block[:, None] - block).abs() <= 1
    keep = keep.tril() if causal else keep
    assert_same(
        with_gradients(
            lambda q, k, v: at.sparse_attention(
                q, k, v, block_size=size, causal=causal
            ),
            tensors,
        ),
        with_gradients(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=keep),
            tensors,
        ),
        atol=2e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("causal", [False, True])
def test_flex_attention_with_the_same_pattern_agrees(causal):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    pattern = at.patterns.adjacent_blocks(16)
    if causal:
        pattern &= at.patterns.causal()
    q, k, v = (x.detach() for x in inputs(1, 2, 100, 8, dtype=torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flex_attention warns that it is not compiled
        mask = create_block_mask(pattern, None, None, 100, 100, device="cpu")
        expected = flex_attention(q, k, v, block_mask=mask)
    output = at.sparse_attention(q, k, v, block_size=16, causal=causal)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_leading_dimensions(lead):
    q, k, v = inputs(*lead, 40, 4, d_v=6)
    keep = at.dense_mask(at.patterns.adjacent_blocks(7), 40)
    output = at.sparse_attention(q, k, v, block_size=7)
    assert output.shape == (*lead, 40, 6)
    torch.testing.assert_close(output, at.attention(q, k, v, keep))


@pytest.mark.parametrize("scale", [0.0, 0.3, -1])
def test_scale(scale):
    tensors = inputs(1, 50, 4)
    kept = in_adjacent_blocks(50, 8, False)
    assert_same(
        with_gradients(
            lambda q, k, v: at.sparse_attention(q, k, v, block_size=8, scale=scale),
            tensors,
        ),
        with_gradients(
            lambda q, k, v: by_definition(q, k, v, kept, scale=scale), tensors
        ),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_inputs_and_results(dtype):
    tensors = inputs(2, 200, 16, dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in tensors]

    def attend(q, k, v):
        return at.sparse_attention(q, k, v, block_size=16)

    results, expected = with_gradients(attend, tensors), with_gradients(attend, exact)
    assert all(x.dtype == dtype for x in results)
    step = torch.finfo(dtype).eps
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), wanted, atol=4 * step, rtol=step)


@pytest.mark.parametrize(("size", "causal"), [(1, False), (8, True), (40, False)])
def test_gradcheck(size, causal):
    q, k, v = inputs(2, 37, 2, d_v=3)
    assert torch.autograd.gradcheck(
        lambda q, k, v: at.sparse_attention(q, k, v, block_size=size, causal=causal),
        (q, k, v),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_a_change_in_a_block_is_seen_by_three_blocks(causal):
    q, k, v = (x.detach() for x in inputs(1, 80, 4))
    before = at.sparse_attention(q, k, v, num_blocks=8, causal=causal)
    k2, v2 = k.clone(), v.clone()
    k2[:, 44], v2[:, 44] = 3.0, -3.0
    changed = at.sparse_attention(q, k2, v2, num_blocks=8, causal=causal) != before
    rows = changed.any(-1)[0].nonzero().flatten().tolist()
    assert rows == list(range(44 if causal else 30, 60))


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (0, 3, 4)])
def test_nothing_in_nothing_out(shape):
    q, k, v = inputs(*shape, d_v=6)
    output = at.sparse_attention(q, k, v, 3 if shape[-2] == 3 else 1)
    assert output.shape == (*shape[:-1], 6)
    output.sum().backward()
    assert k.grad.shape == k.shape


Q = torch.zeros(2, 6, 4)
KEEP = torch.ones(5, dtype=torch.bool)
BAD = [
    ((Q.tolist(), Q, Q, 1), {}, TypeError, ["q must be a torch.Tensor", "list"]),
    ((Q[0, 0], Q, Q, 1), {}, ValueError, ["q must have shape", "(4,)"]),
    ((Q, Q.double(), Q, 1), {}, TypeError, ["k must", "torch.float64"]),
    (
        (Q, Q[:, :5], Q[:, :5], 1),
        {},
        ValueError,
        ["first must be given", "6 queries and 5 keys"],
    ),
    ((Q, Q, Q), {}, TypeError, ["num_blocks=None", "block_size=None"]),
    ((Q, Q, Q, 2), {"block_size": 3}, TypeError, ["num_blocks=2", "block_size=3"]),
    ((Q, Q, Q, 4), {}, ValueError, ["num_blocks must divide", "n=6", "4"]),
    ((Q, Q, Q, 12), {}, ValueError, ["num_blocks must divide", "12"]),
    ((Q, Q, Q, 0), {}, ValueError, ["num_blocks must be at least 1", "0"]),
    ((Q, Q, Q, -2), {}, ValueError, ["num_blocks must be at least 1", "-2"]),
    ((Q, Q, Q, 2.0), {}, TypeError, ["num_blocks must be an integer", "2.0"]),
    ((Q, Q, Q, True), {}, TypeError, ["num_blocks must be an integer", "True"]),
    ((Q, Q, Q), {"block_size": 0}, ValueError, ["block_size must be at least 1", "0"]),
    ((Q, Q, Q), {"block_size": 1.5}, TypeError, ["block_size must be", "1.5"]),
    ((Q, Q, Q), {"block_size": False}, TypeError, ["block_size must be", "False"]),
    ((Q, Q, Q, 2), {"key_keep": KEEP}, ValueError, ["key_keep", "(5,)"]),
    ((Q, Q, Q, 2), {"key_keep": KEEP.int()}, TypeError, ["key_keep", "int32"]),
    ((Q, Q, Q, 2), {"scale": [1]}, TypeError, ["scale", "[1]"]),
]


@pytest.mark.parametrize(("args", "options", "error", "words"), BAD)
def test_bad_input_is_named(args, options, error, words):
    with pytest.raises(error) as caught:
        at.sparse_attention(*args, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_module():
    module = at.SparseAttention(d_k=4, n=5)
    q, k, v = inputs(2, 5, 20, 4, d_v=7)
    assert list(module.parameters()) == [] and module.state_dict() == {}
    expected = at.sparse_attention(q, k, v, block_size=4)
    torch.testing.assert_close(module(q, k, v), expected)
    assert repr(module) == "SparseAttention(d_k=4, n=5)"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0, 1), ValueError, ["d_k", "0"]),
        ((4.0, 1), TypeError, ["d_k", "4.0"]),
        ((4, 0), ValueError, ["n must", "0"]),
        ((4, True), TypeError, ["n must", "True"]),
    ],
)
def test_module_names_a_bad_setting(arguments, error, words):
    with pytest.raises(error) as caught:
        at.SparseAttention(*arguments)
    assert all(word in str(caught.value) for word in words)


def test_module_names_bad_input():
    with pytest.raises(ValueError, match=r"Q must have d_k = 5 .*\(2, 6, 4\)"):
        at.SparseAttention(5, 2)(Q, Q, Q)
    with pytest.raises(ValueError, match=r"num_blocks must divide .*n=6, got 4"):
        at.SparseAttention(4, 4)(Q, Q, Q)
    with pytest.raises(TypeError, match=r"q must be a torch.Tensor"):
        at.SparseAttention(4, 2)(None, Q, Q)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [False, True])
def test_cuda_equals_cpu(causal):
    tensors = inputs(2, 3, 500, 16)
    results = []
    for device in ("cpu", "cuda"):
        moved = [x.detach().to(device).requires_grad_() for x in tensors]
        output = at.sparse_attention(*moved, block_size=64, causal=causal)
        grads = torch.autograd.grad(output.square().sum(), moved)
        results.append([x.cpu() for x in (output, *grads)])
    assert_same(*results)
