"""A small Transformer whose layers may have different patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from attn_tutorial.checks import check_count
from attn_tutorial.networks.layers import (
    Block,
    MultiHeadAttention,
    sinusoidal_positions,
)
from attn_tutorial.patterns import Pattern

__all__ = ["Transformer", "layer_patterns"]

Patterns = Pattern | Sequence[Pattern | None] | None

POSITIONS = ("none", "sinusoidal", "learned", "rotary")


def layer_patterns(pattern: Patterns, num_layers: int) -> list[Pattern | None]:
    """Say which pattern each layer has: the one given, or several in turn.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> near = local(4)
        >>> layer_patterns([near, near, near, None], 8).index(None)  # 3 local, 1 full
        3
    """
    several = [pattern] if isinstance(pattern, Pattern | None) else list(pattern)
    if not several:
        raise ValueError("pattern needs at least one pattern, got none")
    return list(islice(cycle(several), num_layers))


class Transformer(nn.Module):
    """A small pre-norm Transformer that names a label for every token.

    Embeddings start with standard deviation 1 (PyTorch's default), not 0.02: models
    of this size hardly learn to copy or to recall otherwise.

    Args:
        num_tokens: Size of the input vocabulary.
        num_labels: Number of labels to choose from.
        d_model: Width of the residual stream.
        num_heads: Heads in each layer.
        num_layers: L, the number of blocks.
        pattern: Which pairs the attention keeps; every pair if None. Several patterns,
            such as ``[near, near, near, None]``, take turns from layer to layer.
        positions: "sinusoidal" (or True) adds sines to the embeddings, "learned" adds
            a table, "rotary" turns queries and keys, "none" (or False) does nothing.
        mixer: Function that makes each layer's mixer; multi-head attention if None.
        num_kv_heads: Heads of keys and values; ``num_heads`` if None.
        dropout: Share of each branch's features that training sets to zero.
        share_layers: Whether all layers are one block, applied again and again.
        max_length: Rows of the learned table of positions.

    Example:
        >>> model = Transformer(10, 4, d_model=16, num_heads=2, num_layers=1)
        >>> model(torch.zeros(3, 5, dtype=torch.long)).shape
        torch.Size([3, 5, 4])
    """

    def __init__(
        self,
        num_tokens: int,
        num_labels: int,
        d_model: int = 32,
        num_heads: int = 2,
        num_layers: int = 2,
        *,
        pattern: Patterns = None,
        positions: bool | str = True,
        mixer: Callable[[], nn.Module] | None = None,
        num_kv_heads: int | None = None,
        dropout: float = 0.0,
        share_layers: bool = False,
        max_length: int = 512,
    ) -> None:
        super().__init__()
        self.positions = _check_positions(positions)
        rotary = self.positions == "rotary"

        def attend(p: Pattern | None) -> nn.Module:
            options = {"num_kv_heads": num_kv_heads, "rotary": rotary}
            return MultiHeadAttention(d_model, num_heads, p, **options)

        chosen = layer_patterns(pattern, num_layers)
        if share_layers:
            chosen = _only_one(chosen)
        mixers = [mixer() if mixer else attend(p) for p in chosen]
        self.embedding = nn.Embedding(num_tokens, d_model)
        blocks = [Block(d_model, m, dropout) for m in mixers]
        self.blocks = nn.ModuleList(blocks * num_layers if share_layers else blocks)
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, num_labels)
        if self.positions == "learned":
            self.table = nn.Parameter(torch.randn(max_length, d_model) / 10)

    def forward(
        self, tokens: Tensor, *, first: int = 0, **mixing: Tensor | None
    ) -> Tensor:
        """Score every label for every token.

        Padding may stand anywhere: each real token gets the scores that it has in its
        text alone, since positions count the real tokens only.

        Args:
            tokens: Integers, shape (batch, n).
            first: Position of the first token, for sinusoidal and learned positions.
                (Rotary ones depend on distances only.)
            **mixing: Passed to every mixer; for attention, ``key_keep``, bool, shape
                (batch, n), False = padding.

        Returns:
            Shape (batch, n, num_labels).
        """
        order = real_first(mixing.get("key_keep"), tokens)
        if order is not None:
            tokens = tokens.gather(-1, order)
            mixing["key_keep"] = mixing["key_keep"].gather(-1, order)
        x = self.embed(tokens, first)
        for block in self.blocks:
            x = block(x, **mixing)
        scores = self.head(self.norm(x))
        return scores if order is None else _put_back(scores, order)

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Look the tokens up and add their positions: shape (batch, n, d_model)."""
        if self.positions == "learned":
            end = check_count("first", first, least=0) + tokens.shape[-1]
            if end > len(self.table):
                raise ValueError(
                    f"tokens must be at most max_length={len(self.table)} long, "
                    f"got shape {tuple(tokens.shape)} from position {first} on"
                )
            return self.embedding(tokens) + self.table[first:end]
        add = self.positions == "sinusoidal"
        return embed_tokens(self.embedding, tokens, positions=add, first=first)

    def attention_maps(self, tokens: Tensor, **mixing: Tensor | None) -> list[Tensor]:
        """Weights of every layer for these tokens, each (batch, heads, n, n)."""
        order = real_first(mixing.get("key_keep"), tokens)
        if order is not None:
            tokens = tokens.gather(-1, order)
            mixing["key_keep"] = mixing["key_keep"].gather(-1, order)
        x, maps = self.embed(tokens), []
        for block in self.blocks:
            weights = block.mixer(block.norm_1(x), **mixing, need_weights=True)[1]
            maps.append(weights if order is None else _put_back_pairs(weights, order))
            x = block(x, **mixing)
        return maps


def real_first(key_keep: Tensor | None, tokens: Tensor) -> Tensor | None:
    """Order that puts the real tokens of each text first, (batch, n), if one is needed.

    A position is then the number of real tokens before it, in every layer and for
    every pattern.
    """
    if not isinstance(key_keep, Tensor) or key_keep.dtype != torch.bool:
        return None  # none, or refused where it is used
    if key_keep.shape != tokens.shape:
        raise ValueError(
            f"key_keep must have the shape of tokens, {tuple(tokens.shape)}, got "
            f"{tuple(key_keep.shape)}: write key_keep.expand(tokens.shape)"
        )
    return (~key_keep).int().argsort(dim=-1, stable=True)


def _put_back(x: Tensor, order: Tensor) -> Tensor:
    """Undo the order on axis 1 of (batch, n, ...)."""
    return x.gather(1, order.argsort(-1)[..., None].expand_as(x))


def _put_back_pairs(weights: Tensor, order: Tensor) -> Tensor:
    """Undo the order on both axes of (batch, heads, n, n)."""
    back = order.argsort(-1)[:, None]
    rows = weights.gather(-2, back[..., None].expand_as(weights))
    return rows.gather(-1, back[..., None, :].expand_as(weights))


def _only_one(chosen: list[Pattern | None]) -> list[Pattern | None]:
    if any(pattern != chosen[0] for pattern in chosen):
        raise ValueError(f"shared layers need one pattern, got {chosen}")
    return chosen[:1]


def _check_positions(positions: bool | str) -> str:
    if isinstance(positions, bool):
        return "sinusoidal" if positions else "none"
    if positions not in POSITIONS:
        raise ValueError(f"positions must be one of {POSITIONS}, got {positions!r}")
    return positions


def embed_tokens(
    embedding: nn.Embedding, tokens: Tensor, *, positions: bool = True, first: int = 0
) -> Tensor:
    """Vectors of tokens (..., n), and of their positions from `first` on if wanted."""
    x = embedding(tokens)
    if not positions:
        return x
    return x + sinusoidal_positions(*x.shape[-2:], first=first).to(x)
