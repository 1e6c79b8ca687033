"""Measure one case: check every contender, then time them in interleaved rounds."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
from torch import Tensor

import attn_tutorial as at
from attn_tutorial.benchmark import clocks, protocol, record
from attn_tutorial.benchmark.cases import Case, Plan
from attn_tutorial.benchmark.contenders import CONTENDERS, Contender, Unavailable
from attn_tutorial.benchmark.protocol import MATMUL, Settings, Tell, silent

__all__ = [
    "TOLERANCE",
    "ceilings",
    "largest_error",
    "measure_case",
    "new_record",
    "peaks_in_child",
    "work",
]

TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 4e-2}


def measure_case(
    plan: Plan, settings: Settings, clock: clocks.Clock, device: str = "cpu",
    ceiling: float = 0.0, tell: Tell = silent,
) -> dict:  # fmt: skip
    """Measure one case.

    Args:
        plan: The case, and who competes.
        settings: How long to measure.
        clock: What measures the seconds.
        device: "cpu" or "cuda".
        ceiling: Operations per second that nobody exceeds by much; a contender that
            would need more than `settings.limit` at this rate is not tried.
        tell: Is told what is being done.

    Returns:
        The case as the schema of records has it.
    """
    torch.compiler.reset()  # it gives up compiling after a few cases
    runs, results, not_run = ready(plan, settings, device, ceiling, tell)
    products, flops = large_product(plan.case.dtype, device)
    timings, disturbance = rounds({**runs, MATMUL: products}, settings, clock, tell)
    peaks = cuda_peaks(runs) if settings.memory and device == "cuda" else {}
    runs.clear()  # and with them the inputs, before a child makes its own
    if settings.memory and plan.memory and device == "cpu":
        peaks = peaks_in_child(plan.case, results, tell)
    for name, result in results.items():
        result |= timings[name] | {"peak_bytes": peaks.get(name)}
    return {
        "case": asdict(plan.case),
        "sweeps": list(plan.sweeps),
        "useful_flops": plan.case.useful_flops,
        "compulsory_bytes": plan.case.compulsory_bytes,
        "disturbance": disturbance,
        "matmul": {"flops": flops, **timings[MATMUL]},
        "results": list(results.values()),
        "not_run": not_run,
    }


def rounds(
    runs: dict[str, Callable], settings: Settings, clock: clocks.Clock, tell: Tell
) -> tuple[dict[str, dict], dict]:
    """What a record holds of each contender's rounds, and of what disturbed them."""
    samples, disturbance = protocol.undisturbed(runs, settings, clock, tell)
    tries = protocol.steadied(runs, samples, settings, clock, tell)
    timings = {
        name: protocol.timing(samples[name], tries[name], settings, clock.name)
        for name in runs
    }
    return timings, disturbance


def cuda_peaks(runs: dict[str, Callable]) -> dict[str, int]:
    """Peak memory of each call on a CUDA device."""
    return {name: clocks.cuda_peak(run) for name, run in runs.items()}


# Before the rounds


def ready(
    plan: Plan, settings: Settings, device: str, ceiling: float, tell: Tell
) -> tuple[dict[str, Callable], dict[str, dict], dict[str, str]]:
    """Build and check: what to run, what is known of it, and who cannot run."""
    tensors, runs, results, not_run = plan.case.inputs(device), {}, {}, {}
    known = {}  # what contenders of one kind share
    for name, one in CONTENDERS.items():
        if plan.contenders is not None and name not in plan.contenders:
            continue
        tell(f"checking {name}")
        try:
            refuse_hopeless(one, plan.case, settings.limit, ceiling)
            attend = one.make(plan.case, device)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other packages' own affairs
                error = checked(one, attend, plan.case, tensors, settings.limit, known)
        except Unavailable as reason:
            not_run[name] = str(reason)
        except Exception as failure:
            not_run[name] = f"{type(failure).__name__}: {failure}"[:300]
        else:
            runs[name] = call(attend, tensors, plan.case.backward)
            results[name] = {
                "name": name,
                "computes": one.computes,
                "executed_flops": one.executed_flops(plan.case),
                "largest_error": error,
            }
    return runs, results, not_run


