"""Measure the fast routines beside other implementations, and record the result.

    python -m attn_tutorial.benchmark run --out FILE     measure, print and record
    python -m attn_tutorial.benchmark run --quick        the same in about a minute
    python -m attn_tutorial.benchmark show FILE          print a record

All contenders of a case run in turn, in random order, round after round, so that what
else the computer does hits all of them alike. Each result is compared with a float64
reference on some rows before anything is timed. A contender that cannot run is
recorded with the reason. Trust the ratios within a case more than the seconds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import attn_tutorial as at
from attn_tutorial.backends.flex import flex_attention

__all__ = ["CONTENDERS", "Case", "Unavailable", "main", "measure", "peak_memory"]


@dataclass(frozen=True)
class Case:
    """What is computed: "local" with window `size`, or "blocks" of `size` tokens."""

    mechanism: str
    n: int
    size: int
    causal: bool = False
    backward: bool = False
    heads: int = 8
    d: int = 64
    dtype: str = "float32"

    @property
    def pattern(self) -> at.patterns.Pattern:
        """The pairs that attend."""
        known = {"local": at.patterns.local, "blocks": at.patterns.adjacent_blocks}
        pattern = known[self.mechanism](self.size)
        return pattern & at.patterns.causal() if self.causal else pattern

    @property
    def flops(self) -> int:
        """Count useful operations, of two products forward and five more backward."""
        forward = at.cost.flops(self.pattern, self.n, self.d, self.heads)
        return forward * 7 // 2 if self.backward else forward

    def inputs(self, seed: int = 0) -> tuple[Tensor, ...]:
        """q, k, v and the gradient of the output, (1, heads, n, d)."""
        generator = torch.Generator().manual_seed(seed)
        shape, dtype = (1, self.heads, self.n, self.d), getattr(torch, self.dtype)
        made = [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(4)]
        return *(x.requires_grad_(self.backward) for x in made[:3]), made[3]

    def __str__(self) -> str:
        kind = {"local": "window", "blocks": "block"}[self.mechanism]
        causal = ", causal" if self.causal else ""
        work = "forward + backward" if self.backward else "forward"
        return f"{self.mechanism}, n = {self.n}, {kind} {self.size}{causal}: {work}"


class Unavailable(Exception):
    """A contender cannot run a case; the message says why."""


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

MEMORY_LIMIT = 8e9  # bytes that a contender may need


def refuse_large_scores(case: Case) -> None:
    """Refuse a case for contenders that hold the scores of all blocks at once.

    They compute three scores a token for each of the window's, and hold about four
    tensors of that size.
    """
    needed = 4 * 4 * case.heads * case.n * 3 * case.size
    if needed > MEMORY_LIMIT:
        raise Unavailable(f"would need about {needed / 1e9:.0f} GB for its scores")


def ours(case: Case) -> Attend:
    """attn_tutorial itself."""
    if case.mechanism == "local":
        return lambda q, k, v: at.local_attention(
            q, k, v, case.size, causal=case.causal
        )
    return lambda q, k, v: at.sparse_attention(
        q, k, v, block_size=case.size, causal=case.causal
    )


def local_attention_package(case: Case) -> Attend:
    """The package local-attention: blocks, and a mask inside them for a window."""
    try:
        from local_attention import LocalAttention
    except ImportError as error:
        raise Unavailable(str(error)) from None
    if case.n % case.size:
        raise Unavailable("needs blocks that divide n")
    refuse_large_scores(case)
    return LocalAttention(
        window_size=case.size,
        causal=case.causal,
        look_backward=1,
        look_forward=0 if case.causal else 1,
        exact_windowsize=case.mechanism == "local",
    )


def longformer_chunks(case: Case) -> Attend:
    """Longformer's sliding chunks, as transformers has them."""
    if case.mechanism != "local" or case.causal:
        raise Unavailable("computes windows to both sides only")
    if case.n % (2 * case.size):
        raise Unavailable("needs 2w to divide n")
    refuse_large_scores(case)
    try:
        from transformers import LongformerConfig
        from transformers.models.longformer import modeling_longformer
    except ImportError as error:
        raise Unavailable(str(error)) from None
    config = LongformerConfig(
        attention_window=[2 * case.size],
        hidden_size=case.heads * case.d,
        num_attention_heads=case.heads,
    )
    layer = modeling_longformer.LongformerSelfAttention(config, layer_id=0)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q / math.sqrt(case.d), k, v))
        scores = layer._sliding_chunks_query_key_matmul(q, k, case.size)
        weights = scores.softmax(-1)
        output = layer._sliding_chunks_matmul_attn_probs_value(weights, v, case.size)
        return output.transpose(1, 2)

    return attend


