"""Diagrams: one idea each, drawn from its numbers, understood without a text."""

from attn_tutorial.pictures.diagrams.applications import application
from attn_tutorial.pictures.diagrams.attention import (
    attention_heads,
    attention_steps,
    transformer_block,
)
from attn_tutorial.pictures.diagrams.caches import rolling_cache
from attn_tutorial.pictures.diagrams.depth import reach_and_influence
from attn_tutorial.pictures.diagrams.devices import halo_exchange
from attn_tutorial.pictures.diagrams.mechanisms import connectivity
from attn_tutorial.pictures.diagrams.memory import layer_shares, two_memories
from attn_tutorial.pictures.diagrams.softmax import online_softmax
from attn_tutorial.pictures.diagrams.windows import (
    rectangle_and_band,
    tile_and_run,
    window_over_blocks,
)

__all__ = [
    "application",
    "attention_heads",
    "attention_steps",
    "connectivity",
    "halo_exchange",
    "layer_shares",
    "online_softmax",
    "reach_and_influence",
    "rectangle_and_band",
    "rolling_cache",
    "tile_and_run",
    "transformer_block",
    "two_memories",
    "window_over_blocks",
]
