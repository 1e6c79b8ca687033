"""Masks of Transformers, read as patterns: no n x n matrix is formed to know them.

Transformers builds each mask from small functions of (batch, head, query, key): one for
causality, one for a window, one for packed documents, and ``and`` and ``or`` between
them. Such a function is recognised by its name, and its numbers are in its closure.
What is not recognised has no pattern here, and Transformers makes its matrix.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_tutorial.patterns import (
    FAR,
    Pattern,
    blocks,
    causal,
    documents,
    full,
    intersection,
    local,
    union,
)

__all__ = ["Mask", "pattern_of"]


def pattern_of(function: Callable) -> Pattern | None:
    """The pattern of a mask function of Transformers, or None if it is not known here.

    Args:
        function: A function of (batch, head, query, key) that
            ``transformers.masking_utils`` made, or Gemma 3's own.

    Returns:
        A pattern of the same pairs in every row of the batch. A window becomes one
        ``local((left, right))``, however it was put together.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    read = READERS.get(name.removeprefix("transformers."))
    return read(**inspect.getclosurevars(function).nonlocals) if read else None


def _window(sliding_window: int) -> Pattern:
    """It bounds the past alone: sliding_window keys, the query's own among them."""
    return local((sliding_window - 1, FAR))


def _chunks(chunk_size: int, left_padding: Tensor) -> Pattern | None:
    """Chunks are counted from the first token that is no padding."""
    return None if left_padding.any() else blocks(chunk_size)


def _packed(packed_sequence_mask: Tensor) -> Pattern | None:
    """The number of each token's document, (batch, n); rows may be packed alike."""
    first = packed_sequence_mask[0]
    if (packed_sequence_mask != first).any():
        return None
    return documents(first.unique_consecutive(return_counts=True)[1].tolist())


def _restarted(mask_function: Callable, position_ids: Tensor) -> Pattern | None:
    """Positions that begin anew in each document: to a window that is all the same.

    Transformers uses it only together with ``packed_sequence_mask_function``, inside
    whose documents each position is one more than the last.
    """
    pattern = pattern_of(mask_function)
    return pattern if pattern and band_of(pattern) else None


def _all_of(mask_functions: tuple[Callable, ...]) -> Pattern | None:
    return _combined(mask_functions, min, intersection)


def _any_of(mask_functions: tuple[Callable, ...]) -> Pattern | None:
    return _combined(mask_functions, max, union)


def _combined(functions: tuple, pick: Callable, combine: Callable) -> Pattern | None:
    parts = [pattern_of(function) for function in functions]
    return None if None in parts else _joined(parts, pick, combine)


def _joined(parts: list[Pattern], pick: Callable, combine: Callable) -> Pattern:
    """Bands all hold the query itself, so that and, or of them is one band again.

    Documents come first, in whichever order a release of Transformers joins them.
    """
    bands = [band_of(part) for part in parts]
    if None in bands:
        return combine(*sorted(parts, key=lambda part: part.name != "documents"))
    left, right = (pick(ends) for ends in zip(*bands, strict=True))
    plain = {(FAR, FAR): full(), (FAR, 0): causal()}
    return plain.get((left, right)) or local((left, right))


def band_of(pattern: Pattern) -> tuple[int, int] | None:
    """How far back and ahead a window reaches, (left, right); None for another pattern.

    Example:
        >>> band_of(local((7, 0))), band_of(blocks(8))
        ((7, 0), None)
    """
    if pattern.name == "local":
        window = pattern["window"]
        return window if isinstance(window, tuple) else (window, window)
    return {"full": (FAR, FAR), "causal": (FAR, 0)}.get(pattern.name)


# By module and qualified name; the arguments of a reader are the function's closure.
READERS: dict[str, Callable[..., Pattern | None]] = {
    "masking_utils.causal_mask_function": causal,
    "masking_utils.bidirectional_mask_function": full,
    "masking_utils.and_masks.<locals>.and_mask": _all_of,
    "masking_utils.or_masks.<locals>.or_mask": _any_of,
    "masking_utils.sliding_window_overlay.<locals>.inner_mask": _window,
    "masking_utils.sliding_window_bidirectional_overlay.<locals>.inner_mask": (
        lambda sliding_window: local(sliding_window)
    ),
    "models.gemma3.modeling_gemma3._bidirectional_window_overlay.<locals>.inner_mask": (
        lambda sliding_window: local(sliding_window - 1)
    ),
    "masking_utils.chunked_overlay.<locals>.inner_mask": _chunks,
    "masking_utils.packed_sequence_mask_function.<locals>.inner_mask": _packed,
    "masking_utils.remap_positions_for_packed_sequence.<locals>.inner_mask": _restarted,
}


