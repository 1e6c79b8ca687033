"""The one fast routine behind local and block-sparse attention: tiles of queries.

Cut the queries into tiles. The keys that a tile may meet form one contiguous run: its
own positions, some before and some after. All tiles of a kind look alike, so many of
them are one batched call. Three things make it fast and small:

- Runs of neighbouring tiles overlap in memory: they are views, no key is copied.
- One slab of tiles is in work at a time, so memory grows with n, never with n * n.
- The backward pass computes the weights again instead of keeping them.

The few tiles at the two ends, whose run is cut off, have calls of their own: nothing
is padded, so no padding can leak into a softmax. Forward and backward pass are
operators of their own, so that ``torch.compile`` and ``torch.export`` take each as one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_tutorial.patterns import FOREIGN, Pattern, kept, parse, run
from attn_tutorial.threads import over_heads

__all__ = ["Slab", "Tile", "sliding_views", "tiled_attention"]

# Scores of all heads in one slab. Measured on CPUs: with 8 heads, 2**19 scores of a
# head fill 2 MiB, about one core's cache. Several threads, which wait for each other
# after every call, and a GPU want more work in one call.
SLAB_SCORES = {"cpu": 2**22, "threads": 2**24, "cuda": 2**26}
BATCHED = torch._C._parse_dispatch_key("Batched")


@dataclass(frozen=True)
class Tile:
    """A kind of tile: `rows` queries at `offset`, and again every `step` positions.

    Its run of keys begins `left` positions before its first query and ends `right`
    positions after its last.
    """

    offset: int
    rows: int
    step: int
    left: int
    right: int

    @property
    def keys(self) -> int:
        """Length of the complete run."""
        return self.left + self.rows + self.right

    def slabs(
        self,
        n_q: int,
        n_k: int,
        first: int,
        most: int,
        trim: Callable[[range, range], Tensor] | None = None,
    ) -> Iterator[Slab]:
        """Group the tiles of queries first ... first + n_q - 1 into slabs.

        A slab has at most `most` equal tiles. A tile with a complete run stands with
        its equals, any other one alone. `trim` makes a mask for some queries and keys,
        counted from where the complete run begins.

        >>> tile = Tile(offset=0, rows=2, step=2, left=2, right=2)
        >>> slabs = tile.slabs(11, 11, first=0, most=9)
        >>> [(s.query, s.key, s.keys, s.count) for s in slabs]
        [(0, 0, 4, 1), (2, 0, 6, 3), (8, 6, 5, 1), (10, 8, 3, 1)]
        """
        place = self.offset + (first - self.offset) // self.step * self.step
        end = first + n_q
        while place < end:
            top, bottom = max(place, first), min(place + self.rows, end)
            count = 1
            if place >= max(first, self.left):  # complete, unless it is near the end
                last = min(n_k - self.right, end) - self.rows
                count = max(1, min((last - place) // self.step + 1, most))
            if top < bottom:
                begin = place - self.left
                start = min(max(begin, 0), n_k)
                keys = max(0, min(place + self.rows + self.right, n_k) - start)
                bias = None
                if trim:
                    queries = range(top - begin, bottom - begin)
                    bias = trim(queries, range(start - begin, start - begin + keys))
                rows = bottom - top
                yield Slab(top - first, rows, start, keys, self.step, count, bias)
            place += count * self.step


@dataclass(frozen=True)
class Slab:
    """`count` tiles: c has queries from query + c * step, keys from key + c * step."""

    query: int
    rows: int
    key: int
    keys: int
    step: int
    count: int
    bias: Tensor | None

    def tiles(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """View x, (G, n, d), as its query tiles, (G, count, rows, d)."""
        return sliding_views(x, self.query, self.rows, self.step, self.count, dtype)

    def runs(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """View x, (G, n, d), as its runs of keys, (G, count, keys, d)."""
        return sliding_views(x, self.key, self.keys, self.step, self.count, dtype)

    def kept_runs(
        self, x: Tensor, padding: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """The runs of keys; zeros in place of what is padding, which may be NaN."""
        runs = self.runs(x, dtype)
        return runs if padding is None else runs.masked_fill(self.runs(padding), 0)

    def mask(self, padding: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Return what to add to the scores, broadcastable to (G, count, rows, keys).

        padding, (G, n, 1), is True where a key is padding.
        """
        if padding is None:
            return self.bias
        hidden = bias_of(~self.runs(padding), dtype).mT.expand(-1, -1, self.rows, -1)
        return hidden if self.bias is None else hidden + self.bias


