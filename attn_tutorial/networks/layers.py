"""Layers: multi-head attention under a pattern, positions, and a pre-norm block.

Every layer that mixes positions maps (..., n, d_model) to (..., n, d_model), so that
attention and a recurrence can stand in one another's place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attn_tutorial.checks import check_count, check_key_keep, check_position
from attn_tutorial.dense import attention_weights
from attn_tutorial.networks.dispatch import keep_mask, pattern_attention
from attn_tutorial.patterns import Pattern

__all__ = [
    "Block",
    "MultiHeadAttention",
    "RecurrentLayer",
    "Rotary",
    "sinusoidal_positions",
]


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own slice of the features.

    Eq. (2): Concat(head_0, ..., head_(h-1)) W_O, where head_l is Eq. (1) applied to
    x W_Q[l], y W_K[l] and y W_V[l]; y is x in self-attention.

    Args:
        d_model: Width of the input and the output.
        num_heads: h; must divide d_model. Each head is d_model / h wide.
        pattern: Which pairs to keep; every pair if None.
        num_kv_heads: Heads of keys and values; h if None. With fewer, each serves a
            group of h / num_kv_heads query heads (Ainslie et al., 2023), and is not
            copied for them.
        rotary: Whether queries and keys turn with their position (see ``Rotary``).

    Raises:
        TypeError, ValueError: If an argument has the wrong type or size.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> layer = MultiHeadAttention(8, num_heads=2, pattern=local(1))
        >>> layer(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        pattern: Pattern | None = None,
        *,
        num_kv_heads: int | None = None,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = check_count("num_heads", num_heads, least=1)
        if check_count("d_model", d_model, least=1) % num_heads:
            raise ValueError(
                f"num_heads must divide d_model={d_model}, got {num_heads}"
            )
        if not isinstance(pattern, Pattern | None):
            raise TypeError(f"pattern must be a pattern or None, got {pattern!r}")
        self.pattern = pattern
        groups = self.num_kv_heads = _check_groups(num_kv_heads, num_heads)
        self.width = d_model // num_heads
        self.shares = groups < num_heads
        turn = [Rotary(self.width)] if rotary else []
        rest = [nn.Identity()] if self.shares else []  # stored weights are named so
        self.query = _projection(d_model, d_model, *turn)
        self.key = _projection(d_model, groups * self.width, *turn, *rest)
        self.value = _projection(d_model, groups * self.width, *rest)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Tensor,
        key_value: Tensor | None = None,
        *,
        key_keep: Tensor | None = None,
        first: int | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let every position of ``x`` look at ``key_value`` (at ``x`` itself if None).

        Args:
            x: Where the queries come from, shape (..., n_q, d_model).
            key_value: Where keys and values come from, shape (..., n_k, d_model).
            key_keep: Bool, (n_k,) or (..., n_k); False = padding, never attended.
            first: Position of the first row of ``x`` on the axis of ``key_value``.
                None means 0, and needs as many rows in both, if there is a pattern.
            need_weights: Also return the weights, which forms (n_q, n_k) matrices.

        Returns:
            Shape (..., n_q, d_model); with ``need_weights`` also the weights, shape
            (..., h, n_q, n_k).
        """
        source = x if key_value is None else key_value
        check_key_keep(key_keep, source)
        start = 0 if first is None or key_value is None else first
        q = self._split(turned(self.query, x, start))  # (..., h, n_q, d_model / h)
        k = self._split(self.key(source))
        v = self._split(self.value(source))
        if self.shares and key_keep is not None and key_keep.ndim > 1:
            key_keep = key_keep[..., None, :]  # the same for all groups
        heads = pattern_attention(q, k, v, self.pattern, key_keep, first=first)
        output = self.output(self._joined(heads).transpose(-3, -2).flatten(-2))
        if not need_weights:
            return output
        keep = keep_mask(q, k, self.pattern, key_keep, first)
        return output, self._joined(attention_weights(q, k, keep))

    def _split(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (-1, self.width)).transpose(-3, -2)
        if not self.shares:
            return heads
        # (..., groups, h / groups, n_q, width); for keys (..., groups, 1, n_k, width)
        return heads.unflatten(-3, (self.num_kv_heads, -1))

    def _joined(self, heads: Tensor) -> Tensor:
        return heads.flatten(-4, -3) if self.shares else heads


def _check_groups(num_kv_heads: int | None, num_heads: int) -> int:
    if num_kv_heads is None:
        return num_heads
    if num_heads % check_count("num_kv_heads", num_kv_heads, least=1):
        raise ValueError(
            f"num_kv_heads must divide num_heads={num_heads}, got {num_kv_heads}"
        )
    return num_kv_heads


