"""Multi-head attention under a pattern, and small models that are built on it.

Every layer that mixes positions here maps (..., n, d_model) to (..., n, d_model), so
that attention and a recurrence can stand in one another's place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attn_tutorial import patterns
from attn_tutorial.checks import check_count
from attn_tutorial.dense import attention, attention_weights
from attn_tutorial.local import local_attention
from attn_tutorial.patterns import Pattern, dense_mask
from attn_tutorial.sparse import sparse_attention

__all__ = [
    "Block",
    "MultiHeadAttention",
    "RecurrentLayer",
    "Transformer",
    "Translator",
    "pattern_attention",
    "sinusoidal_positions",
]


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own slice of the features.

    Eq. (13): Concat(head_1, ..., head_h) W_O, where head_r is Eq. (1) applied to
    x W_Q[r], y W_K[r] and y W_V[r]; y is x in self-attention.

    Args:
        d_model: Width of the input and the output.
        num_heads: h; must divide d_model. Each head is d_model / h wide.
        pattern: Which pairs to keep; every pair if None.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or size.

    Example:
        >>> layer = MultiHeadAttention(8, num_heads=2, pattern=patterns.local(1))
        >>> layer(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self, d_model: int, num_heads: int, pattern: Pattern | None = None
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
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Tensor,
        key_value: Tensor | None = None,
        *,
        key_keep: Tensor | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let every position of ``x`` look at ``key_value`` (at ``x`` itself if None).

        Args:
            x: Where the queries come from, shape (..., n_q, d_model).
            key_value: Where keys and values come from, shape (..., n_k, d_model).
            key_keep: Bool, shape (..., n_k); False = padding, never attended.
            need_weights: Also return the weights, which forms (n_q, n_k) matrices.

        Returns:
            Shape (..., n_q, d_model); with ``need_weights`` also the weights, shape
            (..., h, n_q, n_k).
        """
        source = x if key_value is None else key_value
        q = self._split(self.query(x))  # (..., h, n_q, d_model / h)
        k = self._split(self.key(source))
        v = self._split(self.value(source))
        heads = pattern_attention(q, k, v, self.pattern, key_keep)
        output = self.output(heads.transpose(-3, -2).flatten(-2))
        if not need_weights:
            return output
        keep = _keep(q, k, self.pattern, key_keep)
        return output, attention_weights(q, k, keep)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)


def pattern_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern | None = None,
    key_keep: Tensor | None = None,
) -> Tensor:
    """Attention of several heads under a pattern, on the fast routine if it has one.

    ``local`` and ``adjacent_blocks``, alone or with ``& causal()``, go to
    ``local_attention`` and ``sparse_attention``; any other pattern becomes a mask.

    Args:
        q: Queries, shape (..., h, n_q, d).
        k: Keys, shape (..., h, n_k, d).
        v: Values, shape (..., h, n_k, d_v).
        pattern: Which pairs to keep; every pair if None.
        key_keep: Bool, shape (..., n_k), the same for every head; False = padding.

    Returns:
        Shape (..., h, n_q, d_v).
    """
    core, causal = _without_causal(pattern)
    same_length = q.shape[-2] == k.shape[-2]
    options = {
        "causal": causal,
        "key_keep": None if key_keep is None else key_keep.unsqueeze(-2),
    }
    if same_length and core is not None and core.name == "local":
        return local_attention(q, k, v, core["window"], **options)
    if same_length and core is not None and core.name == "adjacent_blocks":
        return sparse_attention(q, k, v, block_size=core["block_size"], **options)
    return attention(q, k, v, _keep(q, k, pattern, key_keep))


def _without_causal(pattern: Pattern | None) -> tuple[Pattern | None, bool]:
    """Split ``p & causal()`` into (p, True); any other p into (p, False)."""
    if pattern is None or pattern.name != "intersection" or len(pattern.parts) != 2:
        return pattern, False
    first, second = pattern.parts
    if first == patterns.causal():
        return second, True
    return (first, True) if second == patterns.causal() else (pattern, False)


