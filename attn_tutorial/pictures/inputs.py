"""What a picture is given, checked: each message names the argument and its value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

__all__ = ["booleans", "check_between", "check_limits", "curve_points", "numbers"]


def _rows(name: str, values: Any) -> list[list[Any]]:
    """Turn a tensor, an array or nested lists into rows of Python values.

    Raises:
        ValueError: If it is not a matrix with at least one row and one column.
    """
    rows = values.tolist() if hasattr(values, "tolist") else list(values)
    rows = [r.tolist() if hasattr(r, "tolist") else r for r in rows]
    if not rows or not all(isinstance(row, (list, tuple)) for row in rows):
        raise ValueError(f"{name} must be a matrix with at least one row and column")
    if not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"every row of {name} must have the same length, not 0")
    if isinstance(rows[0][0], (list, tuple)):
        raise ValueError(f"{name} must have 2 dimensions; pick one batch and head")
    return rows


def numbers(**matrix: Any) -> list[list[float]]:
    """Rows of a matrix of finite numbers, given by its name.

    Example:
        >>> numbers(matrix=[[1, 2]])
        [[1.0, 2.0]]

    Raises:
        ValueError: If it is not a matrix, or one of its numbers is NaN or infinite.
    """
    ((name, values),) = matrix.items()
    rows = [[float(x) for x in row] for row in _rows(name, values)]
    for i, row in enumerate(rows):
        for j, x in enumerate(row):
            if not math.isfinite(x):
                raise ValueError(f"{name} must be finite, got {x} at [{i}, {j}]")
    return rows


def booleans(**mask: Any) -> list[list[bool]]:
    """Rows of a mask, True = attend, given by its name; 0 and 1 will do.

    Example:
        >>> booleans(keep=[[1, 0]])
        [[True, False]]

    Raises:
        TypeError: If it holds other numbers, such as the 0 and -inf of a mask that is
            added to scores.
        ValueError: If it is not a matrix.
    """
    ((name, values),) = mask.items()
    rows = _rows(name, values)
    for x in itertools.chain(*rows):
        x = x.item() if hasattr(x, "item") else x
        if not isinstance(x, int) or x not in (0, 1):
            raise TypeError(f"{name} must be bool (True = attend), got {x!r}")
    return [[bool(x) for x in row] for row in rows]


def check_between(name: str, value: int, low: int, high: int) -> int:
    """Return an integer that a picture has room for: from ``low`` to ``high``.

    Raises:
        TypeError: If it is not an integer (a bool is not one).
        ValueError: If it is too small or too large.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    count = value.__index__()
    if not low <= count <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {count}")
    return count


def check_limits(name: str, low: float | None, high: float | None) -> None:
    """Check the ends of a scale; None leaves an end to the data.

    Raises:
        ValueError: If one is not finite, or the lower is not below the upper.
    """
    given = [x for x in (low, high) if x is not None]
    if not all(map(math.isfinite, given)) or (len(given) == 2 and not low < high):
        raise ValueError(
            f"{name} must be finite, the first below the second, got {low}, {high}"
        )


def curve_points(name: str, xs: Iterable[Any], ys: Iterable[Any]) -> list[tuple]:
    """Pair the finite x and y values of a curve.

    Raises:
        ValueError: If they differ in number, or one of them is NaN or infinite.
    """
    xs, ys = [float(x) for x in xs], [float(y) for y in ys]
    if len(xs) != len(ys):
        raise ValueError(f"curve {name!r} has {len(xs)} x and {len(ys)} y values")
    for x, y in zip(xs, ys, strict=True):
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"curve {name!r} must be finite, got the point ({x}, {y})")
    return list(zip(xs, ys, strict=True))
