"""Eqs. 7 and 11 as GPU kernels in Triton: tiles outside the pattern are never visited.

In both patterns a query meets one run of keys, from first(i) to last(i), and a key is
met by one run of queries. Both ends of the run only grow with i. So one set of kernels
serves both patterns, and four facts make it fast:

- A tile of queries meets the keys from first(its first query) to last(its last query).
  No other tile of keys is loaded.
- A tile of keys that begins at or after first(last query) and ends at or before
  last(first query) is seen whole by every query: it needs no mask. The others are the
  edge tiles, and only they are masked.
- The online softmax (Eq. 6) keeps one maximum and one sum per query, in float32, so
  no score ever leaves the chip. The backward pass computes the scores again.
- Heads of queries that share a head of keys read it where it is. Up to 16 of them lie
  in one tile, position by position, and meet each tile of keys together; the program
  that owns a tile of keys adds up what all of them send back.

Scores are in base 2, since a GPU computes 2**x faster than e**x.

The kernels need a GPU that Triton supports. With TRITON_INTERPRET=1 in the environment
before Triton is imported, Triton's interpreter runs them on CPU tensors instead: slow,
but in ordinary Python, so that they can be tested and watched anywhere.
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn_tutorial.backends.flex import Layout
from attn_tutorial.checks import (
    check_block,
    check_first,
    check_key_keep,
    check_qkv,
    check_scale,
    check_window,
)

__all__ = ["triton_local_attention", "triton_sparse_attention"]

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FARTHEST = 2**28  # positions: three blocks of as many fit into 32 bits
WIDEST = 128  # features: tiles of more would not fit next to the sums

LOG2_E = tl.constexpr(1.4426950408889634)  # e**x = 2**(x * log2(e))


def tuning(*sizes: tuple[int, int, int, int]):
    """Return a decorator that times a kernel with each (TILE, STEP, warps, stages).

    A program owns TILE rows and meets STEP others at a time. The fastest sizes are kept
    for each width, reach, pattern, dtype and number of heads that share keys. Sizes
    that exceed a GPU's shared memory drop out by themselves; the last ones are small
    enough for any GPU.

    Compiled for compute capability 9.0 in bfloat16 by Triton 3.6 and 3.9, those that
    `affordable` leaves keep everything in registers, at 64 and 128 features, and all
    but the smallest use the matrix instructions of a warp group:
    `tests/triton_compiler.py` counts. (Padding, causal blocks and 128 features together
    cost the first of the key gradient 72 bytes of stack.) Tensor descriptors (TMA)
    would replace the copies into shared memory, which are 16 of the forward kernel's
    1,432 instructions at 64 features, half of them before the loop; they could take no
    padding and no odd width, so that the copies would have to stay beside them. Triton
    documents the specialisation of warps for Blackwell only.
    """
    configs = [
        triton.Config({"TILE": tile, "STEP": step}, num_warps=warps, num_stages=stages)
        for tile, step, warps, stages in sizes
    ]
    return triton.autotune(
        # The interpreter has nothing to choose from: small tiles show the edges best.
        configs[-1:] if INTERPRETED else configs,
        key=["left", "right", "D", "BLOCKS", "CAUSAL", "group"],
        prune_configs_by={"early_config_prune": affordable},
    )


def affordable(configs: list, tensors: dict, **options) -> list:
    """Leave out sizes whose sums and scores would not fit into the registers.

    At more than 64 features that is a STEP of 128. And only the two smallest sizes are
    left where products do not run on matrix units: those do not take float32 with all
    its digits, and Triton uses none below compute capability 8 (a T4 has 7.5). A
    product is then written out as single multiply-adds: a large tile takes a minute to
    compile.
    """
    if options["WIDTH"] > 64:
        configs = [config for config in configs if config.kwargs["STEP"] <= 64]
    q = tensors["q"]
    by_hand = q.dtype == torch.float32
    if not torch.version.hip:
        by_hand |= torch.cuda.get_device_capability(q.device) < (8, 0)
    return configs[-2:] if by_hand else configs


@triton.jit
def block_of(position, size):
    """Return the block of a position, which may be negative: // would round to 0."""
    return tl.where(position >= 0, position // size, -((size - 1 - position) // size))


@triton.jit
def span(
    i,
    n,
    left,
    right,
    offset,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    BACK: tl.constexpr,
):
    """Return the first and last of n keys that query i meets.

    With BACK, return the first and last of n queries that meet key i. Query 0 is at
    position `offset` of the keys. A window reaches from `left` before the query to
    `right` after it. With BLOCKS, `left` is b, and only causality tells BACK.
    """
    if BLOCKS:
        position = i if BACK else i + offset
        first = (block_of(position, left) - 1) * left
        last = (block_of(position, left) + 2) * left - 1
        if CAUSAL and BACK:
            first = position
        if CAUSAL and not BACK:
            last = position
        if BACK:
            first -= offset
            last -= offset
    elif BACK:
        first = i - offset - right
        last = i - offset + left
    else:
        first = i + offset - left
        last = i + offset + right
    return tl.maximum(first, 0), tl.minimum(last, n - 1)


@triton.jit
def own_tile(n, PLACES: tl.constexpr):
    """Return this program's head, and the first of its n positions."""
    tiles = tl.cdiv(n, PLACES)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * PLACES
    return head.to(tl.int64), start


@triton.jit
def own_rows(start, n, PACK: tl.constexpr, TILE: tl.constexpr):
    """Return the position of each row of a tile, and its place in (PACK, n).

    PACK heads that share their keys lie in one tile, position by position: all of them
    meet the same keys, and a tile of fewer positions meets fewer keys in vain.
    """
    rows = tl.arange(0, TILE)
    i = start + rows // PACK
    return i, (rows % PACK).to(tl.int64) * n + i


@triton.jit
def run_of_tile(
    start,
    n_own,
    n_met,
    left,
    right,
    offset,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    BACK: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Return what the tile meets, begin to end, and within it what needs no mask.

    `begin` is a multiple of STEP. Everyone in the tile meets whole to whole_end.
    """
    last_own = tl.minimum(start + TILE, n_own) - 1
    begin, whole_last = span(start, n_met, left, right, offset, BLOCKS, CAUSAL, BACK)
    whole, last = span(last_own, n_met, left, right, offset, BLOCKS, CAUSAL, BACK)
    return begin // STEP * STEP, last + 1, whole, whole_last + 1


@triton.jit
def load_tile(
    x, start, n, kept, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr
):
    """Load rows of x, (n, D), as (ROWS, WIDTH), with zeros where there is nothing.

    Rows that are not kept are not read either: they may hold NaN. One number of 64 bits
    says where the tile begins, and what is added to it never changes: addresses of
    their own for all rows would fill the registers of the loop.
    """
    features = tl.arange(0, WIDTH)
    rows = tl.arange(0, ROWS)
    inside = rows[:, None] < n - start
    if kept is not None:
        inside = inside & kept[:, None]
    if WIDTH != D:
        inside = inside & (features[None, :] < D)
    tile = x + start * tl.full((), D, tl.int64)
    return tl.load(tile + rows[:, None] * D + features[None, :], mask=inside, other=0.0)


@triton.jit
def load_numbers(x, start, n, ROWS: tl.constexpr):
    """Load ROWS of n numbers from start on, with zeros where there is nothing."""
    rows = tl.arange(0, ROWS)
    return tl.load(x + start + rows, mask=rows < n - start, other=0.0)


@triton.jit
def load_rows(x, places, inside, D: tl.constexpr, WIDTH: tl.constexpr):
    """Load rows of x, (-1, D), from any places, with zeros for those not inside."""
    features = tl.arange(0, WIDTH)
    inside = inside[:, None] & (features[None, :] < D)
    return tl.load(x + places[:, None] * D + features[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(x, tile, places, inside, D: tl.constexpr, WIDTH: tl.constexpr):
    """Store those rows of a tile, (-1, WIDTH), that are inside, in the dtype of x."""
    features = tl.arange(0, WIDTH)
    inside = inside[:, None] & (features[None, :] < D)
    where = x + places[:, None] * D + features[None, :]
    tl.store(where, tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def product(a, b):
    """Return a @ b in float32; float32 inputs keep all their digits (no TF32)."""
    if INTERPRETED:  # the interpreter would multiply bfloat16's bits as integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def tile_scores(
    own,
    met,
    i,
    start,
    whole,
    whole_end,
    n,
    left,
    right,
    offset,
    scale,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    BACK: tl.constexpr,
    STEP: tl.constexpr,
):
    """Return the scores of own positions i with met ones from start on, (TILE, STEP).

    In base 2, and -inf where the pair is not in the pattern. Own are queries and met
    are keys, or with BACK the other way round.
    """
    scores = product(own, tl.trans(met)) * (scale * LOG2_E)
    if (start < whole) | (start + STEP > whole_end):  # an edge tile
        j = start + tl.arange(0, STEP)
        first, last = span(i, n, left, right, offset, BLOCKS, CAUSAL, BACK)
        keep = (j[None, :] >= first[:, None]) & (j[None, :] <= last[:, None])
        scores = tl.where(keep, scores, float("-inf"))
    return scores


@triton.jit
def meet(
    queries,
    k,
    v,
    keep,
    i,
    start,
    whole,
    whole_end,
    n,
    left,
    right,
    offset,
    scale,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    STEP: tl.constexpr,
):
    """Return the keys and values from start on, and the scores of queries i with them.

    A key that is padding scores -inf as well.
    """
    j = start + tl.arange(0, STEP)
    kept = None
    if keep is not None:
        kept = tl.load(keep + j, mask=j < n, other=0) != 0
    keys = load_tile(k, start, n, kept, D, WIDTH, STEP)
    values = load_tile(v, start, n, kept, D, WIDTH, STEP)
    scores = tile_scores(
        queries, keys, i, start, whole, whole_end, n, left, right, offset, scale,
        BLOCKS, CAUSAL, False, STEP,
    )  # fmt: skip
    if keep is not None:
        scores = tl.where(kept[None, :], scores, float("-inf"))
    return keys, values, scores


@tuning(
    (128, 128, 8, 2), (128, 64, 8, 3), (64, 64, 4, 3), (64, 32, 4, 2), (32, 16, 4, 1)
)
@triton.jit
def forward_kernel(
    q,
    k,
    v,
    keep,
    out,
    logsum,
    n_q,
    n_k,
    left,
    right,
    offset,
    group,
    scale,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    PACK: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Attention of one tile of queries: out, and log2 of the sum of 2**scores."""
    head, start = own_tile(n_q, TILE // PACK)
    row, shared = head * PACK * n_q, head * PACK // group * n_k
    i, places = own_rows(start, n_q, PACK, TILE)
    queries = load_rows(q + row * D, places, i < n_q, D, WIDTH)
    if keep is not None:
        keep += shared
    begin, end, whole, whole_end = run_of_tile(
        start, n_q, n_k, left, right, offset, BLOCKS, CAUSAL, False, TILE // PACK, STEP
    )
    top = tl.full((TILE,), float("-inf"), tl.float32)  # largest score so far
    total = tl.zeros((TILE,), tl.float32)  # sum of 2**(score - top)
    mix = tl.zeros((TILE, WIDTH), tl.float32)  # the same sum, over the values
    for met in range(begin, end, STEP):
        _, values, scores = meet(
            queries, k + shared * D, v + shared * D, keep, i, met, whole, whole_end,
            n_k, left, right, offset, scale, D, WIDTH, BLOCKS, CAUSAL, STEP,
        )  # fmt: skip
        new_top = tl.maximum(top, tl.max(scores, 1))
        # A query that has met no key yet: -inf - 0 is -inf, -inf - -inf is NaN.
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - shift[:, None])
        shrink = tl.exp2(top - shift)
        total = total * shrink + tl.sum(weights, 1)
        mix = mix * shrink[:, None] + product(weights.to(values.dtype), values)
        top = new_top
    # Without any key: zeros here, and a log-sum that makes all weights zero later.
    empty = total == 0.0
    mix = mix / tl.where(empty, 1.0, total)[:, None]
    store_rows(out + row * D, mix, places, i < n_q, D, WIDTH)
    logs = tl.where(empty, float("inf"), top + tl.log2(tl.where(empty, 1.0, total)))
    tl.store(logsum + row + places, logs, mask=i < n_q)


@tuning((128, 64, 8, 2), (64, 64, 4, 3), (64, 64, 4, 2), (64, 32, 4, 2), (32, 16, 4, 1))
@triton.jit
def query_gradient_kernel(
    q,
    k,
    v,
    keep,
    out,
    logsum,
    grad,
    grad_lse,
    mean,
    dq,
    n_q,
    n_k,
    left,
    right,
    offset,
    group,
    scale,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    PACK: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Compute dq of one tile of queries, and for later each row's mean of dP.

    A gradient of the log-sum-exp adds the weights times it to the gradient of the
    scores, as if the mean were smaller by it.
    """
    head, start = own_tile(n_q, TILE // PACK)
    row, shared = head * PACK * n_q, head * PACK // group * n_k
    i, places = own_rows(start, n_q, PACK, TILE)
    queries = load_rows(q + row * D, places, i < n_q, D, WIDTH)
    grads = load_rows(grad + row * D, places, i < n_q, D, WIDTH)
    outputs = load_rows(out + row * D, places, i < n_q, D, WIDTH)
    logs = tl.load(logsum + row + places, mask=i < n_q, other=0.0)
    # The mean of dP under the weights P is dO . O: no second pass over the keys.
    means = tl.sum(grads.to(tl.float32) * outputs.to(tl.float32), 1)
    if grad_lse is not None:
        means -= tl.load(grad_lse + row + places, mask=i < n_q, other=0.0)
    tl.store(mean + row + places, means, mask=i < n_q)
    if keep is not None:
        keep += shared
    begin, end, whole, whole_end = run_of_tile(
        start, n_q, n_k, left, right, offset, BLOCKS, CAUSAL, False, TILE // PACK, STEP
    )
    total = tl.zeros((TILE, WIDTH), tl.float32)
    for met in range(begin, end, STEP):
        keys, values, scores = meet(
            queries, k + shared * D, v + shared * D, keep, i, met, whole, whole_end,
            n_k, left, right, offset, scale, D, WIDTH, BLOCKS, CAUSAL, STEP,
        )  # fmt: skip
        weights = tl.exp2(scores - logs[:, None])
        dweights = product(grads, tl.trans(values))
        dscores = weights * (dweights - means[:, None])  # (TILE, STEP)
        total += product(dscores.to(keys.dtype), keys)
    store_rows(dq + row * D, total * scale, places, i < n_q, D, WIDTH)


@tuning(
    (128, 64, 8, 2), (128, 32, 8, 3), (64, 64, 8, 2), (64, 32, 4, 2), (32, 16, 4, 1)
)
@triton.jit
def key_gradient_kernel(
    q,
    k,
    v,
    keep,
    logsum,
    grad,
    mean,
    dk,
    dv,
    n_q,
    n_k,
    left,
    right,
    offset,
    group,
    scale,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
    CAUSAL: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Compute dk and dv of one tile of keys, which meets tiles of queries.

    Everything is transposed, keys down and queries across. The heads of queries that
    share the keys come one after the other. No other program adds to these keys, so
    there are no atomic additions, and the result never varies.
    """
    head, start = own_tile(n_k, TILE)
    j = start + tl.arange(0, TILE)
    own = head * n_k
    kept = None
    if keep is not None:
        kept = tl.load(keep + own + j, mask=j < n_k, other=0) != 0
    keys = load_tile(k + own * D, start, n_k, kept, D, WIDTH, TILE)
    values = load_tile(v + own * D, start, n_k, kept, D, WIDTH, TILE)
    begin, end, whole, whole_end = run_of_tile(
        start, n_k, n_q, left, right, offset, BLOCKS, CAUSAL, True, TILE, STEP
    )
    dkeys = tl.zeros((TILE, WIDTH), tl.float32)
    dvalues = tl.zeros((TILE, WIDTH), tl.float32)
    for member in tl.range(0, group, flatten=True):
        row = (head * group + member) * n_q
        for met in tl.range(begin, end, STEP):
            queries = load_tile(q + row * D, met, n_q, None, D, WIDTH, STEP)
            grads = load_tile(grad + row * D, met, n_q, None, D, WIDTH, STEP)
            logs = load_numbers(logsum + row, met, n_q, STEP)
            scores = tile_scores(
                keys, queries, j, met, whole, whole_end, n_q, left, right, offset,
                scale, BLOCKS, CAUSAL, True, STEP,
            )  # fmt: skip
            weights = tl.exp2(scores - logs[None, :])
            dvalues += product(weights.to(grads.dtype), grads)
            dweights = product(values, tl.trans(grads))
            means = load_numbers(mean + row, met, n_q, STEP)
            dscores = weights * (dweights - means[None, :])  # (TILE, STEP)
            dkeys += product(dscores.to(queries.dtype), queries)
    if keep is not None:  # a padded key has a row of its own: clear it at the end
        dkeys = tl.where(kept[:, None], dkeys, 0.0)
        dvalues = tl.where(kept[:, None], dvalues, 0.0)
    store_rows(dk + own * D, dkeys * scale, j, j < n_k, D, WIDTH)
    store_rows(dv + own * D, dvalues, j, j < n_k, D, WIDTH)


class Settings(NamedTuple):
    """What the kernels are told besides tensors and lengths; see `span`."""

    left: int
    right: int
    offset: int
    group: int  # heads of queries that share a head of keys
    scale: float
    blocks: bool
    causal: bool


class TritonAttention(torch.autograd.Function):
    """The kernels as one differentiable function of q, (G, n_q, d), and k and v.

    Those are (G / group, n_k, d). Returns the output and the log-sum-exp, (G, n_q).
    """

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        """Keep the inputs, the output and one number per query, but no weights."""
        ctx.settings = settings
        ctx.set_materialize_grads(False)
        out, logsum = torch.empty_like(q), _number_per_row(q)
        tensors = (q, k, v, keep, out, logsum)
        launch(forward_kernel, q, tensors, settings, packed(settings.group))
        ctx.save_for_backward(q, k, v, keep, out, logsum)
        # The kernels have base 2, and +inf where there is no key.
        lse = torch.where(logsum == math.inf, -math.inf, logsum * math.log(2))
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor | None, grad_lse: Tensor | None) -> tuple:
        """Compute dq by tiles of queries, then dk and dv by tiles of keys. Eq. (15)."""
        q, k, v, keep, out, logsum = ctx.saved_tensors
        grad = torch.zeros_like(q) if grad is None else grad.contiguous()
        if grad_lse is not None:  # without a key nothing moves, whatever comes in
            grad_lse = grad_lse.masked_fill(logsum == math.inf, 0.0).contiguous()
        mean = _number_per_row(q)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        tensors = (q, k, v, keep, out, logsum, grad, grad_lse, mean, dq)
        pack = packed(ctx.settings.group)
        launch(query_gradient_kernel, q, tensors, ctx.settings, pack)
        tensors = (q, k, v, keep, logsum, grad, mean, dk, dv)
        launch(key_gradient_kernel, k, tensors, ctx.settings)
        return dq, dk, dv, None, None


def _number_per_row(x: Tensor) -> Tensor:
    return torch.empty(x.shape[:2], dtype=torch.float32, device=x.device)


def packed(group: int) -> int:
    """How many of the heads that share keys lie in one tile: a power of 2 up to 16."""
    return math.gcd(group, 16)


def launch(
    kernel, own: Tensor, tensors: tuple, settings: Settings, pack: int | None = None
) -> None:
    """Start one program for each tile of each head of `own`, (heads, n, d).

    With `pack`, as many heads lie in a tile, which then has fewer positions.
    """
    heads, n, d = own.shape
    if heads == 0 or n == 0:
        return
    *numbers, blocks, causal = settings
    width = max(16, triton.next_power_of_2(d))  # what the matrix units accept

    def grid(sizes: dict) -> tuple[int]:
        together = pack or 1
        return (heads // together * triton.cdiv(n, sizes["TILE"] // together),)

    with torch.cuda.device_of(own):  # which need not be the current one
        kernel[grid](
            *tensors,
            tensors[0].shape[1],
            tensors[1].shape[1],
            *numbers,
            D=d,
            WIDTH=width,
            BLOCKS=blocks,
            CAUSAL=causal,
            **({"PACK": pack} if pack else {}),
        )


def triton_local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | tuple[int, int],
    *,
    causal: bool = False,
    first: int | None = None,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Local attention in a Triton kernel, forward and backward, as `local_attention`.

    Query i meets key j exactly when |i - j| <= w, or, if causal, when i - w <= j <= i.
    Products are summed in float32, whatever the dtype of the inputs.

    Args:
        q: Queries, shape (..., n_q, d): float16, bfloat16 or float32, d at most 128.
        k: Keys, shape (..., n_k, d). Where a leading axis is 1, all heads of q share
            one head of keys, which is not copied.
        v: Values, shape (..., n_k, d).
        window: w >= 0, how far a query sees to each side: 2w + 1 keys, w + 1 if causal;
            or (left, right), how far back and how far ahead.
        causal: Also forbid the keys after the query.
        first: Position of the first query on the keys' axis. None means 0, and needs as
            many queries as keys.
        key_keep: bool, (n_k,) or with the leading axes of k, False = padding, never
            attended, whatever it holds.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept, scaled scores.

    Returns:
        Shape (..., n_q, d). A query with no key left gets zeros. With `return_lse`
        also (..., n_q), float32 and differentiable, -inf where no key is left.

    Raises:
        TypeError: If q, k, v are not of one of the three dtypes, or window is no
            integer, or key_keep not boolean.
        ValueError: If shapes do not fit, d > 128, window < 0, first is needed or beyond
            2**28, or the tensors are on the CPU and Triton's interpreter is off.

    Example:
        >>> q = torch.randn(2, 8, 100, 16, device="cuda")  # doctest: +SKIP
        >>> triton_local_attention(q, q, q, window=10).shape  # doctest: +SKIP
        torch.Size([2, 8, 100, 16])
    """
    layout = _check(q, k, v, key_keep)
    left, right = (min(side, 2 * FARTHEST) for side in check_window(window))
    settings = Settings(
        left=left,
        right=0 if causal else right,
        offset=_offset(first, q, k),
        group=math.prod(layout.leading) // max(math.prod(layout.of_keys), 1),
        scale=check_scale(scale, q.shape[-1]),
        blocks=False,
        causal=False,  # a window of (w, 0)
    )
    return _attention(layout, (q, k, v), key_keep, settings, return_lse)


def triton_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_blocks: int | None = None,
    *,
    block_size: int | None = None,
    causal: bool = False,
    first: int | None = None,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Block-sparse attention in a Triton kernel, as `sparse_attention`.

    Query i meets key j exactly when |i // b - j // b| <= 1 and, if causal, j <= i.
    Where b is a multiple of the kernel's tiles, no tile is masked, except for
    causality and at the end.

    Args:
        q: Queries, shape (..., n_q, d): float16, bfloat16 or float32, d at most 128.
        k: Keys, shape (..., n_k, d). Where a leading axis is 1, all heads of q share
            one head of keys, which is not copied.
        v: Values, shape (..., n_k, d).
        num_blocks: How many blocks of equal size; must divide n_k.
        block_size: b, tokens in a block, instead of num_blocks; any n_k, the last block
            may be shorter.
        causal: Also forbid the keys after the query.
        first: Position of the first query on the keys' axis, where the blocks are
            counted. None means 0, and needs as many queries as keys.
        key_keep: bool, (n_k,) or with the leading axes of k, False = padding, never
            attended, whatever it holds.
        scale: Factor of the scores, by default 1 / sqrt(d).
        return_lse: Also return the log-sum-exp of each query's kept, scaled scores.

    Returns:
        Shape (..., n_q, d). A query with no key left gets zeros. With `return_lse`
        also (..., n_q), float32 and differentiable, -inf where no key is left.

    Raises:
        TypeError: If q, k, v are not of one of the three dtypes, or a number of blocks
            is no integer, or key_keep not boolean.
        ValueError: If shapes do not fit, d > 128, num_blocks does not divide n_k, not
            exactly one of num_blocks and block_size is given, first is needed or beyond
            2**28, or the tensors are on the CPU and Triton's interpreter is off.

    Example:
        >>> q = torch.randn(2, 8, 96, 16, device="cuda")  # doctest: +SKIP
        >>> triton_sparse_attention(q, q, q, num_blocks=6).shape  # doctest: +SKIP
        torch.Size([2, 8, 96, 16])
    """
    layout = _check(q, k, v, key_keep)
    size = check_block(k.shape[-2], num_blocks, block_size)
    settings = Settings(
        left=min(size, FARTHEST),  # a larger block borders on nothing
        right=0,
        offset=_offset(first, q, k),
        group=math.prod(layout.leading) // max(math.prod(layout.of_keys), 1),
        scale=check_scale(scale, q.shape[-1]),
        blocks=True,
        causal=bool(causal),
    )
    return _attention(layout, (q, k, v), key_keep, settings, return_lse)


def _check(q: Tensor, k: Tensor, v: Tensor, key_keep: Tensor | None) -> Layout:
    leading = check_qkv(q, k, v)
    check_key_keep(key_keep, k)
    if q.dtype not in DTYPES:
        raise TypeError(f"q must be float16, bfloat16 or float32, got {q.dtype}")
    if q.shape[-1] > WIDEST:
        raise ValueError(
            f"q must have a width of at most {WIDEST}, got shape {tuple(q.shape)}"
        )
    if v.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"v must have the width of q, {q.shape[-1]}, got shape {tuple(v.shape)}"
        )
    if q.device.type == "cpu" and not INTERPRETED:
        raise ValueError(
            "q must be on a GPU, got cpu; to run the kernels on the CPU, set "
            "TRITON_INTERPRET=1 in the environment before Triton is imported"
        )
    if INTERPRETED:
        _check_versions(triton.__version__, numpy.__version__)
    return Layout.of(leading, k, v)


def _check_versions(triton_has: str, numpy_has: str) -> None:
    """Refuse the two releases whose meeting ends in an error inside the interpreter."""
    if release(triton_has) < (3, 7) and release(numpy_has) >= (2, 4):
        raise RuntimeError(
            f"the interpreter of Triton {triton_has} does not work with NumPy "
            f"{numpy_has}: install triton 3.7 or newer, or numpy<2.4"
        )


def release(version: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _offset(first: int | None, q: Tensor, k: Tensor) -> int:
    n_q, n_k = q.shape[-2], k.shape[-2]
    first = check_first(first, n_q, n_k)
    if abs(first) + n_q + n_k >= FARTHEST:
        raise ValueError(
            f"first must leave all positions below 2**28, got {first} for {n_q} "
            f"queries and {n_k} keys: drop the keys that no query meets"
        )
    return first


def _attention(
    layout: Layout,
    qkv: tuple[Tensor, Tensor, Tensor],
    key_keep: Tensor | None,
    settings: Settings,
    return_lse: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    q, k, v = qkv
    four = [layout.queries(q), layout.keys(k), layout.keys(v)]
    flat = (x.flatten(0, 1).contiguous() for x in four)  # (G, n, d)
    if key_keep is not None:  # bytes, (G / group, n_k)
        key_keep = layout.keys(key_keep[..., None]).flatten(0, 1)[..., 0]
        key_keep = key_keep.contiguous().view(torch.uint8)
    out, lse = TritonAttention.apply(*flat, key_keep, settings)
    heads = four[0].shape[:2]
    out, lse = (layout.restored(x.unflatten(0, heads)) for x in (out, lse))
    return (out, lse) if return_lse else out
