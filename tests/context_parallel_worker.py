"""One rank of test_context_parallel: `context_parallel_worker.py RANK RANKS DIR`.

Runs all cases beside the other ranks and writes what it found to DIR/RANK.json,
then loses the last rank, and writes what happened to DIR/RANK.lost.
"""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
import torch.distributed as dist

import attn_tutorial as at
from attn_tutorial.backends import context_parallel
from attn_tutorial.backends.context_parallel import (
    context_local_attention,
    context_sparse_attention,
)
from attn_tutorial.backends.exchange import SentBytes
from attn_tutorial.backends.ring import all_gather_attention, ring_attention

LENGTHS = {
    2: [[6, 6], [7, 4], [1, 11], [12, 0], [0, 9]],
    4: [[5, 5, 5, 5], [8, 1, 3, 6], [6, 0, 1, 9], [0, 0, 7, 0], [0, 0, 0, 0]],
}
SETTINGS = [{"window": w} for w in (0, 1, 3, 6, 50, (0, 4), (7, 2))]
SETTINGS += [{"block_size": b} for b in (1, 3, 4, 50)]
OPTIONS = ("causal", "overlap", "padding", "return_lse", "shared")
WAYS = [
    dict(zip(OPTIONS, way, strict=True))
    for way in (
        (False, False, 0, False, False),
        (True, False, 4, True, False),
        (False, True, 4, False, True),
        (True, True, 0, True, True),
    )
]
CASES = {
    ranks: [
        (lengths, setting | way)
        for lengths in shards
        for setting in SETTINGS
        for way in WAYS
    ]
    for ranks, shards in LENGTHS.items()
}
D, D_V, HEADS = 4, 5, (2, 3)
GIVES_UP = timedelta(seconds=5)
PATTERN = ("window", "block_size", "causal", "key_keep")


def random_inputs(n: int, shared: bool = False) -> list[torch.Tensor]:
    """Whole q, k, v and the output's gradient: the same on all ranks."""
    generator = torch.Generator().manual_seed(n)
    options = {"generator": generator, "dtype": torch.float64}
    few = (HEADS[0], 1) if shared else HEADS
    sizes = (HEADS, D), (few, D), (few, D_V), (HEADS, D_V)
    return [torch.randn(*heads, n, d, **options) for heads, d in sizes]


def random_padding(n: int, padding: int, shared: bool) -> torch.Tensor:
    """A mask of all keys: one for all heads, or one for each text."""
    keep = torch.ones(2, 1, n, dtype=torch.bool)
    keep[0, :, 1 : 1 + padding] = False
    keep[1, :, :padding] = False
    return keep if shared else keep[0, 0]


