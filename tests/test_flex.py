"""FlexAttention: the block table, the mask and the results are the pattern's."""

import contextlib
import functools
import itertools
import shutil

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

import attn_tutorial as at
from attn_tutorial.backends import flex
from attn_tutorial.backends.flex import block_mask, block_states, flex_attention
from attn_tutorial.instruments.memory import Allocations

full, causal, local = at.patterns.full, at.patterns.causal, at.patterns.local
blocks, global_tokens = at.patterns.adjacent_blocks, at.patterns.global_tokens

RULED = [
    full(),
    causal(),
    local(0),
    local(3),
    local(40),
    local(500),
    blocks(1),
    blocks(6),
    blocks(16),
    blocks(500),
    global_tokens(0),
    global_tokens(5),
    global_tokens(16),
    global_tokens(500),
    local((3, 0)),
    local((0, 20)),
    local((9, 40)),
    at.patterns.blocks(1),
    at.patterns.blocks(7),
    at.patterns.blocks(16),
    at.patterns.documents([5, 0, 16, 1, 40]),
    at.patterns.documents([200]),
    at.patterns.documents([0]),
    at.patterns.prefix(0),
    at.patterns.prefix(20),
    at.patterns.shifted(local((9, 3)), 5),
    at.patterns.shifted(at.patterns.documents([5, 20, 75]), -8),
]
COMBINED = [
    causal() & local(3),
    causal() & local(20),
    causal() & blocks(16),
    causal() & (local(9) | global_tokens(2)),
    local(3) | global_tokens(5),
    blocks(8) | global_tokens(1) | local(12),
    local(10) & blocks(4),
    local(10) & full(),
    local(2) | full(),
    local(30) & (blocks(7) | causal()) & global_tokens(33),
    at.patterns.documents([30, 70, 15]) & causal(),
    (at.patterns.prefix(3) | local(8)) & causal(),
    at.patterns.shifted(causal() & local(20), 9) | at.patterns.blocks(8),
]
OTHER = [
    at.patterns.dilated(3, 5),
    at.patterns.strided(8),
    at.patterns.random_blocks(8, 20, 3),
    causal() & (local(8) | at.patterns.strided(8)),
    at.patterns.random_blocks(16, 10, 2) | local(4) | global_tokens(3),
    at.patterns.Pattern("odd", keep=lambda i, j: (i + j) % 2 == 1),
    at.patterns.Pattern("first", keep=lambda i, j: j < 1),  # no shape of pairs
]
PATTERNS = RULED + COMBINED + OTHER
SIZES = [(1, 8), (7, 4), (64, 16), (65, 16), (100, 8), (100, 33), (96, 128), (130, 1)]


def states_of_the_matrix(pattern, n_q, size, n_k=None, first=0):
    """The same from the dense mask, where padding up to whole blocks is not kept."""
    n_k = n_q if n_k is None else n_k
    rows, columns = -(-n_q // size), -(-n_k // size)
    keep = torch.zeros(rows * size, columns * size, dtype=torch.bool)
    keep[:n_q, :n_k] = at.dense_mask(pattern, n_q, n_k, first=first)
    keep = keep.view(rows, size, columns, size)
    return keep.any(3).any(1).byte() + keep.all(3).all(1).byte()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize(("n", "size"), SIZES)
def test_the_states_of_blocks_are_those_of_the_matrix(pattern, n, size):
    found = block_states(pattern, n, block_size=size)
    assert torch.equal(found, states_of_the_matrix(pattern, n, size))


@pytest.mark.parametrize("pattern", RULED + COMBINED + OTHER[:2], ids=str)
@pytest.mark.parametrize(
    ("n_q", "n_k", "first"),
    [(1, 70, 69), (20, 70, 0), (20, 70, 50), (33, 64, 7), (64, 20, -44), (8, 9, 100)],
)
def test_states_where_queries_begin_elsewhere(pattern, n_q, n_k, first):
    found = block_states(pattern, n_q, n_k, first=first, block_size=8)
    expected = states_of_the_matrix(pattern, n_q, 8, n_k, first)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**32 + 5, 2**62, 2**70])
