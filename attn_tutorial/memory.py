"""Count the bytes that autograd keeps, that operations allocate and that they move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Allocations", "Traffic", "saved_bytes"]


def saved_bytes(function: Callable[[], Any]) -> int:
    """Bytes that a forward pass keeps alive for its backward pass.

    A storage that is kept twice counts once; the inputs count when they are kept.

    Args:
        function: Runs the forward pass and returns its result.

    Returns:
        Bytes of all distinct storages that autograd saved.

    Example:
        >>> x = torch.ones(10, requires_grad=True)
        >>> saved_bytes(lambda: x.exp())  # exp keeps its result: 10 float32 numbers
        40
    """
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses distinct

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class Allocations(TorchDispatchMode):
    """Adds up the bytes of every result that an operation writes to new memory.

    Views and in-place operations add nothing. It counts what is written, not
    what is alive at one moment: memory freed and taken again counts again.
    ``largest`` holds the bytes of the largest single result.

    Attributes:
        by_operation: Bytes for each operation, by its name.

    Example:
        >>> x = torch.ones(10)
        >>> with Allocations() as counted:
        ...     _ = (x + 1).view(2, 5)
        >>> counted.bytes, dict(counted.by_operation)
        (40, {'add': 40})
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_operation: Counter[str] = Counter()
        self.largest = 0

    @property
    def bytes(self) -> int:
        """All bytes counted so far."""
        return self.by_operation.total()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, then count those results that share no memory with it."""
        result = func(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            if tensor.untyped_storage().data_ptr() not in old:
                size = tensor.untyped_storage().nbytes()
                self.by_operation[func.overloadpacket.__name__] += size
                self.largest = max(self.largest, size)
        return result


class Traffic(TorchDispatchMode):
    """Adds up what operations read and write, as if each began with an empty cache.

    An operation reads its inputs and writes its results, whatever it does in between.
    Views move nothing and are no operations here, nor is taking new memory.

    Attributes:
        operations: How many operations ran.
        bytes: What they read and wrote.

    Example:
        >>> x = torch.ones(10)
        >>> with Traffic() as counted:
        ...     _ = (x + 1).view(2, 5)
        >>> counted.operations, counted.bytes
        (1, 80)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, then count its inputs and results."""
        result = func(*args, **(kwargs or {}))
        free = ("empty", "_unsafe_view")  # new memory; the view at the end of a matmul
        name = func.overloadpacket.__name__
        if not func.is_view and not any(part in name for part in free):
            tensors = _tensors((args, kwargs, result))
            moved = sum(x.numel() * x.element_size() for x in tensors)
            self.operations += moved > 0
            self.bytes += moved
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
