"""Multi-head attention under a pattern, and small models that are built on it.

Every layer that mixes positions here maps (..., n, d_model) to (..., n, d_model), so
that attention and a recurrence can stand in one another's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attn_tutorial import patterns
from attn_tutorial.checks import check_count
from attn_tutorial.dense import attention, attention_weights
from attn_tutorial.local import local_attention
from attn_tutorial.patterns import Pattern, dense_mask
from attn_tutorial.sparse import sparse_attention

__all__ = [
    "Block",
    "DecoderBlock",
    "EncoderDecoder",
    "MultiHeadAttention",
    "RecurrentLayer",
    "RepeatHeads",
    "Rotary",
    "Transformer",
    "Translator",
    "layer_patterns",
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
        num_kv_heads: Heads of keys and values; h if None. With fewer, each serves a
            group of h / num_kv_heads query heads (Ainslie et al., 2023).
        rotary: Whether queries and keys turn with their position (see ``Rotary``).

    Raises:
        TypeError, ValueError: If an argument has the wrong type or size.

    Example:
        >>> layer = MultiHeadAttention(8, num_heads=2, pattern=patterns.local(1))
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
        narrow = d_model // num_heads * groups
        turn = [Rotary(d_model // num_heads)] if rotary else []
        repeat = [RepeatHeads(groups, num_heads)] if groups < num_heads else []
        self.query = _projection(d_model, d_model, *turn)
        self.key = _projection(d_model, narrow, *turn, *repeat)
        self.value = _projection(d_model, narrow, *repeat)
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


def _check_groups(num_kv_heads: int | None, num_heads: int) -> int:
    if num_kv_heads is None:
        return num_heads
    if num_heads % check_count("num_kv_heads", num_kv_heads, least=1):
        raise ValueError(
            f"num_kv_heads must divide num_heads={num_heads}, got {num_kv_heads}"
        )
    return num_kv_heads


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

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n, heads * width) to itself."""
        a, b = x.unflatten(-1, (-1, self.width)).chunk(2, -1)  # (..., n, heads, half)
        table = sinusoidal_positions(x.shape[-2], self.width).to(x)
        sine, cosine = table[:, None].chunk(2, -1)  # (n, 1, half)
        turned = torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)
        return turned.flatten(-2)


class RepeatHeads(nn.Module):
    """Repeat each of a few heads for a group of query heads."""

    def __init__(self, num_kv_heads: int, num_heads: int) -> None:
        super().__init__()
        self.num_kv_heads, self.group = num_kv_heads, num_heads // num_kv_heads

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n, num_kv_heads * width) to (..., n, num_heads * width)."""
        heads = x.unflatten(-1, (self.num_kv_heads, -1))
        return heads.repeat_interleave(self.group, -2).flatten(-2)


def pattern_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern | None = None,
    key_keep: Tensor | None = None,
) -> Tensor:
    """Attention of several heads under a pattern, on the fast routine if it has one.

    ``local`` and ``adjacent_blocks``, alone or with ``& causal()``, go to
    ``local_attention`` and ``sparse_attention``. Any other pattern becomes a mask for
    PyTorch's attention. No pattern at all is Eq. (1) as it is written.

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
    if pattern is None:
        return attention(q, k, v, _keep(q, k, None, key_keep))
    return _masked_attention(q, k, v, _keep(q, k, pattern, key_keep))


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """PyTorch's attention under a mask; a query that keeps no key gets zeros."""
    output = F.scaled_dot_product_attention(q, k, v, keep)
    if keep is None:
        return output
    return output.masked_fill(~keep.any(-1, keepdim=True), 0.0)


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
    if pattern is None or pattern == patterns.full():
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
        dropout: Share of each branch's features that training sets to zero.
    """

    def __init__(self, d_model: int, mixer: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(d_model)
        self.mixer = mixer
        self.norm_2 = nn.LayerNorm(d_model)
        self.mlp = _mlp(d_model)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        _zero(self.mixer.output)

    def forward(self, x: Tensor, **mixing: Tensor | None) -> Tensor:
        """Map (..., n, d_model) to itself; keyword arguments go to the mixer."""
        x = x + self.dropout(self.mixer(self.norm_1(x), **mixing))
        return x + self.dropout(self.mlp(self.norm_2(x)))


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


Patterns = Pattern | Sequence[Pattern | None] | None
POSITIONS = ("none", "sinusoidal", "learned", "rotary")


def layer_patterns(pattern: Patterns, num_layers: int) -> list[Pattern | None]:
    """Say which pattern each layer has: the one given, or several in turn.

    Example:
        >>> near = patterns.local(4)
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
        if self.positions == "learned":
            if tokens.shape[-1] > len(self.table):
                raise ValueError(
                    f"tokens must be at most max_length={len(self.table)} long, "
                    f"got shape {tuple(tokens.shape)}"
                )
            return self.embedding(tokens) + self.table[: tokens.shape[-1]]
        add = self.positions == "sinusoidal"
        return _embed(self.embedding, tokens, positions=add)

    def attention_maps(self, tokens: Tensor, **mixing: Tensor | None) -> list[Tensor]:
        """Weights of every layer for these tokens, each (batch, heads, n, n)."""
        x, maps = self.embed(tokens), []
        for block in self.blocks:
            weights = block.mixer(block.norm_1(x), **mixing, need_weights=True)[1]
            maps.append(weights)
            x = block(x, **mixing)
        return maps


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


def _embed(
    embedding: nn.Embedding, tokens: Tensor, *, positions: bool = True
) -> Tensor:
    x = embedding(tokens)
    if not positions:
        return x
    return x + sinusoidal_positions(*x.shape[-2:]).to(x)


class DecoderBlock(nn.Module):
    """A layer that writes: look at what is written, then at the source, then think."""

    def __init__(
        self, d_model: int, past: MultiHeadAttention, cross: MultiHeadAttention
    ) -> None:
        super().__init__()
        self.past = past
        self.norm = nn.LayerNorm(d_model)
        self.block = Block(d_model, cross)
        _zero(self.past.output)

    def forward(self, x: Tensor, source: Tensor, key_keep: Tensor | None) -> Tensor:
        """Map (batch, n, d_model) to itself, given the source (batch, m, d_model)."""
        x = x + self.past(self.norm(x))
        return self.block(x, key_value=source, key_keep=key_keep)

    def alignment(self, x: Tensor, source: Tensor, key_keep: Tensor | None) -> Tensor:
        """Weights with which x looks at the source, (batch, heads, n, m)."""
        x = self.block.norm_1(x + self.past(self.norm(x)))
        look = {"key_value": source, "key_keep": key_keep, "need_weights": True}
        return self.block.mixer(x, **look)[1]


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
        x, read = _embed(self.target, target), _embed(self.source, source)
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
        key_keep = source != self.padding
        read, x = self.source(source), self.target(target)
        for block in self.encoder:
            read = block(read, key_keep=key_keep)
        read = self.norm(read)
        for block in self.decoder:
            x = block(x, read, key_keep)
        return self.head(x)