def test_numbers_may_be_larger_than_32_bits(value):
    for make in (local, blocks, global_tokens, at.patterns.blocks, at.patterns.prefix):
        states = block_states(make(value), 20, block_size=4)
        assert (states == flex.FULL).all()
    states = block_states(local((value, 0)), 20, block_size=4)
    assert torch.equal(states, block_states(causal(), 20, block_size=4))
    mask = block_mask(local(value), 20, block_size=4)
    i = torch.arange(20, dtype=torch.int32)  # as in a kernel
    assert mask.mask_mod(0, 0, i[:, None], i).all()


def test_rules_are_for_the_packages_own_patterns():
    mine = at.patterns.Pattern("mine", keep=lambda i, j: j == i + 1)
    found = block_states(at.patterns.shifted(mine, 1) | mine, 20, block_size=4)
    kept = at.dense_mask(mine, 20) | at.dense_mask(mine, 20, first=1)
    expected = at.patterns.Pattern("both", keep=lambda i, j: kept[i, j])
    assert torch.equal(found, states_of_the_matrix(expected, 20, 4))


def test_rules_hold_for_every_small_parameter():
    for n, size, value in itertools.product((9, 12), (2, 3, 5), range(1, 13)):
        for make in (local, blocks, global_tokens):
            for pattern in (
                make(value),
                make(value) & causal(),
                make(value) | local(1),
            ):
                found = block_states(pattern, n, block_size=size)
                expected = states_of_the_matrix(pattern, n, size)
                assert torch.equal(found, expected), (pattern, n, size)


@pytest.mark.parametrize("pattern", PATTERNS[::4], ids=str)
@pytest.mark.parametrize("n", [64, 70])
def test_the_tables_are_those_that_pytorch_builds_from_the_matrix(pattern, n):
    ours = block_mask(pattern, n, block_size=16)
    theirs = create_block_mask(pattern, None, None, n, n, "cpu", BLOCK_SIZE=16)
    for name in ("kv", "full_kv", "q", "full_q"):
        numbers = [getattr(x, f"{name}_num_blocks") for x in (ours, theirs)]
        assert torch.equal(*numbers), name
        places = [getattr(x, f"{name}_indices") for x in (ours, theirs)]
        used = torch.arange(places[0].shape[-1]) < numbers[0][..., None]
        assert torch.equal(*(p[used] for p in places)), name
    assert (ours.mask_mod is pattern) == (pattern.name != "documents")
    assert ours.shape == (1, 1, n, n)


def test_a_table_for_queries_at_the_end():
    ours = block_mask(local((20, 0)), 8, 40, first=32, block_size=8)
    assert ours.shape == (1, 1, 8, 40)
    i, j = torch.arange(8, dtype=torch.int32)[:, None], torch.arange(40).int()
    expected = at.dense_mask(local((20, 0)), 8, 40, first=32)
    assert torch.equal(ours.mask_mod(0, 0, i, j), expected)
    theirs = create_block_mask(ours.mask_mod, None, None, 8, 40, "cpu", BLOCK_SIZE=8)
    assert torch.equal(ours.to_dense(), theirs.to_dense())


@pytest.mark.parametrize("lengths", [[3, 0, 9], [12], [0, 0], [2, 30], [1] * 20])
@pytest.mark.parametrize("first", [0, 5, -3])
def test_documents_are_written_as_a_table_of_keys(lengths, first):
    pattern = at.patterns.documents(lengths)
    keep = block_mask(pattern, 15, 12, first=first, block_size=4).mask_mod
    i, j = torch.arange(15)[:, None], torch.arange(12)
    expected = at.dense_mask(pattern, 15, 12, first=first)
    assert torch.equal(keep(0, 0, i, j), expected)


