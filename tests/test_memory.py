"""What `Traffic` and `LiveMemory` count, against sizes added up by hand."""

import torch

import attn_tutorial as at
from attn_tutorial.instruments.memory import LiveMemory, Traffic


def test_views_and_new_memory_move_nothing():
    x = torch.ones(6, 4)
    with Traffic() as counted:
        torch.empty_like(x), x.new_empty(3), x.mT, x[2:4], x.expand(5, 6, 4), x.view(24)
    assert (counted.operations, counted.bytes) == (0, 0)


def test_an_operation_reads_its_inputs_and_writes_its_results():
    a, b = torch.ones(6, 4), torch.ones(4, 5)
    with Traffic() as counted:
        a @ b
    assert (counted.operations, counted.bytes) == (1, 4 * (24 + 20 + 30))
    heads = torch.ones(2, 3, 6, 4)
    with Traffic() as counted:  # a bmm, whose result an `_unsafe_view` gives its shape
        heads @ heads.mT
    assert (counted.operations, counted.bytes) == (1, 4 * 6 * (24 + 24 + 36))
    with Traffic() as counted:
        a[:2].add_(1)
    assert (counted.operations, counted.bytes) == (1, 4 * (8 + 8))
    with Traffic() as counted:
        a.double().max(dim=0)  # values, and int64 indices
    assert counted.bytes == (96 + 192) + (192 + 32 + 32)


def test_dense_attention_moves_its_matrix_many_times():
    n, d = 32, 4
    q, k, v = torch.ones(3, n, d)
    keep = torch.ones(n, n, dtype=torch.bool)
    with Traffic() as counted:
        at.attention(q, k, v, keep)
    matrices = 1 + 2 + 2 + 2 + 2 + 1  # product, scale, fill, softmax, fill, product
    masks = 2 * (2 + 1)  # twice: its negation, and filling by it
    # For k and for v: which keys are kept at all, a zero, and zeros for the others.
    unkept = 2 * ((n * n + n) + 4 + (n + 4 + 4 * 2 * n * d))
    assert counted.operations == 6 + 2 + 2 * 3
    whole = 4 * (matrices * n * n + 4 * n * d) + masks * n * n
    assert counted.bytes == whole + unkept


def test_what_computes_is_an_operation_and_no_view_is():
    x = torch.ones(4, 4)
    with Traffic() as calls:
        y = (x @ x).view(2, 8)[1:].T
        torch.empty(3)
        y.add_(1)
    assert calls.operations == 2


def test_neither_reshaping_nor_questions_about_types_are_operations():
    q = torch.ones(1, 1, 8, 4)
    with Traffic() as calls:
        q @ q.mT  # bmm, and an _unsafe_view of its result
        torch.promote_types(q.dtype, torch.float64)
        torch.softmax(q, -1, out=torch.empty_like(q))  # writes into what is there
    assert calls.operations == 2


def test_live_memory_follows_what_is_alive():
    with LiveMemory() as memory:
        a = torch.zeros(100)
        b = a + 1
        assert memory.live == 800
        view = b.view(10, 10)[2:]
        del b
        assert memory.live == 800, "a view keeps its storage alive"
        view.add_(1)
        del view
        assert (memory.live, memory.peak) == (400, 800)
        memory.reset_peak()
        assert memory.peak == 400
    del a
    assert memory.live == 0


def test_live_memory_of_a_backward_pass_returns_to_its_start():
    with LiveMemory() as memory:
        x = torch.ones(100, requires_grad=True)
        before = memory.live
        x.exp().sin().sum().backward()
        assert memory.live == before + x.grad.nbytes
        assert memory.peak > memory.live
