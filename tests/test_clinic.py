"""Each patient computes the same as its cure, and a count tells them apart."""

import math
import threading
import warnings

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import attn_tutorial as at
from attn_tutorial import cost
from attn_tutorial.instruments import clinic, memory, simulator
from attn_tutorial.patterns import adjacent_blocks, causal, dense_mask, full, local


def inputs(n=60, d=8, heads=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 1, heads, n, d, generator=generator, dtype=dtype).unbind()


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("window", [0, 1, 5, 100])
def test_patients_and_cure_compute_the_same(n, window):
    q, k, v = inputs(n)
    expected = at.attention(q, k, v, dense_mask(local(window), n))
    outputs = [
        at.local_attention(q, k, v, window),
        clinic.gathered_attention(q, k, v, window),
        clinic.padded_attention(q, k, v, window, multiple=16),
        *(clinic.tile_loop(q, k, v, window, tile) for tile in (1, 4, 64)),
    ]
    for output in outputs:
        assert output.shape == expected.shape
        assert difference(output, expected) < 1e-12


def rectangles(n, window, tile):
    """The pairs of each tile with its whole run."""
    pairs = torch.zeros(n, n, dtype=torch.bool)
    for start in range(0, n, tile):
        pairs[start : start + tile, max(0, start - window) : start + tile + window] = (
            True
        )
    return pairs


@pytest.mark.parametrize(("n", "d"), [(96, 32), (50, 64), (70, 32)])
def test_dye_stains_what_is_multiplied(n, d):
    w, everything = 5, torch.ones(n, n, dtype=torch.bool)
    keep = dense_mask(local(w), n)
    routines = {
        lambda q, k, v: at.attention(q, k, v, keep): everything,
        lambda q, k, v: scaled_dot_product_attention(q, k, v, keep): everything,
        lambda q, k, v: clinic.gathered_attention(q, k, v, w): keep,
        lambda q, k, v: clinic.tile_loop(q, k, v, w, 8): rectangles(n, w, 8),
        lambda q, k, v: at.local_attention(q, k, v, w): rectangles(n, w, 32),
        lambda q, k, v: at.sparse_attention(q, k, v, block_size=10): dense_mask(
            adjacent_blocks(10), n
        ),
    }
    for attend, expected in routines.items():
        assert torch.equal(clinic.dye(attend, n, d=d), expected)
        assert (clinic.dye(attend, n, d=d) >= (expected & keep)).all()


def test_dye_finds_that_uncompiled_flex_attention_skips_nothing():
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    from attn_tutorial.backends.flex import block_mask

    table = block_mask(local(5), 64, block_size=16)
    assert table.sparsity() > 30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stained = clinic.dye(lambda *x: flex.flex_attention(*x, block_mask=table), 64)
    assert stained.all()


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_dye_finds_the_tiles_of_the_triton_kernel():
    pytest.importorskip("triton", reason="Triton is not installed")
    from attn_tutorial.backends import triton_local as kernels

    if not kernels.INTERPRETED:
        pytest.skip("a GPU chooses its tiles by measurement")
    n, w, sizes = 96, 8, kernels.forward_kernel.configs[-1].kwargs
    rows, columns = sizes["TILE"], sizes["STEP"]
    visited = simulator.tiles(local(w), n, rows, columns).any((2, 3))
    expected = torch.from_numpy(visited.repeat(rows, 0).repeat(columns, 1)[:n, :n])
    stained = clinic.dye(lambda *x: kernels.triton_local_attention(*x, w), n, d=32)
    assert torch.equal(stained, expected)


def test_a_forgotten_causal_term_keeps_the_whole_future():
    n, w = 24, 3
    i, j = torch.arange(n)[:, None], torch.arange(n)
    kept = dense_mask(clinic.one_sided(w), n)
    assert torch.equal(kept & (j <= i), dense_mask(local(w) & causal(), n))
    assert kept[j > i].all()
    assert kept.sum() == n * n - (n - w - 1) * (n - w) // 2


def test_gathering_copies_each_key_once_for_each_query_that_keeps_it():
    n, d, w = 64, 8, 5
    q, k, v = inputs(n, d, heads=1)
    with memory.Allocations() as gathered:
        clinic.gathered_attention(q, k, v, w)
    with memory.Allocations() as tiled:
        at.local_attention(q, k, v, w)
    assert gathered.by_operation["index"] == 2 * n * (2 * w + 1) * d * 8
    assert gathered.largest == n * (2 * w + 1) * d * 8
    assert tiled.largest <= gathered.largest / 3


def test_padding_pays_for_what_it_adds():
    q, k, v = inputs(40)

    padded = clinic.executed_flops(
        lambda: clinic.padded_attention(q, k, v, 4, multiple=160)
    )
    alone = clinic.executed_flops(lambda: at.local_attention(q, k, v, 4))
    assert padded > 3.5 * alone > 0