@pytest.mark.parametrize("pattern", RULED + COMBINED + OTHER[-3:], ids=str)
def test_nothing_as_large_as_the_matrix_is_made(pattern):
    n = 4096
    if pattern.max_length:
        pattern = at.patterns.random_blocks(64, 64, 2) | local(4)
    with Allocations() as counted:
        block_mask(pattern, n, block_size=64)
    assert counted.largest <= n * n // 8  # int64 numbers of one row of blocks: n * 64


@pytest.mark.parametrize("limit", [1, 100, 2**22])
def test_undecided_blocks_may_be_written_out_in_any_portions(monkeypatch, limit):
    monkeypatch.setattr(flex, "WRITTEN_OUT", limit)
    found = block_states(OTHER[3], 50, block_size=8)
    assert torch.equal(found, states_of_the_matrix(OTHER[3], 50, 8))


def test_rules_alone_decide_the_blocks_of_single_patterns(monkeypatch):
    monkeypatch.setattr(flex, "decide", lambda *_: None)
    for pattern in RULED:
        assert block_states(pattern, 100, block_size=8).max() <= flex.FULL
    assert (block_states(OTHER[0], 100, block_size=8) == flex.UNDECIDED).any()


BANDS = [*COMBINED[:6], local(20) & at.patterns.strided(3), full() | OTHER[0]]


@pytest.mark.parametrize("pattern", BANDS, ids=str)
def test_few_blocks_of_a_combination_are_written_out(monkeypatch, pattern):
    """An absorbing part settles a block, whatever the others are."""
    monkeypatch.setattr(flex, "decide", lambda *_: None)
    states = block_states(pattern, 1024, block_size=8)
    assert (states == flex.UNDECIDED).sum() <= 8 * len(states)


# Results


def inputs(*shape, d_v=None, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    widths = (shape[-1], shape[-1], d_v or shape[-1])
    made = (torch.randn(*shape[:-1], w, generator=generator) for w in widths)
    return [x.to(device, dtype) for x in made]


def kept(q, k, pattern, key_keep=None, first=0):
    keep = at.dense_mask(pattern, q.shape[-2], k.shape[-2], q.device, first=first)
    return keep if key_keep is None else keep & key_keep[..., None, :]


def reference(q, k, v, pattern, key_keep=None, scale=None, first=0):
    keep = kept(q, k, pattern, key_keep, first)
    return at.attention(q, k, v, keep, scale=scale)


def log_sum_exp(q, k, keep):
    scores = q.double() @ k.double().mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~keep, -float("inf")).logsumexp(-1)


@pytest.mark.parametrize("pattern", [local(3), COMBINED[3], OTHER[4]], ids=str)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
def test_the_unfused_form_equals_the_reference(pattern, lead):
    q, k, v = inputs(*lead, 37, 8, d_v=5)
    output = flex_attention(q, k, v, pattern, block_size=8, compiled=False)
    assert output.shape == (*lead, 37, 5)
    torch.testing.assert_close(output, reference(q, k, v, pattern))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_and_a_scale(dtype):
    q, k, v = inputs(2, 20, 8, dtype=dtype)
    output = flex_attention(q, k, v, blocks(4), scale=0.7, compiled=False)
    expected = reference(*(x.double() for x in (q, k, v)), blocks(4), scale=0.7)
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        output, expected.to(dtype), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("shape", [(21,), (1, 3, 21), (2, 1, 21), (2, 3, 21)])
def test_padding_is_never_attended_and_no_key_gives_zeros(shape):
    key_keep = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.5
    key_keep[..., :9] = False
    q, k, v = inputs(2, 3, 21, 8)
    output = flex_attention(
        q, k, v, local(4), key_keep=key_keep, block_size=8, compiled=False
    )
    torch.testing.assert_close(output, reference(q, k, v, local(4), key_keep))
    assert (output[..., :5, :] == 0).all()