def call(attend: Callable, tensors: tuple, backward: bool) -> Callable:
    """Return a call without arguments."""
    return lambda: work(attend, tensors, backward)


def refuse_hopeless(one: Contender, case: Case, limit: float, ceiling: float) -> None:
    """Refuse who would exceed the limit even at the rate of large products."""
    least = one.executed_flops(case) / ceiling if ceiling else 0
    if least > limit:
        raise Unavailable(
            f"a call would take at least {least:.0f} s, the limit is {limit:g} s"
        )


def checked(
    one: Contender, attend: Callable, case: Case, tensors: tuple, limit: float,
    known: dict,
) -> float:  # fmt: skip
    """Warm a contender up and compare it with the reference; its largest error."""
    first = time.perf_counter()
    results = work(attend, tensors, case.backward)
    wait_for(tensors[0].device)
    if time.perf_counter() - first > limit:  # was that compiling, or is it slow?
        first = time.perf_counter()
        results = work(attend, tensors, case.backward)
        wait_for(tensors[0].device)
        if time.perf_counter() - first > limit:
            raise Unavailable(f"one call takes longer than the limit of {limit:g} s")
    error = largest_error(one, case, results, tensors, known)
    # What comes back to a shared key is a sum over as many heads.
    if not error < TOLERANCE[case.dtype] * math.sqrt(case.group):
        raise Unavailable(f"wrong: differs from the reference by {error:.1e}")
    return error


def wait_for(device: torch.device) -> None:
    """Wait until a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def work(attend: Callable, tensors: tuple, backward: bool) -> list[Tensor]:
    """Return the output and, if asked for, the gradients of q, k and v."""
    q, k, v, grad = tensors
    output = attend(q, k, v)
    grads = torch.autograd.grad(output, (q, k, v), grad) if backward else ()
    return [output.detach(), *grads]


# The reference: float64, on a part of the rows


def largest_error(
    one: Contender, case: Case, results: list[Tensor], tensors: tuple,
    known: dict | None = None,
) -> float:  # fmt: skip
    """Compare with float64: output and dq on some rows, dk and dv of some keys.

    A key's gradients need all the queries that meet it. Where these are too many
    (long sequences with large windows), dk and dv are not compared.

    Args:
        one: The contender.
        case: What it computed.
        results: Its output and gradients.
        tensors: q, k, v and the gradient of the output.
        known: Keeps what is expected of contenders that compute the same.
    """
    known, kind = {} if known is None else known, (one.computes, one.edges)
    if kind not in known:
        known[kind] = expectation(one, case, tensors)
    rows, keys, expected = known[kind]
    parts = zip(results, (rows, rows, keys, keys), strict=False)
    found = [x.index_select(2, part) for x, part in parts]
    return max(
        (a - b).abs().max().item()
        for a, b in zip(expected, found, strict=True)
        if a.numel()
    )


def expectation(
    one: Contender, case: Case, tensors: tuple
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Rows and keys that are compared, and the float64 results there."""
    pattern = case.pattern
    if one.computes == "full":
        pattern = Case("full", case.n, causal=case.causal).pattern
    rows, keys = checked_positions(case, pattern, one.edges, tensors[0].device)
    positions = torch.arange(case.n, device=rows.device)
    met = kept(pattern, rows, positions).any(0).nonzero()[:, 0]
    expected = reference(case, pattern, tensors, rows, met)
    inside = torch.searchsorted(met, keys)
    expected[2:] = [x.index_select(2, inside) for x in expected[2:]]
    return rows, keys, expected


def kept(pattern: at.patterns.Pattern, i: Tensor, j: Tensor) -> Tensor:
    """Mask of the pattern for some queries and keys."""
    return pattern(None, None, i[:, None], j).expand(len(i), len(j))


