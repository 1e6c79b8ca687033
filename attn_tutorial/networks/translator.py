"""Models that read one text and write another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attn_tutorial import patterns
from attn_tutorial.networks.layers import Block, MultiHeadAttention, zero
from attn_tutorial.networks.transformer import embed_tokens
from attn_tutorial.patterns import Pattern

__all__ = ["DecoderBlock", "EncoderDecoder", "Translator"]


class DecoderBlock(nn.Module):
    """A layer that writes: look at what is written, then at the source, then think."""

    def __init__(
        self, d_model: int, past: MultiHeadAttention, cross: MultiHeadAttention
    ) -> None:
        super().__init__()
        self.past = past
        self.norm = nn.LayerNorm(d_model)
        self.block = Block(d_model, cross)
        zero(self.past.output)

    def forward(self, x: Tensor, source: Tensor, key_keep: Tensor | None) -> Tensor:
        """Map (batch, n, d_model) to itself, given the source (batch, m, d_model)."""
        x = x + self.past(self.norm(x))
        return self.block(x, key_value=source, key_keep=key_keep, first=0)

    def alignment(self, x: Tensor, source: Tensor, key_keep: Tensor | None) -> Tensor:
        """Weights with which x looks at the source, (batch, heads, n, m)."""
        x = self.block.norm_1(x + self.past(self.norm(x)))
        look = {"key_value": source, "key_keep": key_keep, "first": 0}
        return self.block.mixer(x, **look, need_weights=True)[1]


class Translator(nn.Module):
    """One decoder layer that writes a sentence while it looks at another.

    The words written so far attend to each other (causally), then to the source words
    (cross-attention). The source is embedded and not processed further, so that a
    column of the cross-attention map stands for one source word and nothing else.

    Args:
        num_source: Size of the source vocabulary.
        num_target: Size of the target vocabulary.
        d_model: Width of the residual stream.
        num_heads: Heads of each attention.
        padding: Token that fills up the source; never attended.
    """

    def __init__(
        self,
        num_source: int,
        num_target: int,
        d_model: int = 32,
        num_heads: int = 1,
        *,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.source = nn.Embedding(num_source, d_model)
        self.target = nn.Embedding(num_target, d_model)
        past = MultiHeadAttention(d_model, num_heads, patterns.causal())
        cross = MultiHeadAttention(d_model, num_heads)
        self.block = DecoderBlock(d_model, past, cross)
        self.head = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, num_target))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score the word that follows each target word.

        Args:
            source: Tokens, shape (batch, n_source).
            target: Tokens written so far, shape (batch, n_target).

        Returns:
            Shape (batch, n_target, num_target).
        """
        return self.head(self.block(*self._prepare(source, target)))

    def alignment(self, source: Tensor, target: Tensor) -> Tensor:
        """Cross-attention weights, shape (batch, heads, n_target, n_source)."""
        return self.block.alignment(*self._prepare(source, target))

    def _prepare(self, source: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        x, read = embed_tokens(self.target, target), embed_tokens(self.source, source)
        return x, read, source != self.padding

    @torch.no_grad()
    def translate(self, source: Tensor, start: int, length: int) -> Tensor:
        """Write ``length`` words, the likeliest one at each step, after ``start``.

        Returns:
            Tokens without ``start``, shape (batch, length).
        """
        written = source.new_full((len(source), 1), start)
        for _ in range(length):
            best = self(source, written)[:, -1:].argmax(-1)
            written = torch.cat([written, best], 1)
        return written[:, 1:]


class EncoderDecoder(nn.Module):
    """Read a text with one stack of layers, and write another text with a second.

    Rotary positions everywhere, so that a window of the cross-attention means the
    same as one of the self-attention: source positions close to one's own.

    Args:
        num_source: Size of the source vocabulary.
        num_target: Size of the target vocabulary.
        d_model: Width of the residual stream.
        num_heads: Heads of each attention.
        num_layers: Layers of the encoder, and of the decoder.
        pattern: What self-attention keeps on both sides; the decoder adds ``causal()``.
        cross: What cross-attention keeps.
        padding: Token that fills up the source; never attended.

    Example:
        >>> model = EncoderDecoder(9, 7, d_model=16, num_layers=1)
        >>> source, target = torch.ones(2, 5).long(), torch.ones(2, 4).long()
        >>> model(source, target).shape
        torch.Size([2, 4, 7])
    """

    def __init__(
        self,
        num_source: int,
        num_target: int,
        d_model: int = 64,
        num_heads: int = 2,
        num_layers: int = 2,
        *,
        pattern: Pattern | None = None,
        cross: Pattern | None = None,
        padding: int = 0,
    ) -> None:
        super().__init__()

        def attend(p: Pattern | None) -> MultiHeadAttention:
            return MultiHeadAttention(d_model, num_heads, p, rotary=True)

        past = pattern & patterns.causal() if pattern else patterns.causal()
        self.padding, layers = padding, range(num_layers)
        self.source = nn.Embedding(num_source, d_model)
        self.target = nn.Embedding(num_target, d_model)
        encoder = [Block(d_model, attend(pattern)) for _ in layers]
        decoder = [DecoderBlock(d_model, attend(past), attend(cross)) for _ in layers]
        self.encoder, self.norm = nn.ModuleList(encoder), nn.LayerNorm(d_model)
        self.decoder = nn.ModuleList(decoder)
        self.head = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, num_target))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score the token that follows each target token.

        Args:
            source: Tokens, shape (batch, n_source).
            target: Tokens written so far, shape (batch, n_target).

        Returns:
            Shape (batch, n_target, num_target).
        """
        return self.write(target, self.read(source), source != self.padding)

    def read(self, source: Tensor) -> Tensor:
        """Encode a source, (batch, n_source): shape (batch, n_source, d_model)."""
        x = self.source(source)
        for block in self.encoder:
            x = block(x, key_keep=source != self.padding)
        return self.norm(x)

    def write(self, target: Tensor, read: Tensor, key_keep: Tensor) -> Tensor:
        """Score the token that follows each target token, given the encoded source.

        Args:
            target: Tokens written so far, shape (batch, n_target).
            read: What ``read`` returned, shape (batch, n_source, d_model).
            key_keep: Bool, shape (batch, n_source); False = padding.

        Returns:
            Shape (batch, n_target, num_target).
        """
        x = self.target(target)
        for block in self.decoder:
            x = block(x, read, key_keep)
        return self.head(x)

    @torch.no_grad()
    def translate(self, source: Tensor, start: int, end: int, length: int) -> Tensor:
        """Write the likeliest token at each step, after ``start``, until ``end``.

        Args:
            source: Tokens, shape (batch, n_source).
            start: First token of every text; not returned.
            end: Token after which only itself is written.
            length: Tokens at most.

        Returns:
            Tokens, shape (batch, at most length).
        """
        read, key_keep = self.read(source), source != self.padding
        written = source.new_full((len(source), 1), start)
        done = torch.zeros_like(written, dtype=torch.bool)
        while written.shape[1] <= length and not done.all():
            best = self.write(written, read, key_keep)[:, -1:].argmax(-1)
            best = best.masked_fill(done, end)
            written, done = torch.cat([written, best], 1), done | (best == end)
        return written[:, 1:]