@pytest.mark.parametrize(
    ("n_q", "n_k", "first"), [(5, 30, 25), (9, 20, 0), (20, 9, -11)]
)
@pytest.mark.parametrize("pattern", [local((6, 1)), COMBINED[-1], OTHER[0]], ids=str)
def test_queries_may_begin_elsewhere(pattern, n_q, n_k, first):
    q, (_, k, v) = inputs(2, n_q, 8)[0], inputs(2, n_k, 8)
    output = flex_attention(q, k, v, pattern, first=first, block_size=8, compiled=False)
    torch.testing.assert_close(output, reference(q, k, v, pattern, first=first))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_padding_may_hold_anything(value):
    q, k, v = inputs(2, 3, 21, 8)
    key_keep = torch.arange(21) < torch.tensor([15, 0])[:, None, None]
    expected = reference(q, k, v, local(4), key_keep)
    for x in (k, v):
        x[0, :, 15:] = x[1] = value
    output = flex_attention(
        q, k, v, local(4), key_keep=key_keep, block_size=8, compiled=False
    )
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_log_sum_exp(dtype):
    q, k, v = inputs(2, 3, 21, 8, dtype=dtype)
    key_keep = torch.arange(21) > 8
    output, lse = flex_attention(
        q, k, v, local(4), key_keep=key_keep, return_lse=True, compiled=False
    )
    assert (lse[..., :5] == -float("inf")).all() and (output[..., :5, :] == 0).all()
    assert lse.dtype == torch.promote_types(dtype, torch.float32)
    expected = log_sum_exp(q, k, kept(q, k, local(4), key_keep))
    tolerance = 1e-5 if dtype != torch.float16 else 1e-2
    torch.testing.assert_close(lse.double(), expected, atol=tolerance, rtol=tolerance)


GROUPS = [
    ((2, 4, 3), (2, 4, 1)),
    ((2, 4, 3), (2, 1, 3)),
    ((2, 4, 3), (1, 4, 1)),
    ((4, 3), (1, 1)),
    ((1, 3), (2, 1)),  # keys of two batches for the same queries
]


@pytest.mark.parametrize(("of_queries", "of_keys"), GROUPS)
@pytest.mark.parametrize("padded", [False, True])
def test_heads_may_share_keys(of_queries, of_keys, padded):
    q, (_, k, v) = inputs(*of_queries, 20, 8)[0], inputs(*of_keys, 20, 8, d_v=5)
    key_keep = None
    if padded:
        generator = torch.Generator().manual_seed(1)
        key_keep = torch.rand(*of_keys, 20, generator=generator) > 0.3
    output, lse = flex_attention(
        q, k, v, local(4), key_keep=key_keep, return_lse=True, compiled=False
    )
    torch.testing.assert_close(output, reference(q, k, v, local(4), key_keep))
    expected = log_sum_exp(q, k, kept(q, k, local(4), key_keep))
    torch.testing.assert_close(lse.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("of_queries", "of_keys"), GROUPS)
def test_shared_keys_reach_the_kernel_uncopied(of_queries, of_keys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        flex, "routine", lambda settings: lambda *x: seen.extend(x) or x[0]
    )
    q, (_, k, v) = inputs(*of_queries, 20, 8)[0], inputs(*of_keys, 20, 8)
    flex_attention(q, k, v, local(4))
    assert seen[1].data_ptr() == k.data_ptr() and seen[1].numel() == k.numel()
    assert seen[2].data_ptr() == v.data_ptr() and seen[2].numel() == v.numel()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_parameters_are_welcome_where_no_gradient_is_wanted(mode):
    tensors = [x.requires_grad_() for x in inputs(2, 12, 8)]
    with mode():
        output = flex_attention(*tensors, local(2), block_size=4, compiled=False)
    assert not output.requires_grad
    torch.testing.assert_close(
        output, reference(*(x.detach() for x in tensors), local(2))
    )


def test_a_pattern_may_leave_queries_without_keys():
    q, k, v = inputs(2, 20, 8)
    pattern = causal() & at.patterns.Pattern("late", keep=lambda i, j: j >= i.clamp(9))
    output = flex_attention(q, k, v, pattern, block_size=8, compiled=False)
    assert (output[:, :9] == 0).all() and (output[:, 9:] != 0).all()


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (0, 5, 8)])
def test_empty_inputs_give_empty_outputs(shape):
    q, k, v = inputs(*shape, d_v=3)
    assert flex_attention(q, k, v, local(1)).shape == (*shape[:-1], 3)


