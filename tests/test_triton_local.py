"""The Triton kernels: equal to the dense reference, and on no tile too many.

Without a GPU, Triton's interpreter runs the kernels on the CPU.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attn_tutorial as at

if not torch.cuda.is_available():  # must be known before the first import of Triton
    os.environ["TRITON_INTERPRET"] = "1"
triton = pytest.importorskip("triton", reason="Triton is not installed")

from attn_tutorial.backends import triton_local as kernels  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = (
    kernels.forward_kernel,
    kernels.query_gradient_kernel,
    kernels.key_gradient_kernel,
)
SIZES = KERNELS[0].configs[-1].kwargs
TILE, STEP = SIZES["TILE"], SIZES["STEP"]
PATTERNS = {"local": at.patterns.local, "blocks": at.patterns.adjacent_blocks}

both = pytest.mark.parametrize("kind", PATTERNS)
causal_or_not = pytest.mark.parametrize("causal", [False, True])
interpreted = pytest.mark.skipif(
    not kernels.INTERPRETED, reason="counts calls, which needs Triton's interpreter"
)


def on_gpu(test):
    skip = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
    return pytest.mark.gpu(skip(test))


@pytest.fixture(autouse=True)
def no_tuning(monkeypatch):
    """Always the same small tiles, so that short sequences have many."""
    for kernel in KERNELS:
        monkeypatch.setattr(kernel, "configs", kernel.configs[-1:])


def attend(kind, q, k, v, size, **options):
    if kind == "local":
        return kernels.triton_local_attention(q, k, v, size, **options)
    return kernels.triton_sparse_attention(q, k, v, block_size=size, **options)


def pattern_of(kind, size, causal):
    pattern = PATTERNS[kind](size)
    return pattern & at.patterns.causal() if causal else pattern


def inputs(*shape, dtype=torch.float32, seed=0):
    """q, k, v and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator) for _ in range(4)]
    made = [x.to(DEVICE, dtype) for x in made]
    return [x.requires_grad_() for x in made[:3]], made[3]


def with_gradients(function, tensors, grad):
    output = function(*tensors)
    return [output, *torch.autograd.grad(output, tensors, grad)]


def compare(kind, tensors, grad, size, *, atol, causal=False, key_keep=None, **scale):
    """Compare output and gradients with dense attention in float64; return them."""
    n = tensors[0].shape[-2]
    keep = at.dense_mask(pattern_of(kind, size, causal), n, device=DEVICE)
    if key_keep is not None:
        keep = keep & key_keep[..., None, :]
    options = {"causal": causal, "key_keep": key_keep, **scale}
    found = with_gradients(
        lambda q, k, v: attend(kind, q, k, v, size, **options), tensors, grad
    )
    exact = [x.detach().double().requires_grad_() for x in tensors]
    expected = with_gradients(
        lambda q, k, v: at.attention(q, k, v, keep, **scale), exact, grad.double()
    )
    for name, x, y in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
        assert x.dtype == tensors[0].dtype and x.shape == y.shape
        assert (x - y).abs().max() <= atol * max(1, y.abs().max()), name
    return found, keep


EDGES = [
    ("local", 1, 0),
    ("local", 40, 0),  # each token alone
    ("local", 33, 7),  # one row in the last tile
    ("local", 96, 16),  # everything aligned
    ("local", 70, 30),  # tiles that one pair keeps from being whole
    ("local", 50, 49),  # everybody sees everybody
    ("local", 50, 1000),
    ("blocks", 1, 1),
    ("blocks", 48, 48),  # one block
    ("blocks", 20, 1),  # n blocks
    ("blocks", 96, 16),
    ("blocks", 50, 16),  # a ragged last block
    ("blocks", 75, 23),
    ("blocks", 50, 1000),
]


@causal_or_not
@pytest.mark.parametrize(("kind", "n", "size"), EDGES)
def test_equals_dense_attention(kind, n, size, causal):
    compare(kind, *inputs(1, n, 16), size, causal=causal, atol=2e-6)


