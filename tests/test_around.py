"""What PyTorch does with a function works with the tiled routines."""

import subprocess
import sys
import threading

import pytest
import torch
from torch.func import jacrev, vmap

import attn_tutorial as at
from attn_tutorial import patterns as P
from attn_tutorial.networks.layers import MultiHeadAttention


def window(q):
    return at.local_attention(q, q, q, 3)


def blocks(q):
    return at.sparse_attention(q, q, q, block_size=5, causal=True)


def lse(q):
    return at.local_attention(q, q, q, (3, 1), return_lse=True)[1]


ROUTINES = [window, blocks, lse]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize("routine", ROUTINES)
def test_it_compiles_as_one_graph_in_both_directions(routine):
    torch.compiler.reset()
    q = torch.randn(1, 2, 64, 8, requires_grad=True)
    compiled = torch.compile(routine, backend="aot_eager", fullgraph=True)
    gradients = [
        torch.autograd.grad(f(q).square().sum(), q)[0] for f in (routine, compiled)
    ]
    torch.testing.assert_close(compiled(q), routine(q))
    torch.testing.assert_close(*gradients)


class Layer(torch.nn.Module):
    """A layer with turned queries and shared heads of keys, over blocks."""

    def __init__(self):
        super().__init__()
        options = {"num_kv_heads": 2, "rotary": True}
        self.mixer = MultiHeadAttention(16, 4, P.adjacent_blocks(5), **options)

    def forward(self, x):
        return self.mixer(x)


def test_a_layer_is_exported_for_any_batch():
    layer, x = Layer(), torch.randn(2, 24, 16)
    shapes = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(layer, (x,), dynamic_shapes=shapes).module()
    for batch in (2, 5):
        x = torch.randn(batch, 24, 16)
        torch.testing.assert_close(program(x), layer(x))


def test_derivatives_of_vectors_and_batches():
    x = torch.randn(12, 4, dtype=torch.float64)

    def dense(x):
        return at.attention(x, x, x, at.dense_mask(P.local(3), 12))

    torch.testing.assert_close(jacrev(window)(x), jacrev(dense)(x))
    whole = torch.autograd.functional.jacobian(window, x, vectorize=True)
    torch.testing.assert_close(whole, torch.autograd.functional.jacobian(dense, x))
    masks = torch.rand(5, 12) < 0.7
    several = vmap(lambda m: at.local_attention(x, x, x, 2, key_keep=m))(masks)
    each = [at.local_attention(x, x, x, 2, key_keep=m) for m in masks]
    torch.testing.assert_close(several, torch.stack(each))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_a_fully_masked_query_raises_no_alarm():
    x = torch.randn(1, 9, 4, requires_grad=True)
    real = torch.ones(9, dtype=torch.bool)
    real[:3] = False
    keep = at.dense_mask(P.causal(), 9) & real
    with torch.autograd.detect_anomaly(check_nan=True):
        at.attention(x, x, x, keep).sum().backward()
        at.local_attention(x, x, x, 1, key_keep=real).sum().backward()
    assert x.grad.isfinite().all()


def test_autocast_leaves_float32_alone():
    x = torch.randn(9, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert at.attention(x, x, x).dtype == window(x).dtype == torch.float32


def test_tensors_without_data_have_shapes():
    q = torch.empty(2, 3, 40, 8, device="meta")
    assert window(q).shape == q.shape and lse(q).shape == q.shape[:-1]


def test_two_threads_at_once():
    x, results = torch.randn(2, 300, 8), []

    def work():
        results.extend(window(x) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all(result.equal(results[0]) for result in results)


def test_shared_keys_are_not_copied():
    from attn_tutorial.instruments.memory import LiveMemory

    q, k = torch.randn(2, 8, 8, 512, 16), torch.randn(2, 8, 1, 512, 16)
    for many in (k, k.expand(2, 8, 8, 512, 16).contiguous()):
        at.local_attention(q[:, :, :1], many[:, :, :1], many[:, :, :1], 8)
    with LiveMemory() as shared:
        at.local_attention(q, k, k, 8)
    assert shared.peak < q.nbytes + 2 * k.nbytes  # the output, and less than one copy


def test_importing_the_package_loads_the_equations_only():
    names = "sorted(n for n in sys.modules if n.startswith('attn_tutorial.'))"
    code = f"import sys, attn_tutorial; print(*{names})"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    wanted = "checks cost dense local lookback patterns sparse threads tiled".split()
    assert loaded == [f"attn_tutorial.{name}" for name in wanted]
    for name in at.__all__:
        assert getattr(at, name) is not None