def test_no_keys_at_all():
    q, (_, k, v) = inputs(2, 4, 8)[0], inputs(2, 0, 8)
    output, lse = flex_attention(
        q, k, v, local(1), first=0, return_lse=True, compiled=False
    )
    assert output.shape == (2, 4, 8) and (output == 0).all()
    assert lse.shape == (2, 4) and (lse == -float("inf")).all()


needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


@needs_compiler
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_compiled_kernel_equals_the_reference():
    """Compiles one kernel, which takes long: ragged, causal, padded, one row empty."""
    pattern = causal() & (local(40) | global_tokens(3))
    key_keep = torch.rand(2, 1, 150, generator=torch.Generator().manual_seed(1)) > 0.5
    key_keep[0] = False
    for seed in range(2):  # the second call uses the kernel again
        q, k, v = inputs(2, 2, 150, 16)
        q = q + seed
        output = flex_attention(q, k, v, pattern, key_keep=key_keep, block_size=32)
        expected = reference(q, k, v, pattern, key_keep)
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_one_compiled_kernel_for_shared_keys_and_other_borders():
    """Queries at the end, whose heads share keys, padding with NaN, a large window."""
    q, (_, k, v) = inputs(2, 3, 40, 16)[0], inputs(2, 1, 150, 16)
    k[..., -9:, :] = v[..., -9:, :] = float("nan")
    key_keep = torch.arange(150) < 141
    with compilations() as counted, torch.no_grad():
        for first, lengths in ((110, [80, 70]), (0, [20, 100, 30])):
            pattern = at.patterns.documents(lengths) & local((2**40, 3))
            output = flex_attention(
                *(q.requires_grad_(), k, v, pattern),
                first=first,
                key_keep=key_keep,
                block_size=32,
            )
            expected = reference(q, k, v, pattern, key_keep, first=first)
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert counted() == 1


# What is kept between calls


@contextlib.contextmanager
def compilations():
    """A function that counts what PyTorch compiled since."""
    flex.routine.cache_clear()
    count = torch._dynamo.utils.counters["stats"]
    before = count["unique_graphs"]
    yield lambda: count["unique_graphs"] - before


def packed(lengths):
    number = torch.repeat_interleave(torch.tensor(lengths))
    return at.patterns.Pattern("packed", keep=lambda i, j: number[i] == number[j])


def packed_by_default(lengths):
    number = torch.repeat_interleave(torch.tensor(lengths))
    keep = lambda i, j, number=number: number[i] == number[j]  # noqa: E731
    return at.patterns.Pattern("packed", keep=keep)


def _packed(i, j, *, number):
    return number[i] == number[j]


def packed_partially(lengths):
    number = torch.repeat_interleave(torch.tensor(lengths))
    return at.patterns.Pattern("packed", keep=functools.partial(_packed, number=number))


@pytest.mark.parametrize(
    "make", [packed, packed_by_default, packed_partially, at.patterns.documents]
)
@pytest.mark.parametrize("causal_too", [False, True])
def test_other_borders_of_documents_compile_nothing_again(make, causal_too):
    q, k, v = inputs(2, 24, 8)
    with compilations() as counted:
        for lengths in ([10, 14], [3, 3, 18], [24], [1] * 24, [5, 10, 9]):
            pattern = make(lengths) & causal() if causal_too else make(lengths)
            output = flex_attention(q, k, v, pattern, block_size=4, compiled=False)
            torch.testing.assert_close(output, reference(q, k, v, pattern))
    assert counted() == 1


