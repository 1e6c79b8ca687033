"""What a pattern costs and how far it hears: closed forms, equal to brute force.

Every function takes full, causal, local, blocks and adjacent blocks, their union with
global tokens, and the intersection of any of these with ``causal()``; those that count
pairs take any pattern. FLOPs count a multiply-add as two operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from attn_tutorial.checks import (
    check_count,
    check_number,
    check_radius,
    check_window,
)
from attn_tutorial.lookback import causal_needs
from attn_tutorial.patterns import Pattern, check_length, full, kept, local, run
from attn_tutorial.patterns import causal as causal_pattern

__all__ = [
    "LayerFlops",
    "Work",
    "cache_bytes",
    "computed_pairs",
    "crossover_length",
    "decode_intensity",
    "flops",
    "grid_pairs",
    "grid_tax",
    "influence_spread",
    "io_bytes",
    "kept_pairs",
    "layer_flops",
    "layers_to_connect",
    "predict",
    "reach",
    "roofline_seconds",
    "score_bytes",
    "tile_bytes",
    "tile_tax",
]


class _Parts(NamedTuple):
    """A pattern taken apart: causal or not, its band or blocks, its global tokens."""

    causal: bool
    base: Pattern | None
    global_tokens: int


def _take_apart(pattern: Pattern) -> _Parts:
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be an attn_tutorial pattern, got {pattern!r}")
    if pattern.name == "causal":
        return _Parts(True, full(), 0)
    if pattern.is_foreign:
        raise _no_closed_form(pattern)
    if pattern.name in ("full", "local", "adjacent_blocks", "blocks"):
        return _Parts(False, pattern, 0)
    if pattern.name == "global_tokens":
        return _Parts(False, None, pattern["count"])
    parts = [_take_apart(part) for part in pattern.parts]
    if pattern.name == "union":
        return _united(pattern, parts)
    if pattern.name == "intersection":
        return _made_causal(pattern, parts)
    raise _no_closed_form(pattern)


def _united(pattern: Pattern, parts: list[_Parts]) -> _Parts:
    bases = [part.base for part in parts if part.base is not None]
    if len(bases) > 1 or any(part.causal for part in parts):
        raise _no_closed_form(pattern)
    count = max(part.global_tokens for part in parts)
    return _Parts(False, bases[0] if bases else None, count)


def _made_causal(pattern: Pattern, parts: list[_Parts]) -> _Parts:
    others = [part for part in parts if part != _Parts(True, full(), 0)]
    if len(others) > 1:
        raise _no_closed_form(pattern)
    if not others:
        return parts[0]
    causal = others[0].causal or len(parts) > 1
    return others[0]._replace(causal=causal)


def _no_closed_form(pattern: Pattern) -> ValueError:
    return ValueError(
        f"pattern has no closed form here, got {pattern!r}; "
        "use instruments.graph.reach_mask or hops instead"
    )


def kept_pairs(pattern: Pattern, n: int) -> int:
    """Number of (query, key) pairs that a pattern keeps among n tokens.

    Eq. (8): n (2w + 1) - w (w + 1) for a window w < n, and 3 n b - 2 b^2 for
    m = n / b >= 2 equal blocks. Symmetric patterns lose half of what is off the
    diagonal under ``causal()``. A pattern without a closed form, such as a reader's own
    predicate, is counted block by block, in time n * n at most but in linear memory.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> kept_pairs(local(3), 24)
        156
    """
    n = check_count("n", n, least=0)
    try:
        causal, base, count = _take_apart(pattern)
    except ValueError:
        return _counted(pattern, n)
    if base is not None and base.name == "local" and base["window"] != _radius(base):
        return _counted(pattern, n) if count else _band_pairs(base, n, causal)
    count = min(count, n)
    rest = n - count  # the tokens that are not global keep their own pattern
    pairs = n * n - rest * rest + _base_pairs(base, rest, offset=count)
    diagonal = count if base is None else n
    return (pairs + diagonal) // 2 if causal else pairs


def _radius(base: Pattern) -> int:
    return max(check_window(base["window"]))


def _band_pairs(base: Pattern, n: int, causal: bool) -> int:
    """Pairs of a window with two different sides: the diagonal and both sides."""
    left, right = check_window(base["window"])
    sides = (min(w, max(n - 1, 0)) for w in (left, 0 if causal else right))
    return n + sum(n * w - w * (w + 1) // 2 for w in sides)


def _counted(pattern: Pattern, n: int) -> int:
    """Count a pattern's pairs, at most 2^22 of them at once."""
    check_length(pattern, n, n)
    rows, pairs = max(1, 2**22 // max(n, 1)), 0
    for start in range(0, n, rows):
        queries = range(start, min(start + rows, n))
        keys = run(pattern, queries, n)
        i = torch.arange(queries.start, queries.stop)[:, None]
        j = torch.arange(keys.start, keys.stop)
        pairs += int(kept(pattern, i, j).expand(len(queries), len(keys)).sum())
    return pairs


def _base_pairs(base: Pattern | None, n: int, offset: int) -> int:
    """Pairs among n tokens at positions offset, offset + 1, ..."""
    if base is None or n == 0:
        return 0
    if base.name == "local":
        window = min(base["window"], n - 1)
        return n * (2 * window + 1) - window * (window + 1)
    if base.name == "adjacent_blocks":
        return _block_pairs(n, base["block_size"], offset)
    if base.name == "blocks":
        first, middle, last = _block_lengths(n, base["block_size"], offset)
        return first**2 + middle * base["block_size"] ** 2 + last**2
    return n * n


def _block_lengths(n: int, size: int, offset: int) -> tuple[int, int, int]:
    """Length of the first block, number of whole ones, length of the last."""
    first = min(n, size - offset % size)
    return first, *divmod(n - first, size)


def _block_pairs(n: int, size: int, offset: int) -> int:
    """A first, whole middle and a last block: sum of s^2 + 2 s s_next over blocks."""
    first, middle, last = _block_lengths(n, size, offset)
    own = first**2 + middle * size**2 + last**2
    if middle == 0:
        return own + 2 * first * last
    return own + 2 * (first * size + (middle - 1) * size**2 + size * last)


def flops(pattern: Pattern, n: int, d: int, heads: int = 1) -> int:
    """FLOPs of the two matrix products of attention, counting kept pairs only.

    Eq. (3): 4 d per kept pair: 2 d for its score, 2 d to add its value.

    Example:
        >>> flops(full(), 1024, 64)
        268435456
    """
    d = check_count("d", d, least=1)
    return 4 * d * check_count("heads", heads, least=1) * kept_pairs(pattern, n)


class LayerFlops(NamedTuple):
    """Forward FLOPs of one Transformer layer, by part."""

    attention: int
    projections: int
    mlp: int

    @property
    def attention_share(self) -> float:
        """Attention's part of the layer's FLOPs, from 0 to 1."""
        return self.attention / sum(self) if sum(self) else 0.0


def layer_flops(
    pattern: Pattern,
    n: int,
    d_model: int,
    expansion: int = 4,
    *,
    kv_width: int | None = None,
) -> LayerFlops:
    """FLOPs of one layer: attention, its four projections, and the MLP.

    Eq. (4): 4 d_model per kept pair, 8 n d_model^2, and 4 n d_model^2 * expansion for
    an MLP that widens d_model by that factor. The number of heads does not matter.

    Args:
        pattern: Which (query, key) pairs to keep.
        n: Sequence length.
        d_model: Width of the layer.
        expansion: The factor by which the MLP widens d_model.
        kv_width: Numbers in a token's keys, all heads together: below d_model where
            heads share their keys and values; d_model if None.
    """
    n = check_count("n", n, least=0)
    d_model = check_count("d_model", d_model, least=1)
    expansion = check_count("expansion", expansion, least=0)
    kv_width = d_model if kv_width is None else kv_width
    kv_width = check_count("kv_width", kv_width, least=1)
    projections = 4 * n * d_model * (d_model + kv_width)
    mlp = 4 * expansion * n * d_model**2
    return LayerFlops(flops(pattern, n, d_model), projections, mlp)


def crossover_length(d_model: int, expansion: int = 4) -> int:
    """Length at which full attention costs as much as the rest of its layer.

    Eq. (4) solved for n: 4 n^2 d_model = (8 + 4 expansion) n d_model^2, so that
    n = (2 + expansion) d_model.

    Example:
        >>> crossover_length(768)
        4608
    """
    d_model = check_count("d_model", d_model, least=1)
    return (2 + check_count("expansion", expansion, least=0)) * d_model


def score_bytes(
    pattern: Pattern, n: int, heads: int = 1, bytes_per_number: int = 4
) -> int:
    """Memory of the scores of the kept pairs, if they are all stored at once.

    Eq. (5): heads * kept pairs * bytes per number.
    """
    heads = check_count("heads", heads, least=1)
    bytes_per_number = check_count("bytes_per_number", bytes_per_number, least=1)
    return heads * kept_pairs(pattern, n) * bytes_per_number


def io_bytes(n: int, d: int, heads: int = 1, bytes_per_number: int = 4) -> int:
    """Memory of queries, keys, values and output together: 4 n d numbers a head."""
    size = check_count("n", n, least=0) * check_count("d", d, least=1)
    heads = check_count("heads", heads, least=1)
    return 4 * size * heads * check_count("bytes_per_number", bytes_per_number, least=1)


def roofline_seconds(
    flops: float, bytes_moved: float, flops_per_second: float, bytes_per_second: float
) -> float:
    """Least time of a piece of work on a machine with two limits.

    Eq. (17): max(flops / rate, bytes / bandwidth). Arithmetic and traffic may overlap,
    so the slower of the two decides; nothing is faster than both allow.

    Args:
        flops: Operations of the work.
        bytes_moved: Bytes that it must read and write in main memory.
        flops_per_second: The machine's rate, such as that of a large matrix product.
        bytes_per_second: The machine's bandwidth, such as that of a large copy.

    Returns:
        Seconds.

    Raises:
        TypeError: If an argument is not a real number.
        ValueError: If the work is negative, a limit not positive, or one not finite.

    Example:
        >>> roofline_seconds(6e9, 1e9, flops_per_second=3e9, bytes_per_second=1e9)
        2.0
    """
    flops = check_number("flops", flops)
    bytes_moved = check_number("bytes_moved", bytes_moved)
    rate = check_number("flops_per_second", flops_per_second, positive=True)
    bandwidth = check_number("bytes_per_second", bytes_per_second, positive=True)
    return max(flops / rate, bytes_moved / bandwidth)


class Work(NamedTuple):
    """What one call consists of, counted; the prices of a machine have the same parts.

    Attributes:
        products: Numbers multiplied and added for the scores: heads * pairs * d.
        scores: Pairs that are computed, of all heads.
        numbers: Numbers of one of the inputs: heads * n * d.
        reads: Numbers of the runs of keys that the tiles read: heads * keys * d.
        tiles: Tiles of all heads.
        calls: Calls of routines that do the work.
        starts: Calls of the whole, 1.
    """

    products: float
    scores: float
    numbers: float
    reads: float
    tiles: float
    calls: float
    starts: float


def predict(work: Work, prices: Work) -> float:
    """Seconds of a call: each part of its work at the machine's price for one.

    A roofline takes the dearest part alone. On a CPU the parts follow one another,
    so that their times add up. ``benchmark.calibration`` measures the prices.

    Example:
        >>> work = Work(2e9, scores=1e7, numbers=0, reads=0, tiles=0, calls=9, starts=1)
        >>> round(predict(work, Work(4e-11, 1e-9, 3e-9, 0, 0, 1e-5, 1e-4)), 6)
        0.09019
    """
    return sum(part * price for part, price in zip(work, prices, strict=True))


def computed_pairs(pattern: Pattern, n: int, tile: int) -> int:
    """Pairs that a tiled routine computes: each tile of queries times its run of keys.

    The run goes from the first to the last key that any query of the tile keeps.

    Args:
        pattern: Any but those with global tokens, whose tiles meet all keys.
        n: Sequence length.
        tile: Queries in a tile; the last tile may be shorter.

    Raises:
        ValueError: If the pattern has global tokens.
    """
    n = check_count("n", n, least=0)
    tile = check_count("tile", tile, least=1)
    runs = _runs(pattern, n, tile)
    return sum(queries * (last - first + 1) for queries, first, last in runs)


def _runs(pattern: Pattern, n: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """Queries, first key and last key of each tile of ``rows`` queries."""
    try:
        _, base, count = _take_apart(pattern)
    except ValueError:
        yield from _seen_runs(pattern, n, rows)
        return
    if count or base is None:
        raise ValueError(f"pattern must have no global tokens, got {pattern!r}")
    for start in range(0, n, rows):
        queries = range(start, min(start + rows, n))
        keys = run(pattern, queries, n)
        yield len(queries), keys[0], keys[-1]


def _seen_runs(pattern: Pattern, n: int, rows: int) -> Iterator[tuple[int, int, int]]:
    """The same for a pattern without a closed form: looked up, a tile at a time."""
    for queries, met in _seen_keys(pattern, n, rows):
        places = met.nonzero()
        ends = places[[0, -1], 0].tolist() if len(places) else (0, -1)
        yield queries, *ends


def _seen_keys(
    pattern: Pattern, n: int, rows: int, columns: int = 1
) -> Iterator[tuple[int, torch.Tensor]]:
    """Queries of each tile, and which keys, or groups of keys, any of them keeps."""
    check_length(pattern, n, n)
    for start in range(0, n, rows):
        i = torch.arange(start, min(start + rows, n))[:, None]
        met = kept(pattern, i, torch.arange(n)).expand(len(i), n).any(0)
        missing = -n % columns
        groups = torch.nn.functional.pad(met, (0, missing)).view(-1, columns)
        yield len(i), groups.any(-1)


def _met(pattern: Pattern, n: int, rows: int, columns: int) -> Iterator[range | list]:
    """Groups of ``columns`` keys that each tile of ``rows`` queries meets."""
    try:
        _take_apart(pattern)
    except ValueError:
        for _, groups in _seen_keys(pattern, n, rows, columns):
            yield groups.nonzero()[:, 0].tolist()
        return
    for _, first, last in _runs(pattern, n, rows):
        yield range(first // columns, last // columns + 1)


def tile_tax(pattern: Pattern, n: int, tile: int) -> float:
    """Computed pairs per kept pair: 1.0 means that no work is thrown away.

    Eq. (9): computed_pairs / kept_pairs; about (2w + tile) / (2w + 1) for a window.

    Example:
        >>> from attn_tutorial.patterns import adjacent_blocks
        >>> tile_tax(adjacent_blocks(64), 1024, tile=64)
        1.0
    """
    pairs = kept_pairs(pattern, n)
    return computed_pairs(pattern, n, tile) / pairs if pairs else 1.0


def grid_pairs(pattern: Pattern, n: int, rows: int, columns: int) -> int:
    """Pairs that a kernel computes whose tiles lie on a grid, rows x columns each.

    A tile is computed whole, or skipped if it keeps no pair. ``computed_pairs`` lets
    each run of keys begin where it likes; a grid rounds both of its ends outwards. A
    tile that reaches beyond the sequence costs as much as any other.

    Args:
        pattern: Full, causal, local or adjacent blocks (no global tokens).
        n: Sequence length.
        rows: Queries in a tile.
        columns: Keys in a tile.

    Raises:
        ValueError: If a size is below 1, or the pattern has global tokens.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> grid_pairs(local(1), 8, rows=2, columns=4)  # 6 tiles of 8
        48
    """
    n = check_count("n", n, least=0)
    rows = check_count("rows", rows, least=1)
    columns = check_count("columns", columns, least=1)
    tiles = (len(groups) for groups in _met(pattern, n, rows, columns))
    return sum(tiles) * rows * columns


def grid_tax(pattern: Pattern, n: int, rows: int, columns: int) -> float:
    """Computed pairs per kept pair when tiles of rows x columns lie on a grid.

    Eq. (18): grid_pairs / kept_pairs; away from the ends of a long sequence a window
    costs (rows + columns - g + 2 g ceil(w / g)) / (2w + 1), g = gcd(rows, columns).

    Example:
        >>> from attn_tutorial.patterns import adjacent_blocks
        >>> grid_tax(adjacent_blocks(128), 1024, rows=128, columns=64)
        1.0
    """
    pairs = kept_pairs(pattern, n)
    return grid_pairs(pattern, n, rows, columns) / pairs if pairs else 1.0


def tile_bytes(
    pattern: Pattern,
    n: int,
    d: int,
    rows: int,
    columns: int,
    heads: int = 1,
    bytes_per_number: int = 4,
) -> int:
    """Bytes between slow and fast memory when tiles of rows x columns lie on a grid.

    Eq. (16): heads * bytes per number * d * (2n + 2 * keys met by each tile of
    queries, added up). Queries are read once and outputs written once; keys and values
    are read again by every tile of queries that meets them.

    Example:
        >>> tile_bytes(full(), 1024, 64, rows=128, columns=64) / io_bytes(1024, 64)
        4.5
    """
    n = check_count("n", n, least=0)
    size = check_count("d", d, least=1) * check_count("heads", heads, least=1)
    size *= check_count("bytes_per_number", bytes_per_number, least=1)
    rows = check_count("rows", rows, least=1)
    columns = check_count("columns", columns, least=1)
    met = 0
    for groups in _met(pattern, n, rows, columns):
        met += len(groups) * columns
        if len(groups) and (groups[-1] + 1) * columns > n:  # the last one is shorter
            met -= (groups[-1] + 1) * columns - n
    return 2 * size * (n + met)


def reach(pattern: Pattern, layers: int, n: int, position: int | None = None) -> int:
    """Number of tokens that can influence one position after some layers.

    Eq. (10): 2 L w + 1 for a window and (2 L + 1) b for adjacent blocks in the
    interior, fewer at the ends and under ``causal()``. Counts the token itself,
    which the residual connection carries.

    Args:
        pattern: The pattern of every layer.
        layers: Number of layers L.
        n: Sequence length.
        position: The position asked about, 0 ... n - 1; the middle if None.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> reach(local(8), layers=4, n=1024)
        65
    """
    n = check_count("n", n, least=1)
    layers = check_count("layers", layers, least=0)
    position = (
        n // 2 if position is None else check_count("position", position, least=0)
    )
    if position >= n:
        raise ValueError(f"position must be below n={n}, got {position}")
    causal, base, count = _take_apart(pattern)
    if layers == 0:
        return 1
    if not causal and count and (layers > 1 or position < count):
        return n  # everyone is at most two hops away, through a global token
    near = base or local(0)
    heard = _heard(near & causal_pattern() if causal else near, position, n, layers)
    return len(heard) + min(count, heard.start)


def _heard(near: Pattern, position: int, n: int, layers: int) -> range:
    """Tokens within ``layers`` steps, where all tokens meet a run of others."""
    heard = range(position, position + 1)
    for _ in range(layers):
        met = run(near, heard, n)
        more = range(min(met.start, heard.start), max(met.stop, heard.stop))
        if more == heard:
            break
        heard = more
    return heard


def layers_to_connect(pattern: Pattern, n: int) -> float:
    """Layers until every token can be influenced by every token that it may hear.

    Eq. (13): ceil((n - 1) / w) for a window, m - 1 for m adjacent blocks, and at
    most 2 with a global token. Under ``causal()``, and with a window of one side, "may
    hear" means every token on that side; causally, global tokens shorten nothing
    between two later ones.

    Returns:
        The number of layers, or ``math.inf`` if no depth suffices.

    Example:
        >>> from attn_tutorial.patterns import local
        >>> layers_to_connect(local(64), 1024)
        16
    """
    n = check_count("n", n, least=0)
    causal, base, count = _take_apart(pattern)
    if n <= 1:
        return 0
    count = min(count, n)
    layers = max(1, _base_layers(base, n - count, count, causal))
    if causal or not count:
        return layers
    return min(2, layers)


def _base_layers(base: Pattern | None, n: int, offset: int, causal: bool) -> float:
    """Layers until n tokens at positions offset, offset + 1, ... are connected."""
    if n <= 1:
        return 0
    if base is None:
        return math.inf
    if base.name == "local":
        left, right = check_window(base["window"])
        sides = [left] if causal else [left, right]
        slowest = min((side for side in sides if side), default=0)
        return -(-(n - 1) // slowest) if slowest else math.inf
    if base.name == "blocks":
        same = offset // base["block_size"] == (offset + n - 1) // base["block_size"]
        return 1 if same else math.inf
    if base.name == "adjacent_blocks":
        size = base["block_size"]
        return (offset + n - 1) // size - offset // size
    return 1


def influence_spread(window: int, layers: int) -> float:
    """Standard deviation, in tokens, of where a window's information comes from.

    Eq. (14): sqrt(L w (w + 1) / 3). Each layer of uniform attention adds a step that
    is uniform on -w ... w, with variance w (w + 1) / 3, and independent steps add.

    Example:
        >>> round(influence_spread(window=8, layers=4), 3)
        9.798
    """
    window = check_radius(window)
    return math.sqrt(check_count("layers", layers, least=0) * window * (window + 1) / 3)


def cache_bytes(
    pattern: Pattern,
    n: int,
    d: int,
    kv_heads: int = 1,
    *,
    layers: int = 1,
    bytes_per_number: int = 2,
) -> int:
    """Memory of the keys and values that must be kept of n tokens, of one text.

    Eq. (22): 2 * layers * kv_heads * d numbers for each token kept. Kept are all n, or,
    once there are more, the sinks and the window. A ``RollingCache`` holds as many when
    its window is full, and up to twice as many while it grows.

    Args:
        pattern: A causal pattern, that of all these layers.
        n: Tokens so far.
        d: Width of a key, and of a value, of one head.
        kv_heads: Heads of keys; fewer than those of queries where these share them.
        layers: How many layers have this pattern.
        bytes_per_number: 2 in half precision.

    Raises:
        TypeError, ValueError: If a number is none or too small, or the pattern looks
            ahead.

    Example:
        >>> from attn_tutorial.patterns import causal
        >>> window = local(4095) & causal()
        >>> cache_bytes(window, 32_768, d=128, kv_heads=8, layers=32) // 2**20
        512
    """
    met, n = causal_needs(pattern), check_count("n", n, least=0)
    kept = min(n, met.sinks + max(met.back, 0) + 1)
    size = check_count("d", d, least=1) * check_count("kv_heads", kv_heads, least=1)
    size *= check_count("bytes_per_number", bytes_per_number, least=1)
    return 2 * check_count("layers", layers, least=1) * size * kept


def decode_intensity(heads: int, kv_heads: int, bytes_per_number: int = 2) -> float:
    """FLOPs for each byte of the cache that a step of decoding reads.

    Eq. (21): 4 d κ h operations with κ keys of width d, against 2 d κ h_kv β bytes,
    which is 2 h / (h_kv β). The text, the window and the width drop out; sharing heads
    of keys is what changes it. The query and the output are left out: one token's.

    Args:
        heads: Heads of queries, h.
        kv_heads: Heads of keys and values, h_kv.
        bytes_per_number: β, 2 in half precision.

    Raises:
        TypeError, ValueError: If a number is none or too small, or kv_heads does not
            divide heads.

    Example:
        >>> decode_intensity(heads=32, kv_heads=8)
        4.0
    """
    heads = check_count("heads", heads, least=1)
    kv_heads = check_count("kv_heads", kv_heads, least=1)
    if heads % kv_heads:
        raise ValueError(f"kv_heads must divide heads={heads}, got {kv_heads}")
    size = check_count("bytes_per_number", bytes_per_number, least=1)
    return 2 * heads / (kv_heads * size)
