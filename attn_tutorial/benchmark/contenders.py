"""Who competes: each contender says whether it can run a case here, or why not.

A contender is a function that takes a `Case` and a device and returns a function of
q, k and v, or raises `Unavailable`. `@contender(name, ...)` enters it into
`CONTENDERS`; that is all that a new one needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import attn_tutorial as at
from attn_tutorial.benchmark.cases import Case
from attn_tutorial.local import window_tile
from attn_tutorial.patterns import run
from attn_tutorial.sparse import block_tiles

__all__ = ["CONTENDERS", "Contender", "Unavailable", "contender", "visited_pairs"]

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Unavailable(Exception):
    """A contender cannot run a case here; the message says why."""


@dataclass(frozen=True)
class Contender:
    """One way to compute a case.

    Attributes:
        name: What records and tables call it.
        make: Returns the function to be measured, or raises `Unavailable`.
        pairs: How many pairs of one head it computes, kept or not.
        stores_weights: Whether backward reads stored weights (four more products)
            instead of computing the scores again (five more).
        computes: "pattern", or "full" if it ignores the pattern and computes all pairs.
        edges: False if it treats the two ends of the sequence differently by
            definition; then only rows in the interior are compared.
    """

    name: str
    make: Callable[[Case, str], Attend]
    pairs: Callable[[Case], int]
    stores_weights: bool = False
    computes: str = "pattern"
    edges: bool = True

    def executed_flops(self, case: Case) -> int:
        """Operations of all the pairs that it computes, kept or not."""
        products = 2 + case.backward * (4 if self.stores_weights else 5)
        return 2 * case.d * case.heads * products * self.pairs(case)


CONTENDERS: dict[str, Contender] = {}


def contender(name: str, **about) -> Callable:
    """Enter the decorated function into `CONTENDERS` under a name."""

    def enter(make: Callable[[Case, str], Attend]) -> Callable[[Case, str], Attend]:
        CONTENDERS[name] = Contender(name, make, **about)
        return make

    return enter


# Reasons not to run

SCORES_LIMIT = 4e9  # bytes of scores that a contender may hold at once


def refuse_large_scores(case: Case, keys: int, tensors: int = 4) -> None:
    """Refuse a case in which several tensors of `keys` scores a token are too large."""
    itemsize = getattr(torch, case.dtype).itemsize
    needed = tensors * itemsize * case.heads * case.n * keys
    if needed > SCORES_LIMIT:
        raise Unavailable(
            f"its scores would take about {needed / 1e9:.0f} GB, "
            f"the limit is {SCORES_LIMIT / 1e9:.0f}"
        )


def refuse_unless(possible: bool, reason: str) -> None:
    """Refuse with a reason where it is not possible."""
    if not possible:
        raise Unavailable(reason)


def sharing(case: Case, attend: Attend) -> Attend:
    """Let a routine that broadcasts leading axes take several heads to one of keys."""
    if case.group == 1:
        return attend

    def shared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q.unflatten(1, (-1, case.group))  # (1, kv_heads, group, n, d)
        return attend(q, k[:, :, None], v[:, :, None]).flatten(1, 2)

    return shared


def refuse_shared(case: Case) -> None:
    """Refuse heads that share their keys."""
    refuse_unless(case.group == 1, "each head needs keys of its own")


# Pairs that are computed


def visited_pairs(case: Case, rows: int, columns: int = 1) -> int:
    """Count the pairs of all tiles of rows x columns that hold a kept pair.

    Tiles are aligned to multiples of their size. With columns = 1 a tile of queries
    meets exactly the run from its first to its last key.
    """
    total = 0
    for start in range(0, case.n, rows):
        stop = min(start + rows, case.n)
        keys = run(case.pattern, range(start, stop), case.n)
        end = min(-(-keys.stop // columns) * columns, case.n)
        total += (stop - start) * (end - keys.start // columns * columns)
    return total


def all_pairs(case: Case) -> int:
    """Count all n * n pairs."""
    return case.n**2


def half_of_pairs(case: Case) -> int:
    """Count all pairs, or if causal half of them."""
    return case.n**2 // (1 + case.causal)


def pairs_of_pattern(case: Case) -> int:
    """Count the pairs of the pattern."""
    return at.cost.kept_pairs(case.pattern, case.n)


def tiled_pairs(case: Case) -> int:
    """Count what our tiles compute."""
    if case.mechanism == "local":
        return visited_pairs(case, window_tile(case.size, case.causal).rows)
    tile = block_tiles(case.size, case.causal)[0]
    return visited_pairs(case, tile.rows)


# The ladder of the book


@contender("loop", pairs=pairs_of_pattern, stores_weights=True)
def loop(case: Case, device: str) -> Attend:
    """One query at a time, in Python."""
    refuse_shared(case)
    limit = 512 if case.backward else 2048
    refuse_unless(case.n <= limit, f"a loop in Python: measured up to n = {limit}")
    spans = [run(case.pattern, range(i, i + 1), case.n) for i in range(case.n)]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i, span in enumerate(spans):
            seen = slice(span.start, span.stop)
            parts = q[..., i : i + 1, :], k[..., seen, :], v[..., seen, :]
            rows.append(at.attention(*parts))
        return torch.cat(rows, -2)

    return attend


@contender("masked dense", pairs=all_pairs, stores_weights=True)
def masked_dense(case: Case, device: str) -> Attend:
    """Eq. 1 with the pattern as a mask."""
    refuse_shared(case)
    refuse_unless(case.n <= 4096, "n x n scores: measured up to n = 4096")
    refuse_large_scores(case, case.n, tensors=3)
    keep = at.dense_mask(case.pattern, case.n).to(device)
    return lambda q, k, v: at.attention(q, k, v, keep)


@contender("sdpa + mask", pairs=all_pairs)
def masked_sdpa(case: Case, device: str) -> Attend:
    """PyTorch's attention with the pattern as an n x n mask."""
    limit = 16384 if device == "cuda" else 8192
    refuse_unless(case.n <= limit, f"an n x n mask: measured up to n = {limit}")
    keep = at.dense_mask(case.pattern, case.n).to(device)
    return lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=keep, enable_gqa=case.group > 1
    )