@dataclass(eq=False)
class Mask:
    """What Transformers wants masked, kept as it was asked for: no matrix yet.

    It passes through the models in place of a mask of four axes. Whoever wants to
    compute with it gets an error that says so.

    Attributes:
        options: The arguments of Transformers' own function for masks, ``sdpa_mask``,
            with offsets that are numbers.
        window: A narrower window (left, right) that holds as well, or None.
    """

    options: dict[str, Any]
    window: tuple[int, int] | None = None
    ndim = 4

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"a Mask is no tensor and has no {name!r}: this model computes with its "
            "mask, which attn_tutorial.backends.hf does not serve"
        )

    @classmethod
    def of(cls, options: dict[str, Any], window: tuple[int, int] | None) -> Mask:
        """Keep the offsets as numbers: a static cache counts on in its tensors."""
        offsets = {name: int(options[name]) for name in ("q_offset", "kv_offset")}
        return cls(options | offsets, window)

    def contiguous(self) -> Mask:
        """Itself: ``generate`` asks finished masks for it."""
        return self

    @cached_property
    def first(self) -> int:
        """Position of the first query on the keys' axis."""
        return self.options["q_offset"] - self.options["kv_offset"]

    @property
    def lengths(self) -> tuple[int, int]:
        """Numbers of queries and of keys."""
        return self.options["q_length"], self.options["kv_length"]

    @cached_property
    def pattern(self) -> Pattern | None:
        """Which pairs are kept, padding aside, on the keys' axis; None if unknown."""
        padding = self.options["attention_mask"]
        found = pattern_of(self.options["mask_function"])
        if found is None or (padding is not None and padding.ndim != 2):
            return None
        if band_of(found) is None and self.options["kv_offset"]:
            return None  # a cache that forgot its first keys moves all but windows
        if self.window is None:
            return found
        return _joined([found, local(self.window)], min, intersection)

    @cached_property
    def cuts(self) -> bool:
        """Whether the pattern hides more than causality does from any query."""
        band = band_of(self.pattern)
        if band is None:
            return True
        (left, right), (n_q, n_k) = band, self.lengths
        return left < self.first + n_q - 1 or 0 < right < n_k - 1 - self.first

    @cached_property
    def key_keep(self) -> Tensor | None:
        """Which keys are no padding, bool (batch, n_k); None if all are kept."""
        mask = self.options["attention_mask"]
        if mask is None:
            return None
        begin = self.options["kv_offset"]
        end = begin + self.lengths[1]
        mask = F.pad(mask, (0, max(0, end - mask.shape[-1])))[:, begin:end]
        return None if mask.all() else mask

    @property
    def is_causal(self) -> bool | None:
        """Whether the pattern hides what is ahead; None if it is not a window."""
        band = self.pattern and band_of(self.pattern)
        return band[1] == 0 if band else None

    def dense(self) -> tuple[Tensor | None, bool | None]:
        """Transformers' own mask, bool (batch, 1, n_q, n_k), and ``is_causal``.

        None in place of the mask if it hides nothing that ``is_causal`` does not. A
        layer's own word on causality is not asked: PEGASUS-X's decoder has a wrong one.
        """
        if self.window is None and self.is_causal is not None:
            return self._matrix(), self.is_causal
        every = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return self._narrowed(self._matrix(**every)), False

    def _matrix(self, **changes: bool) -> Tensor | None:
        from transformers.masking_utils import sdpa_mask

        return sdpa_mask(**(self.options | changes))

    def _narrowed(self, matrix: Tensor) -> Tensor:
        if self.window is None:
            return matrix
        n_q, n_k = self.lengths
        i = torch.arange(n_q, device=matrix.device)[:, None] + self.first
        j = torch.arange(n_k, device=matrix.device)
        return matrix & local(self.window).keep(i, j)