def test_executed_flops_of_fused_attention_are_those_of_its_two_products():
    q, k, v = inputs(20, d=8, heads=3, dtype=torch.float32)
    fused = clinic.executed_flops(lambda: scaled_dot_product_attention(q, k, v))
    assert fused == cost.flops(full(), 20, 8, heads=3)
    assert fused == clinic.executed_flops(lambda: at.attention(q, k, v))
    wide = torch.cat([v, v], -1)
    assert clinic.executed_flops(lambda: at.attention(q, k, wide)) == fused * 3 // 2


@pytest.mark.parametrize("tile", [1, 5, 16, 64])
def test_executed_flops_of_a_loop_are_its_computed_pairs(tile):
    q, k, v = inputs(50, d=8, heads=2)
    flops = clinic.executed_flops(lambda: clinic.tile_loop(q, k, v, 6, tile))
    assert flops == 4 * 8 * 2 * cost.computed_pairs(local(6), 50, tile)


def test_small_tiles_make_more_calls():
    q, k, v = inputs(64)
    counts = []
    for tile in (1, 8, 64):
        with memory.Traffic() as calls:
            clinic.tile_loop(q, k, v, 2, tile)
        counts.append((calls.operations - 2) / (64 // tile))  # an arange and a cat
    assert counts[0] == counts[1] == counts[2] > 3


def test_the_loop_is_quadratic_backwards():
    def written(attend, n):
        q, k, v = (x.requires_grad_() for x in inputs(n, dtype=torch.float32))
        total = attend(q, k, v).sum()
        with memory.Allocations() as counted:
            total.backward()
        return counted.bytes

    def growth(attend):
        return written(attend, 1024) / written(attend, 512)

    assert growth(lambda *x: clinic.tile_loop(*x, 4, 8)) > 3.5
    assert growth(lambda *x: at.local_attention(*x, 4)) < 2.3


def test_gradients_of_the_patients_are_those_of_the_cure():
    gradients = []
    for attend in (
        lambda *x: at.local_attention(*x, 3),
        lambda *x: clinic.gathered_attention(*x, 3),
        lambda *x: clinic.padded_attention(*x, 3, multiple=64),
        lambda *x: clinic.tile_loop(*x, 3, 8),
    ):
        leaves = [x.requires_grad_() for x in inputs(20)]
        gradients.append(torch.autograd.grad(attend(*leaves).square().sum(), leaves))
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert difference(a, b) < 1e-10


def test_compilations_depend_on_how_lengths_arrive():
    lengths = [64, 80, 96, 112, 80]

    def calls():
        return [(torch.ones(n, 4),) for n in lengths]

    def attend(q):
        return torch.softmax(q @ q.T, -1) @ q

    assert clinic.compilations(attend, calls(), dynamic=False) == [1, 1, 1, 1, 0]
    assert clinic.compilations(attend, calls(), dynamic=True) == [1, 0, 0, 0, 0]
    assert sum(clinic.compilations(attend, calls())) == 2
    same = [(torch.ones(128, 4),)] * 3
    assert clinic.compilations(attend, same, dynamic=False) == [1, 0, 0]


def test_pytorch_gives_up_compiling_after_some_lengths(capfd):
    calls = [(torch.ones(n, 4),) for n in range(8, 40, 2)]
    counts = clinic.compilations(torch.sin, calls, dynamic=False)
    given_up = counts.index(0)
    assert counts == [1] * given_up + [0] * (16 - given_up)
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        clinic.compilations(torch.sin, calls, dynamic=False, fullgraph=True)
    assert capfd.readouterr().err == ""


def test_a_stream_returns_before_its_work_is_done():
    gate = threading.Event()
    with clinic.Stream() as stream:
        stream.launch(gate.wait)
        jobs = [stream.launch(pow, 2, x) for x in range(5)]
        assert stream.finished == 0
        gate.set()
        stream.synchronize()
        assert stream.finished == 6
        assert [job.result() for job in jobs] == [1, 2, 4, 8, 16]


def test_a_stream_hands_over_errors():
    with clinic.Stream() as stream:
        stream.launch(math.sqrt, -1)
        with pytest.raises(ValueError, match="math domain"):
            stream.synchronize()


@pytest.mark.parametrize("pattern", [local(3), local(3) & causal(), adjacent_blocks(4)])
def test_examine_counts_what_cost_counts(pattern):
    found = clinic.examine(pattern, 40, rows=4, columns=8, d_model=16)
    assert found.kept == dense_mask(pattern, 40).sum()
    assert found.computed == cost.grid_pairs(pattern, 40, 4, 8)
    assert found.useful == pytest.approx(1 / cost.grid_tax(pattern, 40, 4, 8))
    assert found.mask_bytes == dense_mask(pattern, 40).numel()
    layer = cost.layer_flops(full(), 40, 16)
    sparse = layer.attention * found.computed / 1600 + layer.projections + layer.mlp
    assert found.layer_fewer == pytest.approx(sum(layer) / sparse)


def test_examine_of_full_attention_saves_nothing():
    found = clinic.examine(full(), 256)
    assert found.fewer == found.useful == found.layer_fewer == 1.0


def test_examine_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        clinic.examine(local(2), 0)
    with pytest.raises(ValueError, match="global tokens"):
        clinic.examine(local(2) | at.patterns.global_tokens(1), 64)
