"""Context parallelism on real processes: start them, compare with one, count the bytes.

As one of several processes that ``torchrun`` starts, here two on this machine::

    torchrun --standalone --nproc-per-node 2 -m attn_tutorial.backends.context_run \
        --tokens 4096 --window 64

Every rank builds the same random sequence, computes it whole on its own, then its
shard of it with the others, and compares outputs and gradients; rank 0 prints a table.
From Python, ``launch`` starts the same program without torchrun, waits for it and
returns what it found, and ``lose_a_rank`` does so with a rank that is lost on purpose.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import TextIO

import torch
import torch.distributed as dist
from torch import Tensor

from attn_tutorial.backends.context_parallel import (
    context_local_attention,
    context_sparse_attention,
)
from attn_tutorial.backends.exchange import SentBytes
from attn_tutorial.backends.ring import all_gather_attention, ring_attention
from attn_tutorial.dense import attention
from attn_tutorial.local import local_attention
from attn_tutorial.sparse import sparse_attention

__all__ = ["Call", "launch", "lose_a_rank", "main", "run_call"]

TOGETHER = {
    "local": context_local_attention,
    "sparse": context_sparse_attention,
    "all_gather": all_gather_attention,
    "ring": ring_attention,
}
ALONE = {
    "local": local_attention,
    "sparse": sparse_attention,
    "all_gather": attention,
    "ring": attention,
}
LOST = {"killed": "SIGKILL", "stopped": "SIGSTOP"}


@dataclass(frozen=True)
class Call:
    """One attention call to measure.

    Attributes:
        method: "local", "sparse", "all_gather" or "ring".
        lengths: Tokens of each rank.
        settings: Arguments of the method, such as {"window": 64, "causal": True} or
            {"window": [64, 0]}; with "overlap", the ranks compute while the halo
            travels.
        padding: So many tokens at the end are padding.
        heads: Number of heads, h.
        d: Width of queries, keys and values of a head.
    """

    method: str
    lengths: Sequence[int]
    settings: dict
    padding: int = 0
    heads: int = 2
    d: int = 16

    def __post_init__(self) -> None:
        if self.method not in TOGETHER:
            known = ", ".join(TOGETHER)
            raise ValueError(f"method must be one of {known}, got {self.method!r}")

    @property
    def numbers(self) -> int:
        """Numbers in a token's keys and values, and key_keep where there is padding.

        >>> Call("local", [4, 4], {"window": 1}, heads=2, d=16).numbers
        64
        """
        return self.heads * (2 * self.d + bool(self.padding))


def run_call(case: Call) -> dict:
    """Run a case beside the other ranks of the group, in float64.

    Returns:
        The largest difference of the output and of the gradients of q, k and v from
        those of this process alone, and the bytes sent forward and backward.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (4, case.heads, sum(case.lengths), case.d)
    *whole, weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    keep = torch.arange(shape[2]) < shape[2] - case.padding
    alone = {x: y for x, y in case.settings.items() if x != "overlap"}
    padded = {"key_keep": keep} if case.padding else {}
    _, expected = _run(ALONE[case.method], whole, weight, case, alone | padded)

    own = [_shard(x, case) for x in whole]
    padded = {name: _shard(x[:, None], case)[:, 0] for name, x in padded.items()}
    together = {"lengths": case.lengths} | case.settings | padded
    sent, found = _run(TOGETHER[case.method], own, _shard(weight, case), case, together)
    pairs = zip(found, expected, strict=True)
    output, *grads = (_error(x, _shard(y, case)) for x, y in pairs)
    report = {"rank": dist.get_rank(), "tokens": own[0].shape[-2], "output": output}
    report["gradient"] = max(grads, default=None)
    return report | {"forward_bytes": sent[0], "backward_bytes": sent[1]}


def _run(function, inputs, weight, case, settings) -> tuple[list[int], list[Tensor]]:
    """Bytes sent and results, output and gradients, of a forward and backward pass."""
    backward = case.method != "ring"
    inputs = [x.clone().requires_grad_(backward) for x in inputs]
    with SentBytes() as there:
        output = function(*inputs, **settings)
    with SentBytes() as back:
        if backward:
            output.backward(weight)
    grads = [x.grad for x in inputs if backward]
    return [there.bytes, back.bytes], [output.detach(), *grads]


def _shard(x: Tensor, case: Call) -> Tensor:
    """This rank's tokens of x, (..., n, d)."""
    return x.split(list(case.lengths), -2)[dist.get_rank()]


