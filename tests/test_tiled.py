"""The tiled routine itself: its tiles, its memory, and what PyTorch does with it."""

import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import attn_tutorial as at
from attn_tutorial import patterns as P
from attn_tutorial import tiled
from attn_tutorial.local import window_tile
from attn_tutorial.runs import run_attention
from attn_tutorial.sparse import block_tiles


def tensors(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True)
        for _ in range(3)
    ]


def local(q, k, v):
    return at.local_attention(q, k, v, 5)


def blocks(q, k, v):
    return at.sparse_attention(q, k, v, block_size=6)


BOTH = pytest.mark.parametrize("attend", [local, blocks])


@given(
    n=st.integers(1, 60),
    start=st.integers(0, 5),
    size=st.integers(1, 8),
    step=st.integers(1, 6),
    count=st.integers(1, 4),
)
def test_windows_are_slices_that_share_memory(n, start, size, step, count):
    n += start + (count - 1) * step + size
    x = torch.arange(2 * n * 3).view(2, n, 3)
    views = tiled.sliding_views(x, start, size, step, count)
    assert views.shape == (2, count, size, 3)
    assert views.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    for c in range(count):
        first = start + c * step
        assert torch.equal(views[:, c], x[:, first : first + size])


def test_windows_of_a_view():
    x = torch.arange(2 * 30 * 6).view(2, 30, 6)[:, 4:, ::2]
    views = tiled.sliding_views(x, start=3, size=5, step=2, count=4)
    assert torch.equal(views[1, 2], x[1, 7:12])


@settings(deadline=None)
@given(
    n=st.integers(1, 300),
    reach=st.integers(1, 100),
    kind=st.sampled_from(["window", "blocks"]),
    causal=st.booleans(),
    most=st.integers(1, 9),
)
def test_the_slabs_hold_every_query_once_and_its_whole_run(
    n, reach, kind, causal, most
):
    tiles = (
        block_tiles(reach, causal)
        if kind == "blocks"
        else (window_tile(reach, causal),)
    )
    seen = []
    for tile in tiles:
        for slab in tile.slabs(n, n, 0, most):
            assert 1 <= slab.count <= most
            for c in range(slab.count):
                query, key = slab.query + c * slab.step, slab.key + c * slab.step
                seen += range(query, query + slab.rows)
                assert key == max(0, query - tile.left)
                assert key + slab.keys == min(n, query + slab.rows + tile.right)
    assert sorted(seen) == list(range(n))


def test_most_tiles_stand_in_large_slabs():
    slabs = list(window_tile(64, causal=False).slabs(65536, 65536, 0, most=1000))
    assert sum(slab.count for slab in slabs) == 65536 // 32
    assert [slab.count for slab in slabs if slab.count == 1] == [1] * 4  # two an end
    assert len(slabs) < 10


def test_a_large_block_is_cut_into_even_tiles_of_bounded_height():
    for size in (1, 127, 512, 513, 1000, 5000):
        for causal, limit in ((False, 512), (True, 128)):
            tiles = block_tiles(size, causal)
            assert sum(tile.rows for tile in tiles) == size
            assert max(tile.rows for tile in tiles) <= limit
            assert len(tiles) <= size // limit + 1
            for tile in tiles:
                assert tile.left == size + tile.offset
                end = tile.offset + tile.rows + tile.right
                assert causal or end == 2 * size
                assert tile.right == 0 or not causal


@pytest.mark.parametrize("budget", [1, 5000, 2**30])
@pytest.mark.parametrize("heads", [1, 40])
def test_the_size_of_the_slabs_does_not_change_the_result(budget, heads, monkeypatch):
    q, k, v = tensors(heads, 200, 4)
    key_keep = torch.rand(heads, 200, generator=torch.Generator().manual_seed(1)) < 0.3
    keep = at.dense_mask(at.patterns.local(5), 200)
    for options, kept in (
        ({}, keep),
        ({"key_keep": key_keep}, keep & key_keep[:, None]),
    ):
        expected = at.attention(q, k, v, kept)
        for kind in tiled.SLAB_SCORES:
            monkeypatch.setitem(tiled.SLAB_SCORES, kind, budget)
        output = at.local_attention(q, k, v, 5, **options)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(
            torch.autograd.grad(output.sin().sum(), (q, k, v)),
            torch.autograd.grad(expected.sin().sum(), (q, k, v)),
        )


