"""The fast routine of a pattern whose queries meet short runs of keys."""

from __future__ import annotations

from torch import Tensor

from attn_tutorial import patterns
from attn_tutorial.checks import check_first, check_key_keep, check_qkv, check_scale
from attn_tutorial.local import local_attention
from attn_tutorial.patterns import Pattern, check_length, check_pattern
from attn_tutorial.sparse import sparse_attention
from attn_tutorial.tiled import tiled_attention

__all__ = ["has_own_routine", "run_attention"]


def run_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    *,
    first: int | None = None,
    key_keep: Tensor | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention under any pattern, a tile of queries and its run of keys at a time.

    Windows and adjacent blocks, alone or with ``& causal()``, have routines of their
    own. Of any other pattern the run of each tile is looked up, and masked: fast where
    runs are short, right in any case.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d).
        v: Values, shape (..., n_k, d_v).
        pattern: Which pairs to keep.
        first: Position of the first query on the keys' axis. None means 0, and needs
            as many queries as keys.
        key_keep: Bool, shape (n_k,), or the leading axes of k and n_k; False = padding.
        scale: Factor on the scores, 1 / sqrt(d) if None.
        return_lse: Also return the log of each softmax denominator.

    Returns:
        Shape (..., n_q, d_v), zeros for a query with no key left; with ``return_lse``
        also the log-sum-exp, (..., n_q), -inf for such a query.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape, or a length
            is beyond those that the pattern is defined for.
    """
    check_pattern("pattern", pattern)
    check_qkv(q, k, v)
    check_key_keep(key_keep, k)
    first = check_first(first, q.shape[-2], k.shape[-2])
    check_length(pattern, q.shape[-2], k.shape[-2], first)
    core, causal = _without_causal(pattern)
    options = {"first": first, "key_keep": key_keep, "return_lse": return_lse}
    if core.name == "local":
        options |= {"causal": causal, "scale": scale}
        return local_attention(q, k, v, core["window"], **options)
    if core.name == "adjacent_blocks":
        options |= {"causal": causal, "scale": scale}
        return sparse_attention(q, k, v, block_size=core["block_size"], **options)
    scale = check_scale(scale, q.shape[-1])
    return tiled_attention(q, k, v, (), pattern, scale=scale, **options)


def has_own_routine(pattern: Pattern) -> bool:
    """Whether it is a window or adjacent blocks, alone or with ``& causal()``."""
    return _without_causal(pattern)[0].name in ("local", "adjacent_blocks")


def _without_causal(pattern: Pattern) -> tuple[Pattern, bool]:
    """Split ``p & causal()`` into (p, True); any other p into (p, False)."""
    if pattern.name != "intersection" or len(pattern.parts) != 2:
        return pattern, False
    first, second = pattern.parts
    if first == patterns.causal():
        return second, True
    return (first, True) if second == patterns.causal() else (pattern, False)
