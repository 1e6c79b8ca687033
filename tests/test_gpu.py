"""What must hold on a GPU before anything is timed on it; small, for a borrowed one.

`scripts/gpu.sh` runs this file, which needs PyTorch, Triton and pytest only. Without a
GPU the same tests run in Triton's interpreter, on fewer tokens.
"""

import pytest
import torch

import attn_tutorial as at

pytest.importorskip("triton", reason="Triton is not installed")

from attn_tutorial.backends import triton_local as kernels

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
N = 1000 if ON_GPU else 60
KERNELS = (
    kernels.forward_kernel,
    kernels.query_gradient_kernel,
    kernels.key_gradient_kernel,
)
ALL_CONFIGS = [kernel.configs for kernel in KERNELS]
ROUTINES = {
    "local": (kernels.triton_local_attention, at.local_attention, at.patterns.local),
    "blocks": (
        lambda q, k, v, b, **how: kernels.triton_sparse_attention(
            q, k, v, block_size=b, **how
        ),
        lambda q, k, v, b, **how: at.sparse_attention(q, k, v, block_size=b, **how),
        at.patterns.adjacent_blocks,
    ),
}
CASES = [
    # kind, size, d, group, options
    ("local", N // 5, 64, 1, {"causal": True}),
    ("local", N // 5, 128, 1, {"causal": True}),
    ("local", (N // 6, N // 9), 64, 1, {}),
    ("local", (N // 6, N // 9), 128, 1, {"first": 7}),
    ("local", N // 5, 64, 8, {"causal": True}),
    ("local", N // 5, 128, 6, {"first": N // 4}),
    ("blocks", N // 8, 64, 1, {}),
    ("blocks", N // 8, 128, 4, {"causal": True}),
]


@pytest.fixture(autouse=True)
def untuned(monkeypatch):
    """The configurations that would be tried first: all of them are timed later."""
    for kernel in KERNELS:
        tensors = {"q": torch.empty(0, dtype=torch.bfloat16, device=DEVICE)}
        if ON_GPU:
            configs = kernels.affordable(kernel.configs, tensors, WIDTH=128)
            monkeypatch.setattr(kernel, "configs", configs[:1])


def inputs(d, group, first, dtype):
    """q, k, v, with some keys of padding, and gradients of output and log-sum-exp."""
    generator = torch.Generator().manual_seed(0)
    n_q = N - 2 * first if first else N

    def make(*shape):
        return torch.randn(shape, generator=generator).to(DEVICE, dtype)

    qkv = make(2, group, n_q, d), make(2, 1, N, d), make(2, 1, N, d)
    key_keep = torch.rand(2, 1, N, generator=generator) < 0.9
    return (
        [x.requires_grad_() for x in qkv],
        key_keep.to(DEVICE),
        make(2, group, n_q, d),
    )


def dense(pattern, tensors, key_keep, first):
    """Output and log-sum-exp in float64, over all pairs."""
    q, k, v = tensors
    keep = at.dense_mask(pattern, q.shape[-2], N, DEVICE, first=first or 0)
    keep = keep & key_keep[..., None, :]
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~keep, -float("inf"))
    return at.attention(q, k, v, keep), scores.logsumexp(-1)


def compare(routine, kind, size, d, group, options, dtype, tolerance):
    """Compare output, log-sum-exp and gradients with float64."""
    first = options.get("first", 0)
    tensors, key_keep, grad = inputs(d, group, first, dtype)
    found, lse = routine(*tensors, size, key_keep=key_keep, return_lse=True, **options)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    pattern = ROUTINES[kind][2](size)
    if options.get("causal"):
        pattern = pattern & at.patterns.causal()
    expected, expected_lse = dense(pattern, exact, key_keep, first)
    pairs = [(found, expected), (lse, expected_lse)]
    grads = torch.autograd.grad(found, tensors, grad)
    pairs += zip(
        grads, torch.autograd.grad(expected, exact, grad.double()), strict=True
    )
    for name, (x, y) in zip(("out", "lse", "dq", "dk", "dv"), pairs, strict=True):
        assert x.shape == y.shape, name
        some = y.isfinite()
        assert torch.equal(some, x.isfinite()), name
        error = (x - y)[some].abs().max()
        assert error < tolerance * max(1, y[some].abs().max()), (name, error)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernels_in_bfloat16(case):
    compare(ROUTINES[case[0]][0], *case, torch.bfloat16, 2e-2)


@pytest.mark.parametrize("case", CASES[1::4], ids=str)
def test_the_kernels_in_float32(case, monkeypatch):
    for kernel, configs in zip(KERNELS, ALL_CONFIGS, strict=True):
        monkeypatch.setattr(kernel, "configs", configs[-1:])
    compare(ROUTINES[case[0]][0], *case, torch.float32, 1e-5)


@pytest.mark.parametrize("case", CASES[::2], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_the_tiles(case, dtype, tolerance):
    compare(ROUTINES[case[0]][1], *case, dtype, tolerance)