def test_another_position_of_the_queries_compiles_nothing_again():
    q, (_, k, v) = inputs(2, 4, 8)[0], inputs(2, 30, 8)
    with compilations() as counted:
        for first in (1, 20, -2, 30):
            output = flex_attention(
                q, k, v, causal(), first=first, block_size=4, compiled=False
            )
            torch.testing.assert_close(
                output, reference(q, k, v, causal(), first=first)
            )
    assert counted() == 1


def test_a_predicate_whose_tensor_is_written_to_gets_another_table():
    q, k, v = inputs(2, 24, 8)
    number = torch.zeros(24)
    pattern = at.patterns.Pattern("mine", keep=lambda i, j: number[i] == number[j])
    for border in (20, 5):
        number[border:] += 1
        output = flex_attention(q, k, v, pattern, block_size=4, compiled=False)
        torch.testing.assert_close(output, reference(q, k, v, pattern))


def test_a_predicates_tensors_move_to_the_device():
    table = torch.eye(4, dtype=torch.bool)
    mine = at.patterns.Pattern("mine", keep=lambda i, j, size=2: table[i // size, j])
    for pattern in (mine, mine | at.patterns.random_blocks(2, 4, 1), packed([3, 5])):
        moved = flex.ready(pattern & causal(), 8, torch.device("meta"))
        tensors = [x for x in flex.contents(moved) if isinstance(x, torch.Tensor)]
        assert tensors and all(x.is_meta for x in tensors)
        i = torch.arange(8, device="meta")
        assert moved.keep(i[:, None], i[:4]).shape == (8, 4)
        assert flex.ready(pattern, 8, torch.device("cpu")) is pattern


def test_a_routine_is_made_once_for_equal_patterns_and_shapes():
    flex.routine.cache_clear()
    q, k, v = inputs(2, 12, 8)
    for _ in range(3):
        flex_attention(q, k, v, local(2) & causal(), block_size=4, compiled=False)
    assert flex.routine.cache_info()[:2] == (2, 1)
    flex_attention(q, k, v, local(3) & causal(), block_size=4, compiled=False)
    assert flex.routine.cache_info().misses == 2
    flex.routine.cache_clear()


def test_a_table_made_in_inference_mode_may_serve_a_backward_pass(monkeypatch):
    made = []
    monkeypatch.setattr(
        flex, "block_mask", lambda *a, **b: made.append(block_mask(*a, **b)) or made[-1]
    )
    flex.kept_mask.cache_clear()
    q, k, v = inputs(2, 12, 8)
    with torch.inference_mode():
        flex_attention(q, k, v, local(2), block_size=4, compiled=False)
    assert not made[0].kv_indices.is_inference()


def test_patterns_that_share_a_name_but_not_a_predicate_are_told_apart():
    q, k, v = inputs(2, 12, 8)
    for shift in (0, 1):
        mine = at.patterns.Pattern("mine", keep=lambda i, j, s=shift: i - j == s)
        pattern = mine | local(0)
        output = flex_attention(q, k, v, pattern, block_size=4, compiled=False)
        torch.testing.assert_close(output, reference(q, k, v, pattern))


def test_many_kinds_of_inputs_do_not_stop_the_compiler():
    limit = torch._dynamo.config.recompile_limit
    for n in range(2, limit + 4):
        q, k, v = inputs(n, 4)
        output = flex_attention(q, k, v, causal(), block_size=4, compiled=False)
        torch.testing.assert_close(output, reference(q, k, v, causal()))


# Errors


@pytest.mark.parametrize("which", range(3))
def test_gradients_on_the_cpu_are_refused_with_a_way_out(which):
    tensors = inputs(8, 4)
    tensors[which].requires_grad_()
    message = f"no backward pass on cpu, but {'qkv'[which]} requires grad"
    with pytest.raises(NotImplementedError, match=message):
        flex_attention(*tensors, local(1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pattern": "local"}, TypeError, "pattern must be an attn_tutorial pattern"),
        (
            {"pattern": at.patterns.random_blocks(2, 2, 1)},
            ValueError,
            "n_q must be at most 4 for random_blocks",
        ),
        ({"block_size": 0}, ValueError, "block_size must be at least 1, got 0"),
        ({"block_size": 2.0}, TypeError, "block_size must be an integer, got 2.0"),
        ({"scale": "x"}, TypeError, "scale must be a number or None"),
        (
            {"k": torch.zeros(7, 4), "v": torch.zeros(7, 4)},
            ValueError,
            "first=-1 if they end",
        ),
        ({"v": torch.zeros(8, 4).double()}, TypeError, "v must have the dtype of q"),
        (
            {name: torch.zeros(8, 4).double() for name in "qkv"},
            TypeError,
            "q must be float32, float16 or bfloat16 for a compiled kernel",
        ),
        ({"key_keep": torch.ones(8)}, TypeError, "key_keep must be bool"),
        ({"key_keep": torch.ones(5) > 0}, ValueError, "key_keep must have shape"),
        ({"first": 0.5}, TypeError, "first must be an integer, got 0.5"),
        (
            {"return_lse": True},
            NotImplementedError,
            "return_lse must be False for a compiled kernel on cpu",
        ),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    q, k, v = inputs(8, 4)
    arguments = {"q": q, "k": k, "v": v, "pattern": local(1)} | change
    with pytest.raises(error, match=message):
        flex_attention(**arguments)


@pytest.mark.parametrize("make", [block_mask, block_states])
def test_wrong_arguments_of_tables_are_named(make):
    with pytest.raises(ValueError, match="n_q must be at least 1, got 0"):
        make(local(1), 0)
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        make(local(1), 8, block_size=0)
    with pytest.raises(ValueError, match="n_k must be at least 1, got 0"):
        make(local(1), 8, 0)
    with pytest.raises(
        ValueError, match="first must be given for 8 queries and 9 keys"
    ):
        make(local(1), 8, 9)
    with pytest.raises(TypeError, match="pattern must be an attn_tutorial pattern"):
        make(lambda b, h, i, j: i == j, 8)


def test_an_old_flex_attention_is_refused(monkeypatch):
    monkeypatch.setattr(BlockMask, "from_kv_blocks", lambda numbers, places: None)
    with pytest.raises(RuntimeError, match=r"takes seq_lengths; this is PyTorch \d"):
        block_mask(local(1), 8)


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("n", [512, 700])
@pytest.mark.parametrize("pattern", [local(100), *COMBINED[2:5]], ids=str)
def test_output_and_gradients_on_a_gpu(pattern, n, padded):
    tensors = [x.requires_grad_() for x in inputs(2, 2, n, 64, device="cuda")]
    key_keep = torch.arange(n, device="cuda") < n - 50 if padded else None
    grad = torch.randn_like(tensors[0])
    output = flex_attention(*tensors, pattern, key_keep=key_keep)
    found = [output, *torch.autograd.grad(output, tensors, grad)]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    output = reference(*exact, pattern, key_keep)
    expected = [output, *torch.autograd.grad(output, exact, grad.double())]
    for one, other in zip(found, expected, strict=True):
        # products of float32 numbers may be rounded to ten bits (TF32)
        torch.testing.assert_close(one.double(), other, atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_shared_keys_and_the_log_sum_exp_on_a_gpu():
    q = inputs(2, 4, 300, 64, device="cuda")[0]
    _, k, v = inputs(2, 1, 700, 64, device="cuda")
    pattern = at.patterns.documents([300, 400]) & causal()
    key_keep = torch.arange(700, device="cuda") < 640
    options = {"first": 400, "key_keep": key_keep}
    output, lse = flex_attention(q, k, v, pattern, return_lse=True, **options)
    exact = [x.double() for x in (q, k, v)]
    expected = reference(*exact, pattern, key_keep, first=400)
    torch.testing.assert_close(output.double(), expected, atol=2e-2, rtol=2e-2)
    expected = log_sum_exp(q, k, kept(q, k, pattern, key_keep, first=400))
    torch.testing.assert_close(lse.double(), expected, atol=2e-2, rtol=2e-2)