def trimming(
    pattern: Pattern, device: torch.device, dtype: torch.dtype
) -> Callable[[range, range], Tensor]:
    """Return what makes the mask of a pattern for some queries and keys."""

    def trim(queries: range, keys: range) -> Tensor:
        i = torch.arange(queries.start, queries.stop, device=device)[:, None]
        j = torch.arange(keys.start, keys.stop, device=device)
        keep = kept(pattern, i, j)
        return bias_of(keep.expand(len(queries), len(keys)), dtype)

    return trim


def once(
    trim: Callable[[range, range], Tensor], tile: Tile, made: dict[Tile, Tensor]
) -> Callable[[range, range], Tensor]:
    """Make the mask of a whole tile, of which each slab then takes its part."""
    left = tile.left
    if tile not in made:
        made[tile] = trim(range(left, left + tile.rows), range(tile.keys))
    whole = made[tile]

    def part(queries: range, keys: range) -> Tensor:
        rows = slice(queries.start - left, queries.stop - left)
        return whole[rows, keys.start : keys.stop]

    return part


def bias_of(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where a pair is kept, and -inf where it is not."""
    bias = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
    return bias.masked_fill_(~keep, -math.inf)


def sliding_views(
    x: Tensor,
    start: int,
    size: int,
    step: int,
    count: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """View x, (G, n, d), as (G, count, size, d): view c begins at start + c * step.

    If another dtype is asked for, they are views of a copy of what they hold.

    >>> x = torch.arange(6).view(1, 6, 1)
    >>> sliding_views(x, start=1, size=3, step=1, count=3)[0, ..., 0]
    tensor([[1, 2, 3],
            [2, 3, 4],
            [3, 4, 5]])
    """
    if dtype not in (None, x.dtype):
        x, start = x[:, start : start + (count - 1) * step + size].to(dtype), 0
    head, row, feature = x.stride()
    return x.as_strided(
        (x.shape[0], count, size, x.shape[2]),
        (head, step * row, row, feature),
        x.storage_offset() + start * row,
    )


def text_of(pattern: Pattern | None) -> str:
    """Name a pattern for the operators, which take no objects."""
    return "" if pattern is None else pattern.token or str(pattern)


@lru_cache(maxsize=256)
def pattern_of(text: str) -> Pattern | None:
    """Return the pattern that ``text_of`` named."""
    return FOREIGN[text] if text in FOREIGN else parse(text) if text else None


@dataclass(frozen=True)
class Plan:
    """What is computed, besides the tensors.

    Attributes:
        kinds: The numbers of all kinds of tiles, five each. None: the run of each tile
            is found from the pattern.
        pattern: What to leave of the runs; all if None.
        first: Position of the first query on the keys' axis.
        scale: Factor on the scores.
        with_lse: Whether the log-sum-exp is wanted.
        masks: Those of whole tiles, which the backward pass finds here.
    """

    kinds: list[int]
    pattern: Pattern | None
    first: int
    scale: float
    with_lse: bool
    masks: dict[Tile, Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def from_text(cls, kinds, text, first, scale, with_lse=False) -> Plan:
        """Read what ``traced`` says of a plan."""
        return cls(kinds, pattern_of(text), first, scale, with_lse)

    def traced(self) -> tuple[list[int], str, int, float]:
        """The plan in numbers and a text, as operators take it; without with_lse."""
        return self.kinds, text_of(self.pattern), self.first, self.scale


def layout(q: Tensor, k: Tensor, plan: Plan) -> Iterator[Slab]:
    """Slabs for q, (S, R, n_q, d), and k, (S, n_k, d), fit for the device's memory."""
    n_q, n_k, first = q.shape[2], k.shape[1], plan.first
    kinds, pattern = plan.kinds, plan.pattern
    trim = None if pattern is None else trimming(pattern, k.device, exact(k))
    if not kinds:
        yield from single_slabs(pattern, n_q, n_k, first, trim)
    for at in range(0, len(kinds), 5):
        tile = Tile(*kinds[at : at + 5])
        masks = once(trim, tile, plan.masks) if trim and n_q >= tile.rows else trim
        most = slab_scores(q.device) // (q.shape[0] * tile.rows * tile.keys)
        yield from tile.slabs(n_q, n_k, first, max(1, most), masks)


def single_slabs(
    pattern: Pattern, n_q: int, n_k: int, first: int, trim: Callable
) -> Iterator[Slab]:
    """One slab for each tile of queries: its run of keys, and its own mask."""
    rows = rows_for(pattern, n_q, n_k, first)
    for query in range(0, n_q, rows):
        places = range(first + query, first + min(query + rows, n_q))
        keys = run(pattern, places, n_k)
        bias = trim(places, keys)
        yield Slab(query, len(places), keys.start, len(keys), 1, 1, bias)


def rows_for(pattern: Pattern, n_q: int, n_k: int, first: int) -> int:
    """Queries in a tile of a pattern that has no kind of tiles of its own."""
    middle = first + n_q // 2
    met = len(run(pattern, range(middle, middle + 1), n_k))
    return 32 if met < 512 else 64 if met < 2048 else 128


def slab_scores(device: torch.device) -> int:
    """How many scores of all heads a slab may have."""
    if device.type == "cpu" and torch.get_num_threads() > 1:
        return SLAB_SCORES["threads"]
    return SLAB_SCORES["cpu" if device.type == "cpu" else "cuda"]


def may_miss(q: Tensor, k: Tensor, padding: Tensor | None, plan: Plan) -> bool:
    """Whether some query may have no key at all."""
    inside = 0 <= plan.first and plan.first + q.shape[2] <= k.shape[1]
    return padding is not None or not plan.kinds or not inside


# The operators: q (S, R, n_q, d), k (S, n_k, d), v (S, n_k, d_v), padding (S, n_k, 1),
# where S are the heads of keys and R the heads of queries that share each of them.


def forward_pass(q, k, v, padding: Tensor | None, plan: Plan, into: tuple = ()):
    """Attention of each tile over its run: output and log-sum-exp (or no numbers)."""
    output, lse = into or empty_outputs(q, v, plan)
    lonely = may_miss(q, k, padding, plan)
    function = attend_with_lse if plan.with_lse else attend
    with as_it_is(q.device.type):
        for slab in layout(q, k, plan):
            as_given = not plan.with_lse and multiplies_half(q, slab.keys)
            dtype = q.dtype if as_given else exact(q)
            keys, values = (slab.kept_runs(x, padding, dtype) for x in (k, v))
            mask = slab.mask(padding, exact(q))
            for head in range(q.shape[1]):
                queries = slab.tiles(q[:, head], dtype)
                out, logs = function(queries, keys, values, mask, plan.scale, lonely)
                slab.tiles(output[:, head]).copy_(out)
                if plan.with_lse:
                    slab.tiles(lse[:, head, :, None]).copy_(logs)
    return output, lse


def as_it_is(device: str) -> AbstractContextManager:
    """No autocast: products take the dtypes that they are given."""
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()


def empty_outputs(q: Tensor, v: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Outputs without numbers in them."""
    output = v.new_empty((*q.shape[:-1], v.shape[-1]))
    shape = (*q.shape[:2], q.shape[2] if plan.with_lse else 0)
    return output, v.new_empty(shape, dtype=exact(q))


def exact(x: Tensor) -> torch.dtype:
    """What scores are computed in: at least float32, so that they keep their digits."""
    return torch.promote_types(x.dtype, torch.float32)


def multiplies_half(x: Tensor, keys: int) -> bool:
    """Whether PyTorch's fused attention is given half precision as it is.

    It multiplies bfloat16 and adds in float32, which needs instructions of the CPU to
    be worth it. With those of AVX-512 it takes about as long as float32, in half the
    memory, but up to 9 % longer where a run has more than the 512 keys that it works
    on at a time.
    """
    if x.dtype != torch.bfloat16 or x.device.type != "cpu":
        return False
    return computes("amx_bf16") or (computes("avx512_bf16") and keys <= 512)


@cache
def computes(instructions: str) -> bool:
    """Whether PyTorch says that this CPU has some instructions; 2.10 says nothing."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get(instructions, False))


def attend(q, k, v, mask, scale, lonely):
    """PyTorch's fused attention over a slab; its inputs have four axes.

    With three it would silently take a slow path.
    """
    if k.shape[-2] == 0:
        return v.new_zeros(()), None
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    if lonely and mask is not None:  # no key at all: not every device gives zeros
        out = out.masked_fill((mask == -math.inf).all(-1, keepdim=True), 0)
    return out, None


def attend_with_lse(q, k, v, mask, scale, lonely):
    """The same by two products, with the log-sum-exp of each query's scores."""
    scores = q * scale @ k.mT
    scores = scores if mask is None else scores + mask
    lse = scores.logsumexp(-1, keepdim=True)
    shift = lse.masked_fill(lse == -math.inf, 0)  # then exp(-inf - 0) is 0
    return scores.sub_(shift).exp_() @ v, lse


def backward_pass(
    grad: Tensor,
    grad_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    output: Tensor,
    plan: Plan,
    into: tuple = (),
):
    """Gradients by q, k and v: every slab adds to the same dk and dv.

    Autograd alone would be quadratic: for each slice of k it makes a gradient as long
    as k.
    """
    grad, dtype = grad.contiguous(), exact(q)
    dq, *whole = into or empty_gradients(q, k, v)
    dk, dv = (zeros_like(x, dtype) for x in whole)
    lonely = may_miss(q, k, padding, plan)
    with as_it_is(q.device.type):
        for slab in layout(q, k, plan):
            keys = (slab.kept_runs(x, padding, dtype) for x in (k, v))
            runs = *keys, slab.runs(dk), slab.runs(dv)
            mask = slab.mask(padding, dtype)
            for head in range(q.shape[1]):
                tiles = [slab.tiles(x[:, head], dtype) for x in (q, output, grad, dq)]
                if grad_lse.shape[-1]:
                    tiles += [slab.tiles(grad_lse[:, head, :, None])]
                add_slab(slab, tiles, runs, mask, plan.scale, lonely)
                if dq.dtype != dtype:  # the tile was a copy
                    slab.tiles(dq[:, head]).copy_(tiles[3])
    for total, exactly in zip(whole, (dk, dv), strict=True):
        if total is not exactly:
            total.copy_(exactly)
    return dq, *whole


def zeros_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros of a dtype: x itself, if it has that."""
    return x.zero_() if x.dtype == dtype else x.new_zeros(x.shape, dtype=dtype)


def add_slab(slab, tiles, runs, mask, scale, lonely) -> None:
    """Add one slab's gradients, in as few batched products as possible."""
    if slab.keys == 0:
        tiles[3].zero_()
        return
    heads, most = len(tiles[0]), slab_scores(tiles[0].device) // 8
    tensors = [*tiles, *runs]
    if mask is not None:
        tensors += [mask.expand(heads, slab.count, -1, -1)]
    # A batched product has one batch dimension: the tiles of a head, or the
    # heads of a tile where these are fewer calls and still fit the cache.
    few = slab.count < heads and heads * slab.rows * slab.keys <= most
    batch, apart = (1, 1) if few else (0, math.ceil(slab.keys / slab.step))
    ends = len(tiles), len(tiles) + len(runs)
    for some in zip(*(x.unbind(batch) for x in tensors), strict=True):
        tile, keys, bias = some[: ends[0]], some[ends[0] : ends[1]], some[ends[1] :]
        add_gradients(apart, scale, lonely, tile, keys, *bias)


def add_gradients(
    apart: int,
    scale: float,
    lonely: bool,
    tiles: Sequence[Tensor],
    runs: Sequence[Tensor],
    bias: Tensor | None = None,
) -> None:
    """Set a batch of tiles' dq and add their share to dk and dv, in place. Eq. (15).

    tiles are q, output, grad, dq, and the gradient of the log-sum-exp if there is one,
    each (batch, rows, ...). runs are k, v, dk, dv, each (batch, keys, ...): views that
    overlap, but not those of tiles `apart` from each other. bias, (batch, rows, keys),
    is added to the scores. If lonely, some queries may have no key at all.
    """
    (q, output, grad, dq, *grad_lse), (k, v, dk, dv) = tiles, runs
    q = q * scale
    weights = torch.bmm(q, k.mT)
    if bias is not None:
        weights += bias
    torch.softmax(weights, -1, out=weights)
    if lonely and bias is not None:  # the softmax over no key at all is 0 / 0
        weights.masked_fill_(bias == -math.inf, 0)
    mean = (grad * output).sum(-1, keepdim=True)  # the weighted mean of a row's dP
    for more in grad_lse:  # d lse / d score = P
        mean = mean - more
    dscores = torch.bmm(grad, v.mT).sub_(mean).mul_(weights)  # P * (dP - mean)
    dq.baddbmm_(dscores, k, beta=0, alpha=scale)
    for first in range(min(apart, len(k))):
        some = slice(first, None, apart)
        dv[some].baddbmm_(weights[some].mT, grad[some])
        dk[some].baddbmm_(dscores[some].mT, q[some])


def attend_heads(q, k, v, padding, plan):
    """The forward pass, its heads over the CPU's threads."""
    return over_heads(
        forward_pass, lambda: empty_outputs(q, v, plan), (q, k, v, padding), plan
    )


def differentiate_heads(grad, grad_lse, q, k, v, padding, output, plan):
    """The backward pass, its heads over the CPU's threads."""
    tensors = grad, grad_lse, q, k, v, padding, output
    return over_heads(backward_pass, lambda: empty_gradients(q, k, v), tensors, plan)


def empty_gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Gradients without numbers in them."""
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


class TiledAttention(torch.autograd.Function):
    """The forward pass, differentiable once."""

    @staticmethod
    def forward(q, k, v, padding, plan):
        """Output and log-sum-exp."""
        if is_traced(q):
            return tiled(q, k, v, padding, *plan.traced(), plan.with_lse)
        return attend_heads(q, k, v, padding, plan)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        """Keep the inputs and the output, but no weights."""
        q, k, v, padding, ctx.plan = inputs
        ctx.save_for_backward(q, k, v, padding, output[0])

    @staticmethod
    def backward(ctx, grad: Tensor, grad_lse: Tensor) -> tuple:
        """Hand over to TiledGradients."""
        tensors = grad, grad_lse, *ctx.saved_tensors
        return *chosen(TiledGradients, *tensors)(*tensors, ctx.plan), None, None

    @staticmethod
    def vmap(info, in_dims: tuple, *inputs) -> tuple:
        """torch.vmap: the new dimension is one more leading dimension."""
        return _apply_batched(TiledAttention, info.batch_size, in_dims, inputs)


class TiledGradients(torch.autograd.Function):
    """The backward pass; it has no derivative of its own."""

    @staticmethod
    def forward(grad, grad_lse, q, k, v, padding, output, plan):
        """Gradients by q, k and v."""
        tensors = grad, grad_lse, q, k, v, padding, output
        if is_traced(grad):
            return tiled_gradients(*tensors, *plan.traced())
        return differentiate_heads(*tensors, plan)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple:
        """Refuse: second derivatives would need the n x n reference."""
        raise NotImplementedError(
            "tiled attention has no second derivative; differentiate at.attention "
            "with a dense mask instead"
        )

    @staticmethod
    def vmap(info, in_dims: tuple, *inputs) -> tuple:
        """torch.vmap: the new dimension is one more leading dimension."""
        return _apply_batched(TiledGradients, info.batch_size, in_dims, inputs)


# Autograd asks for the signature at every call; making it takes 30 microseconds.
for function in (TiledAttention.forward, TiledGradients.forward):
    function.__signature__ = inspect.signature(function)


def chosen(function: type, *tensors: Tensor | None) -> Callable:
    """How to call a pass: for autograd or a transform, or as what it is, a function.

    A plain call starts in a tenth of the time.
    """
    watched = (
        (
            torch.is_grad_enabled()
            and any(x.requires_grad for x in tensors if x is not None)
        )
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )
    return function.apply if watched else function.forward


def is_traced(x: Tensor) -> bool:
    """Whether a pass must be one operator: for a compiler, or for a batch of tensors.

    Otherwise it is called as what it is, a function, which takes less time to start.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.is_meta:
        return True
    # What a vectorised jacobian hands over: no other mark tells it from a tensor.
    return torch._C._dispatch_keys(x).has(BATCHED)


def _apply_batched(function: type, size: int, in_dims: tuple, inputs: tuple) -> tuple:
    """Apply the function to inputs of which some have a batch dimension at in_dims."""
    merged = [
        _merge(x, dim, size) if isinstance(x, Tensor) else x
        for x, dim in zip(inputs, in_dims, strict=True)
    ]
    split = tuple(x.unflatten(0, (size, -1)) for x in function.apply(*merged))
    return split, (0,) * len(split)


def _merge(x: Tensor, dim: int | None, size: int) -> Tensor:
    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)  # (size, S, ...) -> (size * S, ...)


# The passes as operators, for compilers. These take no objects: a plan is written out.


def _operator(name: str, function: Callable, schema: str) -> Callable:
    path = f"attn_tutorial::{name}"
    return torch.library.custom_op(path, function, mutates_args=(), schema=schema)


def _forward(q, k, v, padding, *plan):
    return attend_heads(q, k, v, padding, Plan.from_text(*plan))


def _backward(grad, grad_lse, q, k, v, padding, output, *plan):
    tensors = grad, grad_lse, q, k, v, padding, output
    return differentiate_heads(*tensors, Plan.from_text(*plan))


PLAN = "int[] kinds, str pattern, SymInt first, float scale"
KEYS = "Tensor q, Tensor k, Tensor v, Tensor? padding"
tiled = _operator(
    "tiled", _forward, f"({KEYS}, {PLAN}, bool with_lse) -> (Tensor, Tensor)"
)
tiled_gradients = _operator(
    "tiled_gradients",
    _backward,
    f"(Tensor grad, Tensor grad_lse, {KEYS}, Tensor output, {PLAN})"
    " -> (Tensor, Tensor, Tensor)",
)


@tiled.register_fake
def _(q, k, v, padding, *plan):
    return empty_outputs(q, v, Plan.from_text(*plan))


@tiled_gradients.register_fake
def _(grad, grad_lse, q, k, v, *_):
    return empty_gradients(q, k, v)


@tiled_gradients.register_vmap
def _(info, in_dims, *inputs):
    *tensors, kinds, text, first, scale = inputs
    inputs = *tensors, Plan.from_text(kinds, text, first, scale)
    return _apply_batched(TiledGradients, info.batch_size, in_dims[:8], inputs)


def tiled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: tuple[Tile, ...],
    pattern: Pattern | None = None,
    *,
    first: int = 0,
    key_keep: Tensor | None = None,
    scale: float = 1.0,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of query tiles over runs of keys: the pairs that `tiles` leave.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d); a leading axis of 1 is shared by q's heads.
        v: Values, shape (..., n_k, d_v).
        tiles: Kinds of tiles that together hold every query once. None at all: the run
            of each tile is found from the pattern.
        pattern: What to leave of the runs; all if None.
        first: Position of the first query on the keys' axis.
        key_keep: Bool, broadcasts to (..., n_k), False = padding, never attended.
        scale: Factor on the scores.
        return_lse: Also return the log-sum-exp of each query's kept scores.

    Returns:
        Shape (..., n_q, d_v). A query that keeps no key gets zeros. With `return_lse`
        also (..., n_q), at least float32, -inf where no key is kept.

    >>> q = torch.randn(2, 3, 10, 4)
    >>> pairs = Tile(offset=0, rows=2, step=2, left=0, right=0)
    >>> tiled_attention(q, q, q, (pairs,)).shape
    torch.Size([2, 3, 10, 4])
    """
    heads = Heads.of(q, k, v)
    if 0 in (*heads.shape, q.shape[-2], k.shape[-2]):
        return _nothing(q, k, v, heads, return_lse)
    padding = None
    if key_keep is not None:
        padding = heads.shared(~key_keep.expand(k.shape[:-1])[..., None])
    kinds = [x for t in tiles for x in (t.offset, t.rows, t.step, t.left, t.right)]
    plan = Plan(kinds, pattern, first, scale, return_lse)
    flat = heads.grouped(q), heads.shared(k), heads.shared(v), padding
    output, lse = chosen(TiledAttention, *flat)(*flat, plan)
    output = heads.restored(output)
    return (output, heads.restored(lse)) if return_lse else output


def _nothing(q: Tensor, k: Tensor, v: Tensor, heads: Heads, return_lse: bool):
    """Without any key every query gets zeros; without queries there are none."""
    shape = *heads.shape, q.shape[-2]
    nothing = sum(x.flatten()[:0].sum() for x in (q, k, v))  # 0, and has gradients
    output = v.new_zeros(*shape, v.shape[-1]) + nothing
    if not return_lse:
        return output
    return output, v.new_full(shape, -math.inf, dtype=exact(q)) + nothing


@dataclass(frozen=True)
class Heads:
    """How leading axes become S heads of keys, each shared by R heads of queries.

    `shape` are the leading axes of the output, `both` those of keys and values. Axes
    that are 1 in `both` and more in `shape` are shared; they come last in `order`.
    """

    shape: tuple[int, ...]
    both: tuple[int, ...]
    order: tuple[int, ...]
    apart: int

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor) -> Heads:
        """Read the axes from the inputs."""
        if q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:  # the common case, in no time
            shape = tuple(q.shape[:-2])
            return cls(shape, shape, tuple(range(len(shape))), len(shape))
        both = torch.broadcast_shapes(k.shape[:-2], v.shape[:-2])
        shape = torch.broadcast_shapes(q.shape[:-2], both)
        shared = [a for a, size in enumerate(both) if size == 1 and shape[a] != 1]
        apart = [a for a in range(len(shape)) if a not in shared]
        return cls(tuple(shape), tuple(both), (*apart, *shared), len(apart))

    def grouped(self, x: Tensor) -> Tensor:
        """(..., n, d) -> (S, R, n, d)."""
        if self.shape == self.both == tuple(x.shape[:-2]):
            return self.shared(x)[:, None]
        x = self._ordered(x.expand(*self.shape, *x.shape[-2:]))
        s, r = x.shape[: self.apart], x.shape[self.apart : -2]
        return x.reshape(math.prod(s), math.prod(r), *x.shape[-2:])

    def shared(self, x: Tensor) -> Tensor:
        """(..., n, d) -> (S, n, d)."""
        if not self.shape == self.both == tuple(x.shape[:-2]):
            x = self._ordered(x.expand(*self.both, *x.shape[-2:]))
        return x.reshape(math.prod(self.both), *x.shape[-2:])

    def restored(self, x: Tensor) -> Tensor:
        """(S, R, ...) -> (..., ...), with the leading axes in their own order."""
        if self.shape == self.both:
            return x.reshape(*self.shape, *x.shape[2:])
        x = x.reshape(*(self.shape[a] for a in self.order), *x.shape[2:])
        places = [self.order.index(a) for a in range(len(self.order))]
        return x.permute(*places, *range(len(places), x.ndim))

    def _ordered(self, x: Tensor) -> Tensor:
        return x.permute(*self.order, x.ndim - 2, x.ndim - 1)
