"""What `Traffic` counts, against sizes added up by hand."""

import torch

import attn_tutorial as at
from attn_tutorial.memory import Traffic


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
    assert counted.operations == 6 + 2
    assert counted.bytes == 4 * (matrices * n * n + 4 * n * d) + masks * n * n
