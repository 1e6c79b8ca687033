"""From a model's config file to the pattern of each of its layers.

A config does not say what its numbers mean: two gates can switch a window off, a list
of layer types or an interval tells which layers have one, and a missing key has the
default of its family. Each family here is read as Transformers reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from attn_tutorial.checks import check_count
from attn_tutorial.conventions.table import CONVENTIONS
from attn_tutorial.patterns import Pattern, causal, full

__all__ = ["from_config"]

Config = Mapping[str, object]
Reader = Callable[[Config], list[Pattern]]


def from_config(
    config: str | os.PathLike | Config, part: str | None = None
) -> list[Pattern]:
    """The pattern of each layer's self-attention in a model of Transformers.

    For text alone: what a model with images does with them is not in it.

    Args:
        config: Path of a config.json or of its folder, its text, or a dict.
        part: "encoder" or "decoder", for a model that has both.

    Returns:
        One pattern a layer, the first layer's first.

    Raises:
        TypeError: If it is none of these.
        ValueError: If the model is not known, or the config is not one of its kind;
            the text says what to do.

    Example:
        >>> layers = {"model_type": "gemma2", "num_hidden_layers": 3}
        >>> [str(pattern) for pattern in from_config(layers)]
        ['local 4095,0', 'causal', 'local 4095,0']
        >>> from_config('{"model_type": "mistral", "num_hidden_layers": 1}')
        [local(window=(4095, 0))]
    """
    config = _text_part(_loaded(config))
    kind = config.get("model_type")
    if kind in REFUSED:
        raise ValueError(
            f"model_type {kind!r} has no list of patterns: {REFUSED[kind]}"
        )
    if kind in BOTH:
        return _reader(BOTH[kind], part, kind)(config)
    if kind not in ONE:
        raise ValueError(
            f"model_type must be one of {sorted({*ONE, *BOTH})}, got {kind!r}: find "
            "the function that makes its mask and ask it, with conventions.identify"
        )
    if part is not None:
        raise ValueError(f"part must be None for {kind!r}, which has one, got {part!r}")
    return ONE[kind](config)


def _reader(parts: dict[str, Reader], part: str | None, kind: str) -> Reader:
    if part not in parts:
        raise ValueError(
            f"part must be one of {list(parts)} for {kind!r}, got {part!r}"
        )
    return parts[part]


def _loaded(config: str | os.PathLike | Config) -> Config:
    if isinstance(config, Mapping):
        return config
    if not isinstance(config, str | os.PathLike):
        raise TypeError(f"config must be a path, a text or a dict, got {config!r}")
    text = config if isinstance(config, str) else ""
    if not text.lstrip().startswith("{"):
        path = Path(config)
        path = path / "config.json" if path.is_dir() else path
        text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(f"config must hold names and values, got {found!r}")
    return found


def _text_part(config: Config) -> Config:
    """The part for text of a model that reads images too."""
    kind = config.get("model_type")
    if kind in TEXT_OF and isinstance(config.get("text_config"), Mapping):
        return {"model_type": TEXT_OF[kind], **config["text_config"]}
    return config


TEXT_OF = {"gemma3": "gemma3_text", "llama4": "llama4_text"}


# What families share.


def _depth(config: Config, *names: str) -> int:
    for name in names or ("num_hidden_layers",):
        if isinstance(config.get(name), int):
            return config[name]
    wanted = " or ".join(names or ("num_hidden_layers",))
    raise ValueError(f"config must have {wanted}, got {sorted(config)}")


def _meaning(convention: str, value: object) -> Pattern:
    return CONVENTIONS[convention].pattern(value)


def _every(convention: str, name: str, default: int | None) -> Reader:
    """The same window in every layer."""

    def read(config: Config) -> list[Pattern]:
        pattern = _meaning(convention, config.get(name, default))
        return [pattern] * _depth(config)

    return read


def _all(pattern: Pattern, *depth: str) -> Reader:
    """No window in any layer; ``depth`` are the names of the number of layers."""

    def read(config: Config) -> list[Pattern]:
        return [causal() if config.get("is_decoder") else pattern] * _depth(
            config, *depth
        )

    return read


def _by_type(config: Config, default: list[str], patterns: dict) -> list[Pattern]:
    """One layer after the other, by layer_types or what it is by default."""
    types = config.get("layer_types") or default
    if len(types) != len(default):
        raise ValueError(f"layer_types must name {len(default)} layers, got {types}")
    for kind in types:
        if kind not in patterns:
            raise ValueError(f"layer_types may name {[*patterns]} here, got {kind!r}")
        if patterns[kind] is None:
            raise ValueError(f"{SIZES[kind]} must be a number for {kind!r}, got None")
    return [patterns[kind] for kind in types]


FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
SIZES = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}


def _interval(config: Config, every: int, kind: str = SLIDING) -> list[str]:
    """Each ``every``-th layer is full, the others are not."""
    every = check_count("the interval of full layers", every, least=1)
    return [
        FULL if (layer + 1) % every == 0 else kind for layer in range(_depth(config))
    ]


def _causal_and(window: object) -> dict[str, Pattern | None]:
    sliding = None if window is None else _meaning("hf.sliding_window", window)
    return {FULL: causal(), SLIDING: sliding}


# The families.


def _alternating(every: int, window: int, interval: str = "") -> Reader:
    """Windows in all layers but each ``every``-th; ``interval`` names that number."""

    def read(config: Config) -> list[Pattern]:
        if both := config.get("use_bidirectional_attention"):
            kind = config["model_type"]
            raise ValueError(
                f"use_bidirectional_attention must be false for {kind!r}, got {both!r}"
            )
        period = config.get(interval, every)
        size = config.get("sliding_window", window)
        return _by_type(config, _interval(config, period), _causal_and(size))

    return read


def _gemma3(config: Config) -> list[Pattern]:
    size = config.get("sliding_window", 4096)
    patterns = _causal_and(size)
    if config.get("use_bidirectional_attention"):
        name = "hf.gemma3_bidirectional.sliding_window"
        patterns = {FULL: full(), SLIDING: _meaning(name, size)}
    period = config.get("sliding_window_pattern", 6)
    return _by_type(config, _interval(config, period), patterns)


def _qwen(config: Config) -> list[Pattern]:
    """Two gates: use_sliding_window, and only from layer max_window_layers on."""
    size = config.get("sliding_window", 4096)
    size = size if config.get("use_sliding_window", False) else None
    first = config.get("max_window_layers", 28)
    default = [
        SLIDING if size is not None and layer >= first else FULL
        for layer in range(_depth(config))
    ]
    return _by_type(config, default, _causal_and(size))


def _llama4(config: Config) -> list[Pattern]:
    """Chunks in the layers that have rotary positions, by default 3 of 4."""
    size = config.get("attention_chunk_size", 8192)
    chunked = None if size is None else _meaning("hf.llama4.attention_chunk_size", size)
    default = _interval(config, config.get("no_rope_layer_interval", 4), CHUNKED)
    if config.get("no_rope_layers"):
        default = [CHUNKED if rotary else FULL for rotary in config["no_rope_layers"]]
    return _by_type(config, default, {FULL: causal(), CHUNKED: chunked})


def _modernbert(convention: str, other: Pattern) -> Reader:
    """Windows in all layers but the first of each three."""

    def read(config: Config) -> list[Pattern]:
        every = config.get("global_attn_every_n_layers", 3)
        size = config.get("local_attention", 128)
        default = [SLIDING if i % every else FULL for i in range(_depth(config))]
        return _by_type(
            config, default, {FULL: other, SLIDING: _meaning(convention, size)}
        )

    return read


def _windows(convention: str, *depth: str) -> Reader:
    """A window for all layers, or a list of one a layer: Longformer."""

    def read(config: Config) -> list[Pattern]:
        sizes = config.get("attention_window", 512)
        number = _depth(config, *depth)
        sizes = [sizes] * number if isinstance(sizes, int) else list(sizes)
        if len(sizes) != number:
            raise ValueError(f"attention_window must name {number} sizes, got {sizes}")
        return [_meaning(convention, size) for size in sizes]

    return read


def _gpt_neo(config: Config) -> list[Pattern]:
    kinds = config.get("attention_types") or [[["global", "local"], 12]]
    size = config.get("window_size", 256)
    patterns = {"global": causal()}
    patterns["local"] = _meaning("hf.gpt_neo.window_size", size)
    layers = [kind for names, count in kinds for kind in names * count]
    number = _depth(config, "num_layers", "num_hidden_layers")
    if len(layers) != number:
        raise ValueError(f"attention_types must name {number} layers, got {kinds}")
    return [patterns[kind] for kind in layers]


def _longt5(config: Config) -> list[Pattern]:
    kind = config.get("encoder_attention_type", "local")
    if kind != "local":
        reason = CONVENTIONS["hf.longt5.transient_global"].note
        raise ValueError(f"encoder_attention_type {kind!r} has no pattern: {reason}")
    pattern = _meaning("hf.longt5.local_radius", config.get("local_radius", 127))
    return [pattern] * _depth(config, "num_layers")


def _t5_decoder(config: Config) -> list[Pattern]:
    layers = config.get("num_decoder_layers")
    return [causal()] * (layers or _depth(config, "num_layers"))


ONE: dict[str, Reader] = {
    "mistral": _every("hf.sliding_window", "sliding_window", 4096),
    "mixtral": _every("hf.sliding_window", "sliding_window", None),
    "phi3": _every("hf.sliding_window", "sliding_window", None),
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gemma2": _alternating(2, 4096),
    "gemma3_text": _gemma3,
    "gpt_oss": _alternating(2, 128),
    "cohere2": _alternating(4, 4096, "sliding_window_pattern"),
    "olmo3": _alternating(4, 4096),
    "llama4_text": _llama4,
    "llama": _all(causal()),
    "gpt2": _all(causal(), "n_layer", "num_hidden_layers"),
    "gpt_neo": _gpt_neo,
    "modernbert": _modernbert("hf.modernbert.local_attention", full()),
    "modernbert-decoder": _modernbert(
        "hf.modernbert_decoder.local_attention", causal()
    ),
    "bert": _all(full()),
    "roberta": _all(full()),
    "distilbert": _all(full(), "n_layers", "num_hidden_layers"),
    "longformer": _windows("hf.longformer.attention_window"),
}
BOTH: dict[str, dict[str, Reader]] = {
    "led": {
        "encoder": _windows("hf.led.attention_window", "encoder_layers"),
        "decoder": _all(causal(), "decoder_layers"),
    },
    "longt5": {"encoder": _longt5, "decoder": _t5_decoder},
    "t5": {"encoder": _all(full(), "num_layers"), "decoder": _t5_decoder},
    "bart": {
        "encoder": _all(full(), "encoder_layers"),
        "decoder": _all(causal(), "decoder_layers"),
    },
}
REFUSED = {
    "big_bird": CONVENTIONS["hf.bigbird.block_size"].note,
    "pegasus_x": CONVENTIONS["hf.pegasus_x.block_size"].note,
    "recurrent_gemma": "two of three layers are recurrent, which is no attention; the "
    "others have describe('hf.recurrent_gemma.attention_window_size', W)",
}
