"""Slow ways to compute a window, and instruments that say why they are slow.

The patients (``one_sided``, ``gathered_attention``, ``padded_attention``,
``tile_loop``) have habits that people report as "sparse attention is not faster". The
instruments count instead of timing: multiplied pairs, FLOPs, compilations; those for
memory and for calls are in ``memory``. ``Stream`` is a model of a device that works
while the program goes on. ``examine`` says before anything is run what a pattern can
save.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from attn_tutorial import cost, patterns
from attn_tutorial.checks import check_count, check_radius
from attn_tutorial.dense import attention
from attn_tutorial.local import local_attention
from attn_tutorial.patterns import Pattern

__all__ = [
    "Examination",
    "Stream",
    "compilations",
    "dye",
    "examine",
    "executed_flops",
    "gathered_attention",
    "one_sided",
    "padded_attention",
    "tile_loop",
]

# The patients


def one_sided(window: int) -> Pattern:
    """What remains of a causal window when its causal term is forgotten: i - j <= w.

    Example:
        >>> patterns.dense_mask(one_sided(1), 3).int()
        tensor([[1, 1, 1],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    window = check_radius(window)
    return Pattern(
        "one_sided", (("window", window),), keep=lambda i, j: i - j <= window
    )


def gathered_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Local attention that first copies each query's own 2w + 1 keys and values.

    No score is wasted, yet every key and value is written 2w + 1 times.

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        window: w, how far a query sees to each side.

    Returns:
        Shape (..., n, d_v).

    Example:
        >>> q = torch.randn(2, 10, 4)
        >>> gathered_attention(q, q, q, window=3).shape
        torch.Size([2, 10, 4])
    """
    n = q.shape[-2]
    position = torch.arange(n, device=q.device)[:, None]
    steps = torch.arange(-window, window + 1, device=q.device)
    keep = (position + steps >= 0) & (position + steps < n)  # (n, 2w + 1)
    run = (position + steps).clamp(0, n - 1)
    keys, values = k[..., run, :], v[..., run, :]  # (..., n, 2w + 1, d): the copies
    return attention(
        q[..., None, :], keys, values, keep[(None,) * (q.ndim - 2)][..., None, :]
    ).squeeze(-2)


def padded_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, multiple: int
) -> Tensor:
    """Local attention of a sequence that is first padded to a multiple of some length.

    An illness when the multiple is large beside n, a cure when every length would
    otherwise be compiled again.

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        window: w, how far a query sees to each side.
        multiple: The padded length is the next multiple of this.

    Returns:
        Shape (..., n, d_v): the padding is never attended, and cut off again.

    Example:
        >>> q = torch.randn(2, 10, 4)
        >>> padded_attention(q, q, q, window=3, multiple=64).shape
        torch.Size([2, 10, 4])
    """
    n = q.shape[-2]
    extra = -n % check_count("multiple", multiple, least=1)
    real = torch.arange(n + extra, device=q.device) < n
    q, k, v = (F.pad(x, (0, 0, 0, extra)) for x in (q, k, v))
    return local_attention(q, k, v, window, key_keep=real)[..., :n, :]


def tile_loop(q: Tensor, k: Tensor, v: Tensor, window: int, tile: int) -> Tensor:
    """Local attention as a loop over tiles of queries, each with its run of keys.

    One call after another, and left to autograd, which makes a gradient of full
    length for each slice.

    Args:
        q: Queries, shape (..., n, d).
        k: Keys, shape (..., n, d).
        v: Values, shape (..., n, d_v).
        window: w, how far a query sees to each side.
        tile: Queries in a tile.

    Returns:
        Shape (..., n, d_v).

    Example:
        >>> q = torch.randn(2, 10, 4)
        >>> tile_loop(q, q, q, window=3, tile=4).shape
        torch.Size([2, 10, 4])
    """
    n, outputs, window = q.shape[-2], [], check_radius(window)
    position = torch.arange(n, device=q.device)
    for start in range(0, n, check_count("tile", tile, least=1)):
        rows = slice(start, start + tile)
        run = slice(max(0, start - window), start + tile + window)
        keep = (position[rows, None] - position[run]).abs() <= window
        outputs.append(attention(q[..., rows, :], k[..., run, :], v[..., run, :], keep))
    return torch.cat(outputs, dim=-2)


# The instruments


def dye(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    n: int,
    *,
    d: int = 64,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Which pairs a routine multiplies, whether or not it keeps them.

    The values are the dye: value j is NaN in column j and 0 elsewhere. A masked pair
    has the weight 0, but 0 * NaN is NaN, so output (i, j) is NaN exactly where the
    routine multiplied the pair's weight and value. Works on any routine, compiled or
    not; whether it formed a score for a pair that is not stained, it cannot say.

    Args:
        attend: Called as attend(q, k, v) with tensors of shape (1, 1, n, d).
        n: Number of queries and of keys.
        d: Width that the routine accepts; it is called n / d times.
        device: Where the tensors are made; the CPU if None.
        dtype: Their type.

    Returns:
        Bool, shape (n, n): True where query i and value j were multiplied.

    Example:
        >>> dye(lambda q, k, v: tile_loop(q, k, v, window=1, tile=2), 4, d=4).int()
        tensor([[1, 1, 1, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 1, 1, 1]], dtype=torch.int32)
    """
    n, d = check_count("n", n, least=1), check_count("d", d, least=1)
    q = torch.linspace(-1, 1, n * d, dtype=dtype, device=device).view(1, 1, n, d)
    width = n + -n % d
    values = torch.zeros(n, width, dtype=dtype, device=device).fill_diagonal_(math.nan)
    stained = [attend(q, q, v[None, None].contiguous()) for v in values.split(d, -1)]
    return torch.cat(stained, -1)[0, 0, :, :n].isnan()


def executed_flops(run: Callable[[], Any]) -> int:
    """FLOPs of all matrix products that a function executes, useful or not.

    PyTorch's own counter, which reports 0 for fused attention on a CPU, and here is
    told what that costs.

    Args:
        run: Function without arguments.

    Returns:
        FLOPs, a multiply-add counted as two.

    Example:
        >>> q = torch.ones(1, 2, 10, 4)
        >>> executed_flops(lambda: F.scaled_dot_product_attention(q, q, q))
        3200
    """
    with FlopCounterMode(display=False, custom_mapping=_FUSED) as counter:
        run()
    return counter.get_total_flops()


def _fused_flops(
    q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any
) -> int:
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


_FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_flops,
}


def compilations(
    function: Callable[..., Tensor],
    inputs: Iterable[tuple],
    *,
    dynamic: bool | None = None,
    fullgraph: bool = False,
) -> list[int]:
    """How many times ``torch.compile`` compiles a function, call by call.

    Nothing is translated: a stand-in for the compiler counts the graphs that it is
    handed, so that this takes milliseconds and needs no C++ compiler.

    Args:
        function: What is compiled, afresh.
        inputs: Arguments of one call after another.
        dynamic: False compiles each shape by itself, True once for all; by default
            PyTorch decides when a second shape arrives.
        fullgraph: Raise an error where PyTorch would give up compiling.

    Returns:
        Graphs compiled during each call.

    Example:
        >>> same = [(torch.ones(3),), (torch.ones(3),)]
        >>> compilations(torch.exp, same)
        [1, 0]
    """
    graphs: list[torch.fx.GraphModule] = []

    def keep_graph(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(
        function, backend=keep_graph, dynamic=dynamic, fullgraph=fullgraph
    )
    counts = []
    try:
        with _quiet():
            for arguments in inputs:
                before = len(graphs)
                compiled(*arguments)
                counts.append(len(graphs) - before)
    finally:
        torch.compiler.reset()  # leave no trace: the limit counts for later calls too
    return counts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's remarks about its limit of compilations off the screen."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


class Stream:
    """A model of a GPU's stream: work is queued, and the program goes on at once.

    A thread of its own does the work in order. Nothing here is a GPU; what it shares
    with one is that a call returns long before its result exists.

    Example:
        >>> with Stream() as stream:
        ...     result = stream.launch(sum, [1, 2])
        ...     stream.synchronize()
        ...     stream.finished, result.result()
        (1, 3)
    """

    def __init__(self) -> None:
        """Start with an empty queue."""
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._queue: list[Future] = []

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self._worker.shutdown()

    @property
    def finished(self) -> int:
        """Jobs that are done."""
        return sum(job.done() for job in self._queue)

    def launch(self, function: Callable, *arguments: Any) -> Any:
        """Queue a job and return at once, with a future that will hold its result."""
        self._queue.append(self._worker.submit(function, *arguments))
        return self._queue[-1]

    def synchronize(self) -> None:
        """Wait until all jobs are done."""
        for job in self._queue:
            job.result()


# The first question to ask


@dataclass(frozen=True)
class Examination:
    """What a pattern can save on tiles of a certain size, by counting alone.

    Attributes:
        pattern: The pattern.
        n: Sequence length.
        tile: Queries and keys in a tile.
        kept: Pairs that the pattern keeps.
        computed: Pairs in the tiles that hold a kept pair.
        layer: FLOPs of a layer with full attention.
        mask_bytes: Size of the pattern written out as booleans.
    """

    pattern: Pattern
    n: int
    tile: tuple[int, int]
    kept: int
    computed: int
    layer: cost.LayerFlops
    mask_bytes: int

    @property
    def useful(self) -> float:
        """Kept pairs per computed pair."""
        return self.kept / self.computed

    @property
    def fewer(self) -> float:
        """How many times fewer pairs than full attention has are computed.

        No kernel on these tiles gains more. Below 1 where the tiles reach so far
        beyond n that they compute more than n^2.
        """
        return self.n**2 / self.computed

    @property
    def layer_fewer(self) -> float:
        """FLOPs of a layer with full attention per FLOP with this pattern."""
        rest = self.layer.projections + self.layer.mlp
        return sum(self.layer) / (rest + self.layer.attention / self.fewer)

    def __str__(self) -> str:
        rows, columns = self.tile
        facts = {
            "kept pairs": f"{self.kept:,}",
            "computed pairs": f"{self.computed:,}",
            "useful share of these": f"{self.useful:.1%}",
            "full attention / computed": f"{self.fewer:.1f}x",
            "whole layer, full / this": f"{self.layer_fewer:.1f}x",
            "bytes of a written-out mask": f"{self.mask_bytes:,}",
        }
        lines = [f"{self.pattern!r}, n = {self.n:,}, tiles of {rows} x {columns}"]
        lines += [f"  {name:27} {fact:>15}" for name, fact in facts.items()]
        return "\n".join(lines)


def examine(
    pattern: Pattern,
    n: int,
    *,
    rows: int = 128,
    columns: int = 128,
    d_model: int = 512,
) -> Examination:
    """Say what a pattern can save before anything is run.

    Args:
        pattern: Full, causal, local or adjacent blocks (no global tokens).
        n: Sequence length.
        rows: Queries in a tile of the kernel.
        columns: Keys in a tile of the kernel.
        d_model: Width of the layer around the attention.

    Returns:
        The counts; print it to read them.

    Raises:
        ValueError: If a size is below 1, or the pattern has global tokens.

    Example:
        >>> print(examine(patterns.local(64), 4096))
        local(window=64), n = 4,096, tiles of 128 x 128
          kept pairs                          524,224
          computed pairs                    1,540,096
          useful share of these                 34.0%
          full attention / computed             10.9x
          whole layer, full / this               2.1x
          bytes of a written-out mask      16,777,216
    """
    n = check_count("n", n, least=1)
    return Examination(
        pattern,
        n,
        (rows, columns),
        cost.kept_pairs(pattern, n),
        cost.grid_pairs(pattern, n, rows, columns),
        cost.layer_flops(patterns.full(), n, d_model),
        n * n,
    )