@contender("sdpa full", pairs=half_of_pairs, computes="full")
def full_sdpa(case: Case, device: str) -> Attend:
    """PyTorch's attention over all pairs: not the same function, the usual choice."""
    return lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, is_causal=case.causal, enable_gqa=case.group > 1
    )


def full_sdpa_by(backend: str) -> Callable[[Case, str], Attend]:
    """PyTorch's attention over all pairs, by one of its kernels and no other."""

    def make(case: Case, device: str) -> Attend:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if backend == "CUDNN_ATTENTION":
            check_gpu(device)
        full = full_sdpa(case, device)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(getattr(SDPBackend, backend)):
                return full(q, k, v)

        return attend

    return make


for _name, _backend in (("flash", "FLASH_ATTENTION"), ("cudnn", "CUDNN_ATTENTION")):
    contender(f"sdpa {_name}", pairs=half_of_pairs, computes="full")(
        full_sdpa_by(_backend)
    )


@contender("tiled", pairs=tiled_pairs)
def tiled(case: Case, device: str) -> Attend:
    """attn_tutorial.local_attention and sparse_attention."""
    size, causal = case.size, case.causal
    if case.mechanism == "local":
        return sharing(
            case, lambda q, k, v: at.local_attention(q, k, v, size, causal=causal)
        )
    refuse_unless(case.mechanism == "blocks", "computes windows and blocks only")
    return sharing(
        case,
        lambda q, k, v: at.sparse_attention(q, k, v, block_size=size, causal=causal),
    )


# FlexAttention


def flex_blocks(size: int) -> Callable[[Case], int]:
    """Count the pairs of the blocks that FlexAttention visits."""
    return lambda case: visited_pairs(case, size, size)


def check_flex(case: Case, device: str, block: int) -> None:
    """Refuse what FlexAttention cannot do here."""
    refuse_unless(
        not (case.backward and device == "cpu"),
        "FlexAttention has no backward pass on CPU",
    )
    refuse_unless(
        case.mechanism != "blocks" or block <= case.size,
        "a larger block than the pattern's",
    )
    refuse_unless(
        device == "cpu" or block >= 64, "on a GPU FlexAttention's tiles are larger"
    )
    table = 16 * (case.n // block) ** 2
    refuse_unless(table <= 2e9, f"its table of blocks takes {table / 1e9:.0f} GB")


def flex(block: int) -> Callable[[Case, str], Attend]:
    """Compiled FlexAttention; blocks that are full have no mask inside."""

    def make(case: Case, device: str) -> Attend:
        from attn_tutorial.backends.flex import flex_attention

        check_flex(case, device, block)
        return sharing(
            case,
            lambda q, k, v: flex_attention(q, k, v, case.pattern, block_size=block),
        )

    return make


@contender("flex 128 partial", pairs=flex_blocks(128))
def flex_partial(case: Case, device: str) -> Attend:
    """Compiled FlexAttention that masks in every block, also in full ones."""
    from attn_tutorial.backends import flex as backend

    check_flex(case, device, 128)
    module = backend.flex_module()
    states = backend.block_states(case.pattern, case.n, block_size=128, device=device)
    mask = module.BlockMask.from_kv_blocks(
        *backend.listed(states != backend.EMPTY),
        BLOCK_SIZE=128,
        mask_mod=case.pattern,
        seq_lengths=(case.n, case.n),
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shared = case.group > 1
        return module.flex_attention(q, k, v, block_mask=mask, enable_gqa=shared)

    return torch.compile(backend.with_own_code(attend), dynamic=False)


for _block in (32, 64, 128):
    contender(f"flex {_block}", pairs=flex_blocks(_block))(flex(_block))


# Packages


@contender("local-attention", pairs=lambda case: case.n * (3 - case.causal) * case.size,
           stores_weights=True)  # fmt: skip
def local_attention_package(case: Case, device: str) -> Attend:
    """The package local-attention: blocks, and a mask inside them for a window."""
    refuse_unless(case.mechanism != "full", "computes windows and blocks only")
    refuse_shared(case)
    try:
        from local_attention import LocalAttention
    except ImportError as error:
        raise Unavailable(str(error)) from None
    refuse_unless(case.n % case.size == 0, "needs blocks that divide n")
    refuse_large_scores(case, 3 * case.size)
    return LocalAttention(
        window_size=case.size,
        causal=case.causal,
        look_backward=1,
        look_forward=0 if case.causal else 1,
        exact_windowsize=case.mechanism == "local",
    ).to(device)


@contender("longformer chunks", pairs=lambda case: case.n * 7 * case.size // 2,
           stores_weights=True)  # fmt: skip
def longformer_chunks(case: Case, device: str) -> Attend:
    """Longformer's sliding chunks, as transformers has them: 4w scores, 3w products."""
    two_sided = case.mechanism == "local" and not case.causal
    refuse_unless(two_sided, "computes windows to both sides only")
    refuse_shared(case)
    refuse_unless(case.n % (2 * case.size) == 0, "needs 2w to divide n")
    refuse_large_scores(case, 3 * case.size)
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
    layer = layer.to(device)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q / math.sqrt(case.d), k, v))
        scores = layer._sliding_chunks_query_key_matmul(q, k, case.size)
        weights = scores.softmax(-1)
        output = layer._sliding_chunks_matmul_attn_probs_value(weights, v, case.size)
        return output.transpose(1, 2)

    return attend


