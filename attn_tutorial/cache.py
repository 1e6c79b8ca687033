"""A rolling key/value cache: what a decoder keeps of its past, and no more.

A causal pattern says which earlier keys a later query can still meet: the last few of
them (a window, a block), and perhaps the first few for ever (attention sinks). The
cache holds these and forgets the rest. However a text is split into calls, a long
prompt, parts of it, then token by token, each query gets what attention without a
cache gives at its place.

Position j lies in slot j % slots of a ring, so that a new key overwrites the one that
nobody meets any more. Nothing is moved, and no list of positions is needed: how many
tokens there were says which one a slot holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from attn_tutorial.checks import check_grouped, check_lengths, check_scale
from attn_tutorial.lookback import ALL, causal_needs, moved, period
from attn_tutorial.online import merge_attention
from attn_tutorial.patterns import FAR, Pattern, check_length, kept, run
from attn_tutorial.runs import run_attention
from attn_tutorial.tiled import tiled_attention

__all__ = ["RollingCache"]


class RollingCache:
    """The keys and values that later queries of a causal pattern can still meet.

    For inference: inputs that require gradients are refused. Memory stops growing once
    the window is full. Patterns without a window (``causal()``, ``strided(s)``, a
    reader's own predicate) keep every key; with ``& local(w)`` they keep w + 1.

    Args:
        pattern: Which pairs to keep, at absolute positions; it must not look ahead.

    Attributes:
        pattern: The same.
        sinks: So many first keys are kept for ever.
        window: So many last keys are kept, a query's own among them; ``math.inf`` if
            every key is.

    Raises:
        TypeError: If the pattern is none of ``attn_tutorial.patterns``.
        ValueError: If it looks ahead.

    Example:
        >>> from attn_tutorial.patterns import causal, local
        >>> cache = RollingCache(causal() & local(2))
        >>> q, k = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
        >>> cache.attend(q, k, k).shape  # a prompt; pairs of heads share their keys
        torch.Size([1, 4, 5, 8])
        >>> cache.attend(q[..., :1, :], k[..., :1, :], k[..., :1, :]).shape  # a token
        torch.Size([1, 4, 1, 8])
        >>> cache
        RollingCache('causal & local 2', sinks=0, window=3, length=6)
    """

    def __init__(self, pattern: Pattern) -> None:
        met = causal_needs(pattern)
        self.pattern = pattern
        self.window = max(met.back, 0) + 1
        self.sinks = 0 if met.back == ALL else min(met.sinks, FAR)
        self._behind = moved(pattern, 0, self.sinks)
        self.reset()

    def reset(self) -> None:
        """Forget all tokens, and of what shape they were."""
        self._batch: tuple[int, ...] | None = None
        self._lengths = torch.zeros(0, dtype=torch.long, device="cpu")
        self._k = self._v = torch.zeros(0, 0, 0, 0, device="cpu")
        self._slots = 0, 0  # sinks, ring

    def __len__(self) -> int:
        """Tokens so far, those forgotten too, of the longest row."""
        return max(self._lengths.tolist(), default=0)

    def __bool__(self) -> bool:
        """A cache is one, even when it is empty."""
        return True

    @property
    def lengths(self) -> Tensor:
        """Tokens so far in each row, on the CPU, with the leading axes before heads."""
        shape = self._lengths.shape if self._batch is None else self._batch
        return self._lengths.clone().view(shape)

    @property
    def positions(self) -> Tensor:
        """The position that each slot holds, or -1, on the CPU; shape (..., slots)."""
        held = self._held(self._lengths[:, None]).clamp(min=-1)
        return held.view(*self.lengths.shape, held.shape[-1])

    @property
    def bytes(self) -> int:
        """Memory of the keys and values."""
        return self._k.nbytes + self._v.nbytes

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.pattern)!r}, sinks={self.sinks}, "
            f"window={self.window}, length={len(self)})"
        )

    def reorder(self, index: Tensor) -> None:
        """Let row r go on from what row ``index[r]`` has seen, as beam search asks.

        Args:
            index: Integers, (rows,): rows of the first axis. Some may be named
                several times, others not at all; there may be more rows than before.

        Raises:
            ValueError: If there is no batch, or no such row.
        """
        index = self._checked_index(index)
        lead = self._batch
        self._batch = (len(index), *lead[1:])
        for name in ("_lengths", "_k", "_v"):
            x = getattr(self, name)
            rows = x.unflatten(0, lead).index_select(0, index.to(x.device))
            setattr(self, name, rows.flatten(0, len(lead) - 1))

    def _checked_index(self, index: Tensor) -> Tensor:
        rows = self._batch[0] if self._batch else 0
        index = torch.as_tensor(index, device="cpu")
        if index.is_floating_point() or index.dtype == torch.bool or index.ndim != 1:
            raise ValueError(f"index must be integers, shape (rows,), got {index}")
        if len(index) and not 0 <= index.min() <= index.max() < rows:
            raise ValueError(
                f"index must name rows of a batch of {rows}, got {index.tolist()}"
            )
        return index.long()

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Take in the next tokens, and let them look back.

        Args:
            q: Their queries, shape (..., heads, n, d); any n, from one token to a text.
            k: Their keys, shape (..., kv_heads, n, d); kv_heads divides heads, and
                heads / kv_heads neighbouring heads share one head of keys.
            v: Their values, shape (..., kv_heads, n, d_v).
            lengths: How many of the n tokens are real in each row, integers with the
                leading axes before heads, or the first of these; the others, at the
                end, are padding, whatever they hold. n if None.
            scale: Factor of the scores, by default 1 / sqrt(d).

        Returns:
            Shape (..., heads, n, d_v): the rows of attention without a cache; zeros
            where a token is padding.

        Raises:
            TypeError, ValueError: If an argument has the wrong type or shape, or not
                that of earlier calls, or requires gradients, or the pattern is defined
                for fewer tokens. The cache is then as it was.
        """
        counts, scale = self._checked_inputs(q, k, v, lengths, scale)
        with torch.no_grad():
            return self._attend(q, k, v, counts, scale)

    def _attend(self, q, k, v, counts: Tensor, scale: float) -> Tensor:
        self._make_room(k, v, counts)
        batch, shape = len(counts), (*q.shape[:-1], v.shape[-1])
        heads, n = k.shape[-3], k.shape[-2]
        q = q.reshape(batch, heads, q.shape[-3] // heads, *q.shape[-2:])
        k, v = (x.reshape(batch, *x.shape[-3:]) for x in (k, v))
        route = self._step if n == 1 else self._chunks
        return route(q, k, v, counts, scale).reshape(shape)

    def _checked_inputs(self, q, k, v, lengths, scale) -> tuple[Tensor, float]:
        """Check the arguments; return the number of new tokens in each row."""
        check_grouped(q, k, v)
        for name, x in (("q", q), ("k", k), ("v", v)):
            if x.requires_grad and torch.is_grad_enabled():
                raise ValueError(
                    f"{name} must not require gradients, got shape {tuple(x.shape)}: "
                    "a cache is for inference, call it under torch.no_grad()"
                )
        for name, x, old in (("k", k, self._k), ("v", v, self._v)):
            self._check_like_before(name, x, old)
        counts = check_lengths("lengths", lengths, tuple(k.shape[:-3]), k.shape[-2])
        ends = counts if self._batch is None else counts + self._lengths
        check_length(self.pattern, 0, max(ends.tolist(), default=0))
        return counts, check_scale(scale, q.shape[-1])

    def _check_like_before(self, name: str, x: Tensor, old: Tensor) -> None:
        if self._batch is None:
            return
        now = tuple(x.shape[:-2]), x.shape[-1], x.dtype, x.device
        then = (*self._batch, old.shape[1]), old.shape[3], old.dtype, old.device
        if now != then:
            lead = "".join(f"{size}, " for size in then[0])
            raise ValueError(
                f"{name} must be ({lead}n, {then[1]}), {then[2]} on {then[3]}, as in "
                f"earlier calls, got {tuple(x.shape)}, {now[2]} on {now[3]}: "
                "reset() forgets those"
            )

    # Memory

    def _make_room(self, k: Tensor, v: Tensor, counts: Tensor) -> None:
        """Grow by doubling, until the window is full."""
        if self._batch is None:
            self._batch, self._lengths = tuple(k.shape[:-3]), torch.zeros_like(counts)
            self._k, self._v = (
                x.new_zeros(len(counts), x.shape[-3], 0, x.shape[-1]) for x in (k, v)
            )
        longest = max((self._lengths + counts).tolist(), default=0)
        room = max(16, 2 ** math.ceil(math.log2(max(longest, 1))))
        wanted = tuple(int(min(x, room)) for x in (self.sinks, self.window))
        slots = tuple(map(max, self._slots, wanted))
        if slots != self._slots:
            self._k, self._v = (self._grown(x, *slots) for x in (self._k, self._v))
            self._slots = slots

    def _grown(self, old: Tensor, sinks: int, ring: int) -> Tensor:
        """Give the store more slots; so far, position j lies in slot j of the ring."""
        with torch.inference_mode(False):  # or no later call could write into it
            new = torch.zeros(
                *old.shape[:2],
                sinks + ring,
                old.shape[3],
                dtype=old.dtype,
                device=old.device,
            )
        held, slots = self._slots
        new[:, :, :held] = old[:, :, :held]
        new[:, :, sinks : sinks + slots] = old[:, :, held:]
        return new

    def _remember(self, k: Tensor, v: Tensor, counts: Tensor) -> None:
        """Store the new tokens: the first as sinks, and the last in the ring."""
        sinks, ring = self._slots
        token = torch.arange(k.shape[-2], device="cpu")
        place = self._lengths[:, None] + token  # (rows, n)
        self._lengths = self._lengths + counts
        real = token < counts[:, None]
        last = real & (place >= self._lengths[:, None] - ring)
        self._put(last, sinks + place % ring, k, v)
        if sinks:
            self._put(real & (place < self.sinks), place, k, v)

    def _put(self, chosen: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        row, token = chosen.nonzero(as_tuple=True)
        slot = slots[row, token]
        for store, new in ((self._k, k), (self._v, v)):
            store[row, :, slot] = new[row, :, token]

    # One token: it is stored, and then looks at all slots

    def _step(self, q, k, v, counts: Tensor, scale: float) -> Tensor:
        """Attention of one token a row, q (rows, kv_heads, groups, 1, d)."""
        self._remember(k, v, counts)
        used = self._slots[0] + min(self._slots[1], len(self))
        keep = self._kept(counts, used).to(q.device)[:, None, None]
        keys, values = self._k[:, :, :used], self._v[:, :, :used]
        with torch.autocast(q.device.type, enabled=False):
            output = F.scaled_dot_product_attention(
                q.squeeze(-2), keys, values, keep, scale=scale
            )
        return output.masked_fill(~keep.any(-1, keepdim=True), 0)

    def _kept(self, counts: Tensor, used: int) -> Tensor:
        """Which slots the newest token of each row meets: bool, (rows or 1, used)."""
        lengths = self._lengths[:, None]
        if bool((counts == 1).all() and (lengths == lengths[:1]).all()):
            lengths, counts = lengths[:1], counts[:1]
        held = self._held(lengths)[:, :used]
        keep = kept(self.pattern, lengths - 1, held.clamp(min=0))
        return keep & (held >= 0) & (counts[:, None] > 0)

    def _held(self, lengths: Tensor) -> Tensor:
        """The position that each slot holds, (rows, slots); below 0: none."""
        sinks, ring = (torch.arange(n, device="cpu") for n in self._slots)
        first = torch.where(sinks < lengths, sinks, -1)
        last = lengths - 1
        newest = last - (last - ring) % max(len(ring), 1)
        newest = torch.where(newest < self.sinks, -1, newest)  # a sink has its own slot
        return torch.cat([first, newest], -1)

    # Several tokens: what is stored and what is new, side by side

    def _chunks(self, q, k, v, counts: Tensor, scale: float) -> Tensor:
        """Attention of several tokens a row, q (rows, kv_heads, groups, n, d)."""
        output = v.new_zeros(*q.shape[:-1], v.shape[-1])
        for rows, n in self._alike(counts):
            new = (x[rows, ..., :n, :] for x in (q, k, v))
            output[rows, ..., :n, :] = self._chunk(rows, *new, scale)
        self._remember(k, v, counts)
        return output

    def _alike(self, counts: Tensor) -> Iterator[tuple[slice, int]]:
        """Neighbouring rows with equal numbers of old and new tokens, and the new."""
        both = zip(self._lengths.tolist(), counts.tolist(), strict=True)
        start = 0
        for (_, n), group in groupby(both):
            end = start + len(list(group))
            if n:
                yield slice(start, end), n
            start = end

    def _chunk(self, rows: slice, q, k, v, scale: float) -> Tensor:
        """Attention of some rows' new tokens: to sinks and to the window, merged."""
        first = int(self._lengths[rows.start])
        near = self._near(rows, first, q, k, v, scale)
        if not self.sinks:
            return near
        held, fresh = min(self.sinks, first), max(self.sinks - first, 0)
        new = (x[:, :, :fresh] for x in (k, v))
        keys, values = self._joined(rows, torch.arange(held, device=k.device), *new)
        options = {"first": first, "scale": scale, "return_lse": True}
        far = tiled_attention(q, keys, values, (), self.pattern, **options)
        parts = (far[0], far[1][..., None], near[0], near[1][..., None])
        return merge_attention(*parts)[0].to(q.dtype)

    def _near(self, rows: slice, first: int, q, k, v, scale: float):
        """Attention to the keys behind the sinks; with sinks, also its log-sum-exp."""
        base = self._base(first, q.shape[-2])
        places = torch.arange(base, first + k.shape[-2], device=k.device)
        slots = self._slots[0] + places[: first - base] % self._slots[1]
        keys, values = self._joined(rows, slots, k, v)
        return run_attention(
            q,
            keys,
            values,
            moved(self._behind, base),
            first=first - base,
            key_keep=places >= self.sinks if base < self.sinks else None,
            scale=scale,
            return_lse=self.sinks > 0,
        )

    def _joined(self, rows: slice, slots: Tensor, *new: Tensor) -> list[Tensor]:
        """Stored keys and values beside the new, each (rows, kv_heads, 1, keys, d)."""
        stored = (store[rows].index_select(2, slots) for store in (self._k, self._v))
        pairs = zip(stored, new, strict=True)
        return [torch.cat(pair, 2)[:, :, None] for pair in pairs]

    def _base(self, first: int, n: int) -> int:
        """The first key that new tokens may meet, but for sinks; blocks begin there."""
        met = run(self._behind, range(first, first + n), first + n)
        size = period(self._behind)
        sinks = min(self.sinks, first) // size * size
        return int(max(min(met.start, first), first + 1 - self.window, sinks))
