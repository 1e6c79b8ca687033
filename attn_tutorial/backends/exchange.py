"""How ranks tell each other lengths and halos, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from attn_tutorial.backends.halo import Halo, counts, cut
from attn_tutorial.checks import check_count

__all__ = ["Exchange", "ReceiveHalo", "SendHalo", "SentBytes", "agree_on_lengths"]


def agree_on_lengths(
    lengths: Sequence[int] | None,
    k: Tensor,
    v: Tensor,
    settings: dict[str, int],
    group: torch.distributed.ProcessGroup | None,
) -> list[int]:
    """Tokens of all ranks: those given, or what the ranks tell each other.

    Raises:
        ValueError: If this process is not in the group, or lengths do not fit, or the
            ranks disagree about settings or the rest of the shapes.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ValueError(f"group must contain this process, got {group!r}")
    if lengths is None:
        return _exchange_lengths(k, v, settings, group)
    lengths, n = [check_count("lengths", n, least=0) for n in lengths], k.shape[-2]
    if len(lengths) != ranks or lengths[rank] != n:
        raise ValueError(
            f"lengths must hold one length for each of {ranks} ranks, "
            f"{n} for rank {rank}, got {lengths}"
        )
    return lengths


def _exchange_lengths(
    k: Tensor, v: Tensor, settings: dict[str, int], group
) -> list[int]:
    """Tell all ranks this one's n and settings; return all n, refuse other settings."""
    leading = torch.broadcast_shapes(k.shape[:-2], v.shape[:-2]).numel()
    grad = torch.is_grad_enabled() and (k.requires_grad or v.requires_grad)
    settings = settings | {"leading size": leading, "d": k.shape[-1]}
    settings |= {"d_v": v.shape[-1], "bytes of a number": k.itemsize, "grad": grad}
    numbers = [min(int(x), 2**62) for x in settings.values()]  # a window may be huge
    own = torch.tensor([k.shape[-2], *numbers], device=k.device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    lengths, *columns = torch.stack(every, -1).tolist()
    for name, column in zip(settings, columns, strict=True):
        if len(set(column)) > 1:
            raise ValueError(f"{name} must be the same on all ranks, got {column}")
    return lengths


class SentBytes:
    """Counts the bytes that this process hands over for other ranks, in a with block.

    Backward passes inside the block count too. The exchange of the lengths does not.

    Attributes:
        bytes: The count so far.

    >>> with SentBytes() as sent:
    ...     pass
    >>> sent.bytes
    0
    """

    _open: ClassVar[list[SentBytes]] = []

    def __init__(self):
        self.bytes = 0

    def __enter__(self) -> SentBytes:
        SentBytes._open.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        SentBytes._open.remove(self)

    @classmethod
    def count(cls, x: Tensor) -> None:
        """Add the size of x, which is about to be sent, to all open counts."""
        for sent in cls._open:
            sent.bytes += x.nbytes


class Exchange:
    """A message to every rank and one from each, on their way while others compute.

    What leaves and what arrives is kept until `wait`, so that its memory is not given
    to another tensor while it is sent or filled.
    """

    def __init__(self, halo: Halo, group: torch.distributed.ProcessGroup | None):
        self.halo, self.group = halo, group
        self._arriving = self._leaving = self._work = None

    def start(self, x: Tensor, sent: tuple, received: tuple) -> Tensor:
        """Send the first len(sent[0]) rows of x to rank 0, the next to rank 1, ...

        The result is filled when `wait` returns, not before.
        """
        SentBytes.count(x)
        self._leaving = x.contiguous()
        self._arriving = x.new_empty(sum(counts(received)), *x.shape[1:])
        splits = counts(received), counts(sent)
        self._work = dist.all_to_all_single(
            self._arriving, self._leaving, *splits, group=self.group, async_op=True
        )
        return self._arriving

    def wait(self) -> Tensor:
        """Return what has come, or raise an error after the group's timeout."""
        self._work.wait()
        arrived = self._arriving
        self._arriving = self._leaving = self._work = None
        return arrived


class SendHalo(torch.autograd.Function):
    """Sends off what others need; last in the backward pass, adds what they send back.

    The backward pass runs through what was computed between SendHalo and ReceiveHalo
    while the gradients travel: in both directions it fills the same wait.
    """

    @staticmethod
    def forward(x: Tensor, exchange: Exchange) -> Tensor:
        """Start the exchange of x, (n_r, ...); returns the halo, not yet filled."""
        halo = exchange.halo
        leaving = torch.cat([cut(x, part, halo.own.start) for part in halo.sent])
        return exchange.start(leaving, halo.sent, halo.received)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the exchange: the way back is the same."""
        ctx.exchange = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        """Wait for the gradients that ReceiveHalo has sent off, and add them."""
        halo, back = ctx.exchange.halo, ctx.exchange.wait()
        total = back.new_zeros(len(halo.own), *back.shape[1:])
        for part, more in zip(halo.sent, back.split(counts(halo.sent)), strict=True):
            cut(total, part, halo.own.start).add_(more)
        return total, None


class ReceiveHalo(torch.autograd.Function):
    """Waits for the halo; first in the backward pass, sends its gradient back."""

    @staticmethod
    def forward(arriving: Tensor, exchange: Exchange) -> Tensor:
        """Return the halo, (left + right, ...), filled."""
        return exchange.wait().view_as(arriving)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        """Keep the exchange."""
        ctx.exchange = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        """Start the exchange of the gradient, (left + right, ...)."""
        halo = ctx.exchange.halo
        ctx.exchange.start(grad, halo.received, halo.sent)
        return grad, None