def kept(n: int, *, window=None, block_size=None, causal=False, key_keep=None):
    """The mask of all pairs, written out by hand."""
    i, j = torch.arange(n)[:, None], torch.arange(n)
    if window is not None:
        left, right = window if isinstance(window, tuple) else (window, window)
        keep = (j >= i - left) & (j <= i + right)
    else:
        keep = (i // block_size - j // block_size).abs() <= 1
    keep = keep & (j <= i) if causal else keep
    return keep if key_keep is None else keep & key_keep[..., None, :]


def dense(q, k, v, **pattern):
    """The reference on one process: n x n."""
    return at.attention(q, k, v, kept(q.shape[-2], **pattern))


def dense_lse(q, k, **pattern):
    """The log-sum-exp of the kept scores, on one process."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    keep = kept(q.shape[-2], **pattern)
    return scores.masked_fill(~keep, -torch.inf).logsumexp(-1)


def sharded(q, k, v, *, window=None, block_size=None, **options):
    if window is not None:
        return context_local_attention(q, k, v, window, **options)
    return context_sparse_attention(q, k, v, block_size=block_size, **options)


class Rows:
    """Counts the queries that the routines for one device are given."""

    def __init__(self):
        self.rows = 0
        for name in ("local_attention", "sparse_attention"):
            routine = getattr(context_parallel, name)
            setattr(context_parallel, name, partial(self.count, routine))

    def count(self, routine, q, *inputs, **options):
        self.rows += q.shape[-2]
        return routine(q, *inputs, **options)


ROWS = Rows()


class Meter:
    """Counts the bytes that this rank gives to all_to_all_single for other ranks."""

    def __init__(self):
        self.bytes, self.send = 0, dist.all_to_all_single
        dist.all_to_all_single = self

    def __call__(self, output, x, received, sent, group=None, async_op=False):
        rank = dist.get_rank(group)
        assert sent[rank] == received[rank] == 0 and sum(sent) == len(x)
        self.bytes += x.numel() * x.element_size()
        return self.send(output, x, received, sent, group=group, async_op=async_op)

    def read(self) -> int:
        count, self.bytes = self.bytes, 0
        return count


def part(x: torch.Tensor, lengths: list[int], rank: int) -> torch.Tensor:
    return x.split(lengths, -2)[rank].clone()


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).nan_to_num(nan=9e9).abs().max().item() if a.numel() else 0.0


def lse_error(a: torch.Tensor, b: torch.Tensor) -> float:
    assert torch.equal(a == -torch.inf, b == -torch.inf)
    return error(a.nan_to_num(neginf=0), b.nan_to_num(neginf=0))


def total(output, lse, weight) -> torch.Tensor:
    """A number that depends on the output and on the log-sum-exps that are finite."""
    some = (output * weight).sum()
    if lse is None:
        return some
    return some + (lse.masked_fill(lse == -torch.inf, 0) * weight.sum(-1)).sum()


def run_case(lengths, setting, rank, meter, options=MappingProxyType({})) -> dict:
    """One forward and backward pass: errors, bytes, and rows computed."""
    ours = dict(setting) | options
    padding, shared = ours.pop("padding", 0), ours.pop("shared", False)
    *inputs, weight = random_inputs(sum(lengths), shared)
    own = [part(x, lengths, rank) for x in inputs]
    if padding:
        ours["key_keep"] = random_padding(sum(lengths), padding, shared)
    pattern = {x: ours[x] for x in ours if x in PATTERN}
    if padding:  # what stands in padding must not matter
        ours["key_keep"] = keep = ours["key_keep"].split(lengths, -1)[rank]
        for x in own[1:]:
            x.masked_fill_(~keep[..., None], torch.nan)
    whole = [x.clone().requires_grad_() for x in inputs]
    expected, logs = dense(*whole, **pattern), None
    if ours.get("return_lse"):
        logs = dense_lse(*whole[:2], **pattern)
    total(expected, logs, weight).backward()
    own, lse, before = [x.requires_grad_() for x in own], None, ROWS.rows
    with SentBytes() as there:
        output = sharded(*own, **ours)
    forward, errors = meter.read(), {}
    if logs is not None:
        output, lse = output
        errors["lse"] = lse_error(lse, logs.split(lengths, -1)[rank])
    with SentBytes() as back:
        total(output, lse, part(weight, lengths, rank)).backward()
    grads = [part(x.grad, lengths, rank) for x in whole]
    return errors | {
        "output": error(output, part(expected, lengths, rank)),
        "grads": [error(x.grad, g) for x, g in zip(own, grads, strict=True)],
        "forward_bytes": forward,
        "backward_bytes": meter.read(),
        "traffic": [there.bytes, back.bytes],
        "rows": ROWS.rows - before,
    }


def full(lengths, rank, meter, group=None) -> dict:
    """All-gather and ring attention: errors and bytes."""
    *inputs, weight = random_inputs(sum(lengths))
    whole = [x.clone().requires_grad_() for x in inputs]
    expected = at.attention(*whole)
    expected.backward(weight)
    own = [part(x, lengths, rank).requires_grad_() for x in inputs]
    meter.read()
    output = all_gather_attention(*own, group=group)
    forward = meter.read()
    output.backward(part(weight, lengths, rank))
    found = {"bytes": [forward, meter.read()]}
    grads = [part(x.grad, lengths, rank) for x in whole]
    found["grads"] = [error(x.grad, g) for x, g in zip(own, grads, strict=True)]
    with SentBytes() as sent, torch.no_grad():
        ring = ring_attention(*own, lengths=lengths, group=group)
    found["ring bytes"] = sent.bytes
    expected = part(expected, lengths, rank)
    found["outputs"] = [error(x, expected) for x in (output, ring)]
    return found


def two_layers(lengths, rank) -> float:
    """The error of the gradient through a window after blocks, in float64."""
    x = random_inputs(sum(lengths))[0]
    whole, own = x.clone().requires_grad_(), part(x, lengths, rank).requires_grad_()
    y = dense(whole, whole, whole, block_size=3)
    dense(y, y, y, window=2, causal=True).square().sum().backward()
    y = sharded(own, own, own, block_size=3)
    sharded(y, y, y, window=2, causal=True, lengths=lengths).square().sum().backward()
    return error(own.grad, part(whole.grad, lengths, rank))


def backward_twice(lengths, rank) -> dict:
    """A second backward pass adds the same again; one of a backward pass is refused."""
    x = part(random_inputs(sum(lengths))[0], lengths, rank).requires_grad_()
    output = context_local_attention(x, x, x, 3, overlap=True)
    output.square().sum().backward(retain_graph=True)
    once = x.grad.clone()
    output.square().sum().backward(retain_graph=True)
    found = {"twice": error(x.grad, 2 * once)}
    (grad,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    try:
        grad.sum().backward()
    except RuntimeError as refusal:
        found["refusal"] = str(refusal)
    return found


def low_precision(lengths, rank) -> list[float]:
    """Errors in bfloat16, given as such or by autocast of what came from elsewhere."""
    x = random_inputs(sum(lengths))[0].float()
    expected = part(dense(x, x, x, window=3), lengths, rank)
    own = part(x, lengths, rank)
    half = own.bfloat16()
    outputs = [context_local_attention(half, half, half, 3)]
    with torch.autocast("cpu", torch.bfloat16):
        outputs.append(context_local_attention(own, own, own, 3))
    return [error(output.float(), expected) for output in outputs]


def half(lengths, rank) -> list[float]:
    """Relative errors in float16 of full attention with scores above 65,504."""
    q, k, v = (x.half() for x in random_inputs(sum(lengths))[:3])
    q, k = 300 * q, 300 * k
    v = v[..., :1, :, :]  # one head that all share
    expected = part(at.attention(q.double(), k.double(), v.double()), lengths, rank)
    own = [part(x, lengths, rank) for x in (q, k, v)]
    ring = ring_attention(*own)
    outputs = [all_gather_attention(*own), ring]
    with torch.autocast("cpu", torch.bfloat16):  # a ring in float32 stays exact
        single = ring_attention(*(x.float() for x in own))
    assert ring.dtype == torch.float16 and single.dtype == torch.float32
    return [error(x.double(), expected) for x in (*outputs, single)]


def refusals(rank: int, ranks: int) -> list[str]:
    """What the ranks say to wrong calls."""
    x, keep = torch.ones(3, 2, requires_grad=True), torch.ones(3, dtype=torch.bool)
    calls = [
        lambda: context_local_attention(x, x, x, 1 + rank),
        lambda: context_local_attention(x, x, x, (2, rank)),
        lambda: context_sparse_attention(x, x, x, block_size=2, causal=rank == 0),
        lambda: context_local_attention(x, x.detach() if rank else x, x.detach(), 1),
        lambda: context_local_attention(x, x, x, 1, lengths=[3]),
        lambda: context_local_attention(x, x, x, 1, lengths=[4] * ranks),
        lambda: context_local_attention(x, x, x, 1, key_keep=None if rank else keep),
        lambda: context_local_attention(x, x, x, 1, key_keep=keep[:2]),
        lambda: ring_attention(x, x, x),
        lambda: ring_attention(x.detach(), x.detach(), x),
    ]
    said = []
    for call in calls:
        try:
            said.append(str(call().shape))
        except ValueError as refusal:
            said.append(str(refusal))
    return said


def lose_a_rank(rank: int, ranks: int) -> dict:
    """The last rank is killed before its backward pass, or stopped before a forward."""
    group = dist.new_group(timeout=GIVES_UP)
    x = torch.ones(4, 2, requires_grad=True)
    last = rank == ranks - 1
    if ranks == 2:
        output = context_local_attention(x, x, x, 1, group=group)
    start = time.monotonic()
    if last:
        os.kill(os.getpid(), signal.SIGKILL if ranks == 2 else signal.SIGSTOP)
    try:
        if ranks == 2:
            output.sum().backward()
        else:
            context_local_attention(x, x, x, 1, lengths=[4] * ranks, group=group)
    except RuntimeError as failure:
        return {"error": str(failure), "seconds": time.monotonic() - start}
    return {"error": None, "seconds": time.monotonic() - start}


def findings(rank: int, ranks: int) -> dict:
    meter = Meter()
    uneven = LENGTHS[ranks][1]
    halves = [dist.new_group([r, r + 1]) for r in range(0, ranks, 2)]
    pair = {"group": halves[rank // 2], "lengths": [4, 5]}
    found = {
        "cases": [run_case(*case, rank, meter) for case in CASES[ranks]],
        "lengths given": run_case(
            uneven, {"window": 3}, rank, meter, {"lengths": tuple(uneven)}
        ),
        "group": run_case([4, 5], {"window": 3}, rank % 2, meter, pair),
        "full in a group": full([4, 5], rank % 2, meter, pair["group"]),
        "two layers": two_layers(uneven, rank),
        "backward twice": backward_twice(uneven, rank),
        "low precision": low_precision(uneven, rank),
        "half": half(uneven, rank),
        "refusals": refusals(rank, ranks),
        "full": [full(lengths, rank, meter) for lengths in LENGTHS[ranks]],
    }
    try:
        context_local_attention(*[torch.ones(2, 2)] * 3, 1, group=halves[0])
    except ValueError as refusal:
        found["outside"] = str(refusal)
    return found


def main(rank: int, ranks: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), ranks)
    options = {"rank": rank, "world_size": ranks, "timeout": timedelta(seconds=60)}
    dist.init_process_group("gloo", store=store, **options)
    (folder / f"{rank}.json").write_text(json.dumps(findings(rank, ranks)))
    (folder / f"{rank}.lost").write_text(json.dumps(lose_a_rank(rank, ranks)))
    os._exit(0)  # there is no orderly way out of a group that has lost a rank


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
