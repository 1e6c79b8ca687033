"""Diagrams: one idea each, drawn from its numbers, understood without a text."""

from attn_tutorial.pictures.diagrams.amounts import amounts, covered_share, growth
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
from attn_tutorial.pictures.diagrams.paths import flow, two_paths, weighted_average
from attn_tutorial.pictures.diagrams.softmax import online_softmax
from attn_tutorial.pictures.diagrams.squares import one_query, small_maps
from attn_tutorial.pictures.diagrams.windows import (
    rectangle_and_band,
    tile_and_run,
    window_over_blocks,
)

__all__ = [
    "amounts",
    "application",
    "attention_heads",
    "attention_steps",
    "connectivity",
    "covered_share",
    "flow",
    "growth",
    "halo_exchange",
    "layer_shares",
    "one_query",
    "online_softmax",
    "reach_and_influence",
    "rectangle_and_band",
    "rolling_cache",
    "small_maps",
    "tile_and_run",
    "transformer_block",
    "two_memories",
    "two_paths",
    "weighted_average",
    "window_over_blocks",
]
