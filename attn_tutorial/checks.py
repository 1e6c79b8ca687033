"""Argument checks: each message names the argument, its value and what was expected.

The checks return what the caller needs, in the form it needs.
"""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor

__all__ = [
    "check_block",
    "check_count",
    "check_keep",
    "check_key_keep",
    "check_number",
    "check_qkv",
    "check_same_length",
    "check_scale",
    "check_window",
]


def check_count(name: str, value: int, *, least: int) -> int:
    """Return ``value`` if it is an integer of at least ``least``.

    Raises:
        TypeError: If it is not an integer (a bool is not one).
        ValueError: If it is too small.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if isinstance(value, Tensor) and value.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        count = value.__index__()
    except (TypeError, RuntimeError):  # a tensor of several or fractional numbers
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def check_number(name: str, value: float, *, positive: bool = False) -> float:
    """Return ``value`` as a float if it is a finite real number and not negative.

    Raises:
        TypeError: If it is not a real number (a bool is not one).
        ValueError: If it is negative, not finite, or 0 where it must be positive.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        kind = "positive" if positive else "at least 0"
        raise ValueError(f"{name} must be finite and {kind}, got {value!r}")
    return float(value)


def check_window(window: int) -> int:
    """Return the one-sided window w >= 0."""
    return check_count("window", window, least=0)


def check_block(n: int, num_blocks: int | None, block_size: int | None) -> int:
    """Return the block size b, from exactly one of ``num_blocks`` and ``block_size``.

    Args:
        n: Sequence length.
        num_blocks: Number of equal blocks; must divide n.
        block_size: Tokens in a block; the last block may be shorter.

    Raises:
        TypeError: If both or neither are given, or one is not an integer.
        ValueError: If it is below 1, or ``num_blocks`` does not divide n.
    """
    if (num_blocks is None) == (block_size is None):
        raise TypeError(
            "give exactly one of num_blocks and block_size, "
            f"got num_blocks={num_blocks!r} and block_size={block_size!r}"
        )
    if block_size is not None:
        return check_count("block_size", block_size, least=1)
    count = check_count("num_blocks", num_blocks, least=1)
    if n % count:
        raise ValueError(
            f"num_blocks must divide the sequence length n={n}, got {count}; "
            "use block_size for a shorter last block"
        )
    return max(1, n // count)


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check (..., n_q, d), (..., n_k, d), (..., n_k, d_v), dtypes and devices."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check_input(name, x)
    for name, x in (("k", k), ("v", v)):
        _check_like(name, x, q)
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"k must have the width of q, {q.shape[-1]}, got shape {tuple(k.shape)}"
        )
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"v must have the length of k, {k.shape[-2]}, got shape {tuple(v.shape)}"
        )


def _check_input(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"{name} must have shape (..., n, d), got {tuple(x.shape)}")
    if x.shape[-1] == 0:
        raise ValueError(
            f"{name} must have a width of at least 1, got {tuple(x.shape)}"
        )


def _check_like(name: str, x: Tensor, q: Tensor) -> None:
    if x.dtype != q.dtype:
        raise TypeError(f"{name} must have the dtype of q, {q.dtype}, got {x.dtype}")
    if x.device != q.device:
        raise ValueError(f"{name} must be on q's device, {q.device}, got {x.device}")
    if x.shape[:-2] != q.shape[:-2]:
        raise ValueError(
            f"{name} must have the leading dimensions of q, {tuple(q.shape[:-2])}, "
            f"got shape {tuple(x.shape)}"
        )


def check_same_length(q: Tensor, k: Tensor) -> int:
    """Return n if queries and keys are the same sequence positions, 0 ... n - 1."""
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"k must have the length of q, {q.shape[-2]}, got shape {tuple(k.shape)}"
        )
    return q.shape[-2]


def check_keep(keep: Tensor | None, q: Tensor, k: Tensor) -> None:
    """Check a bool mask that broadcasts to (..., n_q, n_k)."""
    if keep is not None:
        shape = (*q.shape[:-1], k.shape[-2])
        _check_mask("keep", keep, shape, q.device)


def check_key_keep(key_keep: Tensor | None, k: Tensor) -> None:
    """Check a bool mask of the keys that broadcasts to (..., n); its n is explicit."""
    if key_keep is None:
        return
    _check_mask("key_keep", key_keep, tuple(k.shape[:-1]), k.device)
    if key_keep.ndim == 0 or key_keep.shape[-1] != k.shape[-2]:
        raise ValueError(
            f"key_keep must have shape (..., {k.shape[-2]}), "
            f"got {tuple(key_keep.shape)}"
        )


def _check_mask(name: str, mask: Tensor, shape: tuple, device: torch.device) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be bool (True = attend), got {mask.dtype}")
    if mask.device != device:
        raise ValueError(f"{name} must be on q's device, {device}, got {mask.device}")
    try:
        fits = torch.broadcast_shapes(mask.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must broadcast to shape {tuple(shape)}, got {tuple(mask.shape)}"
        )


def check_scale(scale: float | None, d: int) -> float:
    """Return the factor on the scores: ``scale``, or 1 / sqrt(d) where it is None."""
    if scale is None:
        return 1.0 / math.sqrt(d)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale must be a number or None, got {scale!r}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale!r}")
    return float(scale)