def checked_positions(
    case: Case, pattern: at.patterns.Pattern, edges: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows that are compared, and keys whose gradients are."""
    margin = 0 if edges else min(case.size, (case.n - 1) // 2)
    first, last = margin, case.n - 1 - margin
    rows = torch.linspace(first, last, 12, device=device).long()
    if not case.backward:
        return rows.unique(), rows[:0]
    keys = torch.tensor([first, case.n // 2, last], device=device).unique()
    if not edges:
        keys = keys[:0]
    positions = torch.arange(case.n, device=device)
    meeting = kept(pattern, positions, keys).any(1).nonzero()[:, 0]
    scores = len(meeting) * min(case.n, 2 * len(meeting)) * case.heads
    if scores > 2**26:
        return rows.unique(), rows[:0]
    return torch.cat([rows, meeting]).unique(), keys


def reference(
    case: Case, pattern: at.patterns.Pattern, tensors: tuple, rows: Tensor, met: Tensor
) -> list[Tensor]:
    """Output and gradients in float64 from some rows, over all keys that they meet."""
    q, k, v, grad = (
        x.detach().index_select(2, part).double().requires_grad_(case.backward)
        for x, part in zip(tensors, (rows, met, met, rows), strict=True)
    )
    shared = (x.repeat_interleave(case.group, 1) for x in (k, v))
    output = at.attention(q, *shared, kept(pattern, rows, met))
    if not case.backward:
        return [output]
    return [output.detach(), *torch.autograd.grad(output, (q, k, v), grad)]


# The machine's own limits


def large_product(dtype: str, device: str, repeats: int = 2) -> tuple[Callable, int]:
    """Products of two large matrices, and their operations."""
    size = 8192 if device == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device).to(getattr(torch, dtype))

    def products() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    return products, repeats * 2 * size**3


def large_copy(dtype: str, device: str) -> tuple[Callable, int]:
    """A copy that fits into no cache, and its bytes read and written."""
    numbers = 2**28 if device == "cuda" else 2**27
    source = torch.ones(numbers, dtype=getattr(torch, dtype), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.nbytes


def new_record(
    suite: str,
    settings: Settings,
    clock: clocks.Clock,
    device: str,
    tell: Tell = silent,
) -> dict:
    """A record without cases: how and where, and the machine's limits."""
    return {
        "schema": record.SCHEMA_VERSION,
        "suite": suite,
        "settings": asdict(settings),
        "provenance": record.provenance(device, clock.name),
        "ceilings": ceilings(settings, clock, device, tell),
        "cases": [],
    }


def ceilings(
    settings: Settings, clock: clocks.Clock, device: str = "cpu", tell: Tell = silent
) -> dict[str, dict]:
    """Rate of large products and bandwidth of large copies, for each dtype."""
    limits = {}
    for dtype in ("float32", "bfloat16"):
        product, flops = large_product(dtype, device)
        copy, moved = large_copy(dtype, device)
        both = {MATMUL: product, "copy": copy}
        samples, _ = protocol.undisturbed(both, settings, clock, tell)
        kinds = {name: protocol.summaries(samples[name]) for name in both}
        limits[dtype] = {
            MATMUL: {"flops": flops, "seconds": kinds[MATMUL]},
            "copy": {"bytes": moved, "seconds": kinds["copy"]},
        }
    return limits


# Peak memory on a CPU


def peaks_in_child(
    case: Case, names: Iterable[str], tell: Tell = silent
) -> dict[str, int]:
    """Peak memory of calls above their inputs, measured in a process of its own.

    There the C library hands large blocks straight back to the system, so that what
    one call has freed is not taken for free memory by the next. Whoever has not
    answered when the process ends is left out.
    """
    command = [sys.executable, "-m", "attn_tutorial.benchmark", "memory"]
    command += [json.dumps(asdict(case)), *names]
    settings = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    tell("peak memory")
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | settings
    )
    lines = (line.rpartition(": ") for line in done.stdout.splitlines())
    return {name: int(count) for name, _, count in lines if name in CONTENDERS}


def peak_here(case: Case, name: str) -> int:
    """Peak memory of a call in this process, above its inputs."""
    attend, tensors = CONTENDERS[name].make(case, "cpu"), case.inputs()
    return clocks.cpu_peak(call(attend, tensors, case.backward))