def flex(block: int) -> Callable[[Case], Attend]:
    """Compiled FlexAttention with a block size."""

    def make(case: Case) -> Attend:
        if case.backward:
            raise Unavailable("FlexAttention has no backward pass on CPU")
        if case.mechanism == "blocks" and block > case.size:
            raise Unavailable("a larger block than the pattern's")
        return lambda q, k, v: flex_attention(q, k, v, case.pattern, block_size=block)

    return make


def masked_sdpa(case: Case) -> Attend:
    """PyTorch's attention with the pattern as an n x n mask."""
    if case.n > 4096:
        raise Unavailable("the mask alone is n * n: measured up to n = 4096")
    keep = at.dense_mask(case.pattern, case.n)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=keep)


CONTENDERS: dict[str, Callable[[Case], Attend]] = {
    "attn_tutorial": ours,
    "local-attention": local_attention_package,
    "longformer chunks": longformer_chunks,
    "flex 32": flex(32),
    "flex 64": flex(64),
    "flex 128": flex(128),
    "sdpa, n x n mask": masked_sdpa,
}


def matmul_flops(size: int = 1024, repeats: int = 2) -> tuple[Callable, int]:
    """The ceiling: a product of two large matrices, and its operations."""
    a, b = torch.randn(size, size), torch.randn(size, size)

    def products() -> None:
        for _ in range(repeats):
            torch.mm(a, b)

    return products, repeats * 2 * size**3


def work(attend: Attend, tensors: tuple[Tensor, ...], backward: bool) -> list[Tensor]:
    """Return the output and, if asked for, the gradients of q, k and v."""
    q, k, v, grad = tensors
    output = attend(q, k, v)
    grads = torch.autograd.grad(output, (q, k, v), grad) if backward else ()
    return [output.detach(), *grads]


def largest_error(case: Case, results: list[Tensor], tensors: tuple) -> float:
    """Compare the output, and the gradient of q, with float64 on some rows."""
    q, k, v, grad = (x.detach().double() for x in tensors)
    rows = torch.linspace(0, case.n - 1, 12).long()
    keep = case.pattern(None, None, rows[:, None], torch.arange(case.n))
    q = q[..., rows, :].requires_grad_()
    expected = [at.attention(q, k, v, keep)]
    if case.backward:
        expected += torch.autograd.grad(expected[0], q, grad[..., rows, :])
    pairs = zip(expected, results, strict=False)
    return max((a - b[..., rows, :]).abs().max().item() for a, b in pairs)


