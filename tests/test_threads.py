"""Heads over threads: the same numbers, and the caller's settings stay."""

import os
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import attn_tutorial as at
from attn_tutorial import threads

SHAPES = {
    "heads": ((1, 4, 70, 8), (1, 4, 70, 8)),
    "odd sizes": ((3, 5, 33, 8), (3, 5, 33, 8)),
    "shared keys": ((4, 3, 40, 8), (4, 1, 40, 8)),
}


@pytest.fixture
def two(monkeypatch):
    """Two threads, and nothing too small for them; counts what they were given."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "LEAST_NUMBERS", 0)
    given = []
    monkeypatch.setattr(threads, "portions", counted(threads.portions, given))
    yield given
    torch.set_num_threads(before)


def counted(function, given):
    def count(*arguments):
        parts = function(*arguments)
        given.extend(parts)
        return parts

    return count


def results(q_shape, k_shape):
    """Output, log-sum-exp and all gradients, with NaN where keys are padding."""
    torch.manual_seed(0)
    shapes = q_shape, k_shape, (*k_shape[:-1], 5)
    q, k, v = (torch.randn(s, dtype=torch.float64) for s in shapes)
    keep = torch.rand(k_shape[0], 1, k_shape[2]) > 0.2
    k.masked_fill_(~keep[..., None], torch.nan)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    out, lse = at.local_attention(q, k, v, 7, key_keep=keep, return_lse=True)
    (out.square().sum() + lse[lse.isfinite()].sum()).backward()
    return out, lse, q.grad, k.grad, v.grad


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_threads_change_no_number(shapes, two, monkeypatch):
    together = results(*shapes)
    assert len(two) == 4  # two portions for each of the two passes
    monkeypatch.setattr(threads, "LEAST_NUMBERS", 2**60)
    for x, y in zip(together, results(*shapes), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)
    assert len(two) == 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_mode_of_the_caller_holds(mode, two):
    with mode():
        q = torch.randn(4, 50, 8)
        out = at.local_attention(q, q, q, 3)
        out += 1
    assert two
    assert out.is_inference() == (mode is torch.inference_mode)
    assert not out.requires_grad


def test_settings_of_the_caller_stay(two):
    q = torch.randn(4, 50, 8)
    at.local_attention(q, q, q, 3)
    assert torch.get_num_threads() == 2
    counts = threads.workers(2).map(lambda _: torch.get_num_threads(), range(4))
    assert set(counts) == {1}
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


class Operations(TorchDispatchMode):
    """Writes down the name of each operation."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_what_follows_operations_misses_none(two):
    q = torch.randn(4, 50, 8)
    with Operations() as seen:
        at.local_attention(q, q, q, 3)
    assert not two
    assert any("scaled_dot_product" in name for name in seen.names)


def test_a_profile_misses_none(two):
    q = torch.randn(4, 50, 8)
    with torch.profiler.profile() as profile:
        at.local_attention(q, q, q, 3)
    assert not two
    assert any("scaled_dot_product" in e.key for e in profile.key_averages())


@pytest.mark.parametrize("heads", [1, 3, 5])
def test_too_few_heads_stay_together(heads, two):
    """Of 5 heads, one thread would have 3: five sixths are busy, which is enough."""
    q = torch.randn(heads, 50, 8)
    at.local_attention(q, q, q, 3)
    assert len(two) == (2 if heads == 5 else 0)


def test_small_inputs_stay_together(two, monkeypatch):
    q = torch.randn(4, 64, 8)
    monkeypatch.setattr(threads, "LEAST_NUMBERS", q.numel() // 2 + 1)
    at.local_attention(q, q, q, 3)
    assert not two
    monkeypatch.setattr(threads, "LEAST_NUMBERS", q.numel() // 2)
    at.local_attention(q, q, q, 3)
    assert len(two) == 2


def test_an_error_in_a_thread_is_raised(two):
    def fails(x, into):
        raise RuntimeError("no")

    x = torch.randn(4, 2)
    with pytest.raises(RuntimeError, match="no"):
        threads.over_heads(fails, lambda: (x,), (x,))


def test_several_callers_share_the_threads(two):
    q = torch.randn(4, 200, 8)
    expected = at.local_attention(q, q, q, 9)
    found = [None] * 8

    def call(place):
        found[place] = at.local_attention(q, q, q, 9)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(torch.equal(x, expected) for x in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(two):
    """The pool is inherited without its threads: waiting for them would never end."""
    threads.workers(2)
    child = os.fork()
    if child == 0:
        answers = list(threads.workers(2).map(lambda x: x + 1, range(3)))
        os._exit(0 if answers == [1, 2, 3] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
