"""Half precision: as exact as PyTorch's own attention, and never a wider copy of it."""

import pytest
import torch
import torch.nn.functional as F

import attn_tutorial as at
from attn_tutorial import tiled
from attn_tutorial.patterns import causal, local

HALF = torch.bfloat16, torch.float16


def problem(gain, dtype, n=300, d=16):
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = torch.randn(4, 1, 2, n, d, generator=generator)
    return [x.to(dtype).requires_grad_() for x in (gain * q, k, v)], grad.to(dtype)


def results(routine, inputs, grad):
    output = routine(*inputs)
    return [output, *torch.autograd.grad(output, inputs, grad.to(output.dtype))]


def errors(found, exact):
    """Root mean squares of the differences: of the output, dq, dk and dv."""
    return [
        (a.double() - b).square().mean().sqrt()
        for a, b in zip(found, exact, strict=True)
    ]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("gain", [1, 3, 10])
def test_errors_are_no_larger_than_those_of_pytorch(monkeypatch, gain, dtype, native):
    monkeypatch.setattr(tiled, "computes", lambda name: native)
    inputs, grad = problem(gain, dtype)
    keep = at.dense_mask(local(20) & causal(), 300)
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    exact = results(lambda q, k, v: at.attention(q, k, v, keep), doubles, grad)
    ours = results(lambda *x: at.local_attention(*x, 20, causal=True), inputs, grad)
    sdpa = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, keep)  # noqa: E731
    theirs = results(sdpa, inputs, grad)
    for mine, other in zip(errors(ours, exact), errors(theirs, exact), strict=True):
        assert mine <= 1.02 * other


@pytest.mark.parametrize("dtype", HALF)
def test_results_have_the_dtype_of_the_inputs_and_the_log_sum_exp_its_digits(dtype):
    inputs, _ = problem(3, dtype)
    output, lse = at.local_attention(*inputs, 9, return_lse=True)
    assert output.dtype == dtype and lse.dtype == torch.float32
    doubles = [x.double() for x in inputs]
    _, exact = at.local_attention(*doubles, 9, return_lse=True)
    torch.testing.assert_close(lse.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("able", ["", "avx512_bf16", "amx_bf16"])
def test_bfloat16_is_handed_on_only_where_the_cpu_multiplies_it(monkeypatch, able):
    seen = []
    fused = F.scaled_dot_product_attention

    def spy(q, k, *arguments, **options):
        seen.append((q.dtype, k.shape[-2] > 512))
        return fused(q, k, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(tiled, "computes", lambda name: name == able)
    for dtype in HALF:
        for window in (3, 300):
            q = torch.randn(1, 700, 8).to(dtype)
            at.local_attention(q, q, q, window)
            for found, long in seen:
                handed = able == "amx_bf16" or (able == "avx512_bf16" and not long)
                as_given = handed and dtype == torch.bfloat16
                assert found == (dtype if as_given else torch.float32)
            assert (window == 300) == any(long for _, long in seen)
            seen.clear()