def ready(case: Case, tensors: tuple, limit: float) -> tuple[dict, dict]:
    """Build and check all contenders: those that can run, and why others cannot."""
    runs, notes = {}, {}
    torch.compiler.reset()  # it gives up compiling after a few cases
    for name, make in CONTENDERS.items():
        try:
            attend = make(case)
            work(attend, tensors, case.backward)  # also compiles what compiles itself
            start = time.perf_counter()
            results = work(attend, tensors, case.backward)
            seconds = time.perf_counter() - start
            error = largest_error(case, results, tensors)
            if not error < 1e-3:
                raise Unavailable(f"wrong: differs from the reference by {error:.1e}")
            if seconds > limit:
                raise Unavailable(
                    f"one call took {seconds:.0f} s, the limit is {limit}"
                )
        except Unavailable as reason:
            notes[name] = {"not_run": str(reason)}
        except Exception as failure:
            notes[name] = {"not_run": f"{type(failure).__name__}: {failure}"[:300]}
        else:
            runs[name] = lambda attend=attend: work(attend, tensors, case.backward)
            notes[name] = {"largest_error": error}
    return runs, notes


def seconds_of(run: Callable) -> tuple[float, float]:
    """Wall-clock and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def summary(samples: list[float]) -> dict:
    """Median, quartiles and minimum."""
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"median": middle, "quartiles": [low, high], "minimum": min(samples)}


def measure(case: Case, rounds: int, budget: float, limit: float = 30.0) -> dict:
    """Time all contenders of a case, interleaved; at least three rounds.

    Args:
        case: What is computed.
        rounds: Rounds at most.
        budget: Seconds after which no new round starts.
        limit: Seconds that one call may take; slower contenders are left out.

    Returns:
        The case and a list of results, ready for JSON.
    """
    tensors = case.inputs()
    runs, notes = ready(case, tensors, limit)
    ceiling, ceiling_flops = matmul_flops()
    runs["matmul"], notes["matmul"] = ceiling, {}
    samples = {name: [] for name in runs}
    start = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - start > budget:
            break
        for name in random.sample(list(runs), len(runs)):
            samples[name].append(seconds_of(runs[name]))
    results = []
    for name, note in notes.items():
        result = {"name": name, **note}
        if name in samples:
            wall, processor = zip(*samples[name], strict=True)
            result |= {"rounds": len(wall), "wall": summary(wall)}
            result["processor"] = summary(processor)
            result["flops"] = ceiling_flops if name == "matmul" else case.flops
        results.append(result)
    return {"case": asdict(case), "results": results}


def peak_memory(case: Case, name: str) -> dict:
    """Peak memory of a process of its own that runs a contender once."""
    command = [sys.executable, "-m", "attn_tutorial.benchmark", "memory"]
    command += [json.dumps(asdict(case)), name]
    done = subprocess.run(command, capture_output=True, text=True)
    record = {"case": asdict(case), "name": name}
    if done.returncode:
        return record | {"not_run": done.stderr.strip().splitlines()[-1][:300]}
    return record | json.loads(done.stdout.splitlines()[-1])


def memory_of_this_process(case: Case, name: str) -> dict:
    """Run a contender once; bytes at the peak, and before the first call."""
    unit = 1 if sys.platform == "darwin" else 1024
    tensors, attend = case.inputs(), CONTENDERS[name](case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    results = work(attend, tensors, case.backward)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    one = tensors[0].nbytes
    return {
        "peak_bytes": peak,
        "above_inputs_in_input_tensors": (peak - before) / one,
        "tensors_returned": len(results),
    }


def provenance() -> dict:
    """Where, when and with what the numbers were measured."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    git = subprocess.run(command, capture_output=True, text=True)
    return {
        "processor": processor_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {
            name: version(name) for name in ("local-attention", "transformers")
        },
        "revision": git.stdout.strip() or None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def processor_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """The installed version of a package."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cases(quick: bool) -> Iterator[Case]:
    """The cases of the full record, or a few small ones."""
    lengths = (1024,) if quick else (4096, 16384, 65536)
    for n in lengths:
        for size in (64,) if quick else (64, 128, 256, 512):
            for backward in (False, True):
                yield Case("local", n, size, backward=backward)
                yield Case("local", n, size, causal=True, backward=backward)
                yield Case("blocks", n, size, backward=backward)


def memory_cases(quick: bool) -> Iterator[tuple[Case, str]]:
    """Cases whose peak memory is recorded."""
    for n in (1024,) if quick else (4096, 16384):
        for name in ("attn_tutorial", "local-attention", "longformer chunks"):
            yield Case("local", n, 128, backward=True), name
    if not quick:
        yield Case("local", 262144, 128, backward=True), "attn_tutorial"


def run(quick: bool, out: Path | None, rounds: int, budget: float) -> dict:
    """Measure all cases, print each, and write the record after each."""
    record = {"provenance": provenance(), "cases": [], "memory": []}

    def store() -> None:
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1) + "\n")

    for case in cases(quick):
        record["cases"].append(measure(case, rounds, budget))
        print(table(record["cases"][-1], record["provenance"]["threads"]), flush=True)
        store()
    for case, name in memory_cases(quick):
        record["memory"].append(peak_memory(case, name))
        print(memory_line(record["memory"][-1]), flush=True)
        store()
    return record


def table(measured: dict, threads: int) -> str:
    """One case as text: times, ratios to attn_tutorial, share of the matmul rate.

    With one thread the time is the processor's, which other programs disturb least.
    """
    clock = "processor" if threads == 1 else "wall"
    results = {result["name"]: result for result in measured["results"]}

    def rate(result: dict) -> float:
        return result["flops"] / result[clock]["median"]

    lines = [str(Case(**measured["case"]))]
    for name, result in results.items():
        if "not_run" in result:
            lines.append(f"  {name:18} not run: {result['not_run']}")
            continue
        low, high = (1e3 * x for x in result[clock]["quartiles"])
        line = f"  {name:18} {1e3 * result[clock]['median']:9.1f} ms"
        line += f" [{low:.1f}, {high:.1f}] {rate(result) / 1e9:6.1f} GFLOP/s"
        line += f"  {rate(result) / rate(results['matmul']):4.0%} of matmul"
        if name != "matmul" and "rounds" in results["attn_tutorial"]:
            times = result[clock]["median"]
            line += f"  {times / results['attn_tutorial'][clock]['median']:5.2f}x time"
        lines.append(line)
    return "\n".join(lines)


def memory_line(record: dict) -> str:
    """One record of peak memory as text."""
    text = f"{Case(**record['case'])}: {record['name']}: "
    if "not_run" in record:
        return text + f"not run: {record['not_run']}"
    above = record["above_inputs_in_input_tensors"]
    return text + f"peak {record['peak_bytes'] / 1e9:.2f} GB, {above:.1f} inputs above"


def show(path: Path) -> None:
    """Print a record."""
    record = json.loads(path.read_text())
    for key, value in record["provenance"].items():
        print(f"{key}: {value}")
    for measured in record["cases"]:
        print(table(measured, record["provenance"]["threads"]))
    for line in record["memory"]:
        print(memory_line(line))


def main(arguments: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m attn_tutorial.benchmark", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure, print and record")
    running.add_argument("--quick", action="store_true", help="a few small cases")
    running.add_argument("--out", type=Path, help="write a JSON record")
    running.add_argument("--rounds", type=int, default=15)
    running.add_argument("--budget", type=float, default=20, help="seconds a case")
    running.add_argument("--threads", type=int, default=1)
    showing = commands.add_parser("show", help="print a record")
    showing.add_argument("file", type=Path)
    child = commands.add_parser("memory", help="peak memory of one call, as JSON")
    child.add_argument("case", type=lambda text: Case(**json.loads(text)))
    child.add_argument("name", choices=CONTENDERS)
    chosen = parser.parse_args(arguments)
    if chosen.command == "run":
        torch.set_num_threads(chosen.threads)
        run(chosen.quick, chosen.out, chosen.rounds, chosen.budget)
    elif chosen.command == "show":
        show(chosen.file)
    else:
        print(json.dumps(memory_of_this_process(chosen.case, chosen.name)))


if __name__ == "__main__":
    main()
