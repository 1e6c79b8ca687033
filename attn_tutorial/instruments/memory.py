"""Count the bytes that autograd keeps, and that operations allocate, hold and move."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Allocations", "LiveMemory", "Traffic", "saved_bytes"]


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
        for storage in _new_storages(result, (args, kwargs)):
            self.by_operation[func.overloadpacket.__name__] += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return result


class LiveMemory(TorchDispatchMode):
    """Bytes of all results that are alive, and their peak, as a GPU's allocator counts.

    Only what operations create while the mode is on counts; the memory that an
    operation uses inside itself is not seen.

    Attributes:
        live: Bytes alive now.
        peak: Most bytes alive at once since the start, or since ``reset_peak``.

    Example:
        >>> with LiveMemory() as memory:
        ...     x = torch.ones(10).exp().sum()
        >>> memory.live, memory.peak  # a float32 number; two times ten of them
        (4, 80)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def reset_peak(self) -> None:
        """Forget the peak: from now on it is at least what is alive now."""
        self.peak = self.live

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, then watch the storages that it created."""
        result = func(*args, **(kwargs or {}))
        for storage in _new_storages(result, (args, kwargs)):
            if storage._cdata not in self._known:
                self._watch(storage)
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()

        def freed(_: weakref.ref) -> None:
            self.live -= size
            del self._known[address]

        self._known[address] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


class Traffic(TorchDispatchMode):
    """Adds up what operations read and write, as if each began with an empty cache.

    An operation reads its inputs and writes its results, whatever it does in between.
    What writes nothing, such as a view, is no operation here, nor is taking new memory.
    On a GPU each operation is, as a rule, a launch or more.

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
        writes = func._schema.is_mutable or _new_storages(result, (args, kwargs))
        if writes and "empty" not in func.overloadpacket.__name__:
            tensors = _tensors((args, kwargs, result))
            moved = sum(x.numel() * x.element_size() for x in tensors)
            self.operations += moved > 0
            self.bytes += moved
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _new_storages(result: Any, arguments: Any) -> list[torch.UntypedStorage]:
    """Memory of an operation's results that belongs to none of its arguments."""
    old = {tensor.untyped_storage()._cdata for tensor in _tensors(arguments)}
    found = [tensor.untyped_storage() for tensor in _tensors(result)]
    return [storage for storage in found if storage._cdata not in old]