def turned(projection: nn.Module, x: Tensor, first: int) -> Tensor:
    """Project x; where the projection turns by position, x begins at ``first``."""
    parts = projection if isinstance(projection, nn.Sequential) else [projection]
    for part in parts:
        x = part(x, first) if isinstance(part, Rotary) else part(x)
    return x


def _projection(d_in: int, d_out: int, *after: nn.Module) -> nn.Module:
    """A linear layer, and what follows it."""
    linear = nn.Linear(d_in, d_out)
    return nn.Sequential(linear, *after) if after else linear


class Rotary(nn.Module):
    """Turn the features of each head by angles that grow with the position.

    Features a and a + width / 2 of a head are a point in the plane; at position i it
    turns by i f, with the frequencies f of ``sinusoidal_positions``. The product of a
    turned query and a turned key then depends on their distance only (Su et al., 2024).

    Args:
        width: Features of a head; must be even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if check_count("width", width, least=2) % 2:
            raise ValueError(f"width of a rotary head must be even, got {width}")
        self.width = width

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Map (..., n, heads * width) to itself; row 0 stands at position ``first``."""
        a, b = x.unflatten(-1, (-1, self.width)).chunk(2, -1)  # (..., n, heads, half)
        table = sinusoidal_positions(x.shape[-2], self.width, first=first).to(x)
        sine, cosine = table[:, None].chunk(2, -1)  # (n, 1, half)
        turned = torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)
        return turned.flatten(-2)


class RecurrentLayer(nn.Module):
    """A gated recurrence (GRU): position i hears position j < i in i - j steps."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.recurrence = nn.GRU(d_model, d_model, batch_first=True)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, n, d_model) to (batch, n, d_model), one position at a time."""
        return self.output(self.recurrence(x)[0])


class Block(nn.Module):
    """One pre-norm layer: mix the positions, then work on each position alone.

    x + mixer(norm(x)), then x + mlp(norm(x)). Both branches end in zeros at first, so
    that a new block changes nothing, and a stack of them starts as the identity.

    Args:
        d_model: Width of the input and the output.
        mixer: Module on (..., n, d_model) with a last linear layer named ``output``.
        dropout: Share of each branch's features that training sets to zero.
    """

    def __init__(self, d_model: int, mixer: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.norm_2 = nn.LayerNorm(d_model)
        self.mlp = _mlp(d_model)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        zero(self.mixer.output)

    def forward(self, x: Tensor, **mixing: Tensor | None) -> Tensor:
        """Map (..., n, d_model) to itself; keyword arguments go to the mixer."""
        x = x + self.dropout(self.mixer(self.norm_1(x), **mixing))
        return x + self.dropout(self.mlp(self.norm_2(x)))


def _mlp(d_model: int) -> nn.Sequential:
    wide, narrow = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
    zero(narrow)
    return nn.Sequential(wide, nn.GELU(), narrow)


def zero(linear: nn.Linear) -> None:
    """Set weight and bias to 0, so that the layer adds nothing at first."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def sinusoidal_positions(n: int, d_model: int, *, first: int = 0) -> Tensor:
    """Sines and cosines of the position, at wavelengths from 2 pi to 20,000 pi.

    Row i holds sin(i f) and cos(i f) for d_model / 2 frequencies f (Vaswani et al.,
    2017), so that a shift of all positions is a rotation of each (sin, cos) pair.

    Args:
        n: Number of positions.
        d_model: Width; must be even.
        first: The first position.

    Returns:
        float32 on the CPU, shape (n, d_model).

    Raises:
        TypeError, ValueError: If the width is odd, or a position beyond 2**24, from
            where on float32 does not tell neighbours apart.

    Example:
        >>> sinusoidal_positions(2, 4).round(decimals=2)
        tensor([[0.0000, 0.0000, 1.0000, 1.0000],
                [0.8400, 0.0100, 0.5400, 1.0000]])
    """
    if check_count("d_model", d_model, least=2) % 2:
        raise ValueError(f"d_model must be even, got {d_model}")
    first = check_position("first", first)
    if max(-first, first + n) > 2**24:
        raise ValueError(
            f"first must leave all positions within 2**24, which float32 tells apart, "
            f"got {first} for {n} positions"
        )
    options = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are
    frequency = 10000.0 ** (-torch.arange(0, d_model, 2, **options) / d_model)
    angle = torch.arange(first, first + n, **options)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)
