"""A learned sink: a place for attention to go when there is nothing to look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attn_tutorial import patterns
from attn_tutorial.networks.layers import MultiHeadAttention, turned
from attn_tutorial.patterns import Pattern
from attn_tutorial.runs import run_attention

__all__ = ["SinkAttention", "with_sink"]


def with_sink(output: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    """Add exp(sink) to the denominator of a softmax that is already computed.

    With the sink's score s, each weight is exp(score) / (exp(s) + sum of exp(scores)).
    So the output without it is multiplied by 1 / (1 + exp(s - lse)), a sigmoid.

    Args:
        output: Of attention, shape (..., n, d_v).
        lse: Log-sum-exp of each query's kept scores, shape (..., n).
        sink: s, broadcasts to the shape of ``lse``.

    Returns:
        Shape (..., n, d_v). With s = -inf the output itself.

    Example:
        >>> half = with_sink(torch.ones(1, 3), torch.zeros(1), torch.zeros(1))
        >>> half.tolist()
        [[0.5, 0.5, 0.5]]
    """
    return output * torch.sigmoid(lse - sink)[..., None].to(output.dtype)


class SinkAttention(MultiHeadAttention):
    """Multi-head self-attention whose heads may look at nothing.

    Each head has one number, learned, that competes with the scores of the keys and has
    no value: the sink of gpt-oss (OpenAI, 2025).

    Args:
        d_model: Width of the input and the output.
        num_heads: h; must divide d_model.
        pattern: Which pairs to keep; every pair if None.
        rotary: Whether queries and keys turn with their position.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        pattern: Pattern | None = None,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__(d_model, num_heads, pattern, rotary=rotary)
        self.sink = nn.Parameter(torch.zeros(num_heads))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n, d_model) to itself."""
        q, k = (turned(part, x, 0) for part in (self.query, self.key))
        heads = (self._split(part) for part in (q, k, self.value(x)))
        pattern = self.pattern or patterns.full()
        output, lse = run_attention(*heads, pattern, return_lse=True)
        output = with_sink(output, lse, self.sink[:, None])
        return self.output(output.transpose(-3, -2).flatten(-2))