def _keep(
    q: Tensor, k: Tensor, pattern: Pattern | None, key_keep: Tensor | None
) -> Tensor | None:
    """Write the pattern and the padding out as one mask, or None if all is kept."""
    keep = None if key_keep is None else key_keep[..., None, None, :]
    if pattern is None:
        return keep
    mask = dense_mask(pattern, q.shape[-2], k.shape[-2], device=q.device)
    return mask if keep is None else mask & keep


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
    """

    def __init__(self, d_model: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.norm_2 = nn.LayerNorm(d_model)
        self.mlp = _mlp(d_model)
        _zero(self.mixer.output)

    def forward(self, x: Tensor, **mixing: Tensor | None) -> Tensor:
        """Map (..., n, d_model) to itself; keyword arguments go to the mixer."""
        x = x + self.mixer(self.norm_1(x), **mixing)
        return x + self.mlp(self.norm_2(x))


def _mlp(d_model: int) -> nn.Sequential:
    wide, narrow = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
    _zero(narrow)
    return nn.Sequential(wide, nn.GELU(), narrow)


def _zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def sinusoidal_positions(n: int, d_model: int) -> Tensor:
    """Sines and cosines of the position, at wavelengths from 2 pi to 20,000 pi.

    Row i holds sin(i f) and cos(i f) for d_model / 2 frequencies f (Vaswani et al.,
    2017), so that a shift of all positions is a rotation of each (sin, cos) pair.

    Args:
        n: Number of positions.
        d_model: Width; must be even.

    Returns:
        Shape (n, d_model).

    Example:
        >>> sinusoidal_positions(2, 4).round(decimals=2)
        tensor([[0.0000, 0.0000, 1.0000, 1.0000],
                [0.8400, 0.0100, 0.5400, 1.0000]])
    """
    if check_count("d_model", d_model, least=2) % 2:
        raise ValueError(f"d_model must be even, got {d_model}")
    frequency = 10000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    angle = torch.arange(n)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


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
        pattern: Which pairs the attention keeps; every pair if None.
        positions: Whether to add sinusoidal positions to the embeddings.
        mixer: Function that makes each layer's mixer; multi-head attention if None.

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
        pattern: Pattern | None = None,
        positions: bool = True,
        mixer: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()

        def attend() -> nn.Module:
            return MultiHeadAttention(d_model, num_heads, pattern)

        mixers = [(mixer or attend)() for _ in range(num_layers)]
        self.embedding = nn.Embedding(num_tokens, d_model)
        self.positions = positions
        self.blocks = nn.ModuleList([Block(d_model, m) for m in mixers])
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, num_labels)

    def forward(self, tokens: Tensor, **mixing: Tensor | None) -> Tensor:
        """Score every label for every token.

        Args:
            tokens: Integers, shape (batch, n).
            **mixing: Passed to every mixer; for attention, ``key_keep``.

        Returns:
            Shape (batch, n, num_labels).
        """
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, **mixing)
        return self.head(self.norm(x))

    def embed(self, tokens: Tensor) -> Tensor:
        """Look the tokens up and add their positions: shape (batch, n, d_model)."""
        return _embed(self.embedding, tokens, positions=self.positions)

    def attention_maps(self, tokens: Tensor) -> list[Tensor]:
        """Weights of every layer for these tokens, each (batch, heads, n, n)."""
        x, maps = self.embed(tokens), []
        for block in self.blocks:
            maps.append(block.mixer(block.norm_1(x), need_weights=True)[1])
            x = block(x)
        return maps


def _embed(
    embedding: nn.Embedding, tokens: Tensor, *, positions: bool = True
) -> Tensor:
    x = embedding(tokens)
    if not positions:
        return x
    return x + sinusoidal_positions(*x.shape[-2:]).to(x)


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
        self.past = MultiHeadAttention(d_model, num_heads, patterns.causal())
        self.norm = nn.LayerNorm(d_model)
        self.block = Block(d_model, MultiHeadAttention(d_model, num_heads))
        self.head = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, num_target))
        _zero(self.past.output)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Score the word that follows each target word.

        Args:
            source: Tokens, shape (batch, n_source).
            target: Tokens written so far, shape (batch, n_target).

        Returns:
            Shape (batch, n_target, num_target).
        """
        x, look = self._prepare(source, target)
        return self.head(self.block(x, **look))

    def alignment(self, source: Tensor, target: Tensor) -> Tensor:
        """Cross-attention weights, shape (batch, heads, n_target, n_source)."""
        x, look = self._prepare(source, target)
        return self.block.mixer(self.block.norm_1(x), **look, need_weights=True)[1]

    def _prepare(self, source: Tensor, target: Tensor) -> tuple[Tensor, dict]:
        x = _embed(self.target, target)
        x = x + self.past(self.norm(x))
        key_value = _embed(self.source, source)
        return x, {"key_value": key_value, "key_keep": source != self.padding}

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
