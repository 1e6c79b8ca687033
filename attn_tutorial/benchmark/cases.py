"""What is measured: a case is one task, a suite is the list of cases of a run.

The full suite is made of sweeps, lines through the space of cases and not all of it,
so that it ends in half an hour on one core. A case that lies on two sweeps is measured
once.
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
BOTH = (False, True)  # forward; forward and backward


def quick_sweep(device: str) -> Iterator[Plan]:
    """A few small cases, so that a machine is known in a minute or two.

    One block size of FlexAttention, since each takes seconds to compile.
    """
    dtype = "bfloat16" if device == "cuda" else "float32"
    names = ("loop", *DENSE, *FAST, "flex 128")
    for n in (512, 2048, 8192) if device == "cuda" else (512, 1024, 2048):
        case = Case("local", n, 128, dtype=dtype)
        yield Plan(case, contenders=names, memory=n == 2048)
    backward = Case("local", 1024, 64, backward=True, dtype=dtype)
    yield Plan(backward, contenders=names)
    yield Plan(Case("blocks", 1024, 128, dtype=dtype), contenders=names)


def length_sweep(device: str) -> Iterator[Plan]:
    """Time and memory against n at w = b = 128, everyone who can."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    for n in (2**p for p in range(9, 15)):
        for backward in BOTH:
            yield Plan(Case("local", n, 128, backward=backward, dtype=dtype))
            blocks = Case("blocks", n, 128, backward=backward, dtype=dtype)
            yield Plan(blocks, contenders=(*FAST, *FLEX))
    for n in (2**p for p in range(15, 21)):
        if device != "cuda" and n in (2**15, 2**17, 2**19):
            continue
        for backward in BOTH:
            if device != "cuda" and n == 2**20 and backward:
                continue  # would take 17 GB and minutes
            long = Case("local", n, 128, backward=backward, dtype=dtype)
            names = FAST if n <= 2**16 else ("tiled", *GPU)
            names += ("flex 128",) if n <= 2**18 else ()
            yield Plan(long, contenders=(*names, "sdpa full"))
            if n <= 2**18 or device == "cuda":
                yield Plan(replace(long, mechanism="blocks"), contenders=names)


def size_sweep(device: str) -> Iterator[Plan]:
    """Time against w and b, 64 to 4096, at n = 16,384."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    for size in (2**p for p in range(6, 13)):
        for backward in BOTH:
            case = Case("local", 16384, size, backward=backward, dtype=dtype)
            slow = device != "cuda" and size > 1024
            names = ("tiled", *GPU, "flex 128") if size > 512 else (*FAST, "flex 128")
            if not (slow and backward and size == 2048):
                yield Plan(case, contenders=names)
            if not slow:
                yield Plan(replace(case, mechanism="blocks"), contenders=names)


def grid_sweep(device: str) -> Iterator[Plan]:
    """Fast routines and the packages that people install, on a grid of n and size."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    for n in (4096, 16384, 65536):
        for size in (64, 128, 256, 512):
            for mechanism, causal in (
                ("local", False),
                ("local", True),
                ("blocks", False),
            ):
                for backward in BOTH:
                    if n == 65536 and backward and size > 128 and device != "cuda":
                        continue  # no other contender fits into the memory
                    case = Case(mechanism, n, size, causal, backward, dtype=dtype)
                    yield Plan(case, contenders=(*FAST, *flex_sizes(case)))


def flex_sizes(case: Case) -> tuple[str, ...]:
    """Block sizes worth trying; at n = 65,536 those that are best at 16,384."""
    if case.n <= 16384:
        return FLEX
    if case.mechanism == "blocks":
        return ("flex 64",) if case.size == 64 else ("flex 128",)
    return ("flex 32",) if case.size <= 128 else ("flex 64",)


def shape_sweep(device: str) -> Iterator[Plan]:
    """Heads, widths and dtypes at n = 4096, w = 128."""
    usual = "bfloat16" if device == "cuda" else "float32"
    shapes = [(16, 64, usual), (32, 64, usual), (8, 128, usual), (16, 128, usual)]
    shapes += [(8, 64, "bfloat16" if usual == "float32" else "float32")]
    shapes += [(8, 128, "bfloat16")]
    for heads, d, dtype in dict.fromkeys(shapes):
        for backward in BOTH:
            case = Case("local", 4096, 128, False, backward, heads, d, dtype)
            yield Plan(case, contenders=(*FAST, "flex 128", "sdpa full"))


def memory_sweep(device: str) -> Iterator[Plan]:
    """Peak memory against n at w = 128."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    for n in (1024, 4096, 16384, 65536, 262144):
        for backward in BOTH:
            case = Case("local", n, 128, backward=backward, dtype=dtype)
            names = FAST if n <= 65536 else ("tiled", *GPU)
            yield Plan(case, contenders=(*names, "flex 128"), memory=True)


def crossing_sweep(device: str) -> Iterator[Plan]:
    """Windows up to n itself, where they stop being cheaper than full attention."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    for n in (512, 1024, 2048, 4096):
        for share in (8, 4, 2, 1):
            for backward in BOTH:
                case = Case("local", n, n // share, backward=backward, dtype=dtype)
                yield Plan(case, contenders=("tiled", *GPU, "sdpa full"))


SWEEPS: dict[str, Callable[[str], Iterator[Plan]]] = {
    "length": length_sweep,
    "size": size_sweep,
    "grid": grid_sweep,
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