def _error(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item() if a.numel() else 0.0


def launch(ranks: int, cases: Sequence[Call], timeout: float = 120) -> list[list]:
    """Measure cases on processes of this machine, one for each rank.

    Args:
        ranks: How many processes.
        cases: What they measure, one after the other.
        timeout: Seconds after which a process is given up.

    Returns:
        For each case the reports of `run_call`, in the order of the ranks.

    Raises:
        RuntimeError: If a process fails or is not done in time; with what all wrote.
    """
    todo = json.dumps([asdict(case) for case in cases])
    command = ["--cases", todo, "--timeout", str(timeout)]
    reports = _run_ranks(ranks, ranks, command, timeout)
    return [list(row) for row in zip(*reports, strict=True)]


def lose_a_rank(ranks: int, how: str, timeout: float = 5) -> list[dict]:
    """Lose the last of some processes just before a call that all have to make.

    Args:
        ranks: How many processes.
        how: "killed", or "stopped": it is still there but never answers.
        timeout: The group's timeout, in seconds.

    Returns:
        How the call ended for each of the others: {"error", "seconds"}.

    Raises:
        ValueError: If how is unknown.
    """
    if how not in LOST:
        raise ValueError(f"how must be one of {', '.join(LOST)}, got {how!r}")
    command = ["--lose", how, "--timeout", str(timeout)]
    return _run_ranks(ranks, ranks - 1, command, 60 + 2 * timeout)


def _run_ranks(ranks: int, wait_for: int, command: list[str], timeout: float) -> list:
    """Start processes, wait for the first ones' reports, end all."""
    # Where the processes find each other: a small server, at a port that is free.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryFile("w+") as log:
        start = partial(_start, ranks=ranks, port=store.port, command=command, log=log)
        processes = [start(rank) for rank in range(ranks)]
        try:
            return [_report(process, timeout) for process in processes[:wait_for]]
        except RuntimeError as failure:
            log.seek(0)
            raise RuntimeError(f"{failure}:\n{log.read()}") from failure
        finally:
            for process in processes:
                process.kill()
                process.communicate()


def _start(
    rank: int, ranks: int, port: int, command: list[str], log: TextIO
) -> subprocess.Popen:
    """Start one rank with the environment that torchrun would give it."""
    names = [name for _, name in socket.if_nameindex()]
    loopback = next((name for name in names if name.startswith("lo")), names[0])
    env = os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": loopback,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    program = [sys.executable, "-m", "attn_tutorial.backends.context_run", *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": log, "text": True}
    return subprocess.Popen(program, env=env, **pipes)


def _report(process: subprocess.Popen, timeout: float) -> list | dict:
    """Wait for a process and read the last line that it printed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"a rank is not done after {timeout} seconds") from None
    if process.returncode:
        raise RuntimeError("a rank failed")
    return json.loads(output.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Be one rank: of torchrun, or of `launch` or `lose_a_rank`."""
    options = _parser().parse_args(arguments)
    patience = timedelta(seconds=options.timeout)
    dist.init_process_group("gloo", timeout=max(patience, timedelta(seconds=60)))
    if options.lose:
        print(json.dumps(_get_lost(options.lose, patience)), flush=True)
        os._exit(0)  # there is no orderly way out of a group that has lost a rank
    if options.cases:
        cases = [Call(**case) for case in json.loads(options.cases)]
        print(json.dumps([run_call(case) for case in cases]), flush=True)
    else:
        _print_table(_case(options, dist.get_world_size()))
    dist.destroy_process_group()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchrun --standalone --nproc-per-node N "
        "-m attn_tutorial.backends.context_run",
        description="Compare attention over N processes with one process.",
    )
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--tokens", default=1024, help="in all", **number)
    parser.add_argument("--lengths", nargs="+", help="of the shards instead", **number)
    parser.add_argument("--window", default=64, help="w", **number)
    parser.add_argument("--block-size", help="b: blocks, no window", **number)
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--overlap", action="store_true", help="compute meanwhile")
    parser.add_argument("--method", choices=("all_gather", "ring"), help="full instead")
    parser.add_argument("--padding", default=0, help="tokens at the end", **number)
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds, for the group"
    )
    for name in ("--cases", "--lose"):  # from `launch` and `lose_a_rank`
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser


def _case(options: argparse.Namespace, ranks: int) -> Call:
    lengths = options.lengths
    if lengths is None:
        ends = [options.tokens * rank // ranks for rank in range(ranks + 1)]
        lengths = [b - a for a, b in pairwise(ends)]
    if options.method:
        return Call(options.method, lengths, {})
    method, settings = "local", {"window": options.window}
    if options.block_size is not None:
        method, settings = "sparse", {"block_size": options.block_size}
    settings |= {"causal": options.causal, "overlap": options.overlap}
    return Call(method, lengths, settings, options.padding)


def _print_table(case: Call) -> None:
    """Measure a case; rank 0 prints what all ranks found, all of them agree or fail."""
    every = [{} for _ in case.lengths]
    dist.all_gather_object(every, run_call(case))
    if dist.get_rank() == 0:
        print(f"{case.method} {case.settings}, float64, on {len(every)} processes")
        print(
            "rank  tokens  output off by  gradient off by  bytes sent: forward backward"
        )
        for row in every:
            print(
                f"{row['rank']:4}  {row['tokens']:6}  {row['output']:13.1e}  "
                f"{row['gradient'] or 0:15.1e}  {row['forward_bytes']:19,} "
                f"{row['backward_bytes']:8,}"
            )
    worst = max(max(row["output"], row["gradient"] or 0) for row in every)
    if worst > 1e-9:
        raise SystemExit(f"the processes are off by {worst:.1e}")


def _get_lost(how: str, patience: timedelta) -> dict:
    """Make a call without the last rank, and report how it ends."""
    group = dist.new_group(timeout=patience)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    x, error = torch.ones(4, 2), None
    dist.barrier()
    start = time.monotonic()
    if rank == ranks - 1:
        os.kill(os.getpid(), getattr(signal, LOST[how]))
    try:
        context_local_attention(x, x, x, 1, lengths=[4] * ranks, group=group)
    except RuntimeError as failure:
        error = str(failure)
    return {"error": error, "seconds": time.monotonic() - start}


if __name__ == "__main__":
    main()
