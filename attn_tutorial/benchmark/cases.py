"""What is measured: a case is one task, a suite is the list of cases of a run.

The full suite is made of sweeps, lines through the space of cases and not all of it,
so that seven rounds of everything end in a quarter of an hour on one core: calls that
take seconds are few. A case that lies on two sweeps is measured once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attn_tutorial import cost
from attn_tutorial.benchmark.spelling import recorded_pattern
from attn_tutorial.patterns import Pattern

__all__ = ["SWEEPS", "Case", "Plan", "suite"]


@dataclass(frozen=True)
class Case:
    """One task: a pattern on inputs of a shape, forward or forward and backward.

    Attributes:
        mechanism: "local" with window `size`, "blocks" of `size` tokens
            and the two beside, or "full".
        n: Tokens.
        size: w or b; 0 for "full".
        causal: Whether the keys after the query are forbidden.
        backward: Whether the gradients of q, k and v are computed too.
        heads: Heads of queries.
        d: Width of a head.
        dtype: Name of the inputs' dtype.
        kv_heads: Heads of keys and values, each shared by as many heads of queries;
            None if each has its own. Texts of a batch count as further heads.
    """

    mechanism: str
    n: int
    size: int = 0
    causal: bool = False
    backward: bool = False
    heads: int = 8
    d: int = 64
    dtype: str = "float32"
    kv_heads: int | None = None

    @property
    def group(self) -> int:
        """Heads of queries that share a head of keys."""
        return self.heads // (self.kv_heads or self.heads)

    @property
    def pattern(self) -> Pattern:
        """The pairs that attend."""
        size = "" if self.mechanism == "full" else str(self.size)
        return recorded_pattern(f"{self.mechanism} {size}", causal=self.causal)

    @property
    def useful_flops(self) -> int:
        """Count operations on kept pairs, two products forward and five more backward.

        The five are those of a backward pass that computes the scores again.
        """
        forward = cost.flops(self.pattern, self.n, self.d, self.heads)
        return forward * 7 // 2 if self.backward else forward

    @property
    def compulsory_bytes(self) -> int:
        """Count the least traffic, each input read and each result written once a pass.

        Forward reads q, k, v and writes the output. Backward reads these four and the
        output's gradient, and writes three gradients. Half of all are as large as q,
        the others as k.
        """
        of_queries = (6 if self.backward else 2) * self.tensor_bytes
        return of_queries + of_queries // self.group

    @property
    def tensor_bytes(self) -> int:
        """Memory of q."""
        return self.heads * self.n * self.d * getattr(torch, self.dtype).itemsize

    def inputs(self, device: str = "cpu", seed: int = 0) -> tuple[Tensor, ...]:
        """q, k, v and the gradient of the output, each (1, heads or kv_heads, n, d)."""
        generator = torch.Generator(device).manual_seed(seed)
        dtype, of_keys = getattr(torch, self.dtype), self.kv_heads or self.heads
        q, k, v, grad = (
            torch.randn(
                (1, heads, self.n, self.d),
                generator=generator,
                dtype=dtype,
                device=device,
            )
            for heads in (self.heads, of_keys, of_keys, self.heads)
        )
        return *(x.requires_grad_(self.backward) for x in (q, k, v)), grad

    def __str__(self) -> str:
        sizes = {"local": f", w = {self.size}", "blocks": f", b = {self.size}"}
        text = f"{self.mechanism}, n = {self.n}{sizes.get(self.mechanism, '')}"
        if (self.heads, self.d, self.dtype) != (8, 64, "float32"):
            text += f", {self.heads} heads, d = {self.d}, {self.dtype}"
        text += f", {self.kv_heads} of keys" if self.kv_heads else ""
        text += ", causal" if self.causal else ""
        return text + (": forward + backward" if self.backward else ": forward")


@dataclass(frozen=True)
class Plan:
    """A case of a suite, and what to do with it.

    Attributes:
        case: What is computed.
        sweeps: The sweeps that it belongs to.
        contenders: Names of those that compete; None for all.
        memory: Whether peak memory is measured where that takes a process of its own.
    """

    case: Case
    sweeps: tuple[str, ...] = ()
    contenders: tuple[str, ...] | None = None
    memory: bool = False

    def __or__(self, other: Plan) -> Plan:
        """Do both, for the same case."""
        both = None
        if self.contenders is not None and other.contenders is not None:
            both = tuple(dict.fromkeys(self.contenders + other.contenders))
        sweeps = tuple(dict.fromkeys(self.sweeps + other.sweeps))
        return Plan(self.case, sweeps, both, self.memory or other.memory)


DENSE = ("masked dense", "sdpa + mask", "sdpa full")
PACKAGES = ("local-attention", "longformer chunks")
FLEX = ("flex 32", "flex 64", "flex 128")
GPU = ("triton", "flash-attn", "xformers", "natten")
FAST = ("tiled", *PACKAGES, *GPU)
LEAN = ("tiled", *GPU)
BOTH = (False, True)  # forward; forward and backward
PATTERNS = (("local", False), ("local", True), ("blocks", False))


def usual_dtype(device: str) -> str:
    """What most cases on a device compute in."""
    return "bfloat16" if device == "cuda" else "float32"


def quick_sweep(device: str) -> Iterator[Plan]:
    """A few small cases, so that a machine is known in a minute or two.

    FlexAttention competes once, since each of its cases takes seconds to compile.
    """
    dtype = usual_dtype(device)
    names = ("sdpa + mask", "sdpa full", *FAST)
    for n in (512, 2048, 8192) if device == "cuda" else (512, 1024, 2048):
        case = Case("local", n, 128, dtype=dtype)
        more = ("loop", "masked dense", *(("flex 128",) if n == 2048 else ()))
        yield Plan(case, contenders=(*more, *names), memory=n == 2048)
    for case in (
        Case("local", 1024, 128, causal=True, dtype=dtype),
        Case("local", 1024, 64, backward=True, dtype=dtype),
        Case("blocks", 1024, 128, dtype=dtype),
    ):
        yield Plan(case, contenders=names)


def length_sweep(device: str) -> Iterator[Plan]:
    """Time against n at w = b = 128: windows to both sides, causal windows, blocks."""
    dtype = usual_dtype(device)
    for n in lengths(device):
        for mechanism, causal in PATTERNS:
            for backward in BOTH:
                case = Case(mechanism, n, 128, causal, backward, dtype=dtype)
                names = at_length(case) if device == "cpu" else everyone(case)
                if names:
                    yield Plan(case, contenders=names)


def lengths(device: str) -> tuple[int, ...]:
    """The lengths that are measured."""
    if device == "cuda":
        return tuple(2**p for p in range(9, 21))
    return (512, 1024, 2048, 4096, 8192, 16384, 65536, 131072)


def everyone(case: Case) -> tuple[str, ...]:
    """Who competes on a GPU, where calls are short."""
    dense = () if case.mechanism == "blocks" else DENSE
    return ("loop", *dense, *FAST, *FLEX, "flex 128 partial")


def at_length(case: Case) -> tuple[str, ...]:
    """Who competes at a length on a CPU: fewer where a call takes seconds."""
    n, backward, blocks = case.n, case.backward, case.mechanism == "blocks"
    windows = not (blocks or case.causal)
    if n > 16384:
        few = windows or (n == 65536 and blocks)
        return ("tiled",) if few and not backward else ()
    if n == 16384 and case.causal and backward:
        return ()
    names = ("tiled",) if n > 4096 and backward else ("tiled", *PACKAGES)
    if n in (4096, 16384) and not windows:
        names += (best_flex(case),)
    longest = 4096 if backward else 8192
    if not blocks and n <= longest:
        names += ("sdpa full",)
    return names + two_sided(n, backward) if windows else names


def two_sided(n: int, backward: bool) -> tuple[str, ...]:
    """Who else meets windows to both sides on a CPU."""
    if backward:
        return ("sdpa + mask", "masked dense") if n == 2048 else ()
    names = ("flex 128",) if n > 512 else ()
    names += ("flex 32",) if n == 2048 else ()
    names += ("flex 128 partial",) if n == 4096 else ()
    names += ("sdpa + mask",) if n <= 4096 else ()
    names += ("masked dense",) if n <= 4096 else ()
    return names + (("loop",) if n <= 2048 else ())


def best_flex(case: Case) -> str:
    """FlexAttention with the block size that was fastest in the records.

    Others compete beside it in some cases, where the rule can be seen to hold or not;
    the report names the fastest wherever several ran.
    """
    if case.mechanism == "blocks":
        return "flex 64" if case.size == 64 else "flex 128"
    return "flex 32" if case.size <= 128 else "flex 64"


def size_sweep(device: str) -> Iterator[Plan]:
    """Time against w and b at one length: 8192 on a CPU, 16,384 on a GPU."""
    dtype, n = usual_dtype(device), 8192 if device == "cpu" else 16384
    for size in (64, 128, 256, 512, 1024, *((4096,) if device == "cuda" else ())):
        for mechanism, causal in PATTERNS:
            for backward in BOTH:
                case = Case(mechanism, n, size, causal, backward, dtype=dtype)
                names = at_size(case) if device == "cpu" else (*FAST, *FLEX)
                if names:
                    yield Plan(case, contenders=names)


def at_size(case: Case) -> tuple[str, ...]:
    """Who competes at a size on a CPU: fewer where a call takes seconds."""
    windows = case.mechanism == "local" and not case.causal
    if case.backward:
        few = case.size == 64 or (case.size == 256 and windows)
        return ("tiled",) if few and not case.causal else ()
    if not windows:
        return ("tiled", best_flex(case)) if case.size == 64 else ("tiled",)
    few = ("flex 32", "flex 128") if case.size < 1024 else ()
    flex = FLEX if case.size == 256 else few
    return ("tiled", *flex, *(("local-attention",) if case.size <= 256 else ()))


def grid_sweep(device: str) -> Iterator[Plan]:
    """Fast routines and the packages that people install, on a grid of n and size."""
    dtype = usual_dtype(device)
    for n in (4096, 8192) if device == "cpu" else (4096, 16384, 65536):
        for size in (64, 128, 256, 512):
            for mechanism, causal in PATTERNS:
                for backward in BOTH:
                    case = Case(mechanism, n, size, causal, backward, dtype=dtype)
                    names = at_grid(case) if device == "cpu" else (*FAST, *FLEX)
                    if names:
                        yield Plan(case, contenders=names)


def at_grid(case: Case) -> tuple[str, ...]:
    """Who competes in the grid on a CPU: all at 4096, above it who does elsewhere."""
    if case.n == 8192:
        return at_length(case) if case.size == 128 else at_size(case)
    if case.size == 256:
        return ()
    names = ("tiled", best_flex(case))
    names += PACKAGES if case.size < 512 else ()
    names += FLEX if case.size == 128 and not case.causal else ()
    full = case.causal and (case.size == 128 or not case.backward)
    return (*names, "sdpa full") if full else names


def bfloat16_sweep(device: str) -> Iterator[Plan]:
    """The other dtype against n at w = 128: bfloat16 on a CPU, float32 on a GPU."""
    dtype = "float32" if device == "cuda" else "bfloat16"
    for n in (512, 2048, 4096, 8192, 16384):
        for causal in BOTH:
            for backward in BOTH:
                case = Case("local", n, 128, causal, backward, dtype=dtype)
                full = ("sdpa full",) if n <= (4096 if backward else 8192) else ()
                flex = ("flex 128",) if n in (4096, 16384) else ()
                if n != 8192 or not backward:
                    yield Plan(case, contenders=(*LEAN, *full, *flex))


def shape_sweep(device: str) -> Iterator[Plan]:
    """Heads and widths at n = 4096, w = 128, in both dtypes."""
    usual = usual_dtype(device)
    yield Plan(Case("local", 4096, 128, heads=16, dtype=usual), contenders=LEAN)
    for dtype in ("float32", "bfloat16"):
        for causal in BOTH:
            for backward in BOTH:
                case = Case("local", 4096, 128, causal, backward, d=128, dtype=dtype)
                flex = () if causal else ("flex 128",)
                full = () if backward else ("sdpa full",)
                yield Plan(case, contenders=(*LEAN, *flex, *full))


def memory_sweep(device: str) -> Iterator[Plan]:
    """Peak memory against n at w = 128."""
    dtype = usual_dtype(device)
    for n in (1024, 4096, 16384):
        for backward in BOTH:
            case = Case("local", n, 128, backward=backward, dtype=dtype)
            yield Plan(case, contenders=LEAN, memory=True)


def crossing_sweep(device: str) -> Iterator[Plan]:
    """Windows up to n itself, where they stop being cheaper than full attention."""
    dtype = usual_dtype(device)
    for n in (512, 1024, 2048, 4096):
        for share in (8, 4, 2, 1):
            for backward in BOTH:
                wide = share == 1 or n // share > 512 or n == 4096
                if device != "cuda" and backward and wide:
                    continue  # seconds a call, and the verdict is known at half of n
                case = Case("local", n, n // share, backward=backward, dtype=dtype)
                flex = ("flex 128",) if (n, share, backward) == (4096, 4, False) else ()
                yield Plan(case, contenders=(*LEAN, "sdpa full", *flex))


SWEEPS: dict[str, Callable[[str], Iterator[Plan]]] = {
    "length": length_sweep,
    "size": size_sweep,
    "grid": grid_sweep,
    "bfloat16": bfloat16_sweep,
    "shapes": shape_sweep,
    "memory": memory_sweep,
    "crossing": crossing_sweep,
}


def suite(name: str, device: str = "cpu", only: tuple[str, ...] = ()) -> list[Plan]:
    """List the cases of a suite without repetition, short ones first.

    Args:
        name: "quick" or "full".
        device: "cpu" or "cuda".
        only: Sweeps of the full suite; all if empty.

    Returns:
        One plan for each case.

    Raises:
        ValueError: If there is no such suite or sweep.

    Example:
        >>> print(suite("quick")[0].case)
        local, n = 512, w = 128: forward
    """
    if name not in ("quick", "full"):
        raise ValueError(f"suite must be 'quick' or 'full', got {name!r}")
    unknown = set(only) - set(SWEEPS)
    if unknown:
        raise ValueError(f"only must name sweeps of {list(SWEEPS)}, got {unknown}")
    sweeps = {"quick": quick_sweep} if name == "quick" else SWEEPS
    plans: dict[Case, Plan] = {}
    for sweep, cases in sweeps.items():
        for plan in cases(device) if not only or sweep in only else ():
            plan = replace(plan, sweeps=(sweep,))
            before = plans.get(plan.case)
            plans[plan.case] = plan if before is None else before | plan
    return sorted(
        plans.values(), key=lambda plan: (plan.case.n, plan.case.useful_flops)
    )