class LargestTensor(TorchDispatchMode):
    """Remember the largest storage, in bytes, that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("key_keep", [False, True])
@pytest.mark.parametrize(
    ("attend", "options"),
    [
        (at.local_attention, {"window": 16}),
        (at.local_attention, {"window": 16, "causal": True}),
        (at.sparse_attention, {"block_size": 32}),
        (at.sparse_attention, {"block_size": 32, "causal": True}),
    ],
)
def test_no_tensor_is_larger_than_the_inputs(attend, options, key_keep, monkeypatch):
    for kind in tiled.SLAB_SCORES:
        monkeypatch.setitem(tiled.SLAB_SCORES, kind, 2**13)
    n = 4096
    q, k, v = tensors(1, n, 8, dtype=torch.float32)
    if key_keep:
        options = {**options, "key_keep": torch.arange(n) % 3 > 0}
    with LargestTensor() as seen:
        attend(q, k, v, **options).sum().backward()
    assert (
        seen.largest == n * 8 * 4
    )  # an input, where n * n scores would be 512 times it


@pytest.mark.parametrize(
    ("attend", "options"),
    [
        (at.local_attention, {"window": 10**6}),
        (at.local_attention, {"window": 10**6, "causal": True}),
        (at.sparse_attention, {"num_blocks": 1}),
        (at.sparse_attention, {"num_blocks": 1, "causal": True}),
        (at.sparse_attention, {"block_size": 10**6, "causal": True}),
    ],
)
def test_memory_is_linear_even_where_everyone_sees_everyone(attend, options):
    largest = {}
    for n in (1100, 4400):
        q, k, v = tensors(1, n, 4, dtype=torch.float32)
        with LargestTensor() as seen:
            attend(q, k, v, **options).sum().backward()
        largest[n] = seen.largest
    assert largest[4400] <= 6 * largest[1100]  # n * n would be 16 times as large
    assert largest[4400] < 4400 * 4400  # bytes: even a bool mask n x n would be larger


def test_no_weights_are_kept_for_the_backward_pass():
    kept = []
    q, k, v = tensors(1, 2000, 8)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel()) or x, lambda x: x
    ):
        local(q, k, v)
    assert sum(kept) == 4 * 2000 * 8  # q, k, v and the output


@BOTH
def test_compiled_code_agrees(attend):
    torch.compiler.reset()
    q, k, v = tensors(2, 40, 4)
    compiled = torch.compile(
        lambda q, k, v: attend(2 * q, k, v) + 1, backend="aot_eager"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, about its inner tensors
        output = compiled(q, k, v)
    expected = attend(2 * q, k, v) + 1
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(
        torch.autograd.grad(output.sin().sum(), (q, k, v)),
        torch.autograd.grad(expected.sin().sum(), (q, k, v)),
    )


@BOTH
def test_vmap_is_a_loop(attend):
    q, k, v = tensors(3, 2, 40, 4)
    expected = torch.stack([attend(*x) for x in zip(q, k, v, strict=True)])
    torch.testing.assert_close(torch.vmap(attend)(q, k, v), expected)
    torch.testing.assert_close(
        torch.vmap(attend, (1, 1, 1), 1)(q, k, v), attend(q, k, v)
    )
    shared = torch.vmap(attend, (0, None, None))(q, k[0], v[0])
    torch.testing.assert_close(shared[2], attend(q[2], k[0], v[0]))


def test_vmap_over_masks():
    q, k, v = tensors(3, 40, 4)
    keep = torch.rand(3, 40, generator=torch.Generator().manual_seed(1)) < 0.6
    output = torch.vmap(
        lambda q, k, v, keep: at.local_attention(q, k, v, 4, key_keep=keep)
    )(q, k, v, keep)
    expected = at.local_attention(q, k, v, 4, key_keep=keep)
    torch.testing.assert_close(output, expected)


@BOTH
def test_a_jacobian_has_the_shape_of_the_pattern(attend):
    x = torch.randn(30, 4, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda v: attend(x, x, v))(x)
    expected = torch.autograd.functional.jacobian(lambda v: attend(x, x, v), x)
    torch.testing.assert_close(jacobian, expected)
    size = jacobian.abs().sum((1, 3))
    pattern = (
        at.patterns.local(5) if attend is local else at.patterns.adjacent_blocks(6)
    )
    assert torch.equal(size > 0, at.dense_mask(pattern, 30))


@BOTH
def test_gradients_of_each_example(attend):
    q, k, v = (x.detach() for x in tensors(3, 40, 4))
    each = torch.vmap(torch.func.grad(lambda q, k, v: attend(q, k, v).sin().sum()))
    q.requires_grad_()
    (expected,) = torch.autograd.grad(attend(q, k, v).sin().sum(), q)
    torch.testing.assert_close(each(q.detach(), k, v), expected)


@BOTH
def test_a_second_derivative_is_refused_clearly(attend):
    q, k, v = tensors(1, 20, 4)
    (grad,) = torch.autograd.grad(attend(q, k, v).sin().sum(), q, create_graph=True)
    with pytest.raises(
        NotImplementedError, match=r"no second derivative.*at\.attention"
    ):
        torch.autograd.grad(grad.sum(), q)


@BOTH
def test_autocast(attend):
    projection = torch.nn.Linear(4, 4)
    x = torch.randn(2, 40, 4)
    with torch.autocast("cpu", torch.bfloat16):
        q = projection(x)
        output = attend(q, q, q)
        output.sum().backward()
        full = attend(x.requires_grad_(), x, x)
        full.sum().backward()
    assert output.dtype == q.dtype == torch.bfloat16 and full.dtype == torch.float32
    assert projection.weight.grad.isfinite().all() and x.grad.isfinite().all()


@BOTH
def test_without_gradients(attend):
    q, k, v = tensors(2, 40, 4)
    expected = attend(q, k, v).detach()
    with torch.no_grad():
        assert torch.equal(attend(q, k, v), expected)
    with torch.inference_mode():
        assert torch.equal(attend(q, k, v), expected)


@BOTH
def test_checkpointing(attend):
    q, k, v = tensors(2, 40, 4)
    output = torch.utils.checkpoint.checkpoint(attend, q, k, v, use_reentrant=False)
    torch.testing.assert_close(
        torch.autograd.grad(output.sin().sum(), q),
        torch.autograd.grad(attend(q, k, v).sin().sum(), q),
    )


def batched_gradient(attend, q):
    output = attend(q)
    eye = torch.eye(output.numel(), dtype=q.dtype).view(-1, *output.shape)
    return torch.autograd.grad(output, q, eye, is_grads_batched=True)[0]


def test_patterns_of_one_hash_are_told_apart():
    mine, (q, k, v) = P.Pattern("mine", keep=lambda i, j: j <= i), tensors(6, 4)
    one, other = P.shifted(mine, -1), P.shifted(mine, -2)
    assert hash(one) == hash(other)
    for pattern in (one, other):
        keep = at.dense_mask(pattern, 6)
        torch.testing.assert_close(
            batched_gradient(lambda q, p=pattern: run_attention(q, k, v, p), q),
            batched_gradient(lambda q, keep=keep: at.attention(q, k, v, keep), q),
        )


@pytest.mark.parametrize("pattern", [P.local(1), P.adjacent_blocks(2), P.strided(3)])
def test_without_keys_half_precision_gets_zeros(pattern):
    q = torch.full((100, 64), 30.0).half()
    output = run_attention(q, q[:0], q[:0], pattern, first=0)
    assert torch.equal(output, torch.zeros_like(q))


WRONG = [
    ((6, 4), (4, 4), (3, 4), P.full(), ValueError, "v must have the length of k"),
    ((4, 4), (4, 4), (6, 4), P.full(), ValueError, "v must have the length of k"),
    ((4, 4), (4, 4), (4, 4), "causal", TypeError, "pattern must be attn_tutorial"),
    (
        (10, 4),
        (10, 4),
        (10, 4),
        P.random_blocks(2, 2, 1),
        ValueError,
        "n_q must be at most 4",
    ),
]


@pytest.mark.parametrize(("q", "k", "v", "pattern", "error", "text"), WRONG)
def test_run_attention_names_what_is_wrong(q, k, v, pattern, error, text):
    with pytest.raises(error, match=text):
        run_attention(*map(torch.ones, (q, k, v)), pattern, first=0)


@pytest.mark.parametrize(
    "keep", [lambda i, j: i - j, lambda i, j: True, lambda i, j: (j <= i).int()]
)
def test_a_predicate_that_answers_no_mask_is_named(keep):
    mine, q = P.Pattern("mine", keep=keep), torch.ones(3, 4)
    for ask in (at.dense_mask, lambda p, n: run_attention(q, q, q, p)):
        with pytest.raises(TypeError, match=r"keep of mine\(\) must answer a bool"):
            ask(mine, 3)


def earlier(i, j):
    return j <= i


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_reader_s_pattern_is_compiled_copied_and_stored():
    torch.compiler.reset()
    q, k, v = tensors(6, 4)
    mine = P.Pattern("mine", keep=earlier)
    again = pickle.loads(pickle.dumps(mine))
    copied = copy.deepcopy(mine)
    assert mine == again == copied
    assert len({pattern.token for pattern in (mine, again, copied)}) == 3
    del mine
    for pattern in (again, copied, copied | P.local(1)):
        attend = torch.compile(
            lambda *x, p=pattern: run_attention(*x, p), fullgraph=True, backend="eager"
        )
        expected = at.attention(q, k, v, at.dense_mask(pattern, 6))
        torch.testing.assert_close(attend(q, k, v), expected)


def test_counting_asks_for_a_mask_too():
    mine = P.Pattern("mine", keep=lambda i, j: i - j)
    with pytest.raises(TypeError, match=r"keep of mine\(\) must answer a bool"):
        at.cost.kept_pairs(mine, 4)
