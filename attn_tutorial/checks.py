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
    "check_first",
    "check_grouped",
    "check_keep",
    "check_key_keep",
    "check_lengths",
    "check_number",
    "check_position",
    "check_qkv",
    "check_radius",
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


def check_window(window: int | tuple[int, int]) -> tuple[int, int]:
    """Return (left, right), how far a query sees to each side: w means (w, w).

    Raises:
        TypeError: If it is neither an integer nor a pair of integers.
        ValueError: If a side is negative.
    """
    if isinstance(window, (tuple, list)):
        if len(window) != 2:
            raise ValueError(f"window must be w or (left, right), got {window!r}")
        return tuple(check_count("window", side, least=0) for side in window)
    radius = check_count("window", window, least=0)
    return radius, radius


def check_radius(window: int) -> int:
    """Return the one-sided window w >= 0, where the two sides must be equal."""
    return check_count("window", window, least=0)


def check_position(name: str, value: int) -> int:
    """Return an integer that can be a position: between -2**62 and 2**62."""
    limit = 2**62
    position = check_count(name, value, least=-limit)
    if position > limit:
        raise ValueError(f"{name} must be at most 2**62, got {position}")
    return position


def check_first(first: int | None, n_q: int, n_k: int) -> int:
    """Return the position of the first query on the keys' axis.

    Raises:
        ValueError: If it is None and the lengths differ, so that it cannot be known.
    """
    if first is not None:
        return check_position("first", first)
    if n_q != n_k:
        raise ValueError(
            f"first must be given for {n_q} queries and {n_k} keys, got None: "
            f"first=0 if they start together, first={n_k - n_q} if they end together"
        )
    return 0


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


def check_qkv(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, ...]:
    """Check (..., n_q, d), (..., n_k, d), (..., n_k, d_v), dtypes and devices.

    Returns:
        The leading axes of the output. All three have as many, each equal or 1, so
        that several heads of queries can share one head of keys and values.
    """
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
    return _leading(q, k, v)


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


def _leading(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, ...]:
    shape = tuple(q.shape[:-2])
    for name, x in (("k", k), ("v", v)):
        other = tuple(x.shape[:-2])
        if other == shape:  # the common case, in no time
            continue
        pairs = list(zip(shape, other, strict=False))
        if len(other) != len(shape) or any(
            a != b and 1 not in (a, b) for a, b in pairs
        ):
            raise ValueError(
                f"{name} must have the leading dimensions of q, "
                f"{tuple(q.shape[:-2])}, or 1 in their place, "
                f"got shape {tuple(x.shape)}"
            )
        shape = tuple(b if a == 1 else a for a, b in pairs)
    return shape