@causal_or_not
@pytest.mark.parametrize(("kind", "n", "size"), EDGES[2::2])
def test_padding_is_never_attended(kind, n, size, causal):
    key_keep = torch.rand(2, n, generator=torch.Generator().manual_seed(1)) < 0.7
    key_keep[0, : n // 2] = False  # leaves queries without any key
    key_keep[1, n // 2 :] = False
    key_keep = key_keep.to(DEVICE)
    options = {"causal": causal, "key_keep": key_keep, "atol": 2e-6}
    found, keep = compare(kind, *inputs(2, n, 16), size, **options)
    output, dq, dk, dv = found
    without = ~keep.any(-1)
    assert (output[without] == 0).all() and (dq[without] == 0).all()
    assert (dk[~key_keep] == 0).all() and (dv[~key_keep] == 0).all()


def test_no_key_at_all():
    key_keep = torch.zeros(40, dtype=torch.bool, device=DEVICE)
    found, _ = compare("local", *inputs(1, 40, 16), 3, key_keep=key_keep, atol=0)
    assert all((x == 0).all() for x in found)


@both
@pytest.mark.parametrize("d", [1, 16, 40, 64, 128])
def test_every_width(kind, d):
    compare(kind, *inputs(1, 45, d), 12, atol=4e-6)


@both
@causal_or_not
@pytest.mark.parametrize(("dtype", "atol"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision(kind, causal, dtype, atol):
    made = inputs(1, 45, 32, dtype=getattr(torch, dtype))
    compare(kind, *made, 12, causal=causal, atol=atol)


@both
@pytest.mark.parametrize("tile", [16, 64])
@pytest.mark.parametrize("step", [16, 32, 64])
def test_every_shape_of_tile(kind, tile, step, monkeypatch):
    for kernel in KERNELS:
        config = triton.Config({"TILE": tile, "STEP": step}, num_stages=1)
        monkeypatch.setattr(kernel, "configs", [config])
    compare(kind, *inputs(1, 100, 16), 20, atol=2e-6)


@both
def test_large_scores_do_not_overflow(kind):
    tensors, grad = inputs(1, 40, 16)
    compare(kind, tensors, grad, 8, scale=60.0, atol=1e-4)
    with pytest.raises(ValueError, match="scale must be finite, got inf"):
        attend(kind, *tensors, 8, scale=float("inf"))


@both
def test_leading_dimensions_views_and_broadcast_padding(kind):
    (q, k, v), grad = inputs(2, 20, 3, 16)  # (batch, n, heads, d)
    views = [x.detach().transpose(1, 2).requires_grad_() for x in (q, k, v)]
    key_keep = torch.ones(2, 1, 20, dtype=torch.bool, device=DEVICE)
    key_keep[1, :, 12:] = False
    compare(kind, views, grad.transpose(1, 2), 5, key_keep=key_keep, atol=2e-6)


@both
def test_the_same_tensor_thrice(kind):
    (x, *_), grad = inputs(1, 40, 16)
    found = torch.autograd.grad(attend(kind, x, x, x, 6), x, grad)[0]
    keep = at.dense_mask(PATTERNS[kind](6), 40, device=DEVICE)
    expected = torch.autograd.grad(at.attention(x, x, x, keep), x, grad)[0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_num_blocks_is_the_count_of_blocks():
    (q, k, v), _ = inputs(1, 48, 16)
    found = kernels.triton_sparse_attention(q, k, v, 4)
    assert torch.equal(found, kernels.triton_sparse_attention(q, k, v, block_size=12))


@both
@pytest.mark.parametrize("shape", [(2, 0, 16), (0, 5, 16)])
def test_nothing_in_nothing_out(kind, shape):
    (q, k, v), grad = inputs(*shape)
    output = attend(kind, q, k, v, 3)
    assert output.shape == shape
    assert all(x.shape == shape for x in torch.autograd.grad(output, (q, k, v), grad))


# Positions, shared heads and the log-sum-exp


def log_sum_exp(q, k, keep):
    """The log-sum-exp of the kept scores, whose gradient is 0 where nothing is kept."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    some = keep.any(-1)
    scores = scores.masked_fill(~keep & some[..., None], -float("inf"))
    return scores.logsumexp(-1).masked_fill(~some, -float("inf"))


def both_with_gradients(function, tensors):
    """Output, log-sum-exp, and the gradients of both along one random direction.

    Where nothing is kept, the log-sum-exp's gradient is NaN, which must not spread.
    """
    output, lse = function(*tensors)
    generator = torch.Generator().manual_seed(3)
    grads = [torch.randn(x.shape, generator=generator).to(x) for x in (output, lse)]
    grads[1] = grads[1].masked_fill(lse == -float("inf"), float("nan"))
    return output, lse, *torch.autograd.grad((output, lse), tensors, grads)


def assert_near(found, expected):
    """Compare output, log-sum-exp and gradients; minus infinity equals itself alone."""
    for name, x, y in zip(
        ("out", "lse", "dq", "dk", "dv"), found, expected, strict=True
    ):
        assert not x.isnan().any() and x.shape == y.shape, name
        none = y == -float("inf")
        assert ((x == -float("inf")) == none).all(), name
        x, y = x.masked_fill(none, 0.0), y.masked_fill(none, 0.0)
        error = (x - y).abs().max() if x.numel() else 0
        assert error <= 1e-5 * max(1, y.abs().max() if y.numel() else 0), name


def compare_both(kind, tensors, size, *, key_keep=None, first=None, causal=False):
    """Compare output, log-sum-exp and the gradients of both with float64."""
    q, k, _ = tensors
    pattern, lengths = pattern_of(kind, size, causal), (q.shape[-2], k.shape[-2])
    keep = at.dense_mask(pattern, *lengths, DEVICE, first=first or 0)
    if key_keep is not None:
        keep = keep & key_keep[..., None, :]
    options = {"key_keep": key_keep, "first": first, "causal": causal}

    def ours(q, k, v):
        return attend(kind, q, k, v, size, return_lse=True, **options)

    def dense(q, k, v):
        return at.attention(q, k, v, keep), log_sum_exp(q, k, keep)

    finite = [x.detach().double().nan_to_num(posinf=0.0) for x in tensors]
    exact = [x.requires_grad_() for x in finite]
    assert_near(both_with_gradients(ours, tensors), both_with_gradients(dense, exact))


def queries_and_keys(*leading, n_q, n_k, of_keys=None, d=16):
    (q, *_), _ = inputs(*leading, n_q, d)
    (_, k, v), _ = inputs(*(of_keys or leading), n_k, d, seed=1)
    return [q, k, v]


WINDOWS = [(7, 0), (0, 20), (3, 18), (40, 5), (2**31, 1), (0, 2**70)]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_window_of_two_sides(window):
    compare_both("local", queries_and_keys(1, n_q=50, n_k=50), window)
    compare_both("local", queries_and_keys(1, n_q=37, n_k=37), window, causal=True)


PLACES = [
    # n_q, n_k, first
    (1, 70, 69),  # one query at the end
    (33, 75, 42),
    (20, 70, 0),
    (37, 64, 11),
    (64, 20, -44),  # more queries than keys, at the end
    (40, 40, -100),  # all before the keys
    (17, 33, 90),  # all after them
    (50, 50, 3),
]


@pytest.mark.parametrize(("kind", "size"), [("local", (9, 4)), ("blocks", 7)])
@causal_or_not
@pytest.mark.parametrize(("n_q", "n_k", "first"), PLACES)
def test_queries_may_begin_elsewhere(kind, size, n_q, n_k, first, causal):
    tensors = queries_and_keys(1, n_q=n_q, n_k=n_k)
    compare_both(kind, tensors, size, first=first, causal=causal)


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_padding_may_hold_anything(kind, value):
    tensors = queries_and_keys(2, n_q=41, n_k=50)
    key_keep = torch.rand(2, 50, generator=torch.Generator().manual_seed(1)) < 0.6
    key_keep[0, :25], key_keep[1, 40:] = False, False
    key_keep = key_keep.to(DEVICE)
    with torch.no_grad():
        for x in tensors[1:]:
            x[~key_keep] = value
    compare_both(kind, tensors, 6, first=5, key_keep=key_keep)


GROUPS = [
    ((2, 3), (2, 1)),
    ((2, 3), (1, 3)),
    ((2, 2, 3), (2, 2, 1)),
    ((2, 2, 3), (1, 2, 1)),
    ((1, 3), (2, 1)),  # keys of two batches for the same queries
    ((1, 8), (1, 1)),  # a power of two: all of them in one tile
    ((2, 6), (2, 1)),  # two in a tile
]


@both
@pytest.mark.parametrize(("of_queries", "of_keys"), GROUPS)
@pytest.mark.parametrize("padded", [False, True])
def test_heads_may_share_keys(kind, of_queries, of_keys, padded):
    tensors = queries_and_keys(*of_queries, n_q=20, n_k=25, of_keys=of_keys)
    key_keep = None
    if padded:
        generator = torch.Generator().manual_seed(1)
        key_keep = (torch.rand(*of_keys, 25, generator=generator) < 0.7).to(DEVICE)
    compare_both(kind, tensors, 6, first=5, key_keep=key_keep)


@interpreted
@causal_or_not
def test_heads_that_share_keys_meet_them_together(causal, calls):
    """A tile of 8 heads has an eighth of the positions, and meets the keys once."""
    q, k, v = queries_and_keys(1, 8, n_q=90, n_k=90, of_keys=(1, 1))
    with torch.no_grad():
        attend("local", q, k, v, 20, causal=causal)
    keep = at.dense_mask(pattern_of("local", 20, causal), 90)
    assert tuple(calls.values()) == touched(keep, TILE // 8, STEP)


def test_shared_keys_are_not_copied(monkeypatch):
    seen, launch = [], kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda *x: (seen.append(x[2][1:3]), launch(*x))
    )
    q, k, v = queries_and_keys(2, 3, n_q=20, n_k=20, of_keys=(2, 1))
    attend("local", q, k, v, 3).sum().backward()
    assert len(seen) == 3 and k.grad.shape == k.shape
    for keys, values in seen:
        assert keys.data_ptr() == k.data_ptr() and keys.numel() == k.numel()
        assert values.data_ptr() == v.data_ptr() and values.numel() == v.numel()


@both
def test_a_gradient_may_come_by_the_log_sum_exp_alone(kind):
    tensors = queries_and_keys(1, n_q=30, n_k=30)
    lse = attend(kind, *tensors, 5, return_lse=True)[1]
    found = torch.autograd.grad(lse.sum(), tensors)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    keep = at.dense_mask(PATTERNS[kind](5), 30, device=DEVICE)
    dense = log_sum_exp(*exact[:2], keep).sum()
    expected = torch.autograd.grad(dense, exact[:2])
    for x, y in zip(found, [*expected, torch.zeros(1, 30, 16)], strict=True):
        assert (x - y.to(x.device)).abs().max() < 1e-5


@both
@pytest.mark.parametrize(("n_q", "n_k"), [(0, 7), (7, 0)])
def test_no_queries_or_no_keys(kind, n_q, n_k):
    tensors = queries_and_keys(2, n_q=n_q, n_k=n_k)
    output, lse = attend(kind, *tensors, 3, first=0, return_lse=True)
    assert output.shape == (2, n_q, 16) and (output == 0).all()
    assert lse.shape == (2, n_q) and (lse == -float("inf")).all()
    for x, y in zip(torch.autograd.grad(output.sum(), tensors), tensors, strict=True):
        assert x.shape == y.shape and (x == 0).all()


# Tiles


def touched(keep, tile, step):
    """How many (tile, step) tiles have a pair that attends, and one that does not."""
    n = len(keep)
    down, across = -(-n // tile), -(-n // step)
    some = torch.zeros(down * tile, across * step, dtype=torch.bool)
    some[:n, :n] = keep
    every = some.clone()
    every[n:] = True  # rows past the end want nothing
    some = some.view(down, tile, across, step).any(3).any(1)
    every = every.view(down, tile, across, step).all(3).all(1)
    return int(some.sum()), int((some & ~every).sum())


@pytest.fixture
def calls(monkeypatch):
    """Counts the tiles that the kernels visit, and those that they mask."""
    calls = {"visited": 0, "masked": 0}
    scores, span = kernels.tile_scores, kernels.span

    def counted_scores(*arguments):
        calls["visited"] += 1
        return scores(*arguments)

    def counted_span(i, *arguments):
        calls["masked"] += len(i.shape) == 1  # a mask wants the span of each row
        return span(i, *arguments)

    monkeypatch.setattr(kernels, "tile_scores", counted_scores)
    monkeypatch.setattr(kernels, "span", counted_span)
    return calls


@interpreted
@causal_or_not
@pytest.mark.parametrize(("kind", "n", "size"), EDGES)
def test_only_tiles_of_the_pattern_are_visited(kind, n, size, causal, calls):
    (q, k, v), grad = inputs(1, n, 16)
    output = attend(kind, q, k, v, size, causal=causal)
    keep = at.dense_mask(pattern_of(kind, size, causal), n)
    forward = touched(keep, TILE, STEP)
    assert tuple(calls.values()) == forward
    output.backward(grad)
    back = touched(keep.T, TILE, STEP)  # for dk and dv: keys down, queries across
    expected = [2 * f + b for f, b in zip(forward, back, strict=True)]  # dq as forward
    assert list(calls.values()) == expected


@interpreted
def test_aligned_blocks_need_no_mask(calls):
    (q, k, v), grad = inputs(1, 4 * TILE, 16)
    attend("blocks", q, k, v, TILE).backward(grad)
    # Two blocks at the ends have one neighbour, the others two; in three kernels.
    assert calls == {"visited": 3 * (2 + 3 + 3 + 2) * TILE // STEP, "masked": 0}


@both
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # of those who do see them
def test_what_lies_outside_is_not_even_read(kind):
    (q, k, v), _ = inputs(1, 160, 16)
    with torch.no_grad():
        k[:, 96:], v[:, 96:] = float("nan"), float("nan")
        output = attend(kind, q, k, v, 16)
    assert output[:, :64].isfinite().all()


# Errors


def test_a_cpu_tensor_needs_the_interpreter(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    q = torch.ones(1, 8, 4)
    with pytest.raises(ValueError, match=r"q must be on a GPU, got cpu;.*INTERPRET=1"):
        kernels.triton_local_attention(q, q, q, 1)


def test_an_interpreter_that_newer_numpy_breaks_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    monkeypatch.setattr(kernels.triton, "__version__", "3.6.0")
    monkeypatch.setattr(kernels.numpy, "__version__", "2.4.6")
    q = torch.ones(1, 8, 4, device=DEVICE)
    with pytest.raises(RuntimeError, match=r"Triton 3\.6\.0 .* NumPy 2\.4\.6: install"):
        kernels.triton_local_attention(q, q, q, 1)
    for fitting in (("3.7.1", "2.4.6"), ("3.6.0", "2.3.5"), ("3.10.0", "2.10.0")):
        kernels._check_versions(*fitting)


def test_wrong_arguments_are_named():
    q = torch.ones(1, 8, 4, device=DEVICE)
    local, blocks = kernels.triton_local_attention, kernels.triton_sparse_attention
    with pytest.raises(ValueError, match="window must be at least 0, got -1"):
        local(q, q, q, -1)
    with pytest.raises(TypeError, match=r"float16, bfloat16 or float32, got .*float64"):
        local(*[q.double()] * 3, 1)
    with pytest.raises(ValueError, match=r"width of at most 128, got .*\(1, 8, 200\)"):
        local(*[q.repeat(1, 1, 50)] * 3, 1)
    with pytest.raises(ValueError, match=r"v must have the width of q, 4, got"):
        local(q, q, q[..., :3], 1)
    with pytest.raises(
        ValueError, match=r"first must be given for 8 queries and 7 keys"
    ):
        local(q, q[:, :7], q[:, :7], 1)
    with pytest.raises(ValueError, match=r"all positions below 2\*\*28, got 536870912"):
        local(q, q, q, 1, first=2**29)
    with pytest.raises(TypeError, match=r"key_keep must be bool"):
        local(q, q, q, 1, key_keep=q[..., 0])
    with pytest.raises(TypeError, match="exactly one of num_blocks and block_size"):
        blocks(q, q, q)
    with pytest.raises(ValueError, match="num_blocks must divide"):
        blocks(q, q, q, 3)


def test_a_second_derivative_is_refused():
    (q, k, v), _ = inputs(1, 8, 16)
    output = kernels.triton_local_attention(q, k, v, 1)
    (dq,) = torch.autograd.grad(output.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


# For a GPU


@pytest.mark.parametrize(
    ("capability", "dtype", "left"),
    [((9, 0), "bfloat16", 5), ((9, 0), "float32", 2), ((7, 5), "float16", 2)],
)
def test_without_matrix_units_only_small_tiles_are_tried(
    capability, dtype, left, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    tensors = {"q": torch.ones(1, dtype=getattr(torch, dtype))}
    configs = [
        triton.Config({"TILE": 64, "STEP": step}) for step in (128, 64, 32, 32, 16)
    ]
    assert kernels.affordable(configs, tensors, WIDTH=64) == configs[-left:]
    wide = kernels.affordable(configs, tensors, WIDTH=128)
    assert wide == configs[max(1, 5 - left) :]  # no step of 128


has_compiler = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="Triton's compiler for NVIDIA GPUs is not here",
)


def compiled(folder, *what):
    """What `triton_compiler.py` says of each kernel that it compiles."""
    program = Path(__file__).with_name("triton_compiler.py")
    environment = os.environ | {
        "PYTHONPATH": str(program.parents[1]),
        "TRITON_CACHE_DIR": str(folder),
        "TRITON_DEFAULT_FP_FUSION": "1",  # or Triton 3.9 warns
        "TRITON_INTERPRET": "0",
    }
    command = [sys.executable, str(program), *what]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    return [json.loads(line) for line in printed.stdout.splitlines()]


@has_compiler
def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    made = compiled(tmp_path, "variants")
    assert len(made) == 15
    kilobytes = {75: 64, 80: 163, 90: 227}  # shared memory of T4, A100, H100
    for one in made:
        capability = one["variant"][0]
        assert one["shared"] <= 1024 * kilobytes[capability]
        assert (one["products"] > 0) == (capability != 75)  # as `affordable` says


@has_compiler
def test_the_machine_code_for_an_h100_keeps_all_in_registers(tmp_path):
    made = compiled(tmp_path, "sizes", "2")
    if not made:
        pytest.skip("NVIDIA's cuobjdump is neither with Triton nor on the path")
    assert len(made) == 20
    for one in made:
        assert one["wgmma"] > 0 and one["stack"] == 0, one
        assert one["registers"] <= 255 and one["shared"] <= 227 * 1024, one


# On a GPU


ALL_CONFIGS = [kernel.configs for kernel in KERNELS]


@both
@causal_or_not
@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("number", range(5))
@on_gpu
def test_every_tuned_size_on_the_gpu(kind, causal, d, number, monkeypatch):
    for kernel, configs in zip(KERNELS, ALL_CONFIGS, strict=True):
        monkeypatch.setattr(kernel, "configs", [configs[number]])
    key_keep = torch.rand(2, 1, 1000, device=DEVICE) < 0.9
    made = inputs(2, 3, 1000, d, dtype=torch.bfloat16)
    options = {"causal": causal, "key_keep": key_keep, "atol": 2e-2}
    try:
        compare(kind, *made, 128, **options)
    except triton.runtime.errors.OutOfResources as error:  # tuning drops it as well
        assert number < 4, "the smallest tiles must fit everywhere"
        pytest.skip(str(error))


@both
@on_gpu
def test_tuning_on_the_gpu(kind, monkeypatch):
    for kernel, configs in zip(KERNELS, ALL_CONFIGS, strict=True):
        monkeypatch.setattr(kernel, "configs", configs)
    compare(kind, *inputs(1, 2, 1000, 64, dtype=torch.float16), 256, atol=4e-3)


@both
@on_gpu
def test_positions_and_shared_heads_on_the_gpu(kind):
    tensors = queries_and_keys(2, 4, n_q=300, n_k=700, of_keys=(2, 1), d=64)
    key_keep = torch.arange(700, device=DEVICE) < 640
    compare_both(kind, tensors, 100, first=400, key_keep=key_keep)