# GPU kernels. Their own tiles decide what they compute; 64 x 64 is assumed.


def gpu_pairs(case: Case) -> int:
    """Count the pairs of 64 x 64 tiles that hold a kept pair."""
    return visited_pairs(case, 64, 64)


def check_gpu(device: str) -> None:
    """Refuse a machine without CUDA."""
    refuse_unless(device == "cuda", "needs a CUDA device")


@contender("triton", pairs=gpu_pairs)
def triton(case: Case, device: str) -> Attend:
    """attn_tutorial's kernels in Triton."""
    check_gpu(device)
    try:
        from attn_tutorial.backends import triton_local as backend
    except ImportError as error:
        raise Unavailable(str(error)) from None
    size, causal = case.size, case.causal
    if case.mechanism == "local":
        return sharing(
            case,
            lambda q, k, v: backend.triton_local_attention(
                q, k, v, size, causal=causal
            ),
        )
    refuse_unless(case.mechanism == "blocks", "computes windows and blocks only")
    return sharing(
        case,
        lambda q, k, v: backend.triton_sparse_attention(
            q, k, v, block_size=size, causal=causal
        ),
    )


def check_window_kernel(case: Case, device: str, dtypes: tuple[str, ...]) -> None:
    """Refuse what a kernel for windows cannot do."""
    check_gpu(device)
    refuse_shared(case)
    refuse_unless(case.mechanism == "local", "computes windows only")
    refuse_unless(case.dtype in dtypes, f"computes {' and '.join(dtypes)} only")


@contender("flash-attn", pairs=gpu_pairs)
def flash_attn(case: Case, device: str) -> Attend:
    """The package flash-attn with its window."""
    check_window_kernel(case, device, ("float16", "bfloat16"))
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise Unavailable(str(error)) from None
    window = (case.size, 0 if case.causal else case.size)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (1, n, heads, d)
        return flash_attn_func(q, k, v, window_size=window).transpose(1, 2)

    return attend


@contender("xformers", pairs=gpu_pairs)
def xformers(case: Case, device: str) -> Attend:
    """The package xFormers with its local mask."""
    check_window_kernel(case, device, ("float16", "bfloat16"))
    try:
        from xformers import ops
        from xformers.ops.fmha.attn_bias import LocalAttentionFromBottomRightMask
    except ImportError as error:
        raise Unavailable(str(error)) from None
    right = 0 if case.causal else case.size
    mask = LocalAttentionFromBottomRightMask(window_left=case.size, window_right=right)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (1, n, heads, d)
        return ops.memory_efficient_attention(q, k, v, attn_bias=mask).transpose(1, 2)

    return attend


@contender("natten", pairs=gpu_pairs, edges=False)
def natten(case: Case, device: str) -> Attend:
    """The package NATTEN, whose windows do not shrink at the ends."""
    check_window_kernel(case, device, ("float32", "float16", "bfloat16"))
    try:
        from natten.functional import na1d
    except ImportError as error:
        raise Unavailable(str(error)) from None
    size = case.size + 1 if case.causal else 2 * case.size + 1
    refuse_unless(size <= case.n, "needs a window within n")

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (1, n, heads, d)
        output = na1d(q, k, v, kernel_size=size, is_causal=case.causal)
        return output.transpose(1, 2)

    return attend