def check_grouped(q: Tensor, k: Tensor, v: Tensor) -> int:
    """Check (..., heads, n, d), (..., kv_heads, n, d) and (..., kv_heads, n, d_v).

    Returns:
        heads / kv_heads: how many heads of queries share one head of keys.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check_input(name, x)
        if x.ndim < 3:
            raise ValueError(
                f"{name} must have shape (..., heads, n, d), got {tuple(x.shape)}"
            )
    if v.shape[:-2] != k.shape[:-2]:
        raise ValueError(
            f"v must have the leading dimensions of k, {tuple(k.shape[:-2])}, "
            f"got shape {tuple(v.shape)}"
        )
    heads, shared = q.shape[-3], k.shape[-3]
    if shared == 0 or heads % shared:
        raise ValueError(
            f"k must have a number of heads that divides those of q, {heads}, "
            f"got shape {tuple(k.shape)}"
        )
    check_qkv(q[..., :1, :, :], k[..., :1, :, :], v[..., :1, :, :])
    if q.shape[:-3] != k.shape[:-3]:
        raise ValueError(
            f"k must have the batch dimensions of q, {tuple(q.shape[:-3])}, "
            f"got shape {tuple(k.shape)}"
        )
    check_same_length(q, k)
    return heads // shared


def check_lengths(
    name: str, lengths: Tensor | None, batch: tuple[int, ...], n: int
) -> Tensor:
    """Return how many of n tokens each row has, integers (rows,) on the CPU.

    Args:
        name: The argument's name.
        lengths: Integers of shape ``batch``, or of its first axes; n everywhere if
            None.
        batch: The leading axes; their product is the number of rows.
        n: The most that a row can have.

    Raises:
        TypeError: If they are no integers.
        ValueError: If they have another shape, or one is below 0 or above n.
    """
    rows = math.prod(batch)
    if lengths is None:
        return torch.full((rows,), n, dtype=torch.long, device="cpu")
    lengths = torch.as_tensor(lengths, device="cpu")
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {lengths.dtype}")
    shape = tuple(lengths.shape)
    if not shape == batch[: len(shape)] or (batch and not shape):
        raise ValueError(f"{name} must have shape {batch}, got {shape}")
    if lengths.numel() and not 0 <= lengths.min() <= lengths.max() <= n:
        raise ValueError(f"{name} must lie between 0 and {n}, got {lengths.tolist()}")
    open_axes = (1,) * (len(batch) - len(shape))
    return lengths.long().reshape(*shape, *open_axes).expand(batch).reshape(rows)


def check_same_length(q: Tensor, k: Tensor) -> int:
    """Return n if queries and keys are the same sequence positions, 0 ... n - 1."""
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"k must have the length of q, {q.shape[-2]}, got shape {tuple(k.shape)}"
        )
    return q.shape[-2]


def check_keep(keep: Tensor | None, q: Tensor, k: Tensor) -> None:
    """Check a bool mask of pairs: (n_q, n_k), or with the leading axes of q before it.

    Any axis may be 1 instead.
    """
    if keep is None:
        return
    _check_mask("keep", keep, q.device)
    leading = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    shape = (*leading, q.shape[-2], k.shape[-2])
    if keep.ndim not in (2, len(shape)) or not _fits(keep, shape):
        repair = _with_axes("keep", keep, shape, inner=2)
        raise ValueError(
            f"keep must have shape {_either(shape[-2:], shape)}, "
            f"got {tuple(keep.shape)}{repair}"
        )


def check_key_keep(key_keep: Tensor | None, k: Tensor) -> None:
    """Check a bool mask of the keys: (n,), or with the leading axes of k before it.

    A leading axis may be 1 instead.
    """
    if key_keep is None:
        return
    _check_mask("key_keep", key_keep, k.device)
    shape = tuple(k.shape[:-1])
    fits = key_keep.ndim in (1, len(shape)) and _fits(key_keep, shape)
    if not fits or key_keep.shape[-1] != shape[-1]:
        repair = _with_axes("key_keep", key_keep, shape, inner=1)
        raise ValueError(
            f"key_keep must have shape {_either(shape[-1:], shape)}, "
            f"got {tuple(key_keep.shape)}{repair}"
        )


def _either(short: tuple[int, ...], long: tuple[int, ...]) -> str:
    return str(short) if short == long else f"{short} or {long}"


def _check_mask(name: str, mask: Tensor, device: torch.device) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor (a pattern becomes one by "
            f"at.dense_mask), got {type(mask).__name__}"
        )
    if mask.dtype != torch.bool:
        raise TypeError(
            f"{name} must be bool (True = attend), got {mask.dtype}: "
            f"write {_as_bool(name, mask)}"
        )
    if mask.device != device:
        raise ValueError(f"{name} must be on q's device, {device}, got {mask.device}")


def _as_bool(name: str, mask: Tensor) -> str:
    """What makes a mask bool: scores are added, 0 and -inf; others are 1 and 0."""
    if not mask.is_floating_point():
        return f"{name}.bool()"
    if mask.is_meta:
        return f"{name} == 0 if it is added to scores, and {name} != 0 if not"
    return f"{name} == 0" if bool((mask <= 0).all()) else f"{name} != 0"


def _fits(mask: Tensor, shape: tuple[int, ...]) -> bool:
    pairs = zip(reversed(mask.shape), reversed(shape), strict=False)
    return mask.ndim <= len(shape) and all(a in (1, b) for a, b in pairs)


def _with_axes(name: str, mask: Tensor, shape: tuple[int, ...], inner: int) -> str:
    """The line that gives a mask of batches its missing axes, if that repairs it."""
    missing = len(shape) - mask.ndim
    outer = mask.ndim - inner
    if missing < 1 or outer < 1:
        return ""
    full = (*mask.shape[:outer], *(1 for _ in range(missing)), *mask.shape[outer:])
    if not all(a in (1, b) for a, b in zip(full, shape, strict=True)):
        return ""
    index = ", ".join([":"] * outer + ["None"] * missing)
    return f": write {name}[{index}]"


def check_scale(scale: float | None, d: int) -> float:
    """Return the factor on the scores: ``scale``, or 1 / sqrt(d) where it is None."""
    if scale is None:
        return 1.0 / math.sqrt(d)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        raise TypeError(f"scale must be a number or None, got {scale!r}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale!r}")
    return float(scale)
