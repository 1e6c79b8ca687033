"""Eq. (15): the gradients of attention over a kept set, written out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from attn_tutorial.checks import check_qkv, check_scale
from attn_tutorial.dense import attention_weights

__all__ = ["attention_gradients"]


def attention_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad_output: Tensor,
    keep: Tensor | None = None,
    *,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a loss by q, k and v, from its gradient by the output.

    Eq. (15): dV = P'dO, dP = dO V', dS = P * (dP - rowsum(dP * P)),
    dQ = scale * dS K, dK = scale * dS'Q. Where a pair is not kept, P = 0 and so
    dS = 0: it moves nothing.

    Args:
        q: Queries, shape (..., n_q, d).
        k: Keys, shape (..., n_k, d).
        v: Values, shape (..., n_k, d_v).
        grad_output: dO, the gradient by the output, shape (..., n_q, d_v).
        keep: Boolean, shape (..., n_q, n_k); True = attend. None keeps all pairs.
        scale: Factor on the scores, 1 / sqrt(d) by default.

    Returns:
        (dq, dk, dv), shaped like q, k and v. A key that no query keeps may hold
        anything: its gradients are 0.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or shape.

    Example:
        >>> import torch
        >>> q = k = torch.zeros(3, 4)  # all weights are 1/3
        >>> dq, dk, dv = attention_gradients(q, k, torch.eye(3), torch.eye(3))
        >>> dv[0].round(decimals=2)
        tensor([0.3300, 0.3300, 0.3300])
    """
    heads, inputs = check_qkv(q, k, v), (q, k, v)
    _check_gradient(grad_output, (*heads, q.shape[-2], v.shape[-1]))
    scale = check_scale(scale, q.shape[-1])
    weights = attention_weights(q, k, keep, scale=scale)  # P, (..., n_q, n_k)
    if keep is not None:  # a weight of 0 times NaN would be NaN
        used = keep.any(-2)[..., None]
        k, v = (torch.where(used, x, 0.0) for x in (k, v))
    dv = weights.mT @ grad_output
    dweights = grad_output @ v.mT
    row_sum = (dweights * weights).sum(-1, keepdim=True)  # D, (..., n_q, 1)
    dscores = weights * (dweights - row_sum)
    found = scale * dscores @ k, scale * dscores.mT @ q, dv
    return tuple(d.sum_to_size(x.shape) for d, x in zip(found, inputs, strict=True))


def _check_gradient(grad_output: Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(grad_output, Tensor):
        raise TypeError(f"grad_output must be a torch.Tensor, got {grad_output!r}")
    if grad_output.shape != shape:
        raise ValueError(
            f"grad_output must have the output's shape {shape}, "
            f"got {tuple(grad_output.shape)}"
        )
