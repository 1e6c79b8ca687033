"""Answers as JSON, between the process that runs a submission and the one that judges.

What comes from a submission is data and nothing else: it is never unpickled, and its
size is bounded.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable

import torch
from torch import Tensor

from attn_tutorial.exercises.calls import LONGEST, Fault, plain

__all__ = ["decode", "encode", "printable"]

LARGEST = 2**20  # bytes of a tensor
DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.float32,
        torch.float64,
    )
}


def printable(text: str) -> str:
    """A text in one line, without what would steer a terminal or fit no file."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def encode(value: object) -> object:
    """A value as JSON can hold it; what is no data becomes the name of its type."""
    value = plain(value)
    if isinstance(value, Tensor):
        return _encode_tensor(value.detach())
    if isinstance(value, tuple) and len(value) <= LONGEST:
        return [encode(part) for part in value]
    if isinstance(value, set | frozenset) and len(value) <= LONGEST:
        return {"set": [encode(part) for part in value]}
    if isinstance(value, Fault):
        return {"fault": value.kind, "text": value.text[:LONGEST]}
    if value is ...:
        return {"unanswered": True}
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, int) and abs(value) >= 2**200:
        return {"other": "a very large number"}
    if value is None or isinstance(value, bool | int | float):
        return value
    return {"other": type(value).__name__}


def _encode_tensor(value: Tensor) -> dict:
    size = value.numel() * value.element_size()
    if size > LARGEST or str(value.dtype) not in DTYPES:
        return {"other": f"a tensor of shape {tuple(value.shape)}, {value.dtype}"}
    value = value.cpu().contiguous()
    data = bytes(value.flatten().view(torch.uint8).tolist()) if size else b""
    return {
        "tensor": base64.b64encode(data).decode("ascii"),
        "shape": list(value.shape),
        "dtype": str(value.dtype),
    }


class Other:
    """Something that is no data; it is equal to nothing."""

    def __init__(self, name: str) -> None:
        self.name = printable(name[:60])

    def __repr__(self) -> str:
        return f"<{self.name}>"


def decode(value: object) -> object:
    """The value that was encoded.

    Raises:
        ValueError: If nothing that ``encode`` makes looks like this.
    """
    if isinstance(value, list) and len(value) <= LONGEST:
        return tuple(decode(part) for part in value)
    if isinstance(value, dict):
        for key, read in READERS.items():
            if key in value:
                return read(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"no encoded value: {str(value)[:60]}")


def _decode_tensor(value: dict) -> Tensor:
    shape, dtype = value.get("shape"), DTYPES.get(value.get("dtype"))
    if not isinstance(shape, list) or dtype is None:
        raise ValueError("a tensor needs a shape and a dtype")
    if not all(isinstance(n, int) and 0 <= n <= LARGEST for n in shape):
        raise ValueError(f"no shape of a tensor: {str(shape)[:60]}")
    data = base64.b64decode(str(value["tensor"])[: 2 * LARGEST], validate=True)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes do not fill a tensor of shape {shape}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    if dtype == torch.bool and not set(data) <= {0, 1}:
        raise ValueError("truth values must be 0 or 1")
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


READERS: dict[str, Callable[[dict], object]] = {
    "tensor": _decode_tensor,
    "fault": lambda value: Fault(
        str(value["fault"]), printable(str(value.get("text", "")))
    ),
    "set": lambda value: {decode(part) for part in value["set"]},
    "unanswered": lambda value: ...,
    "other": lambda value: Other(str(value["other"])),
}
